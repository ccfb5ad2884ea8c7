// CPython 3.12 joins some pairs of instructions when it makes a code object (LOAD_FAST__LOAD_FAST), and takes them apart
// for good, in whatever runs from then on, as soon as any tool asks for any event: half a per cent of a service's
// instructions. 3.13 joins them in the compiler, where they stay.
#pragma once

#include "interpreter.hpp"

namespace pyscope {

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000

inline constexpr bool kHasSuperinstructions = true;

struct Superinstruction {
  const char* name;
  uint8_t first, second, both;
};

inline constexpr Superinstruction kSuperinstructions[] = {
    {"LOAD_FAST__LOAD_FAST", LOAD_FAST, LOAD_FAST, LOAD_FAST__LOAD_FAST},
    {"LOAD_FAST__LOAD_CONST", LOAD_FAST, LOAD_CONST, LOAD_FAST__LOAD_CONST},
    {"LOAD_CONST__LOAD_FAST", LOAD_CONST, LOAD_FAST, LOAD_CONST__LOAD_FAST},
    {"STORE_FAST__LOAD_FAST", STORE_FAST, LOAD_FAST, STORE_FAST__LOAD_FAST},
    {"STORE_FAST__STORE_FAST", STORE_FAST, STORE_FAST, STORE_FAST__STORE_FAST},
};

// Joins what _PyCode_Quicken() has joined (Python/specialize.c). An instruction that anybody watches or has specialised is
// left alone, and whatever asks for events later takes the pairs apart again as it does with new code.
inline void join_instructions(PyCodeObject* code) {
  const bool had = code->_co_cached && code->_co_cached->_co_code;
  PyObject* plain = PyCode_GetCode(code);  // as compiled; its caches are zero, so no pair is seen in them
  if (!plain) {
    PyErr_Clear();
    return;
  }
  const auto* base = reinterpret_cast<const _Py_CODEUNIT*>(PyBytes_AS_STRING(plain));
  _Py_CODEUNIT* live = _PyCode_CODE(code);
  for (Py_ssize_t i = 1; i < Py_SIZE(code); ++i) {
    const uint8_t first = base[i - 1].op.code, second = base[i].op.code;
    if (live[i - 1].op.code != first || live[i].op.code != second) continue;
    for (const Superinstruction& pair : kSuperinstructions)
      if (pair.first == first && pair.second == second) live[i - 1].op.code = pair.both;
  }
  Py_DECREF(plain);
  if (!had && code->_co_cached) Py_CLEAR(code->_co_cached->_co_code);
}

// Whether the interpreter that runs, whose numbers by name these are, has those of the one that this was built with.
inline bool superinstructions_are(PyObject* numbers) {
  for (const Superinstruction& pair : kSuperinstructions) {
    PyObject* number = PyDict_GetItemString(numbers, pair.name);
    if (!number || PyLong_AsLong(number) != pair.both) return false;
  }
  return true;
}

#else

inline constexpr bool kHasSuperinstructions = false;
inline void join_instructions(PyCodeObject*) {}
inline bool superinstructions_are(PyObject*) { return false; }

#endif

}  // namespace pyscope
