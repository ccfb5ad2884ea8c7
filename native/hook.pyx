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
from libc.string cimport memcpy, memset, strlen, strncpy
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

import sys

from pyscope.errors import BackendUnavailable

include "hook_declarations.pxi"


# --- the recording in hand ------------------------------------------------------------------------

cdef RingFile* ring_file = NULL
cdef RecordingFile* recording_file = NULL
cdef Drain* drain = NULL
cdef str backend_in_use = None
cdef bint flight_mode = False

# Names: strings are stored once; code objects, C functions and exception types refer to them.
cdef unordered_map[string, uint32_t] string_ids
cdef unordered_map[uint64_t, uint32_t] exception_ids    # type object -> id; the type is held, so its address stays its own
cdef list held_types = []
cdef unordered_map[uint64_t, uint32_t] c_function_ids   # PyMethodDef* -> id
cdef uint32_t next_code = 1
cdef uint64_t unnamed = 0

# Direct-mapped caches before the maps.
DEF CACHE = 4096
cdef uint64_t c_cache_key[CACHE]
cdef uint32_t c_cache_id[CACHE]
cdef uint64_t x_cache_key[CACHE]
cdef uint32_t x_cache_id[CACHE]


cdef inline uint32_t slot(uint64_t address) noexcept nogil:
    return <uint32_t>((address >> 4) ^ (address >> 16)) & (CACHE - 1)


cdef void forget_names() noexcept:
    global next_code, next_location, unnamed
    string_ids.clear()
    interned.clear()
    locations.clear()
    stacks.clear()
    held_codes.clear()
    exception_ids.clear()
    c_function_ids.clear()
    memset(c_cache_key, 0, sizeof(c_cache_key))
    memset(x_cache_key, 0, sizeof(x_cache_key))
    next_code = next_location = 1
    unnamed = 0


cdef uint32_t intern(string text) noexcept:
    """The id of a string in the table, 0 when the table is full."""
    cdef unordered_map[string, uint32_t].iterator found = string_ids.find(text)
    if found != string_ids.end():
        return cython.operator.dereference(found).second
    cdef StringRecord record
    cdef uint32_t identity = <uint32_t>string_ids.size() + 1
    cdef size_t total = (sizeof(StringRecord) + text.size() + 7) & ~<size_t>7
    cdef vector[uint8_t] buffer
    buffer.resize(total)
    record.header.length = <uint32_t>total
    record.header.type = RECORD_STRING
    record.header.reserved = 0
    record.id = identity
    record.bytes = <uint32_t>text.size()
    memcpy(buffer.data(), &record, sizeof(record))
    memcpy(buffer.data() + sizeof(record), text.data(), text.size())
    if not ring_file.append_record(buffer.data(), total):
        return 0
    string_ids[text] = identity
    return identity


cdef string utf8(PyObject* text) noexcept:
    """The UTF-8 of an exact str (bounded), empty for anything else."""
    cdef string out
    cdef Py_ssize_t size = 0
    cdef const char* data
    if text == NULL or not PyUnicode_CheckExact(text):
        return out
    data = PyUnicode_AsUTF8AndSize(text, &size)
    if data != NULL:
        out.assign(data, min(size, 1024))
        return out
    PyErr_Clear()  # lone surrogates
    cdef PyObject* encoded = PyUnicode_AsEncodedString(text, "utf-8", "replace")
    if encoded == NULL:
        PyErr_Clear()
        return out
    out.assign(PyBytes_AS_STRING(encoded), min(PyBytes_GET_SIZE(encoded), 1024))
    Py_XDECREF(encoded)
    return out


cdef uint32_t new_code(string module, string qualname, string file, uint32_t line, uint16_t arity, uint16_t flags) noexcept:
    """A new code id with its record; 0 (unnamed) when the ids or the table are exhausted."""
    global next_code, unnamed
    cdef CodeRecord record
    if next_code > MAX_CODE:
        unnamed += 1
        return 0
    record.header.length = sizeof(CodeRecord)
    record.header.type = RECORD_CODE
    record.header.reserved = 0
    record.id = next_code
    record.module = intern(module)
    record.qualname = intern(qualname)
    record.file = intern(file)
    record.line = line
    record.arity = arity
    record.flags = flags
    if not ring_file.append_record(&record, sizeof(record)):
        unnamed += 1
        return 0
    next_code += 1
    return record.id


# --- probes: their events, and the strings and stacks that these refer to -------------------------

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
    cdef int overflow
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
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                number = <int64_t>(<uint64_t>hash(item))
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


cdef uint32_t location_of(Frame* frame) except? 0:
    """The id of the line that a frame is at; 0 when the table is full."""
    global next_location
    cdef PyCodeObject* code = frame_code(frame)
    cdef int offset = instruction_offset(frame)
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


