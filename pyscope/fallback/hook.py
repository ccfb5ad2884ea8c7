"""Backend `python`: sys.setprofile in pure Python. The oracle of the tests, and the fallback where no extension is.

It records the events that the native backends record, many times slower. A profile function is not told
whether a generator starts or goes on, yields or ends, or which exception leaves a frame: the first two
are read from the instruction in hand, the last from a trace function set beside it (if no debugger has set one).
A trace function in turn is not told of an exception that is raised again (`raise`, the end of a `finally` or
`with`): 3.12 and later say it by PY_UNWIND (PEP 669), on 3.11 it is read at that instruction.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import opcode
import sys
import threading
import time
import weakref
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from pyscope import breaker, emitter
from pyscope.fallback.codes import Codes
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import (
    EXCEPTION_BITS,
    KIND_BITS,
    KIND_MASK,
    MAX_NUMBERS,
    MAX_PAYLOAD,
    MAX_TEXTS,
    ContextKind,
    Kind,
)

if TYPE_CHECKING:
    from pyscope.recorder import Recording

__all__ = ["forget_parent", "start", "stop"]

YIELD = {opcode.opmap[name] for name in ("YIELD_VALUE",) if name in opcode.opmap}
RETURN = {opcode.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in opcode.opmap}
RESUME = opcode.opmap["RESUME"]
RERAISE = opcode.opmap["RERAISE"]
# At these, with these arguments, the exception being handled is raised again. (RERAISE 1 follows POP_EXCEPT: it goes on
# with the exception that was raised last.)
RAISE_AGAIN = {(RERAISE, 0), (RERAISE, 2), (opcode.opmap["RAISE_VARARGS"], 0)}
TOOL_IDS = (5, 3, 4)
SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
OPCODES = sys.version_info < (3, 12)  # later their trace events begin too late
CODE_SHIFT = 20  # of the instance, in its operand word

# Whose Python code the hook runs.
_CALLED = ("pyscope", "asyncio", "fnmatch", "functools", "re", "threading", "weakref")
_MODULE: Any = type.__dict__["__module__"]
_QUALNAME: Any = type.__dict__["__qualname__"]

_hook: _Hook | None = None


def start(recording: Recording, process_id: bytes, meta: bytes, parent: int) -> None:
    """Begins recording into `recording.path`. Raises RecorderError where the file cannot be written."""
    global _hook
    assert recording.path is not None
    writer = RecordingWriter(
        recording.path,
        json.loads(meta),
        recording_id=recording.identity,
        process_id=process_id,
        parent_pid=parent or None,
    )
    _hook = _Hook(recording, writer)
    _hook.install()


class Sink:
    """Where probes write while this backend records."""

    def __init__(self, hook: _Hook) -> None:
        self.emit = hook.probe
        self.intern = hook.intern
        self.stack = hook.stack


def sink() -> Sink:
    """The sink of the recording in progress."""
    assert _hook is not None
    return Sink(_hook)


def reselect(globs: list[str] | None, exclude: list[str]) -> None:
    """Records by other globs from now on; what is being recorded already goes on to be."""
    assert _hook is not None
    _hook.codes.reselect(globs, exclude)


def stop() -> dict[str, Any]:
    """Ends the recording; the figures of the native recorder's stop, as far as they exist here."""
    global _hook
    hook, _hook = _hook, None
    assert hook is not None
    return hook.stop()


def forget_parent() -> None:
    """In the child of a fork: lets go of the parent's file."""
    global _hook
    hook, _hook = _hook, None
    if hook is not None:
        hook.remove()
        hook.writer.abandon()


