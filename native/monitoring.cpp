#include "monitoring.hpp"

#ifdef PYSCOPE_HAS_MONITORING

namespace pyscope {

namespace {

// What is not selected is disarmed at this place of the code; the interpreter does not call again.
inline PyObject* disarm() { return Py_NewRef(hook.disable); }

inline PyCodeObject* code_argument(PyObject* const* args) { return reinterpret_cast<PyCodeObject*>(args[0]); }

template <bool Windows>
PyObject* on_start(PyObject*, PyObject* const* args, size_t, PyObject*) {
  PyThreadState* thread = current_thread();
  const uint64_t value = decide(code_argument(args), current_frame(thread));
  if (PYSCOPE_UNLIKELY(!(value & kSelected))) return value ? disarm() : Py_NewRef(Py_None);
  if constexpr (Windows) follow_window(thread);
  if (PYSCOPE_LIKELY(!(value & kSuspends)))
    record_call(value, thread);
  else
    record_resume(value, Kind::GenStart, current_frame(thread), thread, nullptr);
  return Py_NewRef(Py_None);
}

template <bool Windows>
PyObject* on_resume(PyObject*, PyObject* const* args, size_t, PyObject*) {
  PyThreadState* thread = current_thread();
  const uint64_t value = decide(code_argument(args), current_frame(thread));
  if (PYSCOPE_UNLIKELY(!(value & kSelected))) return value ? disarm() : Py_NewRef(Py_None);
  if constexpr (Windows) follow_window(thread);
  record_resume(value, Kind::GenResume, current_frame(thread), thread, nullptr);
  return Py_NewRef(Py_None);
}

// A frame that ends was begun before the recording if its code is not resolved: then it is not ours.
PyObject* on_return(PyObject*, PyObject* const* args, size_t, PyObject*) {
  PyThreadState* thread = current_thread();
  const uint64_t value = decision(code_argument(args));
  if (PYSCOPE_UNLIKELY(!current(value))) return Py_NewRef(Py_None);
  if (PYSCOPE_UNLIKELY(!(value & kSelected))) return disarm();
  if (PYSCOPE_LIKELY(!(value & kSuspends)))
    record_return(value, thread);
  else
    record_suspend(value, Kind::GenReturn, current_frame(thread), thread, nullptr);
  return Py_NewRef(Py_None);
}

PyObject* on_yield(PyObject*, PyObject* const* args, size_t, PyObject*) {
  const uint64_t value = decision(code_argument(args));
  if (PYSCOPE_UNLIKELY(!current(value))) return Py_NewRef(Py_None);
  if (PYSCOPE_UNLIKELY(!(value & kSelected))) return disarm();
  PyThreadState* thread = current_thread();
  record_suspend(value, Kind::GenYield, current_frame(thread), thread, nullptr);
  return Py_NewRef(Py_None);
}

// PY_THROW and PY_UNWIND are events of the whole process and cannot be disarmed before 3.15.
PyObject* on_throw(PyObject*, PyObject* const* args, size_t, PyObject*) {
  PyThreadState* thread = current_thread();
  Frame* frame = current_frame(thread);
  const uint64_t value = decide(code_argument(args), frame);
  if (value & kSelected) {
    // A profile function that was called just before has taken it for a resume (3.13).
    if (!hook.profile_has_company || !thread_ring->amend_resume(word(value, Kind::GenResume), instance(frame, 0),
                                                                hook.slow.exception(Py_TYPE(args[2]))))
      record_resume(value, Kind::GenThrow, frame, thread, Py_TYPE(args[2]));
  }
  return Py_NewRef(Py_None);
}

PyObject* on_unwind(PyObject*, PyObject* const* args, size_t, PyObject*) {
  const uint64_t value = decision(code_argument(args));
  if (current(value) && (value & kSelected)) {
    PyThreadState* thread = current_thread();
    if (value & kSuspends)
      record_suspend(value, Kind::GenRaise, current_frame(thread), thread, Py_TYPE(args[2]));
    else
      record_raise(value, thread, Py_TYPE(args[2]));
  }
  return Py_NewRef(Py_None);
}

PyObject* on_nothing(PyObject*, PyObject* const*, size_t, PyObject*) { return Py_NewRef(Py_None); }

// Beside the frame hook of 3.13, see `install_frame_company`.
PyObject* on_start_watched(PyObject*, PyObject* const* args, size_t, PyObject*) {
  PyThreadState* thread = current_thread();
  const uint64_t value = decide(code_argument(args), current_frame(thread));
  if (!(value & kWatched)) return value ? disarm() : Py_NewRef(Py_None);
  follow_window(thread);
  record_call(value, thread);
  return Py_NewRef(Py_None);
}

PyObject* on_return_watched(PyObject*, PyObject* const* args, size_t, PyObject*) {
  const uint64_t value = decision(code_argument(args));
  if (current(value) && (value & kWatched)) record_return(value, current_thread());
  return Py_NewRef(Py_None);
}

PyObject* on_unwind_watched(PyObject*, PyObject* const* args, size_t, PyObject*) {
  const uint64_t value = decision(code_argument(args));
  if (current(value) && (value & kWatched)) record_raise(value, current_thread(), Py_TYPE(args[2]));
  return Py_NewRef(Py_None);
}

// Under a budget selected code has local events of another tool: two places of one event must not both record it.
PyObject* on_start_new(PyObject* self, PyObject* const* args, size_t count, PyObject* names) {
  if (current(decision(code_argument(args)))) return disarm();
  Py_DECREF(on_start<true>(self, args, count, names));
  return disarm();
}

PyObject* on_resume_new(PyObject* self, PyObject* const* args, size_t count, PyObject* names) {
  if (current(decision(code_argument(args)))) return disarm();
  Py_DECREF(on_resume<true>(self, args, count, names));
  return disarm();
}

vectorcallfunc function_for_watched(MonitoringEvent event) {
  switch (event) {
    case MonitoringEvent::Start:
      return on_start_watched;
    case MonitoringEvent::Return:
      return on_return_watched;
    case MonitoringEvent::Unwind:
      return on_unwind_watched;
    default:
      return on_nothing;
  }
}

vectorcallfunc function_for_new(MonitoringEvent event) {
  return event == MonitoringEvent::Start ? on_start_new : on_resume_new;
}

PyTypeObject callback_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool ready() {
  if (callback_type.tp_name) return true;
  callback_type.tp_name = "pyscope._hook.Callback";
  callback_type.tp_basicsize = sizeof(Callback);
  callback_type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL;
  callback_type.tp_vectorcall_offset = offsetof(Callback, call);
  callback_type.tp_call = PyVectorcall_Call;
  callback_type.tp_doc = "A monitoring callback of PyScope.";
  return PyType_Ready(&callback_type) == 0;
}

template <bool Windows>
vectorcallfunc function_for(MonitoringEvent event) {
  switch (event) {
    case MonitoringEvent::Start:
      return on_start<Windows>;
    case MonitoringEvent::Resume:
      return on_resume<Windows>;
    case MonitoringEvent::Return:
      return on_return;
    case MonitoringEvent::Yield:
      return on_yield;
    case MonitoringEvent::Throw:
      return on_throw;
    case MonitoringEvent::Unwind:
      return on_unwind;
  }
  return on_nothing;
}

}  // namespace

PyObject* make_callback(MonitoringEvent event, CallbackKind kind) {
  if (!ready()) return nullptr;
  auto* callback = PyObject_New(Callback, &callback_type);
  if (!callback) return nullptr;
  callback->call = kind == CallbackKind::Empty               ? on_nothing
                   : kind == CallbackKind::RecordWithWindows ? function_for<true>(event)
                   : kind == CallbackKind::Watched           ? function_for_watched(event)
                   : kind == CallbackKind::New               ? function_for_new(event)
                                                             : function_for<false>(event);
  return reinterpret_cast<PyObject*>(callback);
}

bool is_callback(const PyObject* callable) { return Py_IS_TYPE(callable, &callback_type); }

}  // namespace pyscope

#else

namespace pyscope {
PyObject* make_callback(MonitoringEvent, CallbackKind) {
  PyErr_SetString(PyExc_NotImplementedError, "sys.monitoring needs CPython 3.12");
  return nullptr;
}
bool is_callback(const PyObject*) { return false; }
}  // namespace pyscope

#endif
