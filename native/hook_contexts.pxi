# Threads and their names; contexts: tasks of asyncio and trio, and greenlets.

cdef void new_thread(ThreadRing* ring, Frame* frame) noexcept:
    """Names it after the threading.Thread that runs here, also before that has registered itself."""
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


cdef cppclass ContextEntry:
    uint64_t serial
    uint64_t named_to    # up to this page order of the ring the name is sure to be there
    PyObject* reference  # weak reference: an address may be used again

DEF NEVER = 0xFFFFFFFFFFFFFFFF

cdef unordered_map[uint64_t, ContextEntry] contexts
cdef uint64_t next_context = 1
cdef size_t sweep_at = 1024
cdef object running_loop_function = None
cdef object task_get_name = None
cdef object trio_task_type = None


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


cdef int see(SeenContext* context, ThreadRing* ring, PyObject* subject, uint8_t kind, uint64_t parent) except -1:
    """Notes what a task or greenlet is called in the ring. Its name goes there when it is new (in flight mode again
    when the page that holds it may have been overwritten)."""
    global next_context
    cdef uint64_t key = <uint64_t>subject
    cdef unordered_map[uint64_t, ContextEntry].iterator found = contexts.find(key)
    cdef ContextEntry entry
    cdef bint known = found != contexts.end()
    if known:
        entry = cython.operator.dereference(found).second
        if weakref_target(entry.reference) != subject:
            contexts.erase(found)
            Py_XDECREF(entry.reference)
            known = False
    if not known:
        if contexts.size() >= sweep_at:
            sweep_contexts()
        entry.serial = next_context
        next_context += 1
        entry.reference = weak_reference(subject)
    if not known or entry.named_to < ring_file.order():
        define_context(ring, subject, kind, entry.serial, parent)
        entry.named_to = ring_file.order() + ring_file.page_count() // 2 if flight_mode else NEVER
        if entry.reference != NULL:
            contexts[key] = entry
    context.serial = entry.serial
    context.named_to = entry.named_to
    return 0


cdef uint64_t serial_of(PyObject* subject) noexcept:
    """The number of a task or greenlet that was seen before; 0 of another."""
    cdef unordered_map[uint64_t, ContextEntry].iterator found = contexts.find(<uint64_t>subject)
    if found == contexts.end() or weakref_target(cython.operator.dereference(found).second.reference) != subject:
        return 0
    return cython.operator.dereference(found).second.serial


cdef void define_context(ThreadRing* ring, PyObject* subject, uint8_t kind, uint64_t serial, uint64_t parent) noexcept:
    cdef string name
    cdef vector[uint8_t] payload
    try:
        if kind == CONTEXT_TASK:
            # get_name may be the user's own in a subclass: only the built-in one is called
            if task_get_name is not None and getattr_static(<PyObject*>subject, "get_name") == <PyObject*>task_get_name:
                text = task_get_name(<object>subject)
                name = utf8(<PyObject*>text)
            elif type(<object>subject) is trio_task_type:
                text = (<object>subject).name
                name = utf8(<PyObject*>text)
            if not name.size():
                name.assign(Py_TYPE(subject).tp_name)
        else:
            name.assign(b"greenlet-")
            name.append(to_string(serial))
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
    global running_loop_function, task_get_name
    cdef PyObject* modules = <PyObject*>sys.modules
    cdef PyObject* module = PyDict_GetItemString(modules, "_asyncio")
    if module == NULL:
        return
    try:
        native = <object>module
        running_loop_function = native._get_running_loop
        task_get_name = native.Task.__dict__.get("get_name")
        tasks = getattr(native, "_current_tasks", None)
        if type(tasks) is dict:
            Py_INCREF(tasks)
            hook.current_tasks = <PyObject*>tasks
    except BaseException:
        fault()


cdef void note_trio_that_runs() noexcept:
    """trio runs in the thread that starts a recording. (Elsewhere it is noted as its next task runs. Many programs have
    it imported, by httpcore for one, and never run it.)"""
    try:
        library = sys.modules.get("trio._core._run")
        if library is not None and hasattr(library.GLOBAL_RUN_CONTEXT, "task"):
            note_trio()
    except BaseException:
        fault()


