// The state that every backend shares, and the path an event takes from the interpreter to the ring.
//
// Decisions are cached on the code object (co_extra) as one 64-bit value:
//    63              32 31 30      28 27                5 4    0
//   +------------------+--+----------+-------------------+------+
//   |    generation    | 0|   user   |    code id (23)   | flags|
//   +------------------+--+----------+-------------------+------+
// The generation is the recording's: a value of an earlier recording is stale and resolved anew. So a
// selected event costs a load, a compare and the ring's store, and no lookup.
#pragma once

#include <mutex>
#include <vector>

#include "interpreter.hpp"
#include "ring.hpp"

namespace pyscope {

inline constexpr uint64_t kSelected = 1;
inline constexpr uint64_t kSuspends = 2;   // generator, coroutine, async generator
inline constexpr uint64_t kAwaits = 4;     // coroutine or async generator
inline constexpr uint64_t kResolved = 8;   // so that no decision is 0
inline constexpr uint64_t kUser = uint64_t{1} << 28;  // neither the standard library, nor site-packages, nor PyScope
inline constexpr uint64_t kQuieted = uint64_t{1} << 29;  // selected, but for the governor
inline constexpr uint64_t kWatched = 16;  // recorded by monitoring callbacks beside the frame hook, which passes it on

// A task or a greenlet as a thread has seen it last.
struct SeenContext {
  PyObject* reference = nullptr;  // weak, owned: the address of one that has ended may be another's by now
  uint64_t serial = 0;  // 0 for the thread's own greenlet
  uint64_t named_to = 0;  // up to this page order of the ring its name is sure to be there
};

// What a thread needs beside its ring.
struct ThreadRing final : Ring {
  char* stack_floor = nullptr;  // the frame hook steps aside below it
  char* stack_end = nullptr;  // where the stack's memory ends
  uint64_t context_version = ~uint64_t{0};  // of the interpreter's thread when it was last looked at
  PyObject* python_context = nullptr;  // the contextvars context last seen; compared, never followed
  PyObject* loop = nullptr;  // the event loop running in this thread; likewise
  uint32_t window = 0;  // the C-call window this thread has acted on
  uint64_t window_closed = 0;  // ticks when it last closed one
  int by_hand = 0;  // c_calls() blocks in force on this thread
  SeenContext task;
  SeenContext greenlet;
  SeenContext left_greenlet;  // the one before
  bool in_greenlet = false;  // ... that is not the thread's own
};

// Slow paths in Python's terms, written in hook.pyx.
struct SlowPaths {
  uint64_t (*resolve)(PyCodeObject*, Frame*);
  uint32_t (*c_function)(PyObject*);
  uint32_t (*exception)(PyTypeObject*);
  void (*new_thread)(ThreadRing*, Frame* first);
  void (*switch_context)(ThreadRing*, PyThreadState*);
  void (*switch_greenlet)(ThreadRing*, PyObject* now);
  void (*find_greenlet)();
};

struct Hook {
  uint32_t generation = 0;
  bool active = false;
  Py_ssize_t extra_index = -1;
  SlowPaths slow{};
  _PyFrameEvalFunction next_eval = nullptr;  // what the frame hook calls: the default, or who was there before
  PyObject* disable = nullptr;  // sys.monitoring.DISABLE
  PyObject* current_tasks = nullptr;  // asyncio's dict of loop -> task
  PyObject* trio_run = nullptr;  // trio's threading.local, whose `task` is the one that runs
  bool greenlet_imported = false;  // perhaps only in part: its C API is looked for until it is found
  PyObject* (*current_greenlet)() = nullptr;  // of that API, as the next; new references
  PyObject* (*greenlet_parent)(PyObject*) = nullptr;  // ... of greenlet 2 on
  std::atomic<uint32_t> window{0};  // 1: C calls are to be recorded
  bool windowed = false;  // ... in windows: what is between them is a loss
  bool profile_has_company = false;  // backend setprofile: somebody beside it records throws and unwinds
  bool evicted = false;  // backend setprofile: the program has set a profile function over ours
  bool aside = false;  // the frame hook is out because the C stack ran low
  bool held_out = false;  // ... because of the budget
  uint64_t frames = 0;  // that the frame hook of a recording under a budget has seen
  std::atomic<uint64_t> faults{0};
  RingFile* file = nullptr;
  std::mutex rings_mutex;
  std::vector<ThreadRing*> rings;
  std::vector<PyObject*> left;  // references of threads that ended, without the GIL perhaps: the next thread drops them
  uint32_t threads = 0;
  std::recursive_timed_mutex life;  // whoever ends the recording, or uses what that takes down, without the GIL
};

extern Hook hook;
extern ThreadRing no_ring;  // stands for a thread not seen yet: always full, below every stack floor
// constinit: without it every access from another file asks first whether it has been initialised.
extern constinit thread_local ThreadRing* thread_ring __attribute__((tls_model("initial-exec")));

// This thread's ring in the current recording (made on the first event), or no_ring when none is active.
PYSCOPE_COLD ThreadRing* open_thread_ring(Frame* first = nullptr);
void close_all_rings();
// Counts what all threads wrote since the last time (Ring::count_events).
void count_all_rings();
// Tells every thread's page that the exits of a function's open calls will not be recorded.
void mark_quieted(uint32_t code);
void install_fork_handlers();

PYSCOPE_INLINE ThreadRing* ring_of_thread(Frame* frame = nullptr) {
  ThreadRing* ring = thread_ring;
  if (PYSCOPE_UNLIKELY(ring == &no_ring)) ring = open_thread_ring(frame);
  return ring;
}

PYSCOPE_INLINE uint64_t decision(PyCodeObject* code) { return code_extra(code, hook.extra_index); }
PYSCOPE_INLINE bool current(uint64_t decision) { return (decision >> 32) == hook.generation; }

PYSCOPE_INLINE uint64_t decide(PyCodeObject* code, Frame* frame) {
  uint64_t value = decision(code);
  if (PYSCOPE_UNLIKELY(!current(value))) value = hook.active ? hook.slow.resolve(code, frame) : 0;
  return value;
}

PYSCOPE_INLINE uint64_t word(uint64_t decision, Kind kind) {
  return (decision & (kCodeMask << kCodeShift)) | static_cast<uint64_t>(kind);
}

// Whether `current_task` can tell.
inline bool tasks_are_known() { return kTaskInThread || hook.current_tasks || hook.trio_run; }

// The task of asyncio or trio that this thread's event loop is running, borrowed; null when none. No user code runs.
PyObject* current_task(ThreadRing* ring);

// Borrowed; null for what was not seen, None for what has ended.
PYSCOPE_INLINE PyObject* seen(const SeenContext& context) {
  return context.reference ? reinterpret_cast<PyWeakReference*>(context.reference)->wr_object : nullptr;
}

inline void forget(SeenContext* context) {
  PyObject* reference = context->reference;
  *context = {};
  Py_XDECREF(reference);
}

inline void go_on_in(ThreadRing* ring, uint64_t serial) {
  if (serial == ring->context()) return;
  ring->set_context(serial);
  ring->emit(head(Kind::Switch, 0), serial);
}

// Emits a SWITCH if another task or greenlet runs here than at the last event.
PYSCOPE_COLD void look_at_context(ThreadRing* ring, PyThreadState* thread);

// The interpreter counts in `context_ver` each time a contextvars context is entered or left, as every step of a task
// does, and greenlet at each of its switches: one compare tells that nothing has changed. A coroutine's first step asks
// for the task as well: a loop may change that by itself (asyncio._enter_task).
PYSCOPE_INLINE void follow_context(ThreadRing* ring, PyThreadState* thread, bool first_step) {
  if (PYSCOPE_UNLIKELY(thread->context_ver != ring->context_version) ||
      (first_step && tasks_are_known() && current_task(ring) != seen(ring->task)))
    look_at_context(ring, thread);
}

PYSCOPE_INLINE void record_call(uint64_t value, PyThreadState* thread) {
  ThreadRing* ring = ring_of_thread();
  follow_context(ring, thread, false);
  ring->emit(word(value, Kind::Call));
}

// A call may return after the task that ran inside it has ended (asyncio.run, a turn of the event loop).
PYSCOPE_INLINE void record_return(uint64_t value, PyThreadState* thread) {
  ThreadRing* ring = thread_ring;
  follow_context(ring, thread, false);
  ring->emit(word(value, Kind::Return));
}

inline void record_raise(uint64_t value, PyThreadState* thread, PyTypeObject* type) {
  follow_context(thread_ring, thread, false);
  thread_ring->emit(word(value, Kind::Raise), hook.slow.exception(type) & kExceptionMask);
}

// GenStart, GenResume, GenThrow. What is thrown into a generator that has not begun starts a call as well: a call that
// ended without an event (close() of a suspended generator needs not resume it) may have had its frame's address.
PYSCOPE_INLINE void record_resume(uint64_t value, Kind kind, Frame* frame, PyThreadState* thread,
                                  PyTypeObject* thrown) {
  ThreadRing* ring = ring_of_thread();
  const bool starts = kind == Kind::GenStart || (kind == Kind::GenThrow && PYSCOPE_UNLIKELY(!begun(frame)));
  follow_context(ring, thread, starts && (value & kAwaits));
  if (kind == Kind::GenThrow && starts) ring->emit(word(value, Kind::GenStart), instance(frame, 0));
  ring->emit(word(value, kind), instance(frame, thrown ? hook.slow.exception(thrown) : 0));
}

// GenYield, GenReturn, GenRaise.
PYSCOPE_INLINE void record_suspend(uint64_t value, Kind kind, Frame* frame, PyThreadState* thread,
                                   PyTypeObject* raised) {
  ThreadRing* ring = thread_ring;
  follow_context(ring, thread, false);
  ring->emit(word(value, kind), instance(frame, raised ? hook.slow.exception(raised) : 0));
}

// The current exception put aside while a slow path runs.
class ErrorGuard {
 public:
#if PY_VERSION_HEX >= 0x030C0000
  ErrorGuard() : raised_(PyErr_GetRaisedException()) {}
  ~ErrorGuard() { PyErr_SetRaisedException(raised_); }

 private:
  PyObject* raised_;
#else
  ErrorGuard() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~ErrorGuard() { PyErr_Restore(type_, value_, traceback_); }

 private:
  PyObject *type_, *value_, *traceback_;
#endif
};

}  // namespace pyscope
