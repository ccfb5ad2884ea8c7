# Probes: their events, and the strings and stacks that these refer to.

MAX_TEXT = 4096  # bytes of an interned string, such as an SQL statement
cdef size_t MOST_INTERNED = 65536
cdef size_t MOST_STACKS = 262144
cdef dict interned = {}                     # str -> string id
cdef list held_codes = []                   # so that an address in `locations` stays its own
cdef unordered_map[uint64_t, unordered_map[int, uint32_t]] locations  # code object -> instruction -> id
cdef unordered_map[uint64_t, uint32_t] stacks                         # caller << 32 | location -> id
cdef uint32_t next_location = 1
cdef object scope_variable = None
cdef size_t HEAD = sizeof(ProbeHead)
DEF MOST_NUMBERS = 64
DEF MOST_TEXTS = 16


def use_scope(variable):
    """The ContextVar that holds the number of the request, message or report in hand."""
    global scope_variable
    scope_variable = variable


cdef uint64_t scope_in_hand() noexcept:
    cdef PyObject* value = NULL
    cdef int overflow = 0
    cdef long long number = 0
    if scope_variable is None or PyContextVar_Get(<PyObject*>scope_variable, NULL, &value) != 0:
        PyErr_Clear()
        return 0
    if value != NULL:
        if PyLong_CheckExact(value):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
        Py_XDECREF(value)
    return 0 if overflow else <uint64_t>number


cdef int64_t next_number = 1


def begin_numbers(int64_t first):
    """From here on `next_id` counts."""
    global next_number
    next_number = first


def next_id():
    """A number that no other call in any process of a recording returns: for scopes, attempts, objects."""
    return new_number()


cdef int64_t new_number() noexcept:
    global next_number
    next_number += 1
    return next_number - 1


def emit(uint16_t kind, *values):
    """Records an event of a probe on the calling thread, if a recording is in progress. Never raises.

    values: int, bool, None (0) and float (cut to whole) are its numbers, at most 64; str are its texts, cut to what
    is left of 4096 bytes. Other objects are a fault, counted, and become 0.
    """
    if not hook.active:
        return
    cdef uint8_t event[4096]
    cdef ProbeHead head
    cdef int64_t number
    cdef uint16_t size
    cdef Py_ssize_t length
    cdef size_t at = HEAD, room
    cdef const char* data
    cdef PyObject* texts[MOST_TEXTS]
    cdef PyObject* value
    head.kind = kind
    head.numbers = 0
    head.texts = 0
    for item in <tuple>values:
        value = <PyObject*>item
        number = 0
        if PyLong_CheckExact(value) or PyBool_Check(value):
            number = whole(item)
        elif PyUnicode_CheckExact(value):
            if head.texts == MOST_TEXTS:
                fault()
                continue
            texts[head.texts] = value
            head.texts += 1
            continue
        elif PyFloat_CheckExact(value):
            number = saturated(PyFloat_AS_DOUBLE(value))
        elif value != Py_None:
            fault()
        if head.numbers == MOST_NUMBERS:
            fault()
            continue
        memcpy(event + at, &number, 8)
        at += 8
        head.numbers += 1
    head.scope = scope_in_hand()
    cdef size_t body = at
    cdef uint16_t i
    cdef string replaced
    for i in range(head.texts):
        length = 0
        data = PyUnicode_AsUTF8AndSize(texts[i], &length)
        if data == NULL:  # lone surrogates
            PyErr_Clear()
            replaced = utf8(texts[i])
            data = replaced.data()
            length = <Py_ssize_t>replaced.size()
        room = MAX_PAYLOAD - at - 2 * <size_t>(head.texts - i)
        size = <uint16_t>min(<size_t>length, room)
        memcpy(event + at, &size, 2)
        memcpy(event + at + 2, data, size)
        at += 2 + size
    head.text_bytes = <uint16_t>(at - body)
    memcpy(event, &head, HEAD)
    emit_probe(event, at)


cdef int64_t whole(value) noexcept:
    """An int as a number of an event: one of more than 64 bits is hashed."""
    cdef int overflow = 0
    cdef int64_t number = PyLong_AsLongLongAndOverflow(<PyObject*>value, &overflow)
    if overflow:
        number = <int64_t>hash(value)
    return number


