# What probes do at each step of an event loop, as pyscope/fallback/steps.py does it in Python.

cdef class Steps:
    """Awaits a coroutine, or what `__await__` of another awaitable returns, and adds up the CPU time of the thread
    while it really runs: `cpu_ns`, as exact as step_clock.hpp says."""
    cdef object awaited
    cdef public int64_t cpu_ns

    def __cinit__(self, awaited):
        self.awaited = awaited
        self.cpu_ns = 0

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Runs until the next suspension, whose awaited object is returned."""
        return self.go_on(None)

    def send(self, value):
        """As `__next__`, with a value."""
        return self.go_on(value)

    cdef object go_on(self, value):
        cdef PyObject* result = NULL
        cdef int how
        cdef StepBegin began = begin_step()
        try:
            how = PyIter_Send(self.awaited, value, &result)
        finally:
            self.cpu_ns += end_step(began)
        answer = <object>result
        Py_XDECREF(result)
        if how == PYGEN_RETURN:
            raise StopIteration(answer)
        return answer

    def throw(self, *error):
        """As `send`, with an exception such as a cancellation."""
        cdef StepBegin began = begin_step()
        try:
            return self.awaited.throw(*error)
        finally:
            self.cpu_ns += end_step(began)

    def close(self):
        """Closes the coroutine where it is suspended."""
        self.awaited.close()


cdef class LoopTimes:
    """Since when an event loop runs callbacks (0: it waits), and the frame in which it was last seen to."""
    cdef public int64_t busy_ns
    cdef public object run

    def __init__(self):
        self.busy_ns = 0
        self.run = None


def watched_select(original, dict loops, meet, late, int64_t lag_ns):
    """A selector's `select` that notes in `loops[id(selector)][1]` when the loop comes back from it, and tells `late`
    of rounds that took longer than `lag_ns`. `meet` answers for a selector that is not in `loops`."""

    def select(selector, timeout=None):
        cdef LoopTimes loop
        cdef int64_t busy, end
        known = loops.get(PyLong_FromVoidPtr(<void*>selector))
        if known is None:
            known = meet(selector)
        times = (<tuple>known)[1]
        if times is None:
            return original(selector, timeout)
        loop = <LoopTimes>times
        busy = loop.busy_ns
        if busy:
            end = monotonic_ns()
            loop.busy_ns = 0
            run = loop.run
            loop.run = None
            if end - busy >= lag_ns:
                late(loop, end - busy, end, run)
        try:
            return original(selector, timeout)
        finally:
            loop.busy_ns = monotonic_ns()

    return select