cdef int user_frames(Frame* frame, uint32_t* found, int count, int limit) except -1:
    """Locations of the user's own frames from `frame` outward, behind the first `count`. Returns how many now."""
    cdef int steps = 0
    while frame != NULL and count < limit and steps < 1000:
        if is_python_frame(frame) and is_user_frame(frame):
            found[count] = location_of(frame)
            count += 1
        frame = caller_of(frame)
        steps += 1
    return count


DEF MOST_FRAMES = 64


def call_stack(int limit=32, outer=None):
    """The id of the calling stack, the user's own frames only, at most `limit` (up to 64) of the innermost.

    A greenlet goes on in the one that it was started from. outer: a frame object to begin at instead. 0 when nothing
    is recorded, there are no such frames, or there is no room for a name. Never raises.
    """
    if not hook.active or ring_file == NULL:
        return 0
    cdef uint32_t found[MOST_FRAMES]
    cdef int count, most = max(1, min(limit, MOST_FRAMES))
    cdef uint32_t stack = 0
    try:
        if outer is not None:
            count = user_frames(frame_of(<PyObject*>outer), found, 0, most)
        else:
            count = user_frames(current_frame(current_thread()), found, 0, most)
            if greenlet_module is not None and count < most:
                count = outer_greenlets(found, count, most)
        while count > 0:
            count -= 1
            if found[count]:
                stack = stack_of(stack, found[count])
    except BaseException:
        fault()
        return 0
    return stack


cdef int outer_greenlets(uint32_t* found, int count, int most) except -1:
    getcurrent = getattr(greenlet_module, "getcurrent", None)
    if getcurrent is None:  # still being imported
        return count
    outer = getcurrent().parent
    while outer is not None and count < most:
        frame = outer.gr_frame
        if frame is not None:
            count = user_frames(frame_of(<PyObject*>frame), found, count, most)
        outer = outer.parent
    return count


# --- selection: decided once for each code object -------------------------------------------------

cdef vector[string] include_globs, exclude_globs, library_prefixes
cdef vector[uint8_t] include_matched
cdef bint keep_passed = False
cdef bint select_default = True      # everything but the standard library and site-packages
cdef bint select_own = False         # PyScope's own modules were asked for
cdef unordered_map[string, uint8_t] module_decisions


cdef bint is_library(const string& file) noexcept:
    cdef size_t i
    if file.size() and file[0] == b"<" and file.compare(0, 7, b"<frozen") == 0:
        return True
    for i in range(library_prefixes.size()):
        if file.compare(0, library_prefixes[i].size(), library_prefixes[i]) == 0:
            return True
    return False


cdef bint selects_module(const string& module) noexcept:
    """By the globs alone; what they match is noted for the warning about globs that matched nothing."""
    cdef unordered_map[string, uint8_t].iterator found = module_decisions.find(module)
    if found != module_decisions.end():
        return cython.operator.dereference(found).second != 0
    cdef bint chosen = select_default
    cdef size_t i
    for i in range(include_globs.size()):
        if fnmatch(include_globs[i].c_str(), module.c_str(), 0) == 0:
            include_matched[i] = 1
            chosen = True
    for i in range(exclude_globs.size()):
        if fnmatch(exclude_globs[i].c_str(), module.c_str(), 0) == 0:
            chosen = False
    if not select_own and (module == b"pyscope" or module.compare(0, 8, b"pyscope.") == 0):
        chosen = False
    module_decisions[module] = chosen
    return chosen


cdef uint16_t arity_of(PyCodeObject* code) noexcept:
    cdef int count = code.co_argcount + code.co_kwonlyargcount
    cdef PyObject* first
    if code.co_argcount > 0:
        first = code_first_parameter(code)
        if first != NULL:
            if PyUnicode_CompareWithASCIIString(first, "self") == 0 or PyUnicode_CompareWithASCIIString(first, "cls") == 0:
                count -= 1
            Py_XDECREF(first)
    return <uint16_t>count


