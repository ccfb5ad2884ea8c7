// Backend `setprofile`: PyEval_SetProfile, the only mechanism that sees C calls in every version.
//
// It serves twice: alone (Python and C calls), and beside another backend for C calls only, in
// windows that each thread opens for itself at its next recorded call (`follow_window`).
// A profile function is not told which exception leaves a frame. So when it records Python calls too, somebody
// stands beside it who is: from 3.12 on monitoring callbacks for PY_UNWIND and PY_THROW, before a bare frame
// hook (`eval_frame_beside_profile`), which also arms new threads. From 3.12 on new threads are armed by their first
// event (those of `threading`) or by the return of `_thread.start_new_thread` in the thread that started them; one that
// C code starts without Python is armed by the next such return only. Where neither can be had, exceptions
// are recorded without their type.
#pragma once

#include "hook.hpp"

namespace pyscope {

int profile_everything(PyObject*, PyFrameObject* frame, int what, PyObject* argument);
int profile_c_calls(PyObject*, PyFrameObject* frame, int what, PyObject* argument);
int profile_nothing(PyObject*, PyFrameObject* frame, int what, PyObject* argument);

PyObject* eval_frame_beside_profile(PyThreadState* thread, Frame* frame, int throwing);
// Whether `profile_everything` records C calls too.
void profile_python_with_c_calls(bool yes);
// What a thread's first profile event came to as a Python-level profile function: arms the thread, passes the event on.
void arm_at_first_event(PyFrameObject* frame, int what, PyObject* argument);

// Sets (or with null takes away) this module's profile function on a thread; false when another profiler is there.
bool arm_thread(PyThreadState* thread, Py_tracefunc function);
bool armed_by_us(const PyThreadState* thread);
// Every thread of the interpreter; the number of those where another profiler was in the way. Needs the GIL. Under audit
// hooks the calling thread only: the others are armed by their first event, or (counted too) not.
int arm_all_threads(Py_tracefunc function);

PYSCOPE_COLD void change_window(ThreadRing* ring, PyThreadState* thread);
// Lets every thread act on a window that has just opened or closed, also one that makes no recorded call. Needs the GIL.
void change_windows();
// Arms or disarms the thread for C calls as its c_calls() blocks and the window say.
bool follow_hand(ThreadRing* ring, PyThreadState* thread);

PYSCOPE_INLINE void follow_window(PyThreadState* thread) {
  ThreadRing* ring = thread_ring;
  if (PYSCOPE_UNLIKELY(ring->window != hook.window.load(std::memory_order_relaxed))) change_window(ring, thread);
}

// Whether a generator's frame has never run: it stands before its first RESUME.
inline bool first_resume(const Frame* frame) {
  PyCodeObject* code = frame_code(frame);
#if PY_VERSION_HEX >= 0x030D0000
  const _Py_CODEUNIT* at = frame->instr_ptr;
#else
  const _Py_CODEUNIT* at = frame->prev_instr;
#endif
  return at - reinterpret_cast<_Py_CODEUNIT*>(code->co_code_adaptive) < code->_co_firsttraceable;
}

}  // namespace pyscope
