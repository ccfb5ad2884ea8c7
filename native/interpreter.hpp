// What the recorder must know of CPython's insides, in one place, by version.
//
// 3.11: frames hold `f_code`; generator state is in the generator around the frame; a profile function
//       disables specialised opcodes (FACTS: gh-issue list in docs/).
// 3.12: `f_code`, frames reached by cframe; PEP 669.
// 3.13: `f_executable`, frames reached by `current_frame`.
// 3.14: `f_executable` is a tagged reference (_PyStackRef).
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include "internal/pycore_frame.h"
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_genobject.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_tstate.h"
#endif
#undef Py_BUILD_CORE

#include <cstddef>
#include <cstdint>

#include "opcode.h"

namespace pyscope {

using Frame = _PyInterpreterFrame;

inline PyCodeObject* frame_code(const Frame* frame) {
#if PY_VERSION_HEX >= 0x030E0000
  PyObject* executable = PyStackRef_AsPyObjectBorrow(frame->f_executable);
  return PyCode_Check(executable) ? reinterpret_cast<PyCodeObject*>(executable) : nullptr;
#elif PY_VERSION_HEX >= 0x030D0000
  PyObject* executable = frame->f_executable;
  return executable && PyCode_Check(executable) ? reinterpret_cast<PyCodeObject*>(executable) : nullptr;
#else
  return frame->f_code;
#endif
}

// Where a frame's code object is, if it has one: to compare, not to look at.
inline const void* code_address(const Frame* frame) {
#if PY_VERSION_HEX >= 0x030E0000
  return PyStackRef_AsPyObjectBorrow(frame->f_executable);
#elif PY_VERSION_HEX >= 0x030D0000
  return frame->f_executable;
#else
  return frame->f_code;
#endif
}

inline bool in_generator(const Frame* frame) { return frame->owner == FRAME_OWNED_BY_GENERATOR; }

inline const PyGenObject* generator_of(const Frame* frame) {
  return reinterpret_cast<const PyGenObject*>(reinterpret_cast<const char*>(frame) - offsetof(PyGenObject, gi_iframe));
}

// After a resume has come back: whether the generator waits at a yield (else it is finished). Only valid while
// somebody holds the generator, as whoever resumed it does.
inline bool suspended(const Frame* frame) { return generator_of(frame)->gi_frame_state < 0; }

inline Frame* current_frame(PyThreadState* thread) {
#if PY_VERSION_HEX >= 0x030D0000
  return thread->current_frame;
#else
  return thread->cframe->current_frame;
#endif
}

// Whether a frame runs Python code that has begun: neither an entry from C nor one still being set up.
inline bool is_python_frame(const Frame* frame) {
#if PY_VERSION_HEX >= 0x030E0000
  if (frame->owner == FRAME_OWNED_BY_INTERPRETER) return false;
#elif PY_VERSION_HEX >= 0x030C0000
  if (frame->owner == FRAME_OWNED_BY_CSTACK) return false;
#endif
  return frame_code(frame) && !_PyFrame_IsIncomplete(const_cast<Frame*>(frame));
}

inline Frame* caller_of(const Frame* frame) { return frame->previous; }

// Bytes from the beginning of the code to the instruction in hand.
inline int instruction_offset(Frame* frame) {
  return _PyInterpreterFrame_LASTI(frame) * static_cast<int>(sizeof(_Py_CODEUNIT));
}

// Whether a generator's frame has got past its first RESUME. An exception thrown into one that has not makes it begin
// and end at once.
inline bool begun(Frame* frame) { return _PyInterpreterFrame_LASTI(frame) >= frame_code(frame)->_co_firsttraceable; }

inline Frame* frame_of(PyObject* frame_object) { return reinterpret_cast<PyFrameObject*>(frame_object)->f_frame; }

inline PyThreadState* current_thread() {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked();
#else
  return _PyThreadState_UncheckedGet();
#endif
}

// Where asyncio keeps the task that a thread runs, borrowed; null where none does. 3.13 and older keep them in a dict of
// `_asyncio`.
#if PY_VERSION_HEX >= 0x030E0000
inline constexpr bool kTaskInThread = true;
inline PyObject* running_task(PyThreadState* thread) {
  return reinterpret_cast<_PyThreadStateImpl*>(thread)->asyncio_running_task;
}
#else
inline constexpr bool kTaskInThread = false;
inline PyObject* running_task(PyThreadState*) { return nullptr; }
#endif

inline PyTypeObject* raised_type(PyThreadState* thread) {
#if PY_VERSION_HEX >= 0x030C0000
  return thread->current_exception ? Py_TYPE(thread->current_exception) : nullptr;
#else
  PyObject* type = thread->curexc_type;
  return type && PyType_Check(type) ? reinterpret_cast<PyTypeObject*>(type) : nullptr;
#endif
}

// With a frame hook every Python-to-Python call goes through C, where 3.12 and 3.13 count it against a limit that the
// same program without the hook would never meet: the hook gives the units back around the call. Of a call that C
// code makes (a sort key, `__add__`, ...) too, since the two cannot be told apart: such recursion may go deeper than
// without the hook, never less deep.
inline constexpr int kEvalUnits = 2;  // PY_EVAL_C_STACK_UNITS of ceval.c, and one for the call of a coroutine's send()

inline void refund_c_recursion(PyThreadState* thread, int units) {
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000
  thread->c_recursion_remaining += units;
#else
  (void)thread;
  (void)units;
#endif
}

// When the hook steps aside, the interpreter goes on through C for a while, until it has specialised the instructions
// that the hook kept it from: so many units must be there. Returns what was added.
inline int grant_c_recursion(PyThreadState* thread, int wanted) {
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000
  const int added = wanted > thread->c_recursion_remaining ? wanted - thread->c_recursion_remaining : 0;
  thread->c_recursion_remaining += added;
  return added;
#else
  (void)thread;
  (void)wanted;
  return 0;
#endif
}

// At a profile function's RETURN event: whether an exception leaves the frame. 3.12 passes None then, as for a return of
// None, but not from an instruction that returns or yields.
inline bool left_by_exception(const Frame* frame, PyObject* argument) {
  if (!argument) return true;
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000
  if (argument != Py_None) return false;
  switch (frame->prev_instr->op.code) {
    case RETURN_VALUE:
    case RETURN_CONST:
    case INSTRUMENTED_RETURN_VALUE:
    case INSTRUMENTED_RETURN_CONST:
    case INSTRUMENTED_LINE:
    case INSTRUMENTED_INSTRUCTION:
      return false;
    case YIELD_VALUE:
    case INSTRUMENTED_YIELD_VALUE:  // it stands there too after an exception was thrown in
      return !suspended(frame);
    default:
      return true;
  }
#else
  (void)frame;
  return false;
#endif
}

// At a profile function's RETURN event, no exception leaving: whether the generator suspends (else it is finished).
inline bool suspends(const Frame* frame) {
#if PY_VERSION_HEX >= 0x030E0000
  // The event comes before the generator's state says so: the instruction in hand tells.
  const _Py_CODEUNIT* at = frame->instr_ptr;
  switch (at->op.code) {
    case YIELD_VALUE:
    case INSTRUMENTED_YIELD_VALUE:
      return true;
    case INSTRUMENTED_LINE:
    case INSTRUMENTED_INSTRUCTION: {  // somebody else's, over it
      PyCodeObject* code = frame_code(frame);
      PyObject* plain = PyCode_GetCode(code);
      if (!plain) {
        PyErr_Clear();
        return false;
      }
      const auto* base = reinterpret_cast<const _Py_CODEUNIT*>(PyBytes_AS_STRING(plain));
      const bool yields = base[at - _PyCode_CODE(code)].op.code == YIELD_VALUE;
      Py_DECREF(plain);
      return yields;
    }
    default:
      return false;
  }
#else
  return suspended(frame);
#endif
}

enum class Resumption { Start, Resume, Throw };

// At a profile function's CALL event: what brought the generator to run. The instruction in hand is the RESUME
// at its start (oparg 0), a later one, or (throw) not a RESUME at all.
inline Resumption resumption(const Frame* frame) {
#if PY_VERSION_HEX >= 0x030D0000
  const _Py_CODEUNIT* at = frame->instr_ptr;
#else
  const _Py_CODEUNIT* at = frame->prev_instr;
#endif
#if PY_VERSION_HEX >= 0x030C0000
  const int opcode = at->op.code, argument = at->op.arg;
#else
  const int opcode = _Py_OPCODE(*at), argument = _Py_OPARG(*at);
#endif
  bool resume = opcode == RESUME;
#ifdef INSTRUMENTED_RESUME
  resume |= opcode == INSTRUMENTED_RESUME;
#endif
#ifdef RESUME_QUICK
  resume |= opcode == RESUME_QUICK;
#endif
#ifdef RESUME_CHECK
  resume |= opcode == RESUME_CHECK;
#endif
#ifdef DO_TRACING
  resume |= opcode == DO_TRACING;
#endif
  if (!resume) return Resumption::Throw;
  return (argument & 3) == 0 ? Resumption::Start : Resumption::Resume;
}

#if PY_VERSION_HEX >= 0x030C0000
#define PYSCOPE_REQUEST_CODE_EXTRA PyUnstable_Eval_RequestCodeExtraIndex
#define PYSCOPE_SET_CODE_EXTRA PyUnstable_Code_SetExtra
#else
#define PYSCOPE_REQUEST_CODE_EXTRA _PyEval_RequestCodeExtraIndex
#define PYSCOPE_SET_CODE_EXTRA _PyCode_SetExtra
#endif

// As in Objects/codeobject.c, unchanged since 3.6.
struct CodeExtra {
  Py_ssize_t size;
  void* extras[1];
};

inline uint64_t code_extra(const PyCodeObject* code, Py_ssize_t index) {
  const auto* extra = static_cast<const CodeExtra*>(code->co_extra);
  if (!extra || extra->size <= index) return 0;
  return reinterpret_cast<uint64_t>(extra->extras[index]);
}

}  // namespace pyscope
