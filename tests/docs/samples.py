"""The samples of a document: its fenced blocks by section, and a terminal that runs them as a reader would."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from pyscope import cli

ROOT = Path(__file__).parents[2]
READY_SECONDS = 120
COMMAND_SECONDS = 240
READING = ("report", "export", "recover", "doctor")
PORT = "8000"  # in the documents; here one that is free

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_NAME = re.compile(r"# ([\w./-]+)\n")

# The commands that the samples use, whatever is on the PATH of this machine.
_COMMANDS = {
    "python": '"$@"',
    "pyscope": '-m pyscope "$@"',
    "pytest": '-m pytest -p pyscope.testing "$@"',
    "uvicorn": '-m uvicorn "$@"',
    "gunicorn": '-m gunicorn "$@"',
    "curl": '-c "import httpx, sys; print(httpx.get(sys.argv[1], trust_env=False, timeout=60, follow_redirects=True)'
    '.raise_for_status().text)" "$@"',
}


@dataclass(frozen=True)
class Block:
    """A fenced block. `name` is that of the file that it is, told by a comment in its first line; empty if none."""

    language: str
    text: str
    name: str


@dataclass(frozen=True)
class Section:
    """A heading of the second level with the blocks below it. The part before the first one has no title."""

    document: str
    title: str
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return f"{self.document}: {self.title or 'beginning'}"


def sections(document: Path) -> list[Section]:
    """The sections of a document that have samples."""
    parts = re.split(r"^## (.+)\n", document.read_text(encoding="utf-8"), flags=re.M)
    titled = zip(["", *parts[1::2]], parts[::2], strict=True)
    return [
        Section(document.name, title, blocks) for title, text in titled if (blocks := tuple(_blocks(text)))
    ]


def _blocks(text: str) -> Iterator[Block]:
    for language, body in _FENCE.findall(text):
        named = _NAME.match(body)
        yield Block(language, textwrap.dedent(body), named[1] if named else "")


class Terminal:
    """Runs commands in a folder. What serves goes on in the background until `closed`, where it must end in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        commands, rings = folder / "bin", folder / "rings"
        commands.mkdir()
        rings.mkdir()
        for name, call in _COMMANDS.items():
            (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}\n')
            (commands / name).chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYSCOPE_RING_MB": "8",
            "PYSCOPE_RING_DIR": str(
                rings
            ),  # what the killed leave in /dev/shm, other tests' recorders would seal
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of this project's own tests take seconds to import
        }
        self._serving = ExitStack()

    def type(self, line: str) -> str:
        """One line; returns what it printed. It must succeed."""
        serves = PORT in line and not line.startswith("curl")
        reads = (
            line.split()[0] == "pyscope" and line.split()[1] in READING and not set(line) & set("$|&;<>~*?")
        )
        line = line.replace(PORT, self.port)
        if line.startswith("pip install"):
            return _installable(line)
        if serves:
            self.close()  # one at a time: the port is the same in every sample
            self._serving.enter_context(self._server(f"env {line}"))
            return ""
        if reads:
            return self._read(shlex.split(line)[1:])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=COMMAND_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Ctrl-C for whatever serves."""
        self._serving.close()

    def _read(self, arguments: list[str]) -> str:
        """A command that only reads recordings, in this process: an interpreter's start for each would take minutes."""
        printed = io.StringIO()
        with chdir(self.folder), redirect_stdout(printed):
            cli.main(arguments)
        return printed.getvalue()

    @contextmanager
    def _server(self, line: str) -> Iterator[None]:
        log = self.folder / "server.log"
        with log.open("a") as output:
            server = subprocess.Popen(
                shlex.split(line), cwd=self.folder, env=self._environment, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
            try:
                deadline = time.monotonic() + READY_SECONDS
                while not self._listens():
                    assert server.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
                yield
                server.send_signal(signal.SIGINT)
                assert server.wait(READY_SECONDS) in (0, -signal.SIGINT, 130), log.read_text()
            finally:
                if server.poll() is None:
                    os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.port)), timeout=5).close()
        except OSError:
            return False
        return True


def _installable(line: str) -> str:
    """Nothing is installed; but what is named must exist."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in shlex.split(line)[2:]:
        name, _, extras = word.rstrip("]").partition("[")
        assert name != "pyscope", f"{line}: on PyPI that is another project"
        if name == "." or "/pyscope-" in name:
            for extra in filter(None, extras.split(",")):
                assert project["optional-dependencies"][extra], f"the extra {extra} installs nothing"
    return ""
