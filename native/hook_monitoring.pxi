# Backend `monitoring`: tools, callbacks, local events (PEP 669). monitoring.hpp holds the callbacks themselves.

cdef int monitoring_tool = -1
cdef bint monitoring_everything = False
cdef object set_local_events = None
cdef list watched_codes = []    # weak references: to undo local events
cdef list disarmed_codes = []   # weak references: places disarmed with DISABLE, armed anew at the end
cdef Py_ssize_t codes_swept_at = 1024
cdef bint joining = False       # the instructions that the interpreter takes apart when it is monitored
cdef long local_events = 0
cdef long monitoring_mask = 0
TOOL_IDS = (4, 3, 5)  # 0 to 2 belong to debuggers, coverage and profilers by convention


def free_tool_id():
    """A `sys.monitoring` tool id that nobody uses, or None.

    Ids 0, 1 and 2 are left to debuggers, coverage tools and profilers, which may want them later.
    """
    return next(iter(free_tool_ids()), None)


def free_tool_ids():
    """All such ids."""
    monitoring = getattr(sys, "monitoring", None)
    return [] if monitoring is None else [identity for identity in TOOL_IDS if monitoring.get_tool(identity) is None]


cdef list living(list references):
    return [reference for reference in references if reference() is not None]


cdef int remember_code(PyCodeObject* code, bint watched) except -1:
    """As long as it lives: a program that generates code all the time is not to fill the memory."""
    global watched_codes, disarmed_codes, codes_swept_at
    if len(watched_codes) + len(disarmed_codes) >= codes_swept_at:
        watched_codes = living(watched_codes)
        disarmed_codes = living(disarmed_codes)
        codes_swept_at = max(1024, 2 * (len(watched_codes) + len(disarmed_codes)))
    reference = new_weak_reference(<object>code, NULL)
    (watched_codes if watched else disarmed_codes).append(reference)
    return 0


cdef void let_pass(PyCodeObject* code) noexcept:
    """Remembers a code object that is not recorded, in case it is to be later."""
    try:
        remember_code(code, False)
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
        set_global_events(0, 0)
    for reference in passed:
        code = reference()
        if code is not None:
            SET_CODE_EXTRA(<PyObject*>code, hook.extra_index, NULL)
            if monitored:
                arm_again(monitoring_tool, code)
    if monitored:
        set_global_events(monitoring_mask, sys.monitoring.events.PY_START | sys.monitoring.events.PY_RESUME)


cdef object set_global_events(long recorded, long new_code):
    sys.monitoring.set_events(monitoring_tool, recorded)
    if new_code_tool >= 0:
        sys.monitoring.set_events(new_code_tool, new_code)


cdef object arm_again(int tool, code):
    """Places that returned DISABLE fire again once the code has been instrumented without the event: its local events
    change while no global ones are set."""
    set_local_events(tool, code, sys.monitoring.events.PY_RETURN)
    set_local_events(tool, code, 0)


cdef object select_modules(globs, exclude):
    global select_default, select_own
    include_globs.clear(); exclude_globs.clear(); include_matched.clear()
    module_decisions.clear()
    code_freed(NULL)  # what is foreign may be the user's own from now on
    select_default = globs is None
    select_own = False
    for glob in globs or ():
        include_globs.push_back(<string>glob.encode())
        include_matched.push_back(0)
        select_own = select_own or glob.startswith("pyscope")
    for glob in exclude or ():
        exclude_globs.push_back(<string>glob.encode())


cdef void watch_code(PyCodeObject* code, uint64_t value) noexcept:
    cdef bint watched = (value & (WATCHED if frame_company else SELECTED)) != 0
    try:
        remember_code(code, watched)
        if watched:
            set_local_events(monitoring_tool, <object>code, local_events)
        if joining:
            join_instructions(code)
    except BaseException:
        fault()


cdef object look_for_superinstructions():
    global joining
    if HAS_SUPERINSTRUCTIONS:
        import dis

        numbers = getattr(dis, "_all_opmap", {})
        joining = superinstructions_are(<PyObject*>numbers)


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


