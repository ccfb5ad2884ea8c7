// What hook.pyx needs of C++ and of the interpreter's structures, in a form that Cython can call.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <memory>
#include <system_error>

#include "drain.hpp"
#include "frame.hpp"
#include "hook.hpp"
#include "monitoring.hpp"
#include "recording_file.hpp"
#include "setprofile.hpp"
#include "step_clock.hpp"

namespace pyscope {

inline PyObject* make_callback_object(int event, int kind) {
  return make_callback(static_cast<MonitoringEvent>(event), static_cast<CallbackKind>(kind));
}

// --- the interpreter's structures: borrowed references throughout ---------------------------------

inline PyObject* frame_globals(Frame* frame) { return frame->f_globals; }

inline PyObject* first_local(Frame* frame) {
#if PY_VERSION_HEX >= 0x030E0000
  return PyStackRef_AsPyObjectBorrow(frame->localsplus[0]);
#else
  PyObject* value = frame->localsplus[0];
  if (value && PyCell_Check(value)) return PyCell_GET(value);  // `self` captured by a closure
  return value;
#endif
}

// A new reference, or null.
inline PyObject* code_first_parameter(PyCodeObject* code) {
  PyObject* names = code->co_localsplusnames;
  if (!names || !PyTuple_Check(names) || PyTuple_GET_SIZE(names) == 0) return nullptr;
  return Py_NewRef(PyTuple_GET_ITEM(names, 0));
}

inline PyMethodDef* method_def(PyObject* function) {
  return PyCFunction_Check(function) ? reinterpret_cast<PyCFunctionObject*>(function)->m_ml : nullptr;
}
inline PyObject* method_self(PyObject* function) { return reinterpret_cast<PyCFunctionObject*>(function)->m_self; }
inline bool is_heap_type(PyTypeObject* type) { return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0; }
inline PyObject* heap_type_qualname(PyTypeObject* type) {
  return reinterpret_cast<PyHeapTypeObject*>(type)->ht_qualname;
}

inline PyObject* weakref_target(PyObject* reference) {
  if (!reference) return nullptr;
  PyObject* target = reinterpret_cast<PyWeakReference*>(reference)->wr_object;
  return target == Py_None ? nullptr : target;
}

// What a class attribute is without calling anybody's descriptor.
inline PyObject* getattr_static(PyObject* object, const char* name) {
  PyObject* key = PyUnicode_InternFromString(name);
  if (!key) {
    PyErr_Clear();
    return nullptr;
  }
  PyObject* found = _PyType_Lookup(Py_TYPE(object), key);
  Py_DECREF(key);
  return found;
}

inline bool foreign_eval() {
  _PyFrameEvalFunction function = _PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Main());
  return function != _PyEval_EvalFrameDefault && function != eval_frame<FrameHook::Plain> &&
         function != eval_frame<FrameHook::Windows> && function != eval_frame<FrameHook::Governed> &&
         function != eval_frame_beside_profile && function != eval_frame_empty;
}

inline bool foreign_profiler() {
  PyThreadState* thread = current_thread();
  return thread->c_profilefunc && !armed_by_us(thread);
}

inline bool in_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

inline bool is_main_thread() { return getpid() == static_cast<pid_t>(syscall(SYS_gettid)); }

// Of greenlet's C API (greenlet.h); null where there is none.
inline void find_current_greenlet(PyObject* capsule, bool has_parents) {
  constexpr int kGetCurrent = 4, kGetParent = 11;
  auto** api = static_cast<void**>(PyCapsule_GetPointer(capsule, "greenlet._C_API"));
  if (!api) return PyErr_Clear();
  hook.greenlet_parent = has_parents ? reinterpret_cast<PyObject* (*)(PyObject*)>(api[kGetParent]) : nullptr;
  hook.current_greenlet = reinterpret_cast<PyObject* (*)()>(api[kGetCurrent]);
}

// --- threads --------------------------------------------------------------------------------------

inline ThreadRing* get_thread_ring() { return thread_ring; }

inline void open_thread_ring_here() {
  if (thread_ring == &no_ring) open_thread_ring();
}

inline void first_event(void* frame, int what, PyObject* argument) {
  arm_at_first_event(static_cast<PyFrameObject*>(frame), what, argument);
}

// Threads seen in an earlier recording go on with their ring.
inline void open_existing_rings() {
  std::lock_guard lock(hook.rings_mutex);
  for (ThreadRing* ring : hook.rings) {
    ring->open(hook.file, hook.threads++, ring->os_tid());
    ring->context_version = ~uint64_t{0};
    ring->python_context = ring->loop = nullptr;
    ring->window = 0;
    ring->window_closed = hook.windowed ? ticks() : 0;
    for (SeenContext* context : {&ring->task, &ring->greenlet, &ring->left_greenlet}) forget(context);
    ring->in_greenlet = false;
  }
}

// C calls on the calling thread, between on and off; nested pairs count.
inline bool arm_by_hand(bool on) {
  open_thread_ring_here();
  ThreadRing* ring = thread_ring;
  if (ring == &no_ring) return false;
  ring->by_hand += on ? 1 : -1;
  return follow_hand(ring, current_thread());
}

// --- probes --------------------------------------------------------------------------------------

// An event of a probe, in the context that this thread is in now.
inline bool emit_probe(const void* data, size_t bytes) {
  ThreadRing* ring = ring_of_thread();
  if (ring == &no_ring) return false;
  // Not by the contextvars context alone: the frames that would have told of a task's end may not be selected.
  follow_context(ring, current_thread(), true);
  ring->emit_payload(PayloadType::Probe, data, bytes);
  return true;
}

