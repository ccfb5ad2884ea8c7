#include "frame.hpp"

namespace pyscope {

namespace {
_PyFrameEvalFunction installed = nullptr;

PyInterpreterState* interpreter() { return PyInterpreterState_Main(); }
}  // namespace

bool install_eval(_PyFrameEvalFunction function) {
  _PyFrameEvalFunction before = _PyInterpreterState_GetEvalFrameFunc(interpreter());
  if (before == function) return false;
  if (before == installed && installed) return false;
  hook.next_eval = before;
  installed = function;
  _PyInterpreterState_SetEvalFrameFunc(interpreter(), function);
  return true;
}

bool remove_eval() {
  if (!installed) return true;
  if (_PyInterpreterState_GetEvalFrameFunc(interpreter()) != installed) return false;
  _PyInterpreterState_SetEvalFrameFunc(interpreter(), hook.next_eval);
  installed = nullptr;
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
  PyObject* result = hook.next_eval(thread, frame, throwing);
  hook.aside = false;
  if (hook.active && hook.generation == generation) {
    if (_PyInterpreterState_GetEvalFrameFunc(interpreter()) == hook.next_eval)
      _PyInterpreterState_SetEvalFrameFunc(interpreter(), function);
    thread_ring->emit_loss(LossReason::StackGuard, 0, since);
  }
  return result;
}

}  // namespace pyscope
