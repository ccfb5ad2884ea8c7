"""The twin of native/codec.hpp: a page's words to the bytes of a chunk and back, in plain Python.

The encoding is drawn in native/recording.hpp. Nothing here needs numpy: the pure-Python recorder uses it in
the process it records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyscope.format import (
    CODE_BITS,
    CODE_MASK,
    CODEC_STACK,
    EXCEPTION_BITS,
    EXCEPTION_MASK,
    INSTANCE_MASK,
    KIND_BITS,
    KIND_MASK,
    OPERANDS,
    TIME_SHIFT,
    WORD_MASK,
    Kind,
    signed64,
    unzigzag,
    zigzag,
)

_WITH_INSTANCE = frozenset(
    (
        Kind.GEN_START,
        Kind.GEN_YIELD,
        Kind.GEN_RESUME,
        Kind.GEN_THROW,
        Kind.GEN_RETURN,
        Kind.GEN_RAISE,
    )
)
_WITH_EXCEPTION = frozenset((Kind.RAISE, Kind.GEN_THROW, Kind.GEN_RAISE))
_OP_PAYLOAD = 14
CODEC_RECENT = 64


def _put_varint(out: bytearray, value: int) -> None:
    value &= WORD_MASK
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class _Malformed(Exception):
    """The bytes of a chunk end or mean nothing."""


def _get_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & WORD_MASK, at
    raise _Malformed


class _Recent:
    """The last pairs (key, code), most recent first."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []

    def find(self, pair: tuple[int, int]) -> int | None:
        """The pair's place, None if it is not there; it moves to the front."""
        place = self.pairs.index(pair) if pair in self.pairs else None
        if place is not None:
            del self.pairs[place]
        self.pairs.insert(0, pair)
        del self.pairs[CODEC_RECENT:]
        return place

    def at(self, place: int) -> tuple[int, int]:
        if place >= len(self.pairs):
            raise _Malformed
        self.pairs.insert(0, self.pairs.pop(place))
        return self.pairs[0]

    def last(self) -> int:
        return self.pairs[0][0] if self.pairs else 0


def encode_words(words: Sequence[int], base_ticks: int, time_shift: int) -> tuple[bytes, int]:
    """One page's words, up to the first that is zero, as the bytes of a chunk; and its events' number."""
    out = bytearray()
    stack: list[int] = []
    instances, serials = _Recent(), _Recent()
    base, before, events, i = base_ticks, base_ticks >> time_shift, 0, 0
    while i < len(words):
        word = words[i]
        kind = word & KIND_MASK
        if kind == Kind.END or kind > Kind.PAYLOAD or len(words) - i < 1 + OPERANDS[kind]:
            break
        operand = words[i + 1] if OPERANDS[kind] else 0
        if kind == Kind.REBASE:
            base = operand
            i += 2
            continue
        code = word >> KIND_BITS & CODE_MASK
        payload = b""
        if kind == Kind.PAYLOAD:
            if operand > (len(words) - i - 2) * 8 or code == CODE_MASK:
                break
            body = words[i + 2 : i + 2 + (operand + 7) // 8]
            payload = b"".join(w.to_bytes(8, "little") for w in body)[:operand]
            i += len(body)
        on_top = bool(stack) and stack[-1] == code
        place: int | None = None
        last = instances.last()
        if kind in _WITH_INSTANCE:
            place = instances.find((operand >> EXCEPTION_BITS, code))
            _put_varint(out, (2 * code if place is None else 2 * place + 1) << 4 | kind)
        elif kind == Kind.SWITCH:
            place = serials.find((operand, 0))
            _put_varint(out, (0 if place is None else place + 1) << 4 | kind)
        elif kind == Kind.RETURN and on_top:
            stack.pop()
            _put_varint(out, 0)
        elif kind == Kind.PAYLOAD:
            _put_varint(out, code + 1 << 4 | _OP_PAYLOAD)
        else:
            if kind == Kind.RAISE and on_top:
                stack.pop()
            if kind == Kind.CALL and len(stack) < CODEC_STACK:
                stack.append(code)
            _put_varint(out, code << 4 | kind)
        now = (base + (word >> TIME_SHIFT) & WORD_MASK) >> time_shift
        _put_varint(out, now - before)
        before = now
        if kind in _WITH_INSTANCE and place is None:
            _put_varint(out, zigzag((operand >> EXCEPTION_BITS) - last))
        if kind in _WITH_EXCEPTION:
            _put_varint(out, operand & EXCEPTION_MASK)
        elif kind == Kind.SWITCH:
            if place is None:
                _put_varint(out, operand)
        elif kind == Kind.LOSS:
            _put_varint(out, operand)
            _put_varint(out, zigzag(signed64((words[i + 2] >> time_shift) - now)))
        elif kind == Kind.PAYLOAD:
            _put_varint(out, operand)
            out += payload
        i += 1 + OPERANDS[kind]
        events += 1
    return bytes(out), events


@dataclass(slots=True)
class Event:
    """One decoded event; what its kind does not have is 0 or empty.

    `time` and `first` are in ticks >> time_shift; `_Source.decode` sets `ns` and turns `first` into ns.
    """

    time: int
    kind: int
    code: int
    instance: int = 0
    exception: int = 0
    serial: int = 0
    count: int = 0
    first: int = 0
    payload: bytes = b""
    ns: int = 0


def decode_chunk(data: memoryview, events: int, base_ticks: int, time_shift: int) -> tuple[list[Event], int]:
    """At most `events` events of a chunk's bytes, and how many bytes were left over."""
    found: list[Event] = []
    stack: list[int] = []
    instances, serials = _Recent(), _Recent()
    at, now = 0, base_ticks >> time_shift
    try:
        while len(found) < events:
            token, here = _get_varint(data, at)
            elapsed, here = _get_varint(data, here)
            op, code = token & 15, token >> 4
            if code >> (CODE_BITS + (op in _WITH_INSTANCE)):
                break
            time = now + elapsed & WORD_MASK
            event = Event(time, op, code)
            if op == 0:
                if not stack:
                    break
                event.kind, event.code = Kind.RETURN, stack.pop()
            elif op == Kind.CALL:
                if len(stack) < CODEC_STACK:
                    stack.append(code)
            elif op == Kind.SWITCH:
                if code:
                    event.serial, event.code = serials.at(code - 1)
                else:
                    event.serial, here = _get_varint(data, here)
                    serials.find((event.serial, 0))
            elif op == Kind.LOSS:
                event.count, here = _get_varint(data, here)
                back, here = _get_varint(data, here)
                event.first = time + unzigzag(back) & WORD_MASK
            elif op == _OP_PAYLOAD:
                if code == 0:
                    break
                event.kind, event.code = Kind.PAYLOAD, code - 1
                size, here = _get_varint(data, here)
                if size > len(data) - here:
                    break
                event.payload = bytes(data[here : here + size])
                here += size
            elif op in _WITH_INSTANCE or op == Kind.RAISE:
                if op != Kind.RAISE and code & 1:
                    event.instance, event.code = instances.at(code >> 1)
                elif op != Kind.RAISE:
                    change, here = _get_varint(data, here)
                    event.instance = instances.last() + unzigzag(change) & INSTANCE_MASK
                    event.code = code >> 1
                    instances.find((event.instance, event.code))
                if op in _WITH_EXCEPTION:
                    event.exception, here = _get_varint(data, here)
                    event.exception &= EXCEPTION_MASK
                if op == Kind.RAISE and stack and stack[-1] == code:
                    stack.pop()
            now, at = time, here
            found.append(event)
    except _Malformed:
        pass
    return found, len(data) - at