cdef uint64_t resolve(PyCodeObject* code, Frame* frame) noexcept:
    """Decides about a code object and caches the decision on it."""
    cdef ErrorGuard* guard = new ErrorGuard()
    cdef uint64_t value = RESOLVED
    cdef uint16_t flags = 0
    cdef string module, file
    cdef PyObject* name
    cdef bint library
    try:
        name = PyDict_GetItemString(frame_globals(frame), "__name__") if frame != NULL and frame_globals(frame) != NULL else NULL
        module = utf8(name)
        file = utf8(code.co_filename)
        if module == b"greenlet":
            note_greenlet()
        library = is_library(file)
        if not library and module != b"pyscope" and module.compare(0, 8, b"pyscope.") != 0:
            value |= USER
        if selects_module(module) and not (select_default and library):
            value |= SELECTED
            if code.co_flags & CO_GENERATOR:
                flags |= FLAG_GENERATOR
            if code.co_flags & CO_COROUTINE:
                flags |= FLAG_COROUTINE
            if code.co_flags & CO_ASYNC_GENERATOR:
                flags |= FLAG_ASYNC_GENERATOR
            if flags:
                value |= SUSPENDS
            if flags & (FLAG_COROUTINE | FLAG_ASYNC_GENERATOR):
                value |= AWAITS
            value |= <uint64_t>new_code(module, utf8(code.co_qualname), file, <uint32_t>code.co_firstlineno,
                                        arity_of(code), flags) << CODE_SHIFT
            if frame_company and not flags and PyUnicode_CompareWithASCIIString(code.co_name, "__init__") == 0:
                value = value & ~<uint64_t>SELECTED | WATCHED
        value |= <uint64_t>hook.generation << 32
        if SET_CODE_EXTRA(<PyObject*>code, hook.extra_index, <void*>value) != 0:
            PyErr_Clear()
            fault()
        if monitoring_tool >= 0 and not (monitoring_everything and value & SELECTED):
            watch_code(code, value)
        elif keep_passed and not value & (SELECTED | WATCHED):
            let_pass(code)
    except BaseException:  # MemoryError at worst: this code object is not recorded
        PyErr_Clear()
        fault()
    del guard
    return value


cdef list fault_notes = []  # where the first faults arose
DEF MOST_NOTES = 8


cdef void fault() noexcept:
    """Counts an internal fault, and notes the first few: the exception's type and the line of this file."""
    hook.faults.fetch_add(1)
    try:
        if len(fault_notes) < MOST_NOTES:
            kind, _, traceback = sys.exc_info()
            while traceback is not None and traceback.tb_next is not None:
                traceback = traceback.tb_next
            line = 0 if traceback is None else traceback.tb_lineno
            fault_notes.append(f"{'a bad value' if kind is None else type.__dict__['__name__'].__get__(kind)} at {line}")
    except BaseException:
        pass


# --- C functions, exceptions, threads -------------------------------------------------------------

cdef uint32_t c_function(PyObject* function) noexcept:
    cdef PyMethodDef* method = method_def(function)
    cdef uint64_t key = <uint64_t>method if method != NULL else <uint64_t>Py_TYPE(function)
    cdef uint32_t at = slot(key)
    if c_cache_key[at] == key:
        return c_cache_id[at]
    cdef unordered_map[uint64_t, uint32_t].iterator found = c_function_ids.find(key)
    cdef uint32_t identity
    cdef string module, qualname
    cdef PyObject* owner
    cdef const char* name
    cdef ErrorGuard* guard
    if found != c_function_ids.end():
        identity = cython.operator.dereference(found).second
    else:
        guard = new ErrorGuard()
        if method != NULL:
            owner = method_self(function)
            if owner == NULL:
                module.assign(b"builtins")
            elif PyModule_Check(owner):
                name = PyModule_GetName(owner)
                if name != NULL:
                    module.assign(name)
                PyErr_Clear()
            elif PyType_Check(owner):
                split_type_name(<PyTypeObject*>owner, &module, &qualname)
            else:
                split_type_name(Py_TYPE(owner), &module, &qualname)
            if qualname.size():
                qualname.append(b".")
            qualname.append(method.ml_name)
        else:
            split_type_name(Py_TYPE(function), &module, &qualname)
        identity = new_code(module, qualname, string(b""), 0, 0, FLAG_C_FUNCTION)
        c_function_ids[key] = identity
        del guard
    c_cache_key[at] = key
    c_cache_id[at] = identity
    return identity


cdef void split_type_name(PyTypeObject* cls, string* module, string* qualname) noexcept:
    """`tp_name` of a static type is dotted; of a heap type it is bare and the module stands in its dict."""
    cdef string full = string(cls.tp_name)
    cdef size_t dot = full.rfind(b".")
    cdef PyObject* name
    if dot < full.size():
        module.assign(full.substr(0, dot))
        qualname.assign(full.substr(dot + 1))
        return
    qualname.assign(full)
    module.assign(b"builtins")
    if is_heap_type(cls) and cls.tp_dict != NULL:
        name = PyDict_GetItemString(cls.tp_dict, "__module__")
        if name != NULL and PyUnicode_CheckExact(name):
            module[0] = utf8(name)
        qualname[0] = utf8(heap_type_qualname(cls))


