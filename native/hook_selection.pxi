# Selection: decided once for each code object.

cdef vector[string] include_globs, exclude_globs, library_prefixes
cdef vector[uint8_t] include_matched
cdef bint keep_passed = False
cdef bint select_default = True      # everything but the standard library and site-packages
cdef bint select_own = False         # PyScope's own modules were asked for
cdef unordered_map[string, uint8_t] module_decisions  # CHOSEN, NAMED
DEF CHOSEN = 1
DEF NAMED = 2                        # by a glob that does not mean everything: it is the user's own wherever it lies


cdef bint is_library(const string& file) noexcept:
    cdef size_t i
    if file.size() and file[0] == b"<" and file.compare(0, 7, b"<frozen") == 0:
        return True
    for i in range(library_prefixes.size()):
        if file.compare(0, library_prefixes[i].size(), library_prefixes[i]) == 0:
            return True
    return False


cdef string file_of_module(PyObject* globals) noexcept:
    """Where the module with these globals lies; empty where that is not known."""
    if globals == NULL:
        return b""
    cdef PyObject* file = PyDict_GetItemString(globals, "__file__")
    cdef string name = utf8(PyDict_GetItemString(globals, "__name__"))
    cdef PyObject* found
    if file == NULL and (name == b"__main__" or name == b"__mp_main__"):
        return b"<main>"  # the program, as `python -c` or a notebook runs it
    if file == NULL and name.size():  # globals made for the code alone, under the name of the module
        found = PyDict_GetItemString(<PyObject*>sys.modules, name.c_str())
        if found != NULL and PyModule_Check(found):
            file = PyDict_GetItemString(PyModule_GetDict(found), "__file__")
    return utf8(file)


cdef bint is_of_library(const string& file, Frame* frame) noexcept:
    """By its file. What was generated (a dataclass's methods, `exec`) by that of its module, and what is of no module, as
    the `__new__` of a namedtuple, by who calls it first."""
    cdef string place = file
    cdef Frame* at = frame
    cdef Frame* outer = current_frame(current_thread())
    while outer != NULL and outer != frame:
        outer = caller_of(outer)
    outer = caller_of(outer) if outer != NULL else current_frame(current_thread())  # it is not the current one yet
    while at != NULL and place.size() and place[0] == b"<" and not is_library(place):
        place = file_of_module(frame_globals(at))
        if place.size():
            break
        at = outer
        while at != NULL and not is_python_frame(at):
            at = caller_of(at)
        if at != NULL:
            place = utf8(frame_code(at).co_filename)
            outer = caller_of(at)
    return is_library(place)


cdef bint included(const string& module) noexcept:
    """By the globs alone; what they match is noted for the warning about globs that matched nothing."""
    cdef bint chosen = select_default
    cdef size_t i
    for i in range(include_globs.size()):
        if fnmatch(include_globs[i].c_str(), module.c_str(), 0) == 0:
            include_matched[i] = 1
            chosen = True
    return chosen


cdef bint excluded(const string& module) noexcept:
    cdef size_t i
    for i in range(exclude_globs.size()):
        if fnmatch(exclude_globs[i].c_str(), module.c_str(), 0) == 0:
            return True
    return not select_own and (module == b"pyscope" or module.compare(0, 8, b"pyscope.") == 0)


cdef bint named(const string& module) noexcept:
    cdef size_t i
    for i in range(include_globs.size()):
        if include_globs[i] != b"*" and fnmatch(include_globs[i].c_str(), module.c_str(), 0) == 0:
            return True
    return False


cdef uint8_t decision_of_module(const string& module) noexcept:
    cdef unordered_map[string, uint8_t].iterator found = module_decisions.find(module)
    if found != module_decisions.end():
        return cython.operator.dereference(found).second
    cdef uint8_t chosen = 0
    if included(module) and not excluded(module):
        chosen = CHOSEN | NAMED if named(module) else CHOSEN
    module_decisions[module] = chosen
    return chosen


cdef uint8_t decision_of_main(const string& module, PyObject* globals):
    """`python -m shop.worker` runs that module under another name: it is meant by both."""
    cdef PyObject* spec = PyDict_GetItemString(globals, "__spec__")
    cdef string imported
    if spec != NULL and type(<object>spec) is ModuleSpec:
        name = (<object>spec).name
        imported = utf8(<PyObject*>name)
    if imported.empty():
        return decision_of_module(module)
    cdef bint chosen = included(module)
    chosen = included(imported) or chosen  # both, for what they match
    if not chosen or excluded(module) or excluded(imported):
        return 0
    return CHOSEN | NAMED if named(module) or named(imported) else CHOSEN


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
    cdef PyObject* globals = frame_globals(frame) if frame != NULL else NULL
    cdef bint library, selected
    cdef uint8_t chosen
    try:
        module = utf8(PyDict_GetItemString(globals, "__name__") if globals != NULL else NULL)
        file = utf8(code.co_filename)
        if module == b"greenlet":
            note_greenlet()
        elif module == b"trio._core._run" and PyUnicode_CompareWithASCIIString(code.co_name, "unrolled_run") == 0:
            note_trio()
        library = is_of_library(file, frame) if file.size() and file[0] == b"<" else is_library(file)
        if module == b"__main__" or module == b"__mp_main__":
            chosen = decision_of_main(module, globals)
        else:
            chosen = decision_of_module(module)
        selected = chosen & CHOSEN
        if (not library or chosen & NAMED) and module != b"pyscope" and module.compare(0, 8, b"pyscope.") != 0:
            value |= USER
        if selected and not (select_default and library):
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
        if governing and value & SELECTED:
            govern(code, value, module, utf8(code.co_qualname))
        if monitoring_tool >= 0 and not (monitoring_everything and value & SELECTED):
            watch_code(code, value)
        elif keep_passed and not value & (SELECTED | WATCHED):
            let_pass(code)
    except BaseException:  # MemoryError at worst: this code object is not recorded
        PyErr_Clear()
        fault()
    del guard
    return value
