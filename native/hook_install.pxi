# Installing each backend's hook and taking it out again.

cdef object install(str backend, bint everything, bint c_calls, bint windows):
    if backend == "monitoring" and governing:
        install_governed_monitoring()
    elif backend == "monitoring":
        install_monitoring(everything, CALLBACK_WINDOWS if windows else CALLBACK_RECORD)
    elif backend == "frame":
        install_frame_company()
        try:
            if governing:
                install_frame_hook(eval_frame_governed)
            else:
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