cdef void emit_numbers(uint16_t kind, const int64_t* numbers, uint16_t count) noexcept:
    """As `emit`, for numbers alone that are no Python objects; at most 64."""
    cdef uint8_t event[1024]
    cdef ProbeHead head
    head.kind = kind
    head.numbers = count
    head.texts = 0
    head.text_bytes = 0
    head.scope = scope_in_hand()
    memcpy(event, &head, HEAD)
    memcpy(event + HEAD, numbers, 8 * count)
    emit_probe(event, HEAD + 8 * count)


DEF SCOPE_BEGIN_NUMBERS = 4
DEF SCOPE_END_NUMBERS = 7


def begin_scope(uint16_t event, str kind, str name):
    """A scope begins in the one that is in hand, and is it from now on. Returns their numbers; None if no native
    recording is in progress. `event`: the event's kind."""
    if not hook.active or scope_variable is None:
        return None
    cdef int64_t numbers[SCOPE_BEGIN_NUMBERS]
    cdef int64_t number = new_number()
    cdef uint64_t around = scope_in_hand()
    put_in_hand(number)
    numbers[0] = number
    numbers[1] = <int64_t>around
    numbers[2] = intern_string(kind)
    numbers[3] = intern_string(name)
    emit_numbers(event, numbers, SCOPE_BEGIN_NUMBERS)
    return number, around


def end_scope(uint16_t event, int64_t number, around, int64_t duration, int64_t cpu, status, str route, str outcome, str error):
    """A scope ends; if it is still in hand (a collected generator runs in another context than it began in), `around`
    is from now on. False if no native recording is in progress."""
    if not hook.active or scope_variable is None:
        return False
    cdef int64_t numbers[SCOPE_END_NUMBERS]
    numbers[0] = number
    numbers[1] = duration
    numbers[2] = cpu
    numbers[3] = whole(status) if isinstance(status, int) else 0
    numbers[4] = intern_string(route) if route else 0
    numbers[5] = intern_string(outcome)
    numbers[6] = intern_string(error) if error else 0
    emit_numbers(event, numbers, SCOPE_END_NUMBERS)
    if scope_in_hand() == <uint64_t>number:
        put_in_hand(around)
    return True


cdef int put_in_hand(number) except -1:
    Py_XDECREF(PyContextVar_Set(<PyObject*>scope_variable, <PyObject*>number))
    return 0


cdef int64_t saturated(double value) noexcept:
    if not (-9.2e18 < value < 9.2e18):
        return 0 if value != value else (9_200_000_000_000_000_000 if value > 0 else -9_200_000_000_000_000_000)
    return <int64_t>value


def intern_string(text):
    """The id of a string for an event's fields of that kind; 0 when nothing is recorded or there is no room."""
    cdef bytes data
    found = interned.get(text)
    if found is not None:
        return found
    if not hook.active or type(text) is not str:
        return 0
    if interned.__len__() >= MOST_INTERNED:
        return 0
    data = (<str>text).encode("utf-8", "replace")[:MAX_TEXT]
    identity = intern(data)
    if identity:
        interned[text] = identity
    return identity


cdef uint32_t location_of(PyCodeObject* code, int offset) except? 0:
    """The id of the line that an instruction of a code object belongs to; 0 when the table is full."""
    global next_location
    cdef unordered_map[uint64_t, unordered_map[int, uint32_t]].iterator known = locations.find(<uint64_t>code)
    cdef unordered_map[int, uint32_t].iterator found
    cdef LocationRecord record
    if known == locations.end():
        held_codes.append(<object>code)
    else:
        found = cython.operator.dereference(known).second.find(offset)
        if found != cython.operator.dereference(known).second.end():
            return cython.operator.dereference(found).second
    record.header.length = sizeof(LocationRecord)
    record.header.type = RECORD_LOCATION
    record.header.reserved = 0
    record.id = next_location
    record.file = intern(utf8(code.co_filename))
    record.function = intern(utf8(code.co_qualname))
    record.line = <uint32_t>max(0, PyCode_Addr2Line(code, offset))
    if not ring_file.append_record(&record, sizeof(record)):
        return 0
    next_location += 1
    locations[<uint64_t>code][offset] = record.id
    return record.id


cdef uint32_t stack_of(uint32_t caller, uint32_t location) except? 0:
    cdef uint64_t key = <uint64_t>caller << 32 | location
    cdef unordered_map[uint64_t, uint32_t].iterator found = stacks.find(key)
    cdef StackRecord record
    if found != stacks.end():
        return cython.operator.dereference(found).second
    if stacks.size() >= MOST_STACKS:
        return 0
    record.header.length = sizeof(StackRecord)
    record.header.type = RECORD_STACK
    record.header.reserved = 0
    record.id = <uint32_t>stacks.size() + 1
    record.caller = caller
    record.location = location
    record.reserved = 0
    if not ring_file.append_record(&record, sizeof(record)):
        return 0
    stacks[key] = record.id
    return record.id


