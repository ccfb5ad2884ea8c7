# What the governor (pyscope/governor.py) works with under a budget: counts by code id, quieting and arming of single
# code objects, the frame hook taken out for a while, the rows that say what was quieted.

cdef bint governing = False
cdef list governed = []               # by code id: a weak reference to a code object that may be quieted, else None
cdef Py_ssize_t governed_swept_at = 1024
cdef list keep_globs = []             # of modules, or of functions as module.qualname
cdef EventCounts* event_counts = NULL
cdef vector[uint64_t] quieting_places  # by id of the record: where it stands in the table


cdef int begin_governing(keep) except -1:
    """Before the first code object is resolved."""
    global governing, keep_globs, event_counts, governed_swept_at
    governing = keep is not None
    governed_swept_at = 1024
    governed.clear()
    governed.append(None)
    quieting_places.clear()
    if not governing:
        return 0
    keep_globs = [glob.encode() for glob in keep]
    event_counts = new EventCounts()
    ring_file.count_events(event_counts)
    return 0


cdef void end_governing() noexcept:
    """The ring file is closed by now, or given up."""
    global governing, event_counts
    governing = False
    governed.clear()
    if event_counts != NULL:
        del event_counts
        event_counts = NULL


cdef bint is_kept(const string& module, const string& function) noexcept:
    for glob in keep_globs:
        if fnmatch(<const char*><bytes>glob, module.c_str(), 0) == 0:
            return True
        if fnmatch(<const char*><bytes>glob, function.c_str(), 0) == 0:
            return True
    return False


cdef int govern(PyCodeObject* code, uint64_t value, const string& module, const string& qualname) except -1:
    """Remembers a selected code object, under its id, so that it can be quieted."""
    global governed_swept_at
    cdef uint64_t identity = value >> CODE_SHIFT & MAX_CODE
    cdef string function = module
    function.append(b".")
    function.append(qualname)
    if identity == 0 or identity < <uint64_t>len(governed):
        return 0
    if len(governed) >= governed_swept_at:  # a program may generate code all the time
        governed[:] = [None if reference is None or reference() is None else reference for reference in governed]
        governed_swept_at = 2 * len(governed)
    governed.extend([None] * (identity - len(governed)))
    if is_kept(module, function):
        governed.append(None)
        return 0
    governed.append(new_weak_reference(<object>code, NULL))
    return 0


def event_totals():
    """What was recorded of each function since the last call: a list of (code id, events, calls, calls of a leaf, whether it
    may be quieted), only of those that had any."""
    cdef list found = []
    cdef EventCount count
    cdef size_t code, end = min(<size_t>next_code, event_counts.kCodes) if event_counts != NULL else 0
    if end:
        count_all_rings()
    for code in range(end):
        count = event_counts.take(code)
        if count.events:
            found.append((code, count.events, count.calls, count.leaves,
                          code < <size_t>len(governed) and governed[code] is not None))
    return found


cdef bint change_selection(size_t identity, bint on) except -1:
    cdef PyCodeObject* code
    cdef uint64_t value
    reference = governed[identity] if identity < <size_t>len(governed) else None
    held = None if reference is None else reference()
    if held is None:
        return False
    code = <PyCodeObject*>held
    value = decision(code)
    if value >> 32 != hook.generation or not value & (QUIETED if on else SELECTED):
        return False
    value ^= SELECTED | QUIETED
    if SET_CODE_EXTRA(<PyObject*>code, hook.extra_index, <void*>value) != 0:
        raise MemoryError
    if monitoring_tool >= 0 and not frame_company:
        set_local_events(monitoring_tool, held, local_events if on else 0)
        if not on:
            mark_quieted(<uint32_t>identity)
    return True


def quiet(codes):
    """Disarms functions, by their ids: their calls are not recorded until `arm`. The ids of those that were armed.

    Calls that are open end here, as cut, but for those under the frame hook, which sees their ends.
    """
    if not hook.active or not governing:
        return []
    return [identity for identity in codes if change_selection(identity, False)]


def arm(codes):
    """Undoes `quiet`. The ids of those that were quiet."""
    if not hook.active or not governing:
        return []
    return [identity for identity in codes if change_selection(identity, True)]


