# Names: strings are stored once; code objects, C functions and exception types refer to them.
# What they were given in this recording, and the records that say it.

cdef unordered_map[string, uint32_t] string_ids
cdef unordered_map[uint64_t, uint32_t] exception_ids    # type object -> id; the type is held, so its address stays its own
cdef list held_types = []
cdef unordered_map[uint64_t, uint32_t] c_function_ids   # PyMethodDef* -> id
cdef unordered_map[string, uint32_t] code_ids           # what a code record says -> id
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


cdef uint64_t tables = 1  # how often they were begun anew: what names are numbered by


cdef void forget_names() noexcept:
    global next_code, next_location, unnamed, tables
    string_ids.clear()
    code_ids.clear()
    tables += 1
    interned.clear()
    locations.clear()
    stacks.clear()
    whole_stacks.clear()
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
    """A code id with its record; 0 (unnamed) when the ids or the table are exhausted.

    Code that is generated again and again, with `exec`, has one id: readers could not tell its objects apart. Under a budget
    each object has its own, since the governor quiets objects.
    """
    global next_code, unnamed
    cdef CodeRecord record
    cdef string says
    cdef unordered_map[string, uint32_t].iterator found
    record.header.length = sizeof(CodeRecord)
    record.header.type = RECORD_CODE
    record.header.reserved = 0
    record.id = 0
    record.module = intern(module)
    record.qualname = intern(qualname)
    record.file = intern(file)
    record.line = line
    record.arity = arity
    record.flags = flags
    if not governing:
        says.assign(<const char*>&record, sizeof(record))
        found = code_ids.find(says)
        if found != code_ids.end():
            return cython.operator.dereference(found).second
    record.id = next_code
    if next_code > MAX_CODE or not ring_file.append_record(&record, sizeof(record)):
        unnamed += 1
        return 0
    if not governing:
        code_ids[says] = next_code
    next_code += 1
    return record.id


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