cdef int new_code_tool = -1  # a second tool, under a budget
cdef bint tool_taken = False  # the program has freed a tool id of ours, or put its own callbacks there
DEF TOOL_NAME = "pyscope"
DEF NEW_CODE_TOOL_NAME = "pyscope: new code"


cdef object install_governed_monitoring():
    """Local events on each selected code object, so that one alone can be disarmed and armed again: what has DISABLEd a
    global event comes back with all others only. A second tool, whose global events are disabled at once, meets new code.
    """
    global new_code_tool
    monitoring = sys.monitoring
    events = monitoring.events
    install_monitoring(False, CALLBACK_WINDOWS, True)
    try:
        tool = free_tool_id()
        if tool is None:
            raise BackendUnavailable(
                "a budget needs two of the sys.monitoring tool ids 3, 4 and 5, and other tools use the rest: stop one of "
                'them, or choose backend="frame"'
            )
        monitoring.use_tool_id(tool, NEW_CODE_TOOL_NAME)
        new_code_tool = tool
        monitoring.register_callback(tool, events.PY_START, make_callback(EVENT_START, CALLBACK_NEW))
        monitoring.register_callback(tool, events.PY_RESUME, make_callback(EVENT_RESUME, CALLBACK_NEW))
        monitoring.set_events(tool, events.PY_START | events.PY_RESUME)
    except BaseException:
        remove_monitoring()
        raise


cdef object install_monitoring(bint everything, int kind, bint exceptions_only=False):
    global monitoring_tool, monitoring_everything, monitoring_mask, set_local_events, local_events
    monitoring = sys.monitoring
    tool = free_tool_id()
    if tool is None:
        raise BackendUnavailable(
            "every sys.monitoring tool id that PyScope may take (3, 4, 5) is in use: stop one of the other tools, "
            'or choose backend="frame"'
        )
    monitoring.use_tool_id(tool, TOOL_NAME)
    events = monitoring.events
    set_local_events = monitoring.set_local_events
    local_events = events.PY_RETURN if frame_company else events.PY_RETURN | events.PY_YIELD
    if governing and not frame_company:
        local_events |= events.PY_START | events.PY_RESUME
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
        look_for_superinstructions()
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
    global monitoring_tool, new_code_tool, watched_codes, disarmed_codes, frame_company
    frame_company = False
    tool = monitoring_tool
    if tool < 0:
        return
    second, new_code_tool = new_code_tool, -1
    monitoring_tool = -1
    seen_codes = watched_codes + disarmed_codes
    watched_codes = []
    disarmed_codes = []
    if second >= 0 and is_still_ours(second, NEW_CODE_TOOL_NAME):
        sys.monitoring.set_events(second, 0)
    if is_still_ours(tool, TOOL_NAME):
        sys.monitoring.set_events(tool, 0)
        for reference in seen_codes:  # free_tool_id leaves local events alive before 3.14
            code = reference()
            if code is not None:
                arm_again(tool, code)
                if joining:
                    join_instructions(<PyCodeObject*>code)
        free_tool(tool)
    if second >= 0 and is_still_ours(second, NEW_CODE_TOOL_NAME):
        free_tool(second)


cdef bint is_still_ours(int tool, name) except -1:
    """Whether a tool id may be undone. One that the program has freed is taken again for that."""
    global tool_taken
    monitoring = sys.monitoring
    now = monitoring.get_tool(tool)
    if now is None:
        monitoring.use_tool_id(tool, name)
    if now != name:
        tool_taken = True
    return now is None or now == name


cdef object free_tool(int tool):
    global tool_taken
    monitoring = sys.monitoring
    events = monitoring.events
    for event in (events.PY_START, events.PY_RESUME, events.PY_RETURN, events.PY_YIELD, events.PY_THROW, events.PY_UNWIND):
        before = monitoring.register_callback(tool, event, None)
        if before is not None and not is_callback(<PyObject*>before):
            tool_taken = True
    monitoring.free_tool_id(tool)
