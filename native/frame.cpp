#include "frame.hpp"

namespace pyscope {

namespace {
_PyFrameEvalFunction installed = nullptr;

PyInterpreterState* interpreter() { return PyInterpreterState_Main(); }
}  // namespace

bool install_eval(_PyFrameEvalFunction function) {
  _PyFrameEvalFunction before = _PyInterpreterState_GetEvalFrameFunc(interpreter());
  if (installed && before != _PyEval_EvalFrameDefault) {
    // Ours could not be taken out at the last stop. Beneath another's it is called still; a second time over it,
    // the two would call each other without end.
    if (before != installed) return function == installed;
    _PyInterpreterState_SetEvalFrameFunc(interpreter(), function);
    installed = function;
    return true;
  }
  hook.aside = hook.held_out = false;
  hook.frames = 0;
  hook.next_eval = before;
  installed = function;
  _PyInterpreterState_SetEvalFrameFunc(interpreter(), function);
  return true;
}

bool remove_eval() {
  if (!installed) return true;
  if ((hook.aside || hook.held_out) &&
      _PyInterpreterState_GetEvalFrameFunc(interpreter()) == hook.next_eval) {  // it is out already
    hook.aside = hook.held_out = false;
    installed = nullptr;
    return true;
  }
  if (_PyInterpreterState_GetEvalFrameFunc(interpreter()) != installed) return false;
  _PyInterpreterState_SetEvalFrameFunc(interpreter(), hook.next_eval);
  installed = nullptr;
  return true;
}

PyObject* eval_generator(PyThreadState* thread, Frame* frame, int throwing, uint64_t value) {
  // Making a generator is not a call: its frame is still the thread's and only returns the object.
  if (!in_generator(frame)) return evaluate(thread, frame, throwing);
  if (throwing)
    record_resume(value, Kind::GenThrow, frame, thread, raised_type(thread));
  else
    record_resume(value, first_resume(frame) ? Kind::GenStart : Kind::GenResume, frame, thread, nullptr);
  PyObject* result = evaluate(thread, frame, throwing);
  if (PYSCOPE_LIKELY(current(value))) {
    if (result)
      record_suspend(value, suspended(frame) ? Kind::GenYield : Kind::GenReturn, frame, thread, nullptr);
    else
      record_suspend(value, Kind::GenRaise, frame, thread, raised_type(thread));
  }
  return result;
}

bool hold_out_eval(bool out) {
  if (!installed || hook.aside || out == hook.held_out) return false;
  if (_PyInterpreterState_GetEvalFrameFunc(interpreter()) != (out ? installed : hook.next_eval)) return false;
  _PyInterpreterState_SetEvalFrameFunc(interpreter(), out ? hook.next_eval : installed);
  hook.held_out = out;
  return true;
}

// Frames below this one run without the hook, in every thread, until it returns here.
PyObject* step_aside(PyThreadState* thread, Frame* frame, int throwing) {
  if (hook.aside || _PyInterpreterState_GetEvalFrameFunc(interpreter()) != installed)
    return hook.next_eval(thread, frame, throwing);
  const uint32_t generation = hook.generation;
  const _PyFrameEvalFunction function = installed;
  const uint64_t since = ticks();
  hook.aside = true;
  _PyInterpreterState_SetEvalFrameFunc(interpreter(), hook.next_eval);
  constexpr size_t kUnitBytes = 512;  // more than a unit takes of the stack
  const size_t left = static_cast<size_t>(thread_ring->stack_floor - thread_ring->stack_end);
  const int granted = grant_c_recursion(thread, static_cast<int>(left / kUnitBytes));
  PyObject* result = hook.next_eval(thread, frame, throwing);
  refund_c_recursion(thread, -granted);
  if (hook.aside && hook.active && hook.generation == generation) {
    hook.aside = false;
    if (_PyInterpreterState_GetEvalFrameFunc(interpreter()) == hook.next_eval)
      _PyInterpreterState_SetEvalFrameFunc(interpreter(), function);
    thread_ring->emit_loss(LossReason::StackGuard, 0, since);
  }
  return result;
}

}  // namespace pyscope