cdef uint32_t exception(PyTypeObject* cls) noexcept:
    cdef uint64_t key = <uint64_t>cls
    if key == 0:
        return 0
    cdef uint32_t at = slot(key)
    if x_cache_key[at] == key:
        return x_cache_id[at]
    cdef unordered_map[uint64_t, uint32_t].iterator found = exception_ids.find(key)
    cdef uint32_t identity
    cdef ExceptionRecord record
    cdef string module, qualname
    cdef ErrorGuard* guard
    if found != exception_ids.end():
        identity = cython.operator.dereference(found).second
    elif not hook.active or ring_file == NULL or exception_ids.size() >= MAX_EXCEPTION:
        return 0
    else:
        guard = new ErrorGuard()
        split_type_name(cls, &module, &qualname)
        module.append(b".")
        module.append(qualname)
        identity = <uint32_t>exception_ids.size() + 1
        record.header.length = sizeof(record)
        record.header.type = RECORD_EXCEPTION
        record.header.reserved = 0
        record.id = identity
        record.name = intern(module)
        try:
            held_types.append(<object>cls)
            if not ring_file.append_record(&record, sizeof(record)):
                identity = 0
            exception_ids[key] = identity
        except BaseException:
            fault()
            identity = 0
        del guard
    x_cache_key[at] = key
    x_cache_id[at] = identity
    return identity


cdef void new_thread(ThreadRing* ring, Frame* first) noexcept:
    name_thread(ring, first)
    if greenlet_module is not None:
        trace_greenlets(ring)


cdef void name_thread(ThreadRing* ring, Frame* frame) noexcept:
    """The name of the threading.Thread that runs here, also before it has registered itself."""
    cdef PyObject* found = NULL
    cdef string name
    cdef PyCodeObject* code
    try:
        threading = sys.modules.get("threading")
        if threading is None:  # so nobody has started a thread
            if is_main_thread():
                ring.set_name(b"MainThread")
            return
        thread = threading._active.get(PyThread_get_thread_ident())
        if thread is None:
            code = frame_code(frame) if frame != NULL else NULL
            if code != NULL and utf8(code.co_name) == b"_bootstrap":
                found = first_local(frame)
                if found != NULL:
                    thread = <object>found
        if isinstance(thread, threading.Thread):
            text = object.__getattribute__(thread, "_name")
            name = utf8(<PyObject*>text)
            ring.set_name(name.c_str())
    except BaseException:
        fault()


# --- contexts: asyncio tasks and greenlets --------------------------------------------------------

cdef cppclass ContextEntry:
    uint64_t serial
    uint64_t defined     # the ring's page order when the name was last written
    PyObject* reference  # weak reference: an address may be used again

cdef unordered_map[uint64_t, ContextEntry] contexts
cdef uint64_t next_context = 1
cdef size_t sweep_at = 1024
cdef object running_loop_function = None
cdef object task_get_name = None
cdef object asyncio_current_task = None
cdef PyObject* NOT_A_TASK = <PyObject*>&next_context


cdef void forget_contexts() noexcept:
    global next_context, sweep_at
    cdef unordered_map[uint64_t, ContextEntry].iterator at = contexts.begin()
    while at != contexts.end():
        Py_XDECREF(cython.operator.dereference(at).second.reference)
        cython.operator.preincrement(at)
    contexts.clear()
    next_context = 1
    sweep_at = 1024


cdef void sweep_contexts() noexcept:
    global sweep_at
    cdef unordered_map[uint64_t, ContextEntry].iterator at = contexts.begin()
    while at != contexts.end():
        if weakref_target(cython.operator.dereference(at).second.reference) == NULL:
            Py_XDECREF(cython.operator.dereference(at).second.reference)
            at = contexts.erase(at)
        else:
            cython.operator.preincrement(at)
    sweep_at = max(<size_t>1024, contexts.size() * 2)


cdef uint64_t context_serial(ThreadRing* ring, PyObject* subject, uint8_t kind, uint64_t parent) except? 0:
    """The serial of a task or greenlet; its name goes into the ring when it is new (in flight mode again when
    the page that holds it may have been overwritten)."""
    global next_context
    cdef uint64_t key = <uint64_t>subject
    cdef unordered_map[uint64_t, ContextEntry].iterator found = contexts.find(key)
    cdef ContextEntry entry
    cdef PyObject* reference
    if found != contexts.end():
        entry = cython.operator.dereference(found).second
        if weakref_target(entry.reference) == subject:
            if flight_mode and ring_file.order() - entry.defined > ring_file.page_count() // 2:
                define_context(ring, subject, kind, entry.serial, parent)
                entry.defined = ring_file.order()
                contexts[key] = entry
            return entry.serial
        contexts.erase(found)
        Py_XDECREF(entry.reference)
    if contexts.size() >= sweep_at:
        sweep_contexts()
    reference = PyWeakref_NewRef(subject, NULL)
    if reference == NULL:
        PyErr_Clear()
    entry.serial = next_context
    next_context += 1
    entry.defined = ring_file.order()
    entry.reference = reference
    if reference != NULL:
        contexts[key] = entry
    define_context(ring, subject, kind, entry.serial, parent)
    return entry.serial


