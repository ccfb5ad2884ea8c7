"""What waits for a slow browser: merged, bounded, and in the end the same as a fast one got."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyscope.live.hub import MOST_VIEWERS, Hub, Viewer, encoded, merged

rows = st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=4)
messages = st.one_of(
    rows.map(lambda found: {"type": "traces", "requests": [{"id": str(a), "v": b} for a, b in found]}),
    rows.map(lambda found: {"type": "external", "calls": [{"id": str(a), "v": b} for a, b in found]}),
    rows.map(lambda found: {"type": "state", "changes": [{"id": str(a), "v": b} for a, b in found]}),
    st.integers().map(lambda value: {"type": "losses", "rows": [value]}),
)


def shown(received: list[dict[str, Any]]) -> dict[str, Any]:
    """What a page holds after these messages."""
    page: dict[str, Any] = {"traces": {}, "external": {}, "state": [], "losses": None}
    for message in received:
        kind = message["type"]
        if kind in ("traces", "external"):
            page[kind] |= {row["id"]: row for row in message.get("requests", message.get("calls", ()))}
        elif kind == "state":
            page[kind] += message["changes"]
        else:
            page[kind] = message["rows"]
    return page


@given(st.lists(messages, max_size=40))
@settings(max_examples=200, deadline=None)
def test_merged_messages_make_the_same_page(sent: list[dict[str, Any]]) -> None:
    assert shown(merged([(message, None) for message in sent])) == shown(sent)


@given(st.lists(messages, max_size=60))
@settings(max_examples=100, deadline=None)
def test_a_viewer_that_takes_now_and_then_sees_what_one_sees_that_takes_at_once(
    sent: list[dict[str, Any]],
) -> None:
    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        loop = asyncio.get_running_loop()
        fast, slow = Viewer(loop), Viewer(loop)
        got: dict[Viewer, list[dict[str, Any]]] = {fast: [], slow: []}
        for number, message in enumerate(sent):
            for viewer in (fast, slow):
                viewer.put([(message, encoded(message))])
            for viewer in (fast, slow) if number % 25 == 24 else (fast,):
                got[viewer] += map(json.loads, await viewer.take())
        slow.put([({"type": "losses", "rows": [0]}, encoded({"type": "losses", "rows": [0]}))])
        got[slow] += map(json.loads, await slow.take())
        got[fast].append({"type": "losses", "rows": [0]})
        return shown(got[fast]), shown(got[slow])

    fast, slow = asyncio.run(run())
    assert fast == slow


def test_of_a_browser_that_takes_nothing_the_queue_does_not_grow() -> None:
    async def run() -> int:
        viewer = Viewer(asyncio.get_running_loop())
        tracemalloc.start()
        for number in range(1500):
            changes = [{"id": f"{number}-{row}", "text": "x" * 50} for row in range(5)]
            requests = [{"id": str(number), "name": "y" * 50}]
            for message in (
                {"type": "state", "changes": changes},
                {"type": "traces", "requests": requests},
                {"type": "metrics", "samples": [{"at_ms": number}]},
            ):
                viewer.put([(message, encoded(message))])
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(viewer._waiting) <= 12
        taken = [json.loads(text) for text in await viewer.take()]
        assert max(len(message.get("changes", ())) for message in taken) <= 2000
        assert any(request["id"] == "1499" for m in taken for request in m.get("requests", ()))
        return size

    assert asyncio.run(run()) < 2 << 20


def test_what_waits_is_obsolete_once_the_whole_state_is_sent_anew() -> None:
    async def run() -> list[dict[str, Any]]:
        hub = Hub(lambda: None)
        viewer = Viewer(asyncio.get_running_loop())
        hub.join(viewer)
        hub.welcome(lambda: [{"type": "hello", "source": "old"}])
        hub.publish([{"type": "traces", "requests": [{"id": "1"}]}])
        hub.start_over()
        hub.welcome(lambda: [{"type": "hello", "source": "new"}])
        hub.publish([{"type": "traces", "requests": [{"id": "2"}]}])
        return [json.loads(text) for text in await viewer.take()]

    new = {"type": "hello", "source": "new"}
    assert asyncio.run(run()) == [new, {"type": "traces", "requests": [{"id": "2"}]}]


def test_a_source_that_is_described_anew_loses_nothing_of_what_waits() -> None:
    rows = [{"type": "traces", "requests": [{"id": str(number)}]} for number in range(20)]
    killed = {"type": "hello", "source": {"state": "killed"}}
    together = {"type": "traces", "requests": [{"id": str(number)} for number in range(20)]}
    assert merged([(message, None) for message in [*rows, killed]]) == [together, killed]


def test_a_newcomer_gets_the_whole_state_before_any_change() -> None:
    async def run() -> None:
        hub = Hub(lambda: None)
        viewer = Viewer(asyncio.get_running_loop())
        assert hub.join(viewer)
        hub.publish([{"type": "losses", "rows": ["too early"]}])
        hub.welcome(lambda: [{"type": "hello"}])
        hub.publish([{"type": "losses", "rows": [1]}])
        assert [json.loads(text)["type"] for text in await viewer.take()] == ["hello", "losses"]
        hub.welcome(lambda: [{"type": "hello"}])
        hub.leave(viewer)
        assert not hub.viewers

    asyncio.run(run())


def test_there_is_a_bound_to_how_many_may_look() -> None:
    async def run() -> None:
        hub = Hub(lambda: None)
        viewers = [Viewer(asyncio.get_running_loop()) for _ in range(MOST_VIEWERS + 1)]
        assert all(hub.join(viewer) for viewer in viewers[:-1])
        assert not hub.join(viewers[-1])
        hub.leave(viewers[0])
        assert hub.join(viewers[-1])

    asyncio.run(run())


def test_a_viewer_whose_server_has_ended_is_forgotten() -> None:
    async def make() -> Viewer:
        return Viewer(asyncio.get_running_loop())

    viewer = asyncio.run(make())
    hub = Hub(lambda: None)
    hub.join(viewer)
    hub.welcome(lambda: [{"type": "hello"}])
    assert not hub.viewers