DEF MOST_FRAMES = 64

# The user's own frames of a stack, innermost first, each as its code object and the instruction in hand.
cdef struct Place:
    PyCodeObject* code
    uint64_t offset

cdef struct Places:
    Place found[MOST_FRAMES]
    int count


cdef void user_frames(Frame* frame, Places* places, int limit) noexcept:
    """Adds the user's own frames from `frame` outward, up to `limit` in all."""
    cdef int steps = 0
    while frame != NULL and places.count < limit and steps < 1000:
        if is_user_frame(frame):
            places.found[places.count].code = frame_code(frame)
            places.found[places.count].offset = <uint64_t>instruction_offset(frame)
            places.count += 1
        frame = caller_of(frame)
        steps += 1


def call_stack(int limit=32, outer=None):
    """The id of the calling stack, the user's own frames only, at most `limit` (up to 64) of the innermost.

    A greenlet goes on in the one that it was started from. outer: a frame object to begin at instead. 0 when nothing
    is recorded, there are no such frames, or there is no room for a name. Never raises.
    """
    if not hook.active or ring_file == NULL:
        return 0
    cdef int most = max(1, min(limit, MOST_FRAMES))
    if outer is None:
        return stack_here(most)
    cdef Places places
    places.count = 0
    user_frames(frame_of(<PyObject*>outer), &places, most)
    return stack_at(&places)


cdef uint32_t stack_here(int most) noexcept:
    """The id of the calling stack, its `most` innermost frames."""
    cdef Places places
    places.count = 0
    user_frames(current_frame(current_thread()), &places, most)
    try:
        if greenlet_module is not None and places.count < most:
            outer_greenlets(&places, most)
    except BaseException:
        fault()
        return 0
    return stack_at(&places)


cdef object frames_of_threads = sys._current_frames


def current_frames():
    """`sys._current_frames()`, in which nothing is collected meanwhile: before 3.11.9 a collection there can stop the
    program for good (python/cpython#106883). No other thread runs in between."""
    cdef int collects = PyGC_Disable()
    try:
        return frames_of_threads()
    finally:
        if collects:
            PyGC_Enable()


# Whole stacks, by a hash of their places: what was seen before is found with one look. The code objects in it live on in
# `held_codes`, so their addresses stay their own.
cdef cppclass WholeStack:
    uint32_t id
    vector[Place] places

cdef unordered_map[uint64_t, WholeStack] whole_stacks
cdef size_t MOST_WHOLE = 16384


cdef uint32_t stack_at(Places* places) noexcept:
    cdef uint64_t key = 0
    cdef int i
    for i in range(places.count):
        key = mixed_in(key, <uint64_t>places.found[i].code ^ places.found[i].offset << 48)
    cdef unordered_map[uint64_t, WholeStack].iterator known = whole_stacks.find(key)
    cdef size_t size = sizeof(Place) * <size_t>places.count
    cdef WholeStack* whole
    if known != whole_stacks.end():
        whole = &cython.operator.dereference(known).second
        if whole.places.size() * sizeof(Place) == size and not memcmp(whole.places.data(), places.found, size):
            return whole.id
    cdef uint32_t location, stack = 0
    try:
        for i in range(places.count - 1, -1, -1):
            location = location_of(places.found[i].code, <int>places.found[i].offset)
            if location:
                stack = stack_of(stack, location)
        if stack:
            if whole_stacks.size() >= MOST_WHOLE:
                whole_stacks.clear()
            whole = &whole_stacks[key]
            whole.id = stack
            whole.places.assign(places.found, places.found + places.count)
    except BaseException:
        fault()
        return 0
    return stack


cdef int outer_greenlets(Places* places, int most) except -1:
    if hook.current_greenlet == NULL:
        find_greenlet()
        if hook.current_greenlet == NULL:  # still being imported
            return 0
    cdef PyObject* here = hook.current_greenlet()
    if here == NULL:
        PyErr_Clear()
        return 0
    current = <object>here
    Py_XDECREF(here)
    outer = greenlet_parent(current)
    while outer is not None and places.count < most:
        frame = outer.gr_frame
        if frame is not None:
            user_frames(frame_of(<PyObject*>frame), places, most)
        outer = greenlet_parent(outer)
    return 0
