#include "setprofile.hpp"

#include <unordered_map>

#include "frame.hpp"

// Internal in some versions' headers, exported in all.
extern "C" PyAPI_FUNC(int) _PyEval_SetProfile(PyThreadState* tstate, Py_tracefunc func, PyObject* arg);

namespace pyscope {

namespace {

Frame* frame_of(PyFrameObject* object) { return object->f_frame; }

void record_c(PyFrameObject* object, Kind kind, PyObject* function) {
  Frame* frame = frame_of(object);
  PyCodeObject* code = frame_code(frame);
  if (!code) return;
  const uint64_t caller = decide(code, frame);
  if (!(caller & (kSelected | kWatched)) || !function) return;
  ring_of_thread()->emit(head(kind, hook.slow.c_function(function)));
}

inline int profile_c_event(PyFrameObject* object, int what, PyObject* argument) {
  switch (what) {
    case PyTrace_C_CALL:
      record_c(object, Kind::CCall, argument);
      break;
    case PyTrace_C_RETURN:
      record_c(object, Kind::CReturn, argument);
      break;
    case PyTrace_C_EXCEPTION:
      record_c(object, Kind::CRaise, argument);
      break;
  }
  return 0;
}

bool c_calls = false;

// From 3.12 on nothing tells of a thread that `_thread` starts, except the return of the C function that did it: by then
// the thread's state exists, and it has not run yet, for this thread holds the GIL.
PyMethodDef* thread_starters[2] = {nullptr, nullptr};

void note_thread_starters() {
#if PY_VERSION_HEX >= 0x030C0000
  const char* names[] = {"start_new_thread", "start_joinable_thread"};
  PyObject* module = PyImport_ImportModule("_thread");
  for (size_t i = 0; i < 2; ++i) {
    PyObject* function = module ? PyObject_GetAttrString(module, names[i]) : nullptr;
    if (function && Py_IS_TYPE(function, &PyCFunction_Type))
      thread_starters[i] = reinterpret_cast<PyCFunctionObject*>(function)->m_ml;
    Py_XDECREF(function);
    PyErr_Clear();
  }
  Py_XDECREF(module);
#endif
}

inline void arm_started_thread(PyObject* function) {
  if (!function || !Py_IS_TYPE(function, &PyCFunction_Type)) return;
  const PyMethodDef* method = reinterpret_cast<PyCFunctionObject*>(function)->m_ml;
  if (PYSCOPE_UNLIKELY(method == thread_starters[0] || method == thread_starters[1]))
    arm_all_threads(profile_everything);
}

template <bool CCalls>
int profile_python(PyFrameObject* object, int what, PyObject* argument) {
  if (what != PyTrace_CALL && what != PyTrace_RETURN) {
    if constexpr (CCalls) profile_c_event(object, what, argument);
    if (what == PyTrace_C_RETURN) arm_started_thread(argument);
    return 0;
  }
  Frame* frame = frame_of(object);
  PyCodeObject* code = frame_code(frame);
  if (PYSCOPE_UNLIKELY(!code)) return 0;
  if (what == PyTrace_CALL) {
    const uint64_t value = decide(code, frame);
    if (!(value & kSelected)) return 0;
    PyThreadState* thread = current_thread();
    if (PYSCOPE_LIKELY(!(value & kSuspends))) {
      record_call(value, thread);
      return 0;
    }
    switch (resumption(frame)) {
      case Resumption::Start:
        record_resume(value, Kind::GenStart, frame, thread, nullptr);
        break;
      case Resumption::Resume:
        record_resume(value, Kind::GenResume, frame, thread, nullptr);
        break;
      case Resumption::Throw:
        if (!hook.profile_has_company || hook.aside) record_resume(value, Kind::GenThrow, frame, thread, nullptr);
        break;
    }
    return 0;
  }
  const bool raised = left_by_exception(frame, argument);
  if (raised && hook.profile_has_company && !hook.aside) return 0;
  const uint64_t value = decision(code);
  if (!current(value) || !(value & kSelected)) return 0;
  if (PYSCOPE_UNLIKELY(raised)) {
    if (value & kSuspends)
      record_suspend(value, Kind::GenRaise, frame, current_thread(), nullptr);
    else
      record_raise(value, current_thread(), nullptr);
  } else if (PYSCOPE_LIKELY(!(value & kSuspends))) {
    record_return(value, current_thread());
  } else {
    record_suspend(value, suspends(frame) ? Kind::GenYield : Kind::GenReturn, frame, current_thread(), nullptr);
  }
  return 0;
}

}  // namespace

void arm_at_first_event(PyFrameObject* frame, int what, PyObject* argument) {
  PyThreadState* thread = current_thread();
  if (_PyEval_SetProfile(thread, hook.active ? profile_everything : nullptr, nullptr) != 0) PyErr_Clear();
  profile_everything(nullptr, frame, what, argument);
}

void profile_python_with_c_calls(bool yes) {
  c_calls = yes;
  note_thread_starters();
}

int profile_everything(PyObject*, PyFrameObject* frame, int what, PyObject* argument) {
  if (PYSCOPE_UNLIKELY(!hook.active)) return 0;
  return c_calls ? profile_python<true>(frame, what, argument) : profile_python<false>(frame, what, argument);
}

int profile_c_calls(PyObject*, PyFrameObject* frame, int what, PyObject* argument) {
  if (PYSCOPE_UNLIKELY(!hook.active) || what == PyTrace_CALL || what == PyTrace_RETURN) return 0;
  return profile_c_event(frame, what, argument);
}

int profile_nothing(PyObject*, PyFrameObject*, int, PyObject*) { return 0; }

namespace {
bool ours(Py_tracefunc function) {
  return function == profile_everything || function == profile_c_calls || function == profile_nothing;
}
}  // namespace

bool armed_by_us(const PyThreadState* thread) { return ours(thread->c_profilefunc); }

bool arm_thread(PyThreadState* thread, Py_tracefunc function) {
  if (thread->c_profilefunc && !ours(thread->c_profilefunc)) return false;
  if (thread->c_profilefunc == function) return true;
  ErrorGuard error;
  if (_PyEval_SetProfile(thread, function, nullptr) != 0) {
    PyErr_Clear();  // an audit hook refused
    return false;
  }
  return true;
}

namespace {

// Whether there are audit hooks: only for them are an event's arguments built. They may give up the GIL, and the thread
// whose profile function is being set may end meanwhile.
bool audited() {
  bool built = false;
  PyObject* (*note)(void*) = [](void* at) {
    *static_cast<bool*>(at) = true;
    return Py_NewRef(Py_None);
  };
  ErrorGuard error;
  if (PySys_Audit("pyscope.profile", "O&", note, &built) != 0) PyErr_Clear();
  return built;
}

}  // namespace

int arm_all_threads(Py_tracefunc function) {
  // With the GIL held throughout no thread state ends meanwhile (PyEval_SetProfileAllThreads may give it up: gh-132817).
  const bool alone = audited();
  int refused = 0;
  for (PyThreadState* thread = PyInterpreterState_ThreadHead(PyInterpreterState_Main()); thread;
       thread = PyThreadState_Next(thread)) {
    if (alone && thread != current_thread())
      refused += function && thread->c_profilefunc != function;
    else if (!arm_thread(thread, function))
      ++refused;
  }
  return refused;
}

void change_window(ThreadRing* ring, PyThreadState* thread) {
  const uint32_t window = hook.window.load(std::memory_order_relaxed);
  if (!hook.active || ring == &no_ring) return;
  // C calls between two windows are missing: say when.
  if (window && ring->window_closed) ring->emit_loss(LossReason::DutyCycle, 0, ring->window_closed);
  if (!window) ring->window_closed = ticks();
  ring->window = window;
  if (!follow_hand(ring, thread)) hook.faults.fetch_add(1, std::memory_order_relaxed);
}

void change_windows() {
  if (audited()) return;  // each thread follows by itself, at its next call
  std::unordered_map<unsigned long, ThreadRing*> rings;
  {
    std::lock_guard lock(hook.rings_mutex);
    for (ThreadRing* ring : hook.rings) rings.emplace(ring->os_tid(), ring);
  }
  for (PyThreadState* thread = PyInterpreterState_ThreadHead(PyInterpreterState_Main()); thread;
       thread = PyThreadState_Next(thread)) {
    const auto found = rings.find(thread->native_thread_id);
    if (found != rings.end() && found->second->window != hook.window.load(std::memory_order_relaxed))
      change_window(found->second, thread);
  }
}

bool follow_hand(ThreadRing* ring, PyThreadState* thread) {
  if (thread->c_profilefunc == profile_everything) return c_calls;
  return arm_thread(thread, ring->window || ring->by_hand > 0 ? profile_c_calls : nullptr);
}

PyObject* eval_frame_beside_profile(PyThreadState* thread, Frame* frame, int throwing) {
  if (PYSCOPE_UNLIKELY(near_stack_end(thread_ring)) && near_stack_end(ring_of_thread(frame)) && hook.active)
    return step_aside(thread, frame, throwing);
  if (PYSCOPE_UNLIKELY(thread->c_profilefunc != profile_everything) && hook.active && !thread->tracing &&
      !arm_thread(thread, profile_everything))
    hook.evicted = true;
  PyCodeObject* code = frame_code(frame);
  if (PYSCOPE_UNLIKELY(!code)) return hook.next_eval(thread, frame, throwing);
  const bool generator = in_generator(frame);
  uint64_t value = 0;
  if (PYSCOPE_UNLIKELY(throwing)) {
    value = decide(code, frame);
    if (value & kSelected) record_resume(value, Kind::GenThrow, frame, thread, raised_type(thread));
  }
  PyObject* result = evaluate(thread, frame, throwing);
  if (PYSCOPE_UNLIKELY(!result)) {
    value = decision(code);
    if (current(value) && (value & kSelected)) {
      if (generator)
        record_suspend(value, Kind::GenRaise, frame, thread, raised_type(thread));
      else if (!(value & kSuspends))
        record_raise(value, thread, raised_type(thread));
    }
  }
  return result;
}

}  // namespace pyscope