cdef void note_trio() noexcept:
    """trio runs: from now on its current task is looked at as well."""
    global trio_task_type
    if hook.trio_run != NULL:
        return
    try:
        library = sys.modules.get("trio._core._run")
        run = getattr(library, "GLOBAL_RUN_CONTEXT", None)
        kind = getattr(library, "Task", None)
        if run is not None and isinstance(kind, type):
            trio_task_type = kind
            Py_INCREF(run)
            hook.trio_run = <PyObject*>run
    except BaseException:
        fault()


cdef void switch_context(ThreadRing* ring, PyThreadState* thread) noexcept:
    cdef PyObject* task = NULL
    try:
        ring.python_context = thread.context
        if running_loop_function is None:
            find_asyncio()
        if (running_loop_function is not None or hook.trio_run != NULL) and not ring.in_greenlet and ring.file() != NULL:
            task = current_task(ring)
            if task == NULL and not TASK_IN_THREAD and running_loop_function is not None:
                loop = running_loop_function()
                ring.loop = NULL
                if loop is not None:
                    ring.loop = <PyObject*>loop
                    task = current_task(ring)
            if task != seen(ring.task):
                forget(&ring.task)
                if task != NULL:
                    ring.task.reference = weak_reference(task)
                    see(&ring.task, ring, task, CONTEXT_TASK, 0)
                go_on_in(ring, ring.task.serial)
    except BaseException:
        fault()


cdef PyObject* weak_reference(PyObject* subject) noexcept:
    cdef PyObject* reference = PyWeakref_NewRef(subject, NULL)
    if reference == NULL:
        PyErr_Clear()
    return reference


cdef object greenlet_module = None

cdef void note_greenlet() noexcept:
    """A module named greenlet is being run: from now on the current greenlet is looked at with each new context."""
    global greenlet_module
    try:
        greenlet_module = sys.modules.get("greenlet")
        hook.greenlet_imported = greenlet_module is not None
    except BaseException:
        fault()


cdef void find_greenlet() noexcept:
    """greenlet's C API, unless it is still being imported."""
    try:
        capsule = getattr(greenlet_module, "_C_API", None)
        if capsule is not None:
            find_current_greenlet(<PyObject*>capsule, not greenlet_module.__version__.startswith(("0.", "1.")))
    except BaseException:
        fault()


cdef object greenlet_parent(greenlet):
    """The greenlet that a greenlet goes on in when it ends; None of a thread's own."""
    if hook.greenlet_parent == NULL:
        return greenlet.parent
    cdef PyObject* found = hook.greenlet_parent(<PyObject*>greenlet)
    if found == NULL:
        PyErr_Clear()
        return None
    parent = <object>found
    Py_XDECREF(found)
    return parent


cdef void switch_greenlet(ThreadRing* ring, PyObject* now) noexcept:
    """Another greenlet than at the last event runs here."""
    try:
        if ring.file() != NULL:
            forget(&ring.left_greenlet)
            ring.left_greenlet = ring.greenlet
            ring.greenlet.reference = weak_reference(now)
            ring.greenlet.serial = ring.greenlet.named_to = 0
            go_on_in_greenlet(ring, <object>now)
    except BaseException:
        fault()


cdef int go_on_in_greenlet(ThreadRing* ring, object target) except -1:
    cdef PyObject* task = current_task(ring)
    cdef SeenContext parent
    first = outer = greenlet_parent(target)
    if outer is not None:
        # What ran here at the last event need not be what has begun this greenlet: gevent's hub, in which nothing is
        # recorded, begins one after the other.
        beyond = greenlet_parent(outer)
        parent.serial = ring.context() if beyond is None else 0
        while beyond is not None and not parent.serial:
            parent.serial = serial_of(<PyObject*>outer)
            outer, beyond = beyond, greenlet_parent(beyond)
        if task != NULL and beyond is None and (not parent.serial or outer is first):
            see(&parent, ring, task, CONTEXT_TASK, 0)
        see(&ring.greenlet, ring, <PyObject*>target, CONTEXT_GREENLET, parent.serial)
        go_on_in(ring, ring.greenlet.serial)
        ring.in_greenlet = True
        return 0
    ring.in_greenlet = False
    if task != NULL and task == seen(ring.task) and current_thread().context == ring.python_context:
        see(&ring.task, ring, task, CONTEXT_TASK, 0)
        go_on_in(ring, ring.task.serial)
        return 0
    forget(&ring.task)
    ring.python_context = NULL
    switch_context(ring, current_thread())
    if ring.task.reference == NULL:
        go_on_in(ring, 0)
    return 0