cdef void define_context(ThreadRing* ring, PyObject* subject, uint8_t kind, uint64_t serial, uint64_t parent) noexcept:
    cdef string name
    cdef vector[uint8_t] payload
    try:
        if kind == CONTEXT_TASK:
            # get_name may be the user's own in a subclass: only the built-in one is called
            if task_get_name is not None and getattr_static(<PyObject*>subject, "get_name") == <PyObject*>task_get_name:
                text = task_get_name(<object>subject)
                name = utf8(<PyObject*>text)
            if not name.size():
                name.assign(Py_TYPE(subject).tp_name)
        else:
            name = (b"greenlet-%d" % serial)
        payload.resize(17 + name.size())
        memcpy(payload.data(), &serial, 8)
        memcpy(payload.data() + 8, &parent, 8)
        payload[16] = kind
        memcpy(payload.data() + 17, name.data(), name.size())
        ring.emit_payload(PAYLOAD_CONTEXT, payload.data(), payload.size())
    except BaseException:
        fault()


cdef void find_asyncio() noexcept:
    """Once `_asyncio` is imported, remember where it keeps the current tasks."""
    global running_loop_function, task_get_name, asyncio_current_task
    cdef PyObject* modules = <PyObject*>sys.modules
    cdef PyObject* module = PyDict_GetItemString(modules, "_asyncio")
    if module == NULL:
        return
    try:
        native = <object>module
        running_loop_function = native._get_running_loop
        task_get_name = native.Task.__dict__.get("get_name")
        asyncio_current_task = getattr(native, "current_task", None)
        tasks = getattr(native, "_current_tasks", None)
        if type(tasks) is dict:
            Py_INCREF(tasks)
            hook.current_tasks = <PyObject*>tasks
    except BaseException:
        fault()


cdef void switch_context(ThreadRing* ring, PyThreadState* thread) noexcept:
    cdef ErrorGuard* guard = new ErrorGuard()
    cdef PyObject* task = NULL
    cdef uint64_t serial = 0
    try:
        ring.python_context = thread.context
        if running_loop_function is None:
            find_asyncio()
        if greenlet_module is not None and not ring.greenlet_traced:
            trace_greenlets(ring)
        if running_loop_function is not None and not ring.in_greenlet and ring.file() != NULL:
            if hook.current_tasks != NULL:
                task = current_task(ring)
                if task == NULL:
                    loop = running_loop_function()
                    ring.loop = NULL
                    if loop is not None:
                        ring.loop = <PyObject*>loop
                        task = current_task(ring)
            elif asyncio_current_task is not None:  # 3.14 keeps it in the thread state
                if running_loop_function() is not None:
                    found = asyncio_current_task()
                    if found is not None:
                        task = <PyObject*>found
            if task != ring.task:
                ring.task = task
                if task != NULL:
                    serial = context_serial(ring, task, CONTEXT_TASK, 0)
                go_on_in(ring, serial)
    except BaseException:
        fault()
    del guard


cdef void go_on_in(ThreadRing* ring, uint64_t serial) noexcept:
    if serial != ring.context():
        ring.set_context(serial)
        ring.emit2(SWITCH_HEAD, serial)


cdef object greenlet_module = None


cdef void note_greenlet() noexcept:
    """A module named greenlet is being run: from now on look for it at each new thread or context."""
    global greenlet_module
    try:
        greenlet_module = sys.modules.get("greenlet")
    except BaseException:
        fault()


cdef void trace_greenlets(ThreadRing* ring) noexcept:
    """Follows this thread's greenlet switches, in front of whoever follows them already."""
    try:
        settrace = getattr(greenlet_module, "settrace", None)
        if settrace is None:  # still being imported
            return
        before = greenlet_module.gettrace()
        if type(before) is not GreenletTrace:
            settrace(GreenletTrace(before))
        ring.greenlet_traced = True
    except BaseException:
        fault()


cdef class GreenletTrace:
    """A greenlet trace function (one a thread) that records switches and passes every event on."""
    cdef object before

    def __cinit__(self, before):
        self.before = before

    def __call__(self, event, arguments):
        cdef ThreadRing* ring = get_thread_ring()
        try:
            if hook.active and (event == "switch" or event == "throw") and ring.file() != NULL:
                self.switched(ring, arguments[1])
        except BaseException:
            fault()
        if self.before is not None:
            self.before(event, arguments)

    cdef int switched(self, ThreadRing* ring, object target) except -1:
        if target.parent is None:
            ring.in_greenlet = False
            ring.task = NOT_A_TASK
            ring.python_context = NULL
            switch_context(ring, current_thread())
            if ring.task == NOT_A_TASK:
                ring.task = NULL
                go_on_in(ring, 0)
        else:
            go_on_in(ring, context_serial(ring, <PyObject*>target, CONTEXT_GREENLET, ring.context()))
            ring.in_greenlet = True
        return 0


