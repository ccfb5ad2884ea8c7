// Backend `monitoring`: PEP 669 callbacks (3.12+) as objects with a vectorcall of their own, so that the
// interpreter reaches the C code without building a call.
#pragma once

#include "hook.hpp"
#include "setprofile.hpp"

#if PY_VERSION_HEX >= 0x030C0000
#define PYSCOPE_HAS_MONITORING 1
#endif

namespace pyscope {

struct Callback {
  PyObject_HEAD vectorcallfunc call;
};

enum class MonitoringEvent { Start, Resume, Return, Yield, Throw, Unwind };
// Watched: only code that the frame hook leaves to monitoring. New: only code that has not been met yet, which then gets
// local events for the other callbacks (a recording under a budget).
enum class CallbackKind { Record, RecordWithWindows, Watched, New, Empty };

// The callable for an event; a new reference. Null with an exception set on failure.
PyObject* make_callback(MonitoringEvent event, CallbackKind kind);
// Whether a callable is one of these.
bool is_callback(const PyObject* callable);

}  // namespace pyscope
