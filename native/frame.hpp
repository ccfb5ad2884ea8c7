// Backend `frame`: PEP 523 frame evaluation.
//
// The interpreter calls the hook for every Python frame that begins or resumes, and stops inlining
// Python-to-Python calls meanwhile; so recursion uses the C stack, and near its end the hook takes itself
// out until the stack is back here (the gap is a LOSS event).
#pragma once

#include "hook.hpp"
#include "setprofile.hpp"

namespace pyscope {

inline PyObject* evaluate(PyThreadState* thread, Frame* frame, int throwing) {
  const int units = kEvalUnits + in_generator(frame);
  refund_c_recursion(thread, units);
  PyObject* result = hook.next_eval(thread, frame, throwing);
  refund_c_recursion(thread, -units);
  return result;
}

PyObject* step_aside(PyThreadState* thread, Frame* frame, int throwing);

inline bool near_stack_end(const ThreadRing* ring) {
  return static_cast<char*>(__builtin_frame_address(0)) < ring->stack_floor;
}

// A frame of a generator, coroutine or async generator. On its own, so that the plain path stays small.
__attribute__((noinline)) PyObject* eval_generator(PyThreadState* thread, Frame* frame, int throwing, uint64_t value);

enum class FrameHook {
  Plain,
  Windows,   // C calls are recorded too, in windows that the thread opens for itself here
  Governed,  // ... and frames are counted, since each costs even where nothing is recorded
};

template <FrameHook Which>
PyObject* eval_frame(PyThreadState* thread, Frame* frame, int throwing) {
  if (PYSCOPE_UNLIKELY(near_stack_end(thread_ring)) && near_stack_end(ring_of_thread(frame)) && hook.active)
    return step_aside(thread, frame, throwing);
  if constexpr (Which == FrameHook::Governed) ++hook.frames;
  PyCodeObject* code = frame_code(frame);
  if (PYSCOPE_UNLIKELY(!code)) return hook.next_eval(thread, frame, throwing);
  const uint64_t value = decide(code, frame);
  if (!(value & kSelected)) return evaluate(thread, frame, throwing);
  if constexpr (Which != FrameHook::Plain) follow_window(thread);
  if (!(value & kSuspends)) {
    record_call(value, thread);
    PyObject* result = evaluate(thread, frame, throwing);
    if (PYSCOPE_LIKELY(current(value))) {
      if (PYSCOPE_LIKELY(result != nullptr))
        record_return(value, thread);
      else
        record_raise(value, thread, raised_type(thread));
    }
    return result;
  }
  return eval_generator(thread, frame, throwing, value);
}

// For the benchmarks: what the mechanism itself costs.
inline PyObject* eval_frame_empty(PyThreadState* thread, Frame* frame, int throwing) {
  return hook.next_eval(thread, frame, throwing);
}

// Installs `function` over whoever is there, unless it is in that chain already; false when another of ours is.
bool install_eval(_PyFrameEvalFunction function);
// Takes the hook out; false when somebody else has installed one over it (it then only passes frames on).
bool remove_eval();
// Takes the hook out for a while, or puts it back; false where it cannot be done just now. Frames that were begun under
// the hook still end under it, so no exit is missed.
bool hold_out_eval(bool out);

}  // namespace pyscope