cdef void untrace_greenlets() noexcept:
    """This thread's; the others' trace functions stay, inert, until their threads end."""
    try:
        if greenlet_module is not None:
            mine = greenlet_module.gettrace()
            if type(mine) is GreenletTrace:
                greenlet_module.settrace((<GreenletTrace>mine).before)
    except BaseException:
        fault()


# --- backend: monitoring --------------------------------------------------------------------------

cdef int monitoring_tool = -1
cdef bint monitoring_everything = False
cdef object set_local_events = None
cdef list watched_codes = []    # weak references: to undo local events
cdef list disarmed_codes = []   # weak references: places disarmed with DISABLE, armed anew at the next start
cdef long local_events = 0
cdef long monitoring_mask = 0
TOOL_IDS = (4, 3, 5)  # 0 to 2 belong to debuggers, coverage and profilers by convention


def free_tool_id():
    """A `sys.monitoring` tool id that nobody uses, or None.

    Ids 0, 1 and 2 are left to debuggers, coverage tools and profilers, which may want them later.
    """
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        return None
    for identity in TOOL_IDS:
        if monitoring.get_tool(identity) is None:
            return identity
    return None


cdef void let_pass(PyCodeObject* code) noexcept:
    """Remembers a code object that is not recorded, in case it is to be later."""
    try:
        reference = <object>PyWeakref_NewRef(<PyObject*>code, NULL)
        Py_XDECREF(<PyObject*>reference)
        disarmed_codes.append(reference)
    except BaseException:
        fault()


def reselect(*, globs, exclude):
    """Records by other globs from now on; what is being recorded already goes on to be.

    Only for a recording that was started with `reselectable`. Whole-process selection ("*") cannot begin here.
    """
    global disarmed_codes
    if ring_file == NULL:
        raise RuntimeError("not recording")
    select_modules(globs, exclude)
    passed = disarmed_codes
    disarmed_codes = []
    cdef bint monitored = monitoring_tool >= 0 and not frame_company
    if monitored:
        sys.monitoring.set_events(monitoring_tool, 0)
    for reference in passed:
        code = reference()
        if code is not None:
            SET_CODE_EXTRA(<PyObject*>code, hook.extra_index, NULL)
            if monitored:
                arm_again(monitoring_tool, code)
    if monitored:
        sys.monitoring.set_events(monitoring_tool, monitoring_mask)


cdef object arm_again(int tool, code):
    """Places that returned DISABLE fire again once the code has been instrumented without the event: its local events
    change while no global ones are set."""
    set_local_events(tool, code, sys.monitoring.events.PY_RETURN)
    set_local_events(tool, code, 0)


cdef object select_modules(globs, exclude):
    global select_default, select_own
    include_globs.clear(); exclude_globs.clear(); include_matched.clear()
    module_decisions.clear()
    select_default = globs is None
    select_own = False
    for glob in globs or ():
        include_globs.push_back(<string>glob.encode())
        include_matched.push_back(0)
        select_own = select_own or glob.startswith("pyscope")
    for glob in exclude or ():
        exclude_globs.push_back(<string>glob.encode())


cdef void watch_code(PyCodeObject* code, uint64_t value) noexcept:
    try:
        reference = <object>PyWeakref_NewRef(<PyObject*>code, NULL)
        Py_XDECREF(<PyObject*>reference)
        if value & (WATCHED if frame_company else SELECTED):
            watched_codes.append(reference)
            set_local_events(monitoring_tool, <object>code, local_events)
        else:
            disarmed_codes.append(reference)
    except BaseException:
        fault()


cdef bint frame_company = False


cdef object install_frame_company():
    """3.13 runs the `__init__` of a class without asking the frame hook once the call of the class is specialised
    (CALL_ALLOC_AND_ENTER_INIT; 3.14 asks). So `__init__` is recorded by monitoring callbacks there."""
    global frame_company
    if sys.version_info[:2] != (3, 13):
        return
    if free_tool_id() is None:
        raise BackendUnavailable("frame evaluation misses __init__ on 3.13 unless a sys.monitoring tool id is free")
    frame_company = True
    try:
        install_monitoring(False, CALLBACK_WATCHED)
    except BaseException:
        frame_company = False
        raise


