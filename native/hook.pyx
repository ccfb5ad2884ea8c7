# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# distutils: language = c++
"""The recorder's native side: start and stop, and the slow paths of the hook.

The path of an event is C++ (hook.hpp, ring.hpp); here is what happens once for each code object, thread, task
or exception type. Nothing in this file runs user code: it reads exact built-in types only. No failure
here reaches the traced program: it is counted in `faults`.
"""
cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen, strncpy
from libcpp cimport bool as cbool
from libcpp.string cimport string, to_string
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

import os
import sys
from importlib.machinery import ModuleSpec
from types import CoroutineType

from pyscope.errors import BackendUnavailable

include "hook_declarations.pxi"


# --- the recording in hand ------------------------------------------------------------------------

cdef RingFile* ring_file = NULL
cdef RecordingFile* recording_file = NULL
cdef Drain* drain = NULL
cdef str backend_in_use = None
cdef bint flight_mode = False
DEF LONGEST_PAUSE = 0.2  # seconds


cdef list fault_notes = []  # where the first faults arose
DEF MOST_NOTES = 8
DEF MOST_FAULTS = 100  # within FAULT_SPAN: then the recorder takes itself out
DEF FAULT_SPAN = 60_000_000_000  # ns
cdef object circuit_breaker = None
cdef int64_t faults_from = 0
cdef int faults_lately = 0


def use_circuit_breaker(function):
    """Calls `function(faults, notes)` on the main thread before repeated faults take the hook out."""
    global circuit_breaker
    circuit_breaker = function


cdef int break_circuit(void* _) noexcept:
    if backend_in_use is None:
        return 0
    try:
        if circuit_breaker is not None:
            circuit_breaker(hook.faults.load(), list(fault_notes))
    except BaseException:
        pass
    return uninstall_soon(NULL)


cdef void fault() noexcept:
    """Counts an internal fault, and notes the first few: the exception's type and the line it arose at."""
    global faults_from, faults_lately
    hook.faults.fetch_add(1)
    cdef int64_t now = monotonic_ns()
    if now - faults_from > FAULT_SPAN:
        faults_from = now
        faults_lately = 0
    faults_lately += 1
    if faults_lately == MOST_FAULTS:
        Py_AddPendingCall(break_circuit, NULL)
    try:
        if len(fault_notes) < MOST_NOTES:
            kind, _, traceback = sys.exc_info()
            while traceback is not None and traceback.tb_next is not None:
                traceback = traceback.tb_next
            place = "?" if traceback is None else f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
            fault_notes.append(f"{'a bad value' if kind is None else type.__dict__['__name__'].__get__(kind)} at {place}")
    except BaseException:
        pass


include "hook_names.pxi"
include "hook_selection.pxi"
include "hook_governor.pxi"
include "hook_contexts.pxi"
include "hook_probes.pxi"
include "hook_steps.pxi"
include "hook_statements.pxi"
include "hook_transactions.pxi"
include "hook_monitoring.pxi"
include "hook_install.pxi"


# --- the life of a recording ----------------------------------------------------------------------