def hold_out(bint out):
    """Takes the frame hook out for a while, or puts it back. Whether that was done."""
    return hook.active and governing and hold_out_eval(out)


def frames():
    """How many frames have come by the frame hook, recorded or not."""
    return hook.frames


def set_window(bint is_open):
    """Opens or closes a window in which C calls are recorded, on every thread."""
    if hook.active:
        hook.window.store(1 if is_open else 0)
        change_windows()


def note_quieting(uint32_t identity, uint32_t code, uint64_t first, uint64_t last, uint64_t calls, uint64_t low,
                  uint64_t high, uint32_t windows):
    """Writes what is known of one quieting, over what was known before. `first` and `last` are readings of `now`."""
    cdef QuietingRecord record
    if ring_file == NULL:
        return
    record.header.length = sizeof(QuietingRecord)
    record.header.type = RECORD_QUIETING
    record.header.reserved = 0
    record.id, record.code = identity, code
    record.first_ticks, record.last_ticks = first, last
    record.calls, record.low, record.high = calls, low, high
    record.windows, record.reserved = windows, 0
    if quieting_places.size() <= identity:
        quieting_places.resize(identity + 1)
    if not ring_file.replace_record(quieting_places[identity], &record, sizeof(record)):
        fault()


def now():
    """A reading of the recording's clock."""
    return ticks()


# --- calibration ----------------------------------------------------------------------------------

DEF CALIBRATING_CALLS = 200


cdef double fastest(loop, call) except -1:
    """Nanoseconds of one call."""
    cdef int64_t before, best = 1 << 60
    cdef int attempt
    for attempt in range(5):
        before = monotonic_ns()
        loop(call)
        best = min(best, monotonic_ns() - before)
    return <double>best / CALIBRATING_CALLS


def calibrate(str backend):
    """What an event of the backend costs here: (ns of the mechanism, ns of the record). Takes some 100 microseconds.

    Raises RuntimeError while a recording is in progress.
    """
    cdef int64_t before, best = 1 << 60
    cdef volatile uint64_t unread
    cdef int i
    cdef double bare, hooked
    if ring_file != NULL or backend_in_use is not None:
        raise RuntimeError("a recording is in progress")
    scope = {}
    exec(  # Python code of its own: what stands here is not seen by any hook
        f"def called(): pass\ndef calling(call):\n for _ in range({CALIBRATING_CALLS}): call()", scope
    )
    loop, call = scope["calling"], scope["called"]
    loop(call)
    bare = fastest(loop, call)
    hooked = bare
    if backend == "monitoring":
        hooked = fastest_monitored(loop, call)
    elif backend == "frame" and not foreign_eval():
        install_eval(eval_frame_empty)
        try:
            hooked = fastest(loop, call)
        finally:
            remove_eval()
    for attempt in range(5):
        before = monotonic_ns()
        for i in range(CALIBRATING_CALLS):
            unread = ticks()
        best = min(best, monotonic_ns() - before)
    # Two events a call. The clock is most of what a record takes; the rest is a few stores.
    return max(0.0, hooked - bare) / 2, <double>best / CALIBRATING_CALLS * 1.25 + 2.0


cdef double fastest_monitored(loop, call) except -1:
    monitoring = sys.monitoring
    events = monitoring.events
    tool = free_tool_id()
    if tool is None:
        return fastest(loop, call)
    monitoring.use_tool_id(tool, "pyscope")
    try:
        monitoring.register_callback(tool, events.PY_START, make_callback(EVENT_START, CALLBACK_EMPTY))
        monitoring.register_callback(tool, events.PY_RETURN, make_callback(EVENT_RETURN, CALLBACK_EMPTY))
        monitoring.set_local_events(tool, call.__code__, events.PY_START | events.PY_RETURN)
        loop(call)
        return fastest(loop, call)
    finally:
        monitoring.set_local_events(tool, call.__code__, 0)
        monitoring.register_callback(tool, events.PY_START, None)
        monitoring.register_callback(tool, events.PY_RETURN, None)
        monitoring.free_tool_id(tool)
