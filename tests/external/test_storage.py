"""Files through fsspec are calls; the operations that one is made of are not."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import fsspec.asyn
import pytest
import stamina
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

import pyscope
from pyscope import probes
from pyscope.analysis import external
from pyscope.findings import ExternalCall

Calls = Callable[..., list[ExternalCall]]


def test_asking_whether_a_file_is_there_does_not_fail(calls: Calls, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("there.txt", "content")
    files = fsspec.filesystem("zip", fo=str(tmp_path / "archive.zip"))
    answers: list[bool] = []

    def body() -> None:
        answers.extend(
            ask(name) for ask in (files.exists, files.isfile) for name in ("there.txt", "away.txt")
        )
        answers.append(files.isdir("away"))

    found = calls(body)
    assert answers == [True, False, True, False, False]
    assert [(call.operation, call.peer, call.outcome) for call in found] == [("INFO", "zip", "succeeded")] * 5


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_reads_and_writes_are_calls(calls: Calls, tmp_path: Path, protocol: str) -> None:
    files = fsspec.filesystem(protocol)
    path = f"{tmp_path}/secret.txt"

    def body() -> None:
        files.mkdirs(str(tmp_path), exist_ok=True)
        files.pipe_file(path, b"content")
        assert files.cat_file(path) == b"content"
        assert files.ls(str(tmp_path), detail=False)
        files.rm_file(path)
        with pytest.raises(FileNotFoundError):
            files.cat_file(path)

    found = calls(body)
    assert [(call.service, call.operation, call.peer, call.outcome) for call in found] == [
        ("storage", "WRITE", protocol, "succeeded"),
        ("storage", "READ", protocol, "succeeded"),
        ("storage", "LIST", protocol, "succeeded"),
        ("storage", "DELETE", protocol, "succeeded"),
        ("storage", "READ", protocol, "failed"),
    ]
    assert found[-1].attempts[0].error.startswith("FileNotFoundError")
    assert found[0].call_site.file == __file__


def test_opening_is_a_call(calls: Calls, tmp_path: Path) -> None:
    def body() -> None:
        with fsspec.open(f"file://{tmp_path}/x", "wb") as file:
            file.write(b"x")

    assert [call.operation for call in calls(body)] == ["OPEN"]


class Flaky(AbstractFileSystem):
    """A store that fails for a while."""

    protocol = "flaky"
    cachable = False
    left = 2

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        if self.left:
            self.left -= 1
            raise TimeoutError("secret")
        return b"content"


class Remote(AsyncFileSystem):
    """An asynchronous store."""

    protocol = "remote"
    cachable = False

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        return b"content"


def test_a_store_of_ones_own_and_its_retries(calls: Calls) -> None:
    def body() -> None:
        files = Flaky()
        read = stamina.retry(on=OSError, attempts=4, wait_initial=0.01, wait_jitter=0)(files.cat_file)
        assert read("x") == b"content"

    [call] = calls(body)
    assert (call.peer, call.operation, call.retries, call.outcome, call.timed_out) == (
        "flaky",
        "READ",
        2,
        "succeeded",
        True,
    )


def test_an_asynchronous_store_that_is_used_synchronously(calls: Calls) -> None:
    before = Remote()  # has its methods already when the probe comes

    def body() -> None:
        assert before.cat_file("x") == b"content"
        assert Remote().cat_file("x") == b"content"

    assert [(call.peer, call.operation, call.outcome) for call in calls(body)] == [
        ("remote", "READ", "succeeded")
    ] * 2


def test_a_store_that_is_defined_later(calls: Calls) -> None:
    def body() -> None:
        class Late(AbstractFileSystem):
            protocol = ("late", "tardy")

            def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
                return b"content"

        assert Late().cat_file("x") == b"content"

    assert [(call.peer, call.operation) for call in calls(body)] == [("late", "READ")]


def test_no_paths_and_no_contents_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with pyscope.record(path, modules=["pyscope.*"], probes=["storage"]):
        fsspec.filesystem("memory").pipe_file("/secret", b"secret")
    assert len(external.find(pyscope.load(path))) == 1
    assert b"secret" not in path.read_bytes()


def test_fsspec_is_as_it_was_after_the_probe_is_gone() -> None:
    owners = [AbstractFileSystem, LocalFileSystem, MemoryFileSystem, DirFileSystem, fsspec.asyn]
    before = [dict(vars(owner)) for owner in owners]
    held = probes.acquire(["storage"])
    assert [dict(vars(owner)) for owner in owners] != before
    probes.release(held)
    for owner, old in zip(owners, before, strict=True):
        new = dict(vars(owner))
        assert old.keys() == new.keys()
        assert all(old[name] is new[name] for name in old)