class _Thread:
    """What is known of a thread that records."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.os_tid = threading.get_native_id()
        self.page: Page | None = None
        self.context = 0
        self.busy = False
        self.exceptions: dict[FrameType, str] = {}
        # generators' frames that were resumed and, as far as is known, have not run since: instruction and event
        self.resumed: dict[FrameType, tuple[int, list[int], int]] = {}
        self.thrown: set[FrameType] = set()  # those of them that an exception was thrown into
        self.reraising: FrameType | None = None  # on 3.11: stands before a RERAISE
        self.raised: tuple[int, list[int], int] | None = (
            None  # the last event that was or may have been a raise: its frame, and where it is written
        )


class _Hook:
    def __init__(self, recording: Recording, writer: RecordingWriter) -> None:
        settings = recording.settings
        self.writer = writer
        self.c_calls = settings.detail == "c_calls"
        self.codes = Codes(settings, writer)
        self.resumes: dict[CodeType, bytes] = {}
        self.contexts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.next_context = 1
        self.local = threading.local()
        self.threads: list[_Thread] = []
        self.numbers = itertools.count()  # atomic: two threads may begin at once
        self.traces = sys.gettrace() is None
        self.active = False
        self.faults = 0
        self.breaker = breaker.Breaker()
        self.interrupted = 0  # exceptions of the program's signal handlers, raised while the hook ran
        self.tool = -1
        self.met: set[int] = set()  # on 3.11: ids of frames that have met an exception

    # installing

    def install(self) -> None:
        self.active = True
        threading.setprofile(self.profile)
        if self.traces:
            threading.settrace(self.trace)
            sys.settrace(self.trace)
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            for tool in TOOL_IDS:
                if monitoring.get_tool(tool) is None:
                    monitoring.use_tool_id(tool, "pyscope")
                    monitoring.register_callback(tool, monitoring.events.PY_UNWIND, self.unwound)
                    monitoring.set_events(tool, monitoring.events.PY_UNWIND)
                    self.tool = tool
                    break
            threading.setprofile_all_threads(self.profile)
        else:
            sys.setprofile(self.profile)

    def remove(self) -> None:
        self.active = False
        if sys.version_info >= (3, 12):
            if self.tool >= 0:
                sys.monitoring.set_events(self.tool, 0)
                sys.monitoring.register_callback(self.tool, sys.monitoring.events.PY_UNWIND, None)
                sys.monitoring.free_tool_id(self.tool)
                self.tool = -1
            threading.setprofile_all_threads(None)  # type: ignore[arg-type]
        else:
            sys.setprofile(None)
        threading.setprofile(None)
        if self.traces:
            threading.settrace(None)
            if sys.gettrace() == self.trace:
                sys.settrace(None)

    def stop(self) -> dict[str, Any]:
        self.remove()
        mine = getattr(self.local, "thread", None)
        until = time.monotonic() + 1
        for thread in self.threads:  # what is being written just now is waited for
            while thread.busy and thread is not mine and time.monotonic() < until:
                time.sleep(0.001)
        for thread in self.threads:
            self.flush(thread)
        self.writer.close()
        failed = self.writer.failed
        return {
            "state": "write_failed" if failed else "stopped",
            "error": (failed.errno or 0) if failed else 0,
            "ring_path": None,
            "clean": True,
            "faults": self.faults,
            "interrupted": self.interrupted,
            "dropped": 0,
            "unnamed": 0,
            "threads": len(self.threads),
            "events": self.writer.events,
            "bytes": self.writer.bytes,
            "drain_cpu_ns": 0,
            "unmatched": self.codes.unmatched,
        }

    # events

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self.active:
            sys.setprofile(None)
            return
        thread = self.thread()
        if thread.busy:
            return
        thread.busy = True
        try:
            self.record(thread, frame, event, argument)
        except BaseException as error:
            if not isinstance(error, Exception) or _of_the_program(error):
                self.interrupted += 1
                raise  # CPython takes the profile function out now; `trace` sets it again
            self.fault(error)  # never into the traced program
        finally:
            thread.busy = False

    def record(self, thread: _Thread, frame: FrameType, event: str, argument: Any) -> None:
        now = time.monotonic_ns()
        code = self.codes.of(frame)
        if code is None:
            return
        if event[0] == "c":
            if event == "call":
                self.entered(thread, frame, code, now)
            elif self.c_calls:
                kind = {"c_call": Kind.C_CALL, "c_return": Kind.C_RETURN, "c_exception": Kind.C_RAISE}[event]
                self.emit(thread, now, kind, self.codes.of_c(argument))
        else:
            self.left(thread, frame, code, now, argument)

    def entered(self, thread: _Thread, frame: FrameType, code: int, now: int) -> None:
        self.follow_context(thread, now)
        if not frame.f_code.co_flags & SUSPENDS:
            self.emit(thread, now, Kind.CALL, code)
            return
        kind = self.resumption(frame)
        if kind == Kind.GEN_THROW and frame.f_lasti < self.first_resume(frame.f_code):
            # Not begun: as native/hook.hpp has it, the exception begins a call.
            self.emit(thread, now, Kind.GEN_START, code, id(frame) >> 4 << CODE_SHIFT)
        self.emit(thread, now, kind, code, id(frame) >> 4 << CODE_SHIFT)
        if kind != Kind.GEN_START and self.traces and thread.page is not None:
            frame.f_trace_opcodes = OPCODES
            thread.resumed[frame] = frame.f_lasti, thread.page.words, len(thread.page.words) - 2

    def left(self, thread: _Thread, frame: FrameType, code: int, now: int, argument: Any) -> None:
        suspends = frame.f_code.co_flags & SUSPENDS
        self.follow_context(thread, now)
        unmoved = frame in thread.thrown or (OPCODES and frame in thread.resumed)
        thread.thrown.discard(frame)
        thread.resumed.pop(frame, None)
        instructions, at = self.instructions(frame.f_code), frame.f_lasti
        instruction = instructions[at]
        if instruction == RESUME and instructions[at - 2] in YIELD:  # 3.13 stands behind the yield
            instruction = instructions[at - 2]
        raised = thread.exceptions.pop(frame, None)
        # The end of a `with` or `finally` puts f_lasti back to where the exception struck: that may be a yield.
        unmoved |= frame is thread.reraising
        thread.reraising = None
        yields = instruction in YIELD and not unmoved
        if not yields:
            self.met.discard(id(frame))
        if yields:
            self.emit(thread, now, Kind.GEN_YIELD, code, id(frame) >> 4 << CODE_SHIFT)
            if argument is None and self.tool >= 0 and thread.page is not None:
                thread.raised = id(frame), thread.page.words, len(thread.page.words)
        elif instruction in RETURN:
            if suspends:
                self.emit(thread, now, Kind.GEN_RETURN, code, id(frame) >> 4 << CODE_SHIFT)
            else:
                self.emit(thread, now, Kind.RETURN, code)
        else:
            exception = self.writer.exception(raised) if raised else 0
            instance = (id(frame) >> 4 << CODE_SHIFT) if suspends else 0
            self.emit(thread, now, Kind.GEN_RAISE if suspends else Kind.RAISE, code, instance | exception)
            if self.tool >= 0 and thread.page is not None:
                thread.raised = id(frame), thread.page.words, len(thread.page.words)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Beside the profile function, for one thing: which exception is under way in a frame."""
        if not self.active:
            sys.settrace(None)
            return None
        if event == "call":
            if sys.getprofile() is None:
                sys.setprofile(self.profile)
            try:
                if (
                    self.codes.of(frame) is None
                ):  # nothing is kept of others' frames: it would keep them alive
                    return None
            except Exception as error:
                if _of_the_program(error):
                    self.interrupted += 1
                    raise
                self.fault(error)
                return None
            frame.f_trace_lines = False
            return self.trace
        try:
            thread = self.thread()
            if event == "exception":
                self.met_exception(thread, frame, _type_name(argument[0]))
            elif event == "opcode" or (event == "line" and frame in thread.thrown):
                thread.resumed.pop(frame, None)
                thread.thrown.discard(frame)
                frame.f_trace_lines = False
                frame.f_trace_opcodes = id(frame) in self.met
                if event == "opcode":
                    self.raised_again(thread, frame)
        except Exception as error:
            if _of_the_program(error):
                self.interrupted += 1
                raise
            self.fault(error)
        return self.trace

    def met_exception(self, thread: _Thread, frame: FrameType, name: str) -> None:
        if len(thread.exceptions) > 10_000:  # frames that caught what they raised
            thread.exceptions.clear()
        thread.exceptions[frame] = name
        last, words, at = thread.resumed.pop(frame, (-1, [], 0))
        if last == frame.f_lasti:  # before any instruction: it was resumed by throw() or close()
            thread.thrown.add(frame)
            frame.f_trace_lines = True
            words[at] = words[at] >> KIND_BITS << KIND_BITS | Kind.GEN_THROW
            words[at + 1] |= self.writer.exception(name)
        if OPCODES:
            frame.f_trace_opcodes = True
            self.met.add(id(frame))

    def fault(self, error: BaseException) -> None:
        """Counts an error of the hook itself. Repeated ones take it out."""
        self.faults += 1
        if self.breaker.count() and self.active:
            breaker.out("the recorder", self.faults, type(error).__name__)
            self.remove()

    def raised_again(self, thread: _Thread, frame: FrameType) -> None:
        """On 3.11, before an instruction of a frame that has met an exception."""
        at = frame.f_lasti
        instructions = self.instructions(frame.f_code)
        thread.reraising = frame if instructions[at] == RERAISE else None
        if (instructions[at], instructions[at + 1]) in RAISE_AGAIN:
            handled = sys.exc_info()[0]
            if handled is not None:
                thread.exceptions[frame] = _type_name(handled)

    def unwound(self, code: CodeType, offset: int, error: BaseException) -> None:
        """PY_UNWIND: comes after the profile function's event, and knows better which exception it was."""
        try:
            thread = self.thread()
            if not self.active or thread.busy or thread.raised is None:
                return
            frame, words, end = thread.raised
            thread.raised = None
            if frame == id(sys._getframe(1)) and len(words) == end:
                exception = self.writer.exception(_type_name(type(error)))
                if words[-2] & KIND_MASK == Kind.GEN_YIELD:  # it stood at a yield again
                    words[-2] = words[-2] >> KIND_BITS << KIND_BITS | Kind.GEN_RAISE
                words[-1] = words[-1] >> EXCEPTION_BITS << EXCEPTION_BITS | exception
        except Exception as problem:
            if _of_the_program(problem):
                raise
            self.fault(problem)

    def resumption(self, frame: FrameType) -> Kind:
        instructions = self.instructions(frame.f_code)
        at = frame.f_lasti
        if instructions[at] != RESUME:
            return Kind.GEN_THROW
        return Kind.GEN_START if instructions[at + 1] & 3 == 0 else Kind.GEN_RESUME

    def first_resume(self, code: CodeType) -> int:
        """Where the body of a generator begins, in bytes; what lies before makes the generator."""
        return 2 * self.instructions(code)[::2].index(RESUME)

    def instructions(self, code: CodeType) -> bytes:
        found = self.resumes.get(code)
        if found is None:
            found = self.resumes[code] = code.co_code
        return found

    def emit(self, thread: _Thread, now: int, kind: Kind, code: int, *operands: int) -> None:
        page = thread.page
        if page is None or not page.room(1 + len(operands)):
            self.flush(thread)
            page = thread.page = Page(now, thread.context)
        page.event(now, kind, code, *operands)

    # probes

    def probe(self, kind: int, *values: object) -> None:
        """An event of a probe; see pyscope.emitter."""
        if not self.active:
            return
        thread = self.thread()
        was_busy, thread.busy = thread.busy, True
        try:
            numbers: list[int] = []
            texts: list[str] = []
            for value in values:
                if type(value) is str:
                    texts.append(value)
                elif type(value) in (int, bool, float):
                    numbers.append(_whole(value))
                else:
                    self.faults += value is not None
                    numbers.append(0)
            self.faults += len(numbers) > MAX_NUMBERS or len(texts) > MAX_TEXTS
            now = time.monotonic_ns()
            self.follow_context(thread, now)
            if thread.page is None or not thread.page.room(2 + MAX_PAYLOAD // 8):
                self.flush(thread)
                thread.page = Page(now, thread.context)
            numbers, texts = numbers[:MAX_NUMBERS], texts[:MAX_TEXTS]
            thread.page.probe(now, kind, emitter.scope.get(), numbers, texts)
        except Exception as error:
            if _of_the_program(error):
                raise
            self.fault(error)
        finally:
            thread.busy = was_busy

    def intern(self, text: str) -> int:
        if not self.active or type(text) is not str:
            return 0
        try:
            return self.writer.string(text)
        except Exception as error:
            if _of_the_program(error):
                raise
            self.fault(error)
            return 0

    def stack(self, limit: int = 32, outer: FrameType | None = None) -> int:
        thread = self.thread()
        was_busy, thread.busy = thread.busy, True
        try:
            number = 0
            for frame in reversed(self.user_frames(outer or sys._getframe(1), limit, outer is None)):
                location = self.writer.location(
                    frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno or 0
                )
                number = self.writer.stack(number, location)
            return number
        except Exception as error:
            if _of_the_program(error):
                raise
            self.fault(error)
            return 0
        finally:
            thread.busy = was_busy

    def user_frames(self, frame: FrameType | None, limit: int, follow: bool) -> list[FrameType]:
        greenlet = sys.modules.get("greenlet") if follow else None
        current = greenlet.getcurrent() if greenlet is not None and hasattr(greenlet, "getcurrent") else None
        found: list[FrameType] = []
        while len(found) < limit:
            if frame is None:
                current = current.parent if current is not None else None
                if current is None:
                    break
                frame = current.gr_frame
                continue
            if self.codes.is_users(frame):
                found.append(frame)
            frame = frame.f_back
        return found

    def flush(self, thread: _Thread) -> None:
        page, thread.page = thread.page, None
        if page is not None and page.words:
            self.writer.chunk(
                thread.number,
                page.words,
                base_ticks=page.base_ticks,
                context=page.context,
                name=thread.name,
                os_tid=thread.os_tid,
            )

    # threads and contexts

    def thread(self) -> _Thread:
        thread: _Thread | None = getattr(self.local, "thread", None)
        if thread is None:
            thread = self.local.thread = _Thread(next(self.numbers), threading.current_thread().name)
            self.threads.append(thread)
        return thread

    def follow_context(self, thread: _Thread, now: int) -> None:
        subject, kind = _current_context()
        serial = self.serial(thread, now, subject, kind)
        if serial != thread.context:
            thread.context = serial
            self.emit(thread, now, Kind.SWITCH, 0, serial)

    def serial(self, thread: _Thread, now: int, subject: Any, kind: ContextKind) -> int:
        if subject is None:
            return 0
        serial = self.contexts.get(subject, 0)
        if not serial:
            parent = 0
            if kind == ContextKind.GREENLET:
                parent = self.parent_of(thread, now, subject)
            serial = self.contexts[subject] = self.next_context
            self.next_context += 1
            name = f"greenlet-{serial}"
            if kind == ContextKind.TASK:  # trio's have a name only
                name = subject.get_name() if hasattr(subject, "get_name") else subject.name
            self.flush(thread)
            thread.page = Page(now, thread.context)
            thread.page.describe_context(now, serial, parent, kind, name)
        return serial

    def parent_of(self, thread: _Thread, now: int, greenlet: Any) -> int:
        """What has begun a greenlet. That need not be what ran here at the last event: gevent's hub, in which nothing
        is recorded, begins one after the other."""
        outer = greenlet.parent
        while outer.parent is not None:
            if outer in self.contexts:
                return self.contexts[outer]
            outer = outer.parent
        begun_here = thread.context if outer is greenlet.parent else 0
        return self.serial(thread, now, _current_task(), ContextKind.TASK) or begun_here


def _whole(value: Any) -> int:
    if type(value) is float:
        return 0 if value != value else int(max(-9.2e18, min(value, 9.2e18)))
    number = int(value)
    return number if -(1 << 63) <= number < 1 << 63 else hash(number)


def _current_context() -> tuple[Any, ContextKind]:
    """The greenlet (unless it is the thread's own) or task of asyncio or trio that runs here, or None."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None and hasattr(greenlet, "getcurrent"):
        current = greenlet.getcurrent()
        if current.parent is not None:
            return current, ContextKind.GREENLET
    return _current_task(), ContextKind.TASK


def _current_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with contextlib.suppress(RuntimeError, AttributeError):
            task = asyncio.current_task()
            if task is not None:
                return task
    trio = sys.modules.get("trio._core._run")
    return getattr(getattr(trio, "GLOBAL_RUN_CONTEXT", None), "task", None)


def _of_the_program(error: Exception) -> bool:
    """Whether a signal handler of the program raised it while the hook ran."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _CALLED:
            return True
        traceback = traceback.tb_next
    return False


def _type_name(kind: Any) -> str:
    """Without asking a metaclass of the program."""
    if not isinstance(kind, type):
        return str(kind)
    return f"{_MODULE.__get__(kind)}.{_QUALNAME.__get__(kind)}"