cdef object install_monitoring(bint everything, int kind, bint exceptions_only=False):
    global monitoring_tool, monitoring_everything, monitoring_mask, set_local_events, local_events, disarmed_codes
    monitoring = sys.monitoring
    tool = free_tool_id()
    if tool is None:
        raise BackendUnavailable(
            "every sys.monitoring tool id that PyScope may take (3, 4, 5) is in use: stop one of the other tools, "
            'or choose backend="frame"'
        )
    monitoring.use_tool_id(tool, "pyscope")
    events = monitoring.events
    set_local_events = monitoring.set_local_events
    local_events = events.PY_RETURN if frame_company else events.PY_RETURN | events.PY_YIELD
    hook.disable = <PyObject*>monitoring.DISABLE
    monitoring_tool = tool
    monitoring_everything = everything
    try:
        for event, which in (
            (events.PY_START, EVENT_START), (events.PY_RESUME, EVENT_RESUME), (events.PY_RETURN, EVENT_RETURN),
            (events.PY_YIELD, EVENT_YIELD), (events.PY_THROW, EVENT_THROW), (events.PY_UNWIND, EVENT_UNWIND),
        ):
            callback = make_callback(which, kind)
            monitoring.register_callback(tool, event, callback)
        for reference in disarmed_codes:
            code = reference()
            if code is not None:
                arm_again(tool, code)
        disarmed_codes = []
        mask = events.PY_UNWIND
        if frame_company:
            mask |= events.PY_START
        else:
            mask |= events.PY_THROW
            if not exceptions_only:
                mask |= events.PY_START | events.PY_RESUME
        if everything and not exceptions_only:
            mask |= events.PY_RETURN | events.PY_YIELD
        monitoring.set_events(tool, mask)
        monitoring_mask = mask
    except BaseException:
        remove_monitoring()
        raise


cdef object remove_monitoring():
    global monitoring_tool, watched_codes, frame_company
    frame_company = False
    tool = monitoring_tool
    if tool < 0:
        return
    monitoring = sys.monitoring
    events = monitoring.events
    monitoring_tool = -1
    monitoring.set_events(tool, 0)
    for reference in watched_codes:  # free_tool_id leaves local events alive before 3.14
        code = reference()
        if code is not None:
            monitoring.set_local_events(tool, code, 0)
    watched_codes = []
    for event in (events.PY_START, events.PY_RESUME, events.PY_RETURN, events.PY_YIELD, events.PY_THROW, events.PY_UNWIND):
        monitoring.register_callback(tool, event, None)
    monitoring.free_tool_id(tool)


# --- installing and removing ----------------------------------------------------------------------

cdef object install(str backend, bint everything, bint c_calls, bint windows):
    if backend == "monitoring":
        install_monitoring(everything, CALLBACK_WINDOWS if windows else CALLBACK_RECORD)
    elif backend == "frame":
        install_frame_company()
        try:
            install_frame_hook(eval_frame_windows if windows else eval_frame_plain)
        except BaseException:
            remove_monitoring()
            raise
    elif backend == "setprofile":
        install_setprofile(c_calls)
    else:
        raise BackendUnavailable(f"the native recorder has no backend {backend!r}")


cdef object install_frame_hook(EvalFunction function):
    if not install_eval(function):
        raise BackendUnavailable(
            "another frame evaluator was installed over PyScope's of an earlier recording, which had another backend or "
            "detail: take it out first, or record with the same settings as then"
        )


cdef object remove(str backend):
    if arm_all_threads(NULL) and backend == "setprofile":
        hook.evicted = True
    remove_monitoring()
    if backend == "monitoring":
        return True
    if backend == "setprofile":
        hook.profile_has_company = False
        watch_new_threads(False)
    return remove_eval()


cdef object install_setprofile(bint c_calls):
    profile_python_with_c_calls(c_calls)
    hook.profile_has_company = True
    if sys.version_info < (3, 12):
        install_frame_hook(eval_frame_beside_profile)
    else:
        if free_tool_id() is None:
            hook.profile_has_company = False
        else:
            install_monitoring(True, CALLBACK_RECORD, True)
        watch_new_threads(True)
    if arm_all_threads(profile_everything):
        fault()


cdef object threading_hook_before = None
_EVENTS = {"call": 0, "return": 3, "c_call": 4, "c_exception": 5, "c_return": 6}


def _first_event(frame, event, argument):
    cdef PyObject* value = <PyObject*>argument
    arm_at_first_event(<void*>frame, _EVENTS.get(event, 0), value)


cdef object watch_new_threads(bint on):
    """Threads of `threading` set its profile function at their start; ours puts the native one in its place."""
    global threading_hook_before
    threading = sys.modules.get("threading")
    if threading is None:
        if not on:
            return
        import threading
    if on:
        threading_hook_before = threading._profile_hook
        threading._profile_hook = _first_event
    elif threading._profile_hook is _first_event:
        threading._profile_hook = threading_hook_before
        threading_hook_before = None


