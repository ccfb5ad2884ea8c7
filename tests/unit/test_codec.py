"""The codec, native and twin: words to chunks to columns, equal in both, safe on nonsense."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_streams import BASE, EPOCH, Stream, describe_process, process, same, streams, word_lists

from pyscope.fallback import chunks
from pyscope.fallback import codec as twin
from pyscope.format import PAGE_WORDS, Kind, LossReason, PayloadType, signed64, unzigzag, zigzag

native = pytest.importorskip("pyscope._codec", reason="the extension module is not built")


@given(words=word_lists(), base=st.integers(0, (1 << 64) - 1), shift=st.integers(0, 5))
def test_both_encode_any_words_to_the_same_bytes(words: list[int], base: int, shift: int) -> None:
    page = np.array(words, np.uint64)
    assert native.encode_words(page, base, shift) == twin.encode_words(page, base, shift)


@given(words=word_lists(), base=st.integers(0, 1 << 60), shift=st.integers(0, 5))
def test_what_is_encoded_decodes_without_rest(words: list[int], base: int, shift: int) -> None:
    data, events = twin.encode_words(np.array(words, np.uint64), base, shift)
    found, rest = chunks.decode_chunk(memoryview(data), events, base, shift)
    assert (len(found), rest) == (events, 0)


@given(found=streams())
def test_both_decode_the_same_events(found: list[Stream]) -> None:
    buffers, given_process = process(found, shift=1, functions=3, ns_per_tick=0.444)
    expected = twin.decode_events(buffers, [given_process], 4)
    assert same(native.decode_events(buffers, [given_process], 4), expected)


@settings(max_examples=150)
@given(
    data=st.binary(max_size=60) | st.lists(st.integers(0, 40), max_size=60).map(bytes),
    events=st.integers(0, 40),
)
def test_both_make_the_same_of_any_bytes(data: bytes, events: int) -> None:
    half = len(data) // 2
    rows = [
        (0, 0, BASE, 0, 0, len(data), events, 0, 1, 0),
        (half, 1, BASE, 3, 0, len(data) - half, events // 2, 0, 1, 0),
    ]
    given_process = describe_process(rows)
    assert same(
        native.decode_events([data], [given_process], 9), twin.decode_events([data], [given_process], 9)
    )
    assert same(native.pair_calls([data], [given_process], 9), twin.pair_calls([data], [given_process], 9))


def test_a_chunk_outside_its_buffer_is_damage_and_not_read() -> None:
    outside = [
        (5, 0, BASE, 0, 0, 100, 3, 0, 0, 0),
        (0, 0, BASE, 0, 9, 2, 1, 0, 0, 0),
        (1 << 63, 0, BASE, 0, 0, 1 << 31, 3, 0, 0, 0),
        (0, 0, BASE, 0, 0, 4, 9, 0, 0, 0),
    ]
    for row in outside:
        given_process = describe_process([row])
        for codec in (native, twin):
            result = codec.pair_calls([b"\x11\x00\x02\x00\x00"], [given_process], 9)
            assert [loss[0] for loss in result["losses"]] == [101]
            assert len(codec.decode_events([b"\x11\x00\x02\x00\x00"], [given_process], 9)["kind"]) == 0


def test_a_zero_word_ends_a_page() -> None:
    words = np.array([Kind.CALL | 1 << 5, 0, Kind.CALL | 2 << 5], np.uint64)
    assert native.encode_words(words, BASE, 0)[1] == 1


def test_a_payload_longer_than_its_page_ends_it() -> None:
    words = np.array([Kind.CALL | 1 << 5, Kind.PAYLOAD | 1 << 5, 1 << 60, 7], np.uint64)
    for codec in (native, twin):
        assert codec.encode_words(words, BASE, 0)[1] == 1


def test_a_return_of_the_call_on_top_takes_two_bytes() -> None:
    words = np.array([Kind.CALL | 5 << 5, Kind.RETURN | 5 << 5 | 10 << 28], np.uint64)
    for codec in (native, twin):
        assert codec.encode_words(words, BASE, 0) == (bytes([5 << 4 | Kind.CALL, 0, 0, 10]), 2)


def test_a_rebase_carries_times_over_the_limit_of_the_word() -> None:
    stream = Stream().add(Kind.CALL, 1, at=0).add(Kind.RETURN, 1, at=1 << 40)
    buffers, given_process = process([stream])
    assert (native.decode_events(buffers, [given_process], 9)["time_ns"] - EPOCH).tolist() == [0, 1 << 40]


def test_a_clock_that_steps_back_is_held() -> None:
    stream = Stream().add(Kind.CALL, 1, at=500).add(Kind.CALL, 2, at=100).add(Kind.RETURN, 2, at=600)
    buffers, given_process = process([stream])
    for codec in (native, twin):
        times = codec.decode_events(buffers, [given_process], 9)["time_ns"] - EPOCH
        assert times.tolist() == [500, 500, 600]


def test_events_name_their_function_or_their_reason() -> None:
    stream = Stream().add(Kind.CALL, 2).add(Kind.LOSS, LossReason.FORK, 3, BASE)
    stream.describe(4, 1, "task").add(Kind.SWITCH, 0, 4).add(Kind.CALL, 99)
    buffers, given_process = process([stream])
    for codec in (native, twin):
        events = codec.decode_events(buffers, [given_process], 9)
        assert events["code"].tolist() == [2, LossReason.FORK, PayloadType.CONTEXT, 0, 8]
        assert events["context"].tolist() == [0, 0, 0, 1, 1]


def test_many_chunks_decode_alike_with_any_number_of_workers() -> None:
    stream = Stream(now=BASE)
    for _ in range(200):
        stream.page()
        for i in range(PAGE_WORDS - 3):
            stream.now += 7
            stream.pages[-1].event(stream.now, Kind.CALL if i % 2 == 0 else Kind.RETURN, 1 + i // 2 % 5)
    buffer, rows = bytearray(), []
    for sequence, page in enumerate(stream.pages):
        data, events = native.encode_words(np.array(page.words, np.uint64), page.base_ticks, 1)
        rows.append((len(buffer), sequence, page.base_ticks, sequence % 3, 0, len(data), events, 0, 1, 0))
        buffer += data
    given_process = describe_process(rows)
    one = native.decode_events([bytes(buffer)], [given_process], 9, 1)
    assert same(native.decode_events([bytes(buffer)], [given_process], 9, 4), one)
    assert len(one["kind"]) == sum(row[6] for row in rows)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_the_checksum_is_zlibs(data: bytes, cut: int) -> None:
    assert native.crc32(data) == zlib.crc32(data) == twin.crc32(data)
    assert native.crc32(data[cut:], native.crc32(data[:cut])) == zlib.crc32(data)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_zigzag_is_undone(value: int) -> None:
    assert unzigzag(zigzag(value)) == value == signed64(value & (1 << 64) - 1)


def test_words_of_a_wrong_size_are_refused() -> None:
    for codec in (native, twin):
        with pytest.raises(ValueError, match="item size"):
            codec.encode_words(b"123", 0, 0)


def test_a_code_that_maps_to_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match="no function"):
        native.pair_calls([b""], [describe_process([])], 3)