def start(*, str backend, str ring_path, size_t ring_bytes, file_path, str parts_prefix, bytes recording_id,
          bytes process_id, bytes meta, bint flight, globs, exclude, libraries, bint c_calls=False,
          keep=None, uint32_t parent_pid=0, bint reselectable=False):
    """Allocates the ring, begins the file and installs the hook.

    globs: list of dotted globs, or None for everything but `libraries` (path prefixes).
    c_calls: record C calls too; beside `monitoring` and `frame` under a budget only in windows (`set_window`).
    keep: there is a budget, and functions may be quieted (`quiet`) but for those that these globs match. None: no budget.
    reselectable: code that is not selected is remembered, so that `reselect` can select it later.
    Raises OSError when the ring or the file cannot be made, BackendUnavailable when the hook cannot be installed.
    """
    global ring_file, recording_file, drain, backend_in_use, flight_mode, keep_passed, disarmed_codes, faults_lately, tool_taken
    cdef RingOptions options
    cdef bint everything, made
    if ring_file != NULL:
        raise RuntimeError("already recording")
    if not in_main_interpreter():
        raise BackendUnavailable(
            "the native recorder works in the main interpreter only, and this is a subinterpreter: start it there, or "
            'choose backend="python"'
        )
    install_fork_handlers()
    if hook.extra_index < 0:
        hook.extra_index = REQUEST_CODE_EXTRA(code_freed)
        if hook.extra_index < 0:
            raise BackendUnavailable("no code-object slot is left (PEP 523 allows 255 users)")
        hook.slow.resolve = resolve
        hook.slow.c_function = c_function
        hook.slow.exception = exception
        hook.slow.new_thread = new_thread
        hook.slow.switch_context = switch_context
        hook.slow.switch_greenlet = switch_greenlet
        hook.slow.find_greenlet = find_greenlet

    select_modules(globs, exclude)
    keep_passed = reselectable
    disarmed_codes = []
    library_prefixes.clear()
    for prefix in libraries:
        library_prefixes.push_back(<string>prefix.encode("utf-8", "surrogateescape"))
    everything = globs is not None and "*" in globs

    options.path = ring_path.encode("utf-8", "surrogateescape")
    options.bytes = ring_bytes
    options.meta = meta
    fill_info(&options.info, recording_id, process_id, parent_pid, flight, options.path)
    forget_names()
    forget_contexts()
    ring_file = make_ring_file(options)
    try:
        if file_path is not None:
            recording_file = make_recording_file(file_path.encode("utf-8", "surrogateescape"), options.info, options.meta)
        hook.windowed = False
        if c_calls and backend != "setprofile":
            hook.windowed = keep is not None
            hook.window.store(0 if keep is not None else 1)
        drain = start_drain(
            ring_file, recording_file, parts_prefix.encode("utf-8", "surrogateescape"), on_write_failure
        )
        flight_mode = flight
        hook.file = ring_file
        hook.generation += 1
        begin_governing(keep)
        hook.threads = 0
        hook.faults.store(0)
        faults_lately = 0
        fault_notes.clear()
        open_existing_rings()
        hook.evicted = tool_taken = False
        hook.active = True
        if greenlet_module is None:
            note_greenlet()
        note_trio_that_runs()
        open_thread_ring_here()
        install(backend, everything, c_calls, c_calls and backend != "setprofile")
        backend_in_use = backend
    except BaseException:
        made = recording_file != NULL
        abandon_start()
        if made:
            unlink_quietly(file_path)
        raise


cdef unlink_quietly(path):
    try:
        os.unlink(path)
    except OSError:
        pass


cdef int uninstall_soon(void* _) noexcept:
    if backend_in_use is not None:
        try:
            uninstall()
        except BaseException:
            fault()
    return 0


cdef void ask_to_uninstall() noexcept nogil:
    Py_AddPendingCall(uninstall_soon, NULL)


cdef void on_write_failure() noexcept nogil:
    """On the drain thread: the hook is taken out as soon as the main thread can."""
    ask_to_uninstall()
    # On 3.11 a main thread that never lets go of the GIL notices only what is asked on it.
    ring_file.call_on_next_seal(ask_to_uninstall)


cdef void abandon_start() noexcept:
    global ring_file, recording_file, drain
    hook.active = False
    hook.generation += 1
    close_all_rings()
    hook.file = NULL
    hook.window.store(0)
    if drain != NULL and not drain.finish(5.0):
        drain = NULL  # it still uses them
        recording_file = NULL
        ring_file.unlink()
        ring_file = NULL
    if drain != NULL:
        del drain
        drain = NULL
    if recording_file != NULL:
        del recording_file
        recording_file = NULL
    if ring_file != NULL:
        ring_file.unlink()
        del ring_file
        ring_file = NULL
    end_governing()


cdef bint removed_cleanly = True


def uninstall():
    """Takes the hook out and closes every thread's ring; the drain goes on. True unless another frame evaluator
    sits on top of ours (which then only passes frames on)."""
    global backend_in_use, removed_cleanly
    if backend_in_use is None:
        return removed_cleanly
    backend = backend_in_use
    backend_in_use = None
    hook.active = False
    hook.generation += 1
    hook.window.store(0)
    removed_cleanly = remove(backend)
    close_all_rings()
    return removed_cleanly


def stop(double timeout=10.0):
    """Uninstalls the hook, waits for the drain and seals the file. Returns a dict of figures.

    state: "stopped"; "write_failed" (`error` is the errno) and "stalled" (the drain did not end within `timeout`
    seconds) keep the ring file, so that nothing is lost. RuntimeError when not recording.
    """
    clean = uninstall()
    with nogil:
        lock_life()
    try:
        if ring_file == NULL:
            raise RuntimeError("not recording")
        return end_recording(clean, timeout)
    finally:
        unlock_life()


