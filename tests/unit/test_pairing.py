"""Pairing: calls, generators, contexts and losses by their definitions; the native part equals the twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_streams import (
    GENERATOR_EXIT,
    VALUE_ERROR,
    Stream,
    operand,
    pair,
    process,
    programs,
    rows,
    same,
    streams,
)

from pyscope.fallback import codec as twin
from pyscope.fallback.pairing import MISSING_PAGES
from pyscope.format import ContextKind, Kind, LossReason
from pyscope.trace import OUTCOMES

try:
    from pyscope import _codec as native
except ImportError:
    native = None  # type: ignore[assignment]

CODECS = [pytest.param(twin, id="twin")]
CODECS.append(
    pytest.param(
        native, id="native", marks=pytest.mark.skipif(native is None, reason="the extension is not built")
    )
)

Paired = Callable[..., list[dict[str, Any]]]


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def paired(codec: Any) -> Paired:
    """Pairs threads; the outcome of each row is its name."""

    def run(*threads: Stream, **options: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = rows(pair(codec, threads, **options))
        for row in found:
            row["outcome"] = OUTCOMES[row["outcome"]]
        return found

    return run


def only(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


class TestPlainCalls:
    def test_a_call_in_a_call_is_its_child(self, paired: Paired) -> None:
        stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.CALL, 2, at=10)
        stream.add(Kind.RETURN, 2, at=40).add(Kind.RETURN, 1, at=100)
        outer, inner = paired(stream)
        assert only(outer, "function", "parent", "depth", "duration_ns", "self_ns") == (1, -1, 0, 100, 70)
        assert only(inner, "function", "parent", "depth", "duration_ns", "self_ns") == (2, 0, 1, 30, 30)

    def test_an_exception_that_leaves_a_call_is_its_outcome(self, paired: Paired) -> None:
        (call,) = paired(Stream().add(Kind.CALL, 1).add(Kind.RAISE, 1, VALUE_ERROR))
        assert only(call, "outcome", "exception") == ("raised", 1)

    def test_c_calls_pair_like_others(self, paired: Paired) -> None:
        stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.C_CALL, 2, at=5).add(Kind.C_RETURN, 2, at=8)
        stream.add(Kind.C_CALL, 3, at=10).add(Kind.C_RAISE, 3, at=14).add(Kind.RETURN, 1, at=20)
        found = paired(stream)
        assert [row["outcome"] for row in found] == ["returned", "returned", "raised"]
        assert [row["self_ns"] for row in found] == [13, 3, 4]

    def test_a_missing_exit_is_cut_when_its_caller_ends(self, paired: Paired) -> None:
        stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.CALL, 2, at=10).add(Kind.CALL, 3, at=20)
        outer, middle, inner = paired(stream.add(Kind.RETURN, 1, at=50))
        assert [outer["outcome"], middle["outcome"], inner["outcome"]] == ["returned", "cut", "cut"]
        assert (middle["duration_ns"], inner["duration_ns"]) == (40, 30)

    def test_an_exit_without_its_entry_is_counted_and_changes_nothing(self, codec: Any) -> None:
        stream = Stream().add(Kind.RETURN, 3).add(Kind.CALL, 1).add(Kind.RETURN, 2).add(Kind.RETURN, 1)
        result = pair(codec, [stream])
        assert result["orphan_exits"].tolist() == [2]
        assert [row["outcome"] for row in rows(result)] == [0]

    def test_open_calls_end_with_the_last_event_of_the_process(self, paired: Paired) -> None:
        first = Stream(0).add(Kind.CALL, 1, at=0)
        second = Stream(1).add(Kind.CALL, 2, at=10).add(Kind.RETURN, 2, at=500)
        found = {row["function"]: row for row in paired(first, second)}
        assert only(found[1], "outcome", "duration_ns", "self_ns") == ("open", 500, 0)

    def test_total_time_counts_the_outermost_call_of_a_recursion(self, codec: Any) -> None:
        stream = Stream()
        for at in (0, 10, 20):
            stream.add(Kind.CALL, 1, at=at)
        for at in (30, 40, 50):
            stream.add(Kind.RETURN, 1, at=at)
        totals = pair(codec, [stream])["totals"]
        assert (totals["calls"][1], totals["total_ns"][1], totals["self_ns"][1]) == (3, 50, 50)

    def test_an_unknown_code_is_the_unnamed_function(self, paired: Paired) -> None:
        (call,) = paired(Stream().add(Kind.CALL, 4000).add(Kind.RETURN, 4000), functions=3)
        assert only(call, "function", "outcome") == (3, "returned")

    def test_calls_are_in_order_of_start_across_threads(self, paired: Paired) -> None:
        threads = [Stream(t) for t in range(3)]
        for i in range(30):
            threads[i % 3].add(Kind.CALL, i % 5, at=i * 10)
        starts = [row["start_ns"] for row in paired(*threads)]
        assert starts == sorted(starts)


class TestGenerators:
    def test_self_time_excludes_suspension_and_duration_includes_it(self, paired: Paired) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(7), at=0).add(Kind.GEN_YIELD, 1, operand(7), at=10)
        stream.add(Kind.GEN_RESUME, 1, operand(7), at=100).add(Kind.GEN_RETURN, 1, operand(7), at=105)
        (call,) = paired(stream)
        assert only(call, "outcome", "duration_ns", "self_ns") == ("returned", 105, 15)

    def test_its_parent_is_the_first_resumer(self, paired: Paired) -> None:
        stream = (
            Stream().add(Kind.CALL, 1).add(Kind.GEN_START, 2, operand(7)).add(Kind.GEN_YIELD, 2, operand(7))
        )
        stream.add(Kind.RETURN, 1).add(Kind.CALL, 3).add(Kind.GEN_RESUME, 2, operand(7)).add(Kind.CALL, 4)
        found = paired(stream)
        assert [row["parent"] for row in found] == [-1, 0, -1, 1]
        assert [row["depth"] for row in found] == [0, 1, 0, 2]

    def test_two_of_one_function_are_told_apart_when_interleaved(self, paired: Paired) -> None:
        stream = Stream()
        for at, instance in ((0, 1), (20, 2)):
            stream.add(Kind.GEN_START, 5, operand(instance), at=at)
            stream.add(Kind.GEN_YIELD, 5, operand(instance), at=at + 10)
        stream.add(Kind.GEN_RESUME, 5, operand(1), at=40).add(Kind.GEN_RETURN, 5, operand(1), at=50)
        stream.add(Kind.GEN_RESUME, 5, operand(2), at=60).add(
            Kind.GEN_RAISE, 5, operand(2, VALUE_ERROR), at=90
        )
        first, second = paired(stream)
        assert only(first, "outcome", "duration_ns", "self_ns") == ("returned", 50, 20)
        assert only(second, "outcome", "duration_ns", "self_ns", "exception") == ("raised", 70, 40, 1)

    def test_one_resumed_on_another_thread_is_one_call(self, paired: Paired) -> None:
        first = Stream(0).add(Kind.GEN_START, 1, operand(7), at=0).add(Kind.GEN_YIELD, 1, operand(7), at=10)
        first.add(Kind.CALL, 3, at=100)
        second = Stream(1).add(Kind.CALL, 2, at=15).add(Kind.GEN_RESUME, 1, operand(7), at=20)
        second.add(Kind.GEN_RETURN, 1, operand(7), at=50).add(Kind.RETURN, 2, at=60)
        found = paired(first, second)
        assert only(found[0], "function", "outcome", "duration_ns", "self_ns") == (1, "returned", 50, 40)
        assert only(found[1], "function", "self_ns") == (2, 15)

    def test_one_closed_while_suspended_ends_at_its_last_suspension(self, paired: Paired) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(7), at=0).add(Kind.GEN_YIELD, 1, operand(7), at=10)
        stream.add(Kind.GEN_THROW, 1, operand(7, GENERATOR_EXIT), at=100)
        stream.add(Kind.GEN_RAISE, 1, operand(7, GENERATOR_EXIT), at=103)
        (call,) = paired(stream)
        assert only(call, "outcome", "duration_ns", "self_ns", "exception") == ("closed", 10, 10, -1)

    def test_one_whose_finally_called_something_ends_at_the_raise(self, paired: Paired) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(7), at=0).add(Kind.GEN_YIELD, 1, operand(7), at=10)
        stream.add(Kind.GEN_THROW, 1, operand(7, GENERATOR_EXIT), at=100).add(Kind.CALL, 2, at=101)
        stream.add(Kind.RETURN, 2, at=105).add(Kind.GEN_RAISE, 1, operand(7, GENERATOR_EXIT), at=110)
        call, child = paired(stream)
        assert only(call, "outcome", "duration_ns", "self_ns") == ("closed", 110, 16)
        assert only(child, "outcome", "parent") == ("returned", 0)

    def test_one_that_raises_what_was_thrown_in_is_raised(self, paired: Paired) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(7)).add(Kind.GEN_YIELD, 1, operand(7))
        stream.add(Kind.GEN_THROW, 1, operand(7, VALUE_ERROR)).add(Kind.GEN_RAISE, 1, operand(7, VALUE_ERROR))
        (call,) = paired(stream)
        assert only(call, "outcome", "exception") == ("raised", 1)

    def test_an_address_used_again_closes_the_old_one(self, paired: Paired) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(7), at=0).add(Kind.GEN_YIELD, 1, operand(7), at=10)
        stream.add(Kind.GEN_START, 2, operand(7), at=50).add(Kind.GEN_RETURN, 2, operand(7), at=60)
        old, new = paired(stream)
        assert only(old, "outcome", "duration_ns") == ("closed", 10)
        assert only(new, "outcome", "duration_ns") == ("returned", 10)

    def test_one_begun_before_the_recording_opens_at_its_first_resume(self, codec: Any) -> None:
        stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.GEN_RESUME, 2, operand(7), at=10)
        stream.add(Kind.GEN_RETURN, 2, operand(7), at=30)
        result = pair(codec, [stream])
        assert result["begun_before"].tolist() == [1]
        assert only(rows(result)[1], "parent", "duration_ns", "outcome") == (0, 20, 0)

    def test_one_suspended_at_the_end_is_open(self, paired: Paired) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(7), at=0).add(Kind.GEN_YIELD, 1, operand(7), at=10)
        call = paired(stream.add(Kind.CALL, 2, at=100))[0]
        assert only(call, "outcome", "duration_ns", "self_ns") == ("open", 100, 10)

    def test_calls_that_its_yield_leaves_behind_are_cut(self, paired: Paired) -> None:
        stream = (
            Stream().add(Kind.GEN_START, 1, operand(7)).add(Kind.CALL, 2).add(Kind.GEN_YIELD, 1, operand(7))
        )
        assert [row["outcome"] for row in paired(stream)] == ["open", "cut"]


class TestContexts:
    def test_each_task_has_a_stack_of_its_own(self, paired: Paired) -> None:
        stream = Stream().add(Kind.SWITCH, 0, 11, at=0).add(Kind.CALL, 1, at=10)
        stream.add(Kind.SWITCH, 0, 12, at=20).add(Kind.CALL, 2, at=30)
        stream.add(Kind.SWITCH, 0, 11, at=40).add(Kind.RETURN, 1, at=50)
        stream.add(Kind.SWITCH, 0, 12, at=60).add(Kind.RETURN, 2, at=70)
        first, second = paired(stream)
        assert only(first, "context", "parent", "outcome", "duration_ns", "self_ns") == (
            1,
            -1,
            "returned",
            40,
            20,
        )
        assert only(second, "context", "parent", "outcome", "duration_ns", "self_ns") == (
            2,
            -1,
            "returned",
            40,
            20,
        )

    def test_the_first_call_of_a_greenlet_has_the_call_that_switched_to_it_as_parent(
        self, paired: Paired
    ) -> None:
        stream = Stream().add(Kind.CALL, 1).describe(9, ContextKind.GREENLET, "g").add(Kind.SWITCH, 0, 9)
        stream.add(Kind.CALL, 2).add(Kind.RETURN, 2).add(Kind.CALL, 3).add(Kind.RETURN, 3)
        stream.add(Kind.SWITCH, 0, 0).add(Kind.RETURN, 1).add(Kind.SWITCH, 0, 9).add(Kind.CALL, 4)
        found = paired(stream)
        assert [row["parent"] for row in found] == [-1, 0, 0, -1]
        assert [row["depth"] for row in found] == [0, 1, 1, 0]

    def test_a_task_has_no_parent_call(self, paired: Paired) -> None:
        stream = Stream().add(Kind.CALL, 1).describe(9, ContextKind.TASK, "t").add(Kind.SWITCH, 0, 9)
        assert [row["parent"] for row in paired(stream.add(Kind.CALL, 2))] == [-1, -1]

    def test_a_page_begins_in_the_context_of_its_header(self, paired: Paired) -> None:
        stream = Stream().page(5).add(Kind.CALL, 1).page(0).add(Kind.CALL, 2)
        assert [row["context"] for row in paired(stream)] == [1, 0]

    def test_contexts_are_numbered_by_serial_and_named_by_their_payload(self, codec: Any) -> None:
        stream = Stream().add(Kind.SWITCH, 0, 30).describe(20, ContextKind.TASK, "Täsk", parent=30)
        result = pair(codec, [stream])
        assert result["contexts"]["serial"].tolist() == [20, 30]
        assert result["contexts"]["parent"].tolist() == [30, 0]
        assert result["context_names"].decode() == "Täsk"


class TestLosses:
    def test_a_loss_event_is_a_row_with_its_time(self, codec: Any) -> None:
        stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.LOSS, LossReason.RING_FULL, 12, 1_000_040, at=90)
        ((reason, number, thread, count, start, end),) = pair(codec, [stream])["losses"]
        assert (reason, number, thread, count, end - start) == (LossReason.RING_FULL, 0, 0, 12, 50)

    def test_a_missing_page_is_a_loss_and_stacks_find_together_again(self, codec: Any) -> None:
        stream = Stream().page().add(Kind.CALL, 1, at=0).add(Kind.CALL, 2, at=10)
        stream.page().add(Kind.RETURN, 2, at=20).add(Kind.CALL, 3, at=30)
        stream.page().add(Kind.RETURN, 3, at=40).add(Kind.RETURN, 1, at=50)
        result = pair(codec, [stream], drop=[(0, 1)])
        assert [loss[:4] for loss in result["losses"]] == [(MISSING_PAGES, 0, 0, 1)]
        assert [OUTCOMES[row["outcome"]] for row in rows(result)] == ["returned", "cut"]
        assert result["orphan_exits"].tolist() == [1]

    def test_a_thread_that_begins_late_lost_its_first_pages_unless_in_flight_mode(self, codec: Any) -> None:
        stream = Stream().page().add(Kind.CALL, 1).page().add(Kind.CALL, 2)
        assert len(pair(codec, [stream], drop=[(0, 0)])["losses"]) == 1
        assert pair(codec, [stream], drop=[(0, 0)], flight=True)["losses"] == []

    def test_open_calls_of_a_quieted_function_end_there_and_what_they_called_goes_on(
        self, codec: Any
    ) -> None:
        stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.CALL, 2, at=10).add(Kind.CALL, 3, at=20)
        stream.add(Kind.LOSS, LossReason.QUIETED, 2, 1_000_030, at=30)
        stream.add(Kind.RETURN, 3, at=40).add(Kind.RETURN, 2, at=50).add(Kind.RETURN, 1, at=60)
        result = pair(codec, [stream])
        found = rows(result)
        assert [OUTCOMES[row["outcome"]] for row in found] == ["returned", "cut", "returned"]
        assert [row["duration_ns"] for row in found] == [60, 20, 20]
        assert [row["self_ns"] for row in found] == [30, 10, 20]
        assert result["losses"] == []

    def test_a_quieted_generator_waits_from_there(self, codec: Any) -> None:
        stream = Stream().add(Kind.GEN_START, 1, operand(9), at=0).add(Kind.CALL, 2, at=10)
        stream.add(Kind.LOSS, LossReason.QUIETED, 1, 1_000_020, at=20).add(Kind.RETURN, 2, at=30)
        stream.add(Kind.GEN_RESUME, 1, operand(9), at=50).add(Kind.GEN_RETURN, 1, operand(9), at=60)
        found = rows(pair(codec, [stream]))
        assert [OUTCOMES[row["outcome"]] for row in found] == ["returned", "returned"]
        assert [row["self_ns"] for row in found] == [20, 20]


class TestManyProcesses:
    def test_their_calls_and_contexts_follow_one_another(self, codec: Any) -> None:
        stream = Stream().add(Kind.SWITCH, 0, 5).add(Kind.CALL, 1).add(Kind.CALL, 2)
        buffers, given_process = process([stream])
        result = codec.pair_calls(buffers, [given_process, given_process], 9)
        assert [row["parent"] for row in rows(result)] == [-1, 0, -1, 2]
        assert [row["context"] for row in rows(result)] == [1, 1, 2, 2]
        assert result["contexts"]["process"].tolist() == [0, 1]
        assert result["totals"]["calls"][1] == 2


native_too = pytest.mark.skipif(native is None, reason="the extension is not built")


@native_too
@settings(max_examples=150)
@given(
    found=streams(),
    shift=st.integers(0, 3),
    flight=st.booleans(),
    lost=st.sets(st.integers(0, 3), max_size=2),
)
def test_the_native_part_equals_the_twin_on_any_events(
    found: list[Stream], shift: int, flight: bool, lost: set[int]
) -> None:
    drop = [(0, sequence) for sequence in lost]
    options: dict[str, Any] = {
        "shift": shift,
        "functions": 3,
        "flight": flight,
        "drop": drop,
        "ns_per_tick": 0.444,
    }
    assert same(pair(native, found, **options), pair(twin, found, **options))


@native_too
@settings(max_examples=60)
@given(found=streams(threads=4, most=150, codes=2))
def test_the_native_part_equals_the_twin_on_long_and_deep_ones(found: list[Stream]) -> None:
    assert same(pair(native, found), pair(twin, found))


@native_too
@given(found=programs())
def test_the_native_part_equals_the_twin_on_programs(found: list[Stream]) -> None:
    assert same(pair(native, found), pair(twin, found))


@given(found=programs())
def test_self_times_add_up_to_the_durations_of_the_roots(found: list[Stream]) -> None:
    columns = pair(twin, found)["columns"]
    roots = columns["parent"] < 0
    assert columns["self_ns"].sum() == columns["duration_ns"][roots].sum()
    assert (columns["self_ns"] <= columns["duration_ns"]).all()
    assert set(np.unique(columns["outcome"])) <= {0, 1, 2}


@native_too
def test_a_deep_stack_and_many_orphans_take_no_time_of_note() -> None:
    threads = []
    for thread in range(2):
        stream = Stream(thread)
        for i in range(200):
            stream.page()
            for _ in range(1000):
                stream.now += 1
                stream.pages[-1].event(stream.now, Kind.CALL if i < 100 else Kind.RETURN, 1 if i < 100 else 2)
        threads.append(stream)
    result = pair(native, threads)
    assert result["orphan_exits"].tolist() == [200_000]
    assert result["columns"]["depth"].max() == 99_999


@native_too
@pytest.mark.parametrize("codes", [1 << 20, 1 << 22])
def test_codes_beyond_the_table_pair_like_others(codes: int) -> None:
    stream = Stream().add(Kind.CALL, codes).add(Kind.CALL, codes + 1).add(Kind.RETURN, codes + 1)
    stream.add(Kind.RETURN, codes + 3).add(Kind.RETURN, codes)
    assert same(pair(native, [stream]), pair(twin, [stream]))