def frame_evaluator_installed():
    """Whether somebody else's PEP 523 frame evaluator is installed."""
    return foreign_eval()


def profiler_installed():
    """Whether somebody else's profile function is set on the calling thread."""
    return foreign_profiler()


def start(*, str backend, str ring_path, size_t ring_bytes, file_path, str parts_prefix, bytes recording_id,
          bytes process_id, bytes meta, bint flight, globs, exclude, libraries, bint c_calls=False,
          uint32_t window_open_ms=0, uint32_t window_period_ms=0, uint32_t parent_pid=0, bint reselectable=False):
    """Allocates the ring, begins the file and installs the hook.

    globs: list of dotted globs, or None for everything but `libraries` (path prefixes).
    c_calls: record C calls too; beside `monitoring` and `frame` in windows of `window_open_ms` out of every
    `window_period_ms` milliseconds (0: always).
    reselectable: code that is not selected is remembered, so that `reselect` can select it later.
    Raises OSError when the ring or the file cannot be made, BackendUnavailable when the hook cannot be installed.
    """
    global ring_file, recording_file, drain, backend_in_use, flight_mode, keep_passed, disarmed_codes
    cdef RingOptions options
    cdef bint everything
    cdef int kind
    if ring_file != NULL:
        raise RuntimeError("already recording")
    if not in_main_interpreter():
        raise BackendUnavailable(
            "the native recorder works in the main interpreter only, and this is a subinterpreter: start it there, or "
            'choose backend="python"'
        )
    install_fork_handlers()
    if hook.extra_index < 0:
        hook.extra_index = REQUEST_CODE_EXTRA(NULL)
        if hook.extra_index < 0:
            raise BackendUnavailable("no code-object slot is left (PEP 523 allows 255 users)")
        hook.slow.resolve = resolve
        hook.slow.c_function = c_function
        hook.slow.exception = exception
        hook.slow.new_thread = new_thread
        hook.slow.switch_context = switch_context

    select_modules(globs, exclude)
    keep_passed = reselectable
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
        drain = new Drain(ring_file, recording_file, parts_prefix.encode("utf-8", "surrogateescape"))
        if c_calls and backend != "setprofile":
            drain.set_window(&hook.window, window_open_ms, window_period_ms)
            hook.window.store(1)
        drain.set_on_failure(on_write_failure)
        drain.start()
        flight_mode = flight
        hook.file = ring_file
        hook.generation += 1
        hook.threads = 0
        hook.faults.store(0)
        fault_notes.clear()
        open_existing_rings()
        hook.evicted = False
        hook.active = True
        if greenlet_module is None:
            note_greenlet()
        open_thread_ring_here()
        install(backend, everything, c_calls, c_calls and backend != "setprofile")
        backend_in_use = backend
    except BaseException:
        abandon_start()
        raise


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
    if drain != NULL:
        drain.finish(5.0)
        del drain
        drain = NULL
    if recording_file != NULL:
        del recording_file
        recording_file = NULL
    if ring_file != NULL:
        ring_file.unlink()
        del ring_file
        ring_file = NULL


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
    untrace_greenlets()
    return removed_cleanly


def stop(double timeout=10.0):
    """Uninstalls the hook, waits for the drain and seals the file. Returns a dict of figures.

    state: "stopped"; "write_failed" (`error` is the errno) and "stalled" (the drain did not end within `timeout`
    seconds) keep the ring file, so that nothing is lost.
    """
    global ring_file, recording_file, drain, held_types
    cdef cbool over
    cdef Summary summary
    cdef dict figures
    if ring_file == NULL:
        raise RuntimeError("not recording")
    clean = uninstall()
    with nogil:
        over = drain.finish(timeout)
    figures = {
        "clean": clean,
        "evicted": hook.evicted,
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
    held_types = []
    forget_contexts()
    return figures


cdef void resume_drain() noexcept nogil:
    if drain != NULL:
        drain.resume()


def pause_before_fork():
    """Ends the drain thread for the time of a fork; the next full page brings it back."""
    cdef cbool ended
    if drain != NULL:
        with nogil:
            ended = drain.pause(0.2)
        if ended:
            ring_file.call_on_next_seal(resume_drain)


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
    if ring_file == NULL:
        raise RuntimeError("not recording")
    cdef string where = path.encode("utf-8", "surrogateescape")
    with nogil:
        report = dump_ring(ring_file[0], where)
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
        "events_saved": ring_file.header().events_saved.load(),
        "drain_cpu_ns": drain.cpu_ns(),
        "threads": hook.threads,
        "ring_bytes": ring_file.header().file_bytes,
        "backend": backend_in_use,
    }


# --- for doctor and the benchmarks ----------------------------------------------------------------

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