cdef dict end_recording(bint clean, double timeout):
    global ring_file, recording_file, drain, held_types
    cdef cbool over
    cdef Summary summary
    cdef dict figures
    with nogil:
        over = drain.finish(timeout)
    figures = {
        "clean": clean,
        "evicted": hook.evicted,
        "tool_taken": tool_taken,
        "faults": hook.faults.load(),
        "fault_notes": list(fault_notes),
        "dropped": ring_file.header().dropped.load(),
        "unnamed": unnamed,
        "ring_path": ring_file.path().c_str().decode("utf-8", "surrogateescape"),
        "unmatched": [include_globs[i].decode() for i in range(include_globs.size()) if not include_matched[i]],
        "threads": hook.threads,
    }
    if not over:
        figures["state"] = "stalled"
        ring_file = NULL  # the drain still uses them
        recording_file = NULL
        drain = NULL
        hook.file = NULL
        end_governing()
        return figures
    failed = drain.failed()
    summary = drain.summary(STATE_WRITE_FAILED if failed else STATE_STOPPED)
    figures["error"] = drain.error()
    figures["drain_cpu_ns"] = summary.drain_cpu_ns
    figures["events"] = summary.events
    if recording_file != NULL:
        if not recording_file.write_summary(summary):
            failed = True
        figures["bytes"] = recording_file.bytes()
    figures["state"] = "write_failed" if failed else "stopped"
    del drain
    drain = NULL
    if recording_file != NULL:
        del recording_file
        recording_file = NULL
    if not failed:
        ring_file.unlink()
    del ring_file
    ring_file = NULL
    hook.file = NULL
    end_governing()
    held_types = []
    forget_contexts()
    return figures


cdef void resume_drain() noexcept nogil:
    if drain != NULL and not drain.resume():
        ring_file.call_on_next_seal(resume_drain)


def pause_before_fork():
    """Ends the drain thread for the time of a fork; the next full page brings it back."""
    cdef cbool mine, ended = False
    with nogil:
        mine = lock_life_for(LONGEST_PAUSE)
    if not mine:  # another thread is ending the recording
        return
    try:
        if drain != NULL:
            with nogil:
                ended = drain.pause(LONGEST_PAUSE)
            if ended:
                ring_file.call_on_next_seal(resume_drain)
    finally:
        unlock_life()


def ring_meta(str ring_path):
    """The META JSON (bytes) of the ring file of some process. Raises OSError if it is no ring."""
    cdef RingFile* other = attach_ring(ring_path.encode("utf-8", "surrogateescape"), False)
    try:
        return <bytes>other.meta()
    finally:
        del other


def forget_parent():
    """In the child of a fork, after the native handler has detached it: undoes the inherited installation."""
    global ring_file, recording_file, drain, backend_in_use, held_types, contexts_inherited
    backend = backend_in_use
    backend_in_use = None
    ring_file = NULL          # the parent's; the mapping is gone already
    recording_file = NULL
    drain = NULL
    held_types = []
    end_governing()
    if backend is not None:
        remove(backend)


def recording():
    """Whether a recording is in progress in this process."""
    return ring_file != NULL


def failed():
    """The errno of the write that ended the recording, or 0."""
    return drain.error() if drain != NULL else 0


def dump(str path):
    """Copies what the ring holds into a recording of its own, without stopping the producers.

    Returns (pages, events). Raises OSError when it cannot be written, RuntimeError when not recording."""
    cdef AdoptReport report
    cdef string where = path.encode("utf-8", "surrogateescape")
    with nogil:
        lock_life()
    try:
        if ring_file == NULL:
            raise RuntimeError("not recording")
        with nogil:
            report = dump_ring(ring_file[0], where)
    finally:
        unlock_life()
    return report.pages, report.events


def dump_other(str ring_path, str path):
    """Likewise from the ring file of another process, which does nothing for it."""
    cdef RingFile* other = attach_ring(ring_path.encode("utf-8", "surrogateescape"), False)
    cdef string where = path.encode("utf-8", "surrogateescape")
    cdef AdoptReport report
    try:
        with nogil:
            report = dump_ring(other[0], where)
    finally:
        del other
    return report.pages, report.events


def adopt(str recording_path, str ring_path):
    """Seals the ring of a dead process into its recording and removes the ring. Returns (pages, events, dropped)."""
    cdef AdoptReport report
    cdef string where = recording_path.encode("utf-8", "surrogateescape")
    cdef string ring = ring_path.encode("utf-8", "surrogateescape")
    with nogil:
        report = adopt_ring(where, ring)
    return report.pages, report.events, report.dropped


def owner_alive(str ring_path):
    """Whether a living process holds the ring."""
    return RingFile.owner_alive(ring_path.encode("utf-8", "surrogateescape"))


def c_calls_here(bint on):
    """Arms or disarms the recording of C calls on the calling thread; nested calls count."""
    if backend_in_use is None:
        return False
    return arm_by_hand(on)


def figures():
    """The recorder's figures so far: a dict."""
    if ring_file == NULL:
        return {}
    return {
        "faults": hook.faults.load(),
        "dropped": ring_file.header().dropped.load(),
        "codes": next_code - 1,
        "events_saved": ring_file.header().events_saved.load(),
        "drain_cpu_ns": drain.cpu_ns(),
        "threads": hook.threads,
        "ring_bytes": ring_file.header().file_bytes,
        "backend": backend_in_use,
    }


include "hook_measures.pxi"
