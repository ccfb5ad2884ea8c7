# What probes do at each step of an event loop, as pyscope/fallback/steps.py does it in Python.

DEF MOST_LOOKS = 50  # of a wait, before its thread looks around by itself

cdef class Steps:
    """Awaits a coroutine, or what `__await__` of another awaitable returns, and adds up the CPU time of the thread
    while it really runs: `cpu_ns`, as exact as step_clock.hpp says."""
    cdef object awaited
    cdef public int64_t cpu_ns

    def __init__(self, awaited):
        self.awaited = awaited

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

    # A program that asks whether this is a coroutine gets the answer as unwatched, and sees the one that is awaited.

    @property
    def __class__(self):
        return CoroutineType

    @property
    def cr_frame(self):
        """The frame; None before it has begun and after its end."""
        return part_of(self.awaited, "cr_frame", "gi_frame")

    @property
    def cr_code(self):
        """The code object."""
        return part_of(self.awaited, "cr_code", "gi_code")

    @property
    def cr_await(self):
        """What it waits for."""
        return part_of(self.awaited, "cr_await", "gi_yieldfrom")

    @property
    def cr_running(self):
        """Whether it runs now."""
        return bool(part_of(self.awaited, "cr_running", "gi_running"))

    @property
    def cr_suspended(self):
        """Whether it has begun, and waits."""
        return bool(part_of(self.awaited, "cr_suspended", "gi_suspended"))


cdef object part_of(awaited, str of_coroutine, str of_generator):
    found = getattr(awaited, of_coroutine, None)
    return getattr(awaited, of_generator, None) if found is None else found


cdef PyObject* steps_next(PyObject* steps) noexcept:
    return next_step(<PyObject*>(<Steps>steps).awaited, &(<Steps>steps).cpu_ns)


set_next(<PyTypeObject*>Steps, steps_next)


def never_begun():
    yield


cdef enum Stage:
    NEW, ENTERED, LEFT


cdef class Entered(Steps):
    """Steps with what is to be done around them, in a class derived from this: `enter()` before the first, which
    returns what is awaited, and `leave(error)` after the last, with the exception that ended them or None."""
    cdef Stage stage

    def __init__(self):
        pass

    def __del__(self):
        self.close()

    cdef int begin(self) except -1:
        if self.stage == LEFT:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self.stage = ENTERED
        try:
            self.awaited = self.enter()
        except BaseException as error:
            self.end(error)
            raise
        return 0

    cdef int end(self, error) except -1:
        self.stage = LEFT
        self.awaited = None
        self.leave(error)
        return 0

    def __next__(self):
        """Runs until the next suspension, whose awaited object is returned."""
        return self.send(None)

    def send(self, value):
        """As `__next__`, with a value."""
        if self.stage != ENTERED:
            self.begin()
        try:
            return self.go_on(value)
        except StopIteration:
            self.end(None)
            raise
        except BaseException as error:
            self.end(error)
            raise

    def throw(self, *error):
        """As `send`, with an exception such as a cancellation; of one that has not begun nothing runs."""
        if self.stage != ENTERED:
            self.stage = LEFT
            return never_begun().throw(*error)
        try:
            return Steps.throw(self, *error)
        except StopIteration:
            self.end(None)
            raise
        except BaseException as raised:
            self.end(raised)
            raise

    def close(self):
        """Closes the coroutine where it is suspended."""
        if self.stage != ENTERED:
            self.stage = LEFT
            return
        try:
            self.awaited.close()
        finally:
            self.end(GeneratorExit())


cdef PyObject* entered_next(PyObject* itself) except? NULL:
    cdef Entered steps = <Entered>itself
    if steps.stage != ENTERED:
        steps.begin()
    awaited = steps.awaited  # lives on if it is closed meanwhile
    cdef PyObject* result = next_step(<PyObject*>awaited, &steps.cpu_ns)
    if result == NULL:
        entered_last(steps)
    return result


cdef void entered_last(Entered steps) noexcept:
    """It has returned, or raised what is set."""
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* traceback
    PyErr_Fetch(&kind, &value, &traceback)
    if kind != NULL:
        PyErr_NormalizeException(&kind, &value, &traceback)
    returned = kind == NULL or PyErr_GivenExceptionMatches(kind, <PyObject*>StopIteration)
    if not returned and traceback != NULL:
        PyException_SetTraceback(value, traceback)
    try:
        steps.end(None if returned else <object>value)
    except BaseException:
        pass
    PyErr_Restore(kind, value, traceback)


def entered(type derived):
    """A class that is derived from Entered: what Python makes of its inherited `__next__` is slower."""
    set_next(<PyTypeObject*>derived, <NextFunction>entered_next)
    return derived


cdef class LoopTimes:
    """Since when an event loop runs callbacks (0: it waits), the frame in which it was last seen to, and whether its
    selector has gone."""
    cdef public int64_t busy_ns
    cdef public object run
    cdef public bint gone

    def __init__(self):
        self.busy_ns = 0
        self.run = None
        self.gone = False


def watched_select(original, dict loops, meet, late, int64_t lag_ns):
    """A selector's `select` that notes in `loops[id(selector)][1]` when the loop comes back from it, and tells `late`
    of rounds that took longer than `lag_ns`. `meet` answers for a selector that is not in `loops`; one that has gone is
    taken out of it, and its `gone` set."""
    cdef PyObject* last_selector = NULL
    cdef LoopTimes last = None

    def select(selector, timeout=None):
        nonlocal last_selector, last
        cdef LoopTimes loop = last
        cdef int64_t busy, end
        if <PyObject*>selector != last_selector or loop.gone:
            known = loops.get(PyLong_FromVoidPtr(<void*>selector))
            if known is None:
                known = meet(selector)
            times = (<tuple>known)[1]
            if times is None:
                return original(selector, timeout)
            loop = <LoopTimes?>times
            last_selector, last = <PyObject*>selector, loop
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


cdef class LateLoops:
    """Where a thread waits, without the interpreter's lock, until an event loop is late."""
    cdef PyThread_type_lock bell

    def __cinit__(self):
        self.bell = PyThread_allocate_lock()
        if self.bell is NULL:
            raise MemoryError
        PyThread_acquire_lock(self.bell, WAIT_LOCK)

    def __dealloc__(self):
        if self.bell is not NULL:
            PyThread_free_lock(self.bell)

    def ring(self):
        """Ends a wait: whoever waits looks around anew."""
        PyThread_release_lock(self.bell)

    def wait(self, list loops, int64_t late_ns, double tick):
        """Looks every `tick` seconds at the `loops`, which are LoopTimes. True once one of them has run callbacks for
        `late_ns`; False when it is rung, or after a while."""
        cdef vector[int64_t*] busy_since
        cdef LoopTimes loop
        for loop in loops:
            busy_since.push_back(&loop.busy_ns)
        cdef long long microseconds = <long long>(tick * 1e6)
        cdef int64_t now, busy
        cdef int looks = 0
        cdef bint late = False
        cdef bint rung = False
        cdef int64_t* at
        with nogil:
            while not late and not rung and looks < MOST_LOOKS:
                looks += 1
                rung = PyThread_acquire_lock_timed(self.bell, microseconds, 0) == PY_LOCK_ACQUIRED
                now = monotonic_ns()
                for at in busy_since:
                    busy = load_relaxed(at)
                    late = late or (busy != 0 and now - busy >= late_ns)
        return late and not rung