// Code that is not the user's own, by address. Most frames of a stack run such code: this spares the look into their
// code objects, which are seldom in the processor's cache.
inline const void* foreign_code[1024];

inline const void*& foreign_code_slot(const void* code) {
  const auto address = reinterpret_cast<uintptr_t>(code) >> 4;
  return foreign_code[(address ^ address >> 10) % std::size(foreign_code)];
}

// A code object that had been looked at is freed: its address may be another's soon.
inline void code_freed(void*) { std::fill(std::begin(foreign_code), std::end(foreign_code), nullptr); }

// Of the SQLAlchemy probe: what the calling thread has loaded, borrowed.
struct LoadsHere {
  uint64_t serial;  // of the probe's loads
  uint64_t thread;
  PyObject* loads;
};
inline constinit thread_local LoadsHere loads_here __attribute__((tls_model("initial-exec"))){};

inline uint64_t thread_number() { return current_thread()->id; }

// A hash of what `hash` stands for and `value`.
inline uint64_t mixed_in(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15;
  return hash ^ hash >> 29;
}

// Whether a frame runs code of the user's own.
inline bool is_user_frame(Frame* frame) {
  const void*& foreign = foreign_code_slot(code_address(frame));
  if (foreign && foreign == code_address(frame)) return false;
  if (!is_python_frame(frame)) return false;
  const uint64_t value = decide(frame_code(frame), frame);
  if (value && !(value & kUser)) foreign = frame_code(frame);
  return (value & kUser) != 0;
}

// --- files ----------------------------------------------------------------------------------------

inline void raise_os_error(const std::exception& error) {
  if (const auto* system = dynamic_cast<const std::system_error*>(&error)) {
    PyObject* arguments = Py_BuildValue("(is)", system->code().value(), system->what());
    if (!arguments) return;
    PyErr_SetObject(PyExc_OSError, arguments);
    Py_DECREF(arguments);
    return;
  }
  PyErr_SetString(PyExc_OSError, error.what());
}

inline RingFile* make_ring_file(const RingOptions& options) {
  try {
    return new RingFile(options);
  } catch (const std::exception& error) {
    raise_os_error(error);
    return nullptr;
  }
}

inline RingFile* attach_ring(const std::string& path, bool writable) {
  try {
    return RingFile::attach(path, writable);
  } catch (const std::exception& error) {
    raise_os_error(error);
    return nullptr;
  }
}

inline RecordingFile* make_recording_file(const std::string& path, const ProcessInfo& info, const std::string& meta) {
  try {
    return new RecordingFile(path, info, meta);
  } catch (const std::exception& error) {
    raise_os_error(error);
    return nullptr;
  }
}

inline Drain* start_drain(RingFile* ring, RecordingFile* file, const std::string& parts_prefix, void (*on_failure)()) {
  try {
    auto drain = std::make_unique<Drain>(ring, file, parts_prefix);
    drain->set_on_failure(on_failure);
    drain->start();
    return drain.release();
  } catch (const std::exception& error) {
    raise_os_error(error);
    return nullptr;
  }
}

// Of `hook.life`; to be waited for without the GIL.
inline void lock_life() { hook.life.lock(); }
inline bool lock_life_for(double seconds) { return hook.life.try_lock_for(std::chrono::duration<double>(seconds)); }
inline void unlock_life() { hook.life.unlock(); }

inline StepBegin begin_step() { return step_clock.begin(); }
inline int64_t end_step(const StepBegin& begin) { return step_clock.end(begin); }

// Sends None to an iterator or coroutine, as tp_iternext gives it on: null without an error is an end with None, which
// spares a StopIteration. `cpu_ns` grows by what the step took.
inline PyObject* next_step(PyObject* awaited, int64_t* cpu_ns) {
  PyObject* result = nullptr;
  const StepBegin began = begin_step();
  const PySendResult how = PyIter_Send(awaited, Py_None, &result);
  *cpu_ns += end_step(began);
  if (how != PYGEN_RETURN) return result;
  if (result != Py_None) {
    PyObject* stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    if (stop) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
  }
  Py_DECREF(result);
  return nullptr;
}

// Cython makes an iterator's end a StopIteration with a traceback.
inline void set_next(PyTypeObject* type, iternextfunc next) {
  type->tp_iternext = next;
  PyType_Modified(type);
}
// What another thread may be storing.
inline int64_t load_relaxed(const int64_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
inline int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
inline int64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

inline void fill_info(ProcessInfo* info, PyObject* recording_id, PyObject* process_id, uint32_t parent, bool flight,
                      const std::string& ring_path) {
  *info = {};
  if (PyBytes_GET_SIZE(recording_id) == 16) std::memcpy(info->recording_id, PyBytes_AS_STRING(recording_id), 16);
  if (PyBytes_GET_SIZE(process_id) == 16) std::memcpy(info->process_id, PyBytes_AS_STRING(process_id), 16);
  info->pid = static_cast<uint32_t>(getpid());
  info->parent_pid = parent ? parent : static_cast<uint32_t>(getppid());
  info->clock_kind = static_cast<uint32_t>(clock_kind());
  info->flight = flight ? 1 : 0;
  // A first estimate of the tick for recordings that end at once; every later pair betters it.
  info->start = read_clock_pair();
  timespec pause{0, 1'000'000};
  nanosleep(&pause, nullptr);
  info->start2 = read_clock_pair();
  info->time_shift = time_shift_for(tick_ns(info->start, info->start2));
  std::strncpy(info->ring_path, ring_path.c_str(), kPathBytes - 1);
}

}  // namespace pyscope
