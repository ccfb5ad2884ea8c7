"""What a service passes on to a browser: whole lines, no more than fit, and what it says when the reader has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyscope.live.lines import Lines
from pyscope.live.relay import Relay

Body = Callable[[Relay, list[socket.socket]], Coroutine[Any, Any, None]]


def relayed(body: Body) -> None:
    """Runs `body` with a relay that has told its first messages, and the reader's ends of its sockets."""

    async def run() -> None:
        ends: list[socket.socket] = []
        unhandled: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        relay = Relay(ends.append, lambda: ["first"], lambda: "lost", lambda line: line.decode().upper())
        try:
            async with asyncio.timeout(60):
                assert await relay.take() == ["first"]
                await body(relay, ends)
        finally:
            relay.close()
            for end in ends:
                end.close()
            await asyncio.sleep(0)
        assert not unhandled

    asyncio.run(run())


@given(
    st.lists(st.text("abc", max_size=8), min_size=1, max_size=12), st.lists(st.integers(1, 7), max_size=20)
)
@settings(max_examples=50, deadline=None)
def test_lines_come_whole_however_they_arrive(lines: list[str], cuts: list[int]) -> None:
    async def body(relay: Relay, ends: list[socket.socket]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        got: list[str] = []
        for cut in [*cuts, len(data)]:
            ends[0].sendall(data[:cut])
            data = data[cut:]
            await asyncio.sleep(0)
        while len(got) < len(lines):
            got += await relay.take()
        assert got == [line.upper() for line in lines]

    relayed(body)


def test_a_browser_that_takes_nothing_fills_the_socket_not_the_service() -> None:
    async def body(relay: Relay, ends: list[socket.socket]) -> None:
        ends[0].setblocking(False)
        line, sent, full = b"x" * 999 + b"\n", 0, 0
        while full < 50:  # times in which the event loop could have read on
            try:
                sent += ends[0].send(line)
                full = 0
            except BlockingIOError:
                full += 1
            await asyncio.sleep(0)
        assert relay._transport is not None
        assert not relay._transport.is_reading()
        assert sum(map(len, relay._lines)) <= 1 << 18  # one piece of what was read
        taken = 0
        while taken < sent // 1000:
            taken += len(await relay.take())
        assert relay._transport.is_reading()
        ends[0].sendall(b"more\n")
        assert await relay.take() == ["MORE"]

    relayed(body)


def test_it_says_when_the_reader_has_ended_and_asks_for_another() -> None:
    async def body(relay: Relay, ends: list[socket.socket]) -> None:
        ends[0].sendall(b"one\ntwo\nhalf of a li")
        ends[0].close()
        told = await relay.take()
        while "lost" not in told:
            told += await relay.take()
        assert told == ["ONE", "TWO", "lost"]
        assert await relay.take() == ["first"]
        ends[1].sendall(b"again\n")
        assert await relay.take() == ["AGAIN"]

    relayed(body)


def test_what_a_reader_wrote_before_it_ended_comes_though_reading_was_paused() -> None:
    async def body(relay: Relay, ends: list[socket.socket]) -> None:
        for _ in range(2):  # more than one piece of what is read at once
            ends[-1].setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < 1000:
                    ends[-1].sendall(b"x" * 499 + b"\n")
                    sent += 1
            assert relay._transport is not None
            while relay._transport.is_reading():
                await asyncio.sleep(0)
            ends[-1].close()
            told: list[str] = []
            while "lost" not in told:
                told += await relay.take()
            assert len(told) >= sent + 1
            assert await relay.take() == ["first"]

    relayed(body)


def test_a_line_of_many_pieces_is_put_together_once() -> None:
    lines, piece = Lines(), b"x" * (1 << 12)
    began = time.process_time()
    for _ in range(10_000):  # 40 MB, of which each piece would be copied on with all before it
        assert lines.take(piece) == []
    [line, second] = lines.take(b"y\n\nz")
    assert len(line) == 10_000 * len(piece) + 1
    assert (second, lines.take(b"\n")) == (b"", [b"z"])
    assert time.process_time() - began < 5


def test_the_reader_sees_that_a_browser_has_gone_though_a_forked_child_holds_the_socket_too() -> None:
    async def body(relay: Relay, ends: list[socket.socket]) -> None:
        assert relay._socket is not None
        of_a_child = os.dup(relay._socket.fileno())
        try:
            relay.close()
            ends[0].settimeout(30)
            assert ends[0].recv(1) == b""
        finally:
            os.close(of_a_child)

    relayed(body)


def test_what_waits_for_messages_can_be_cancelled() -> None:
    async def body(relay: Relay, ends: list[socket.socket]) -> None:
        taking = asyncio.ensure_future(relay.take())
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        ends[0].sendall(b"late\n")
        while not relay._lines:
            await asyncio.sleep(0)
        assert await relay.take() == ["LATE"]

    relayed(body)
