# For `doctor` and the benchmarks: the clock, and hooks that do nothing.

def clock():
    """The clock in use: {"kind", "tick_ns", "read_ns"}; read_ns is the cost of one reading, measured now."""
    cdef ClockPair first = read_clock_pair()
    cdef uint64_t sink = 0
    cdef int i
    cdef int64_t before, after, best = 1 << 60
    cdef int attempt
    for attempt in range(5):
        before = monotonic_ns()
        for i in range(100_000):
            sink += ticks()
        after = monotonic_ns()
        best = min(best, after - before)
    cdef ClockPair last = read_clock_pair()
    kinds = {1: "tsc", 2: "virtual counter", 3: "CLOCK_MONOTONIC"}
    return {"kind": kinds[<int>clock_kind()], "tick_ns": tick_ns(first, last), "read_ns": best / 100_000, "sink": sink & 1}


def catch_up():
    """Waits until the drain thread has written the pages that are full now, so that its work can be told apart."""
    with nogil:
        lock_life()
        if drain != NULL:
            drain.catch_up(10.0)
        unlock_life()


def install_empty(str backend):
    """Installs a hook of the backend that does nothing: the floor of the benchmarks."""
    if ring_file != NULL or backend_in_use is not None:
        raise RuntimeError("a recording is in progress")
    if backend == "monitoring":
        install_monitoring(True, CALLBACK_EMPTY)
    elif backend == "frame":
        install_eval(eval_frame_empty)
    elif backend == "setprofile":
        arm_all_threads(profile_nothing)
    else:
        raise ValueError(backend)


def remove_empty(str backend):
    """Undoes `install_empty`."""
    remove(backend)
