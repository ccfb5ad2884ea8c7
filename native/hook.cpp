#include "hook.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

namespace pyscope {

Hook hook;
ThreadRing no_ring;
constinit thread_local ThreadRing* thread_ring __attribute__((tls_model("initial-exec"))) = &no_ring;

namespace {

pthread_key_t thread_end_key;

// Leaves the page to the drain. May run beside the recorder's stop, without the GIL.
void thread_ended(void* at) {
  auto* ring = static_cast<ThreadRing*>(at);
  thread_ring = &no_ring;
  std::lock_guard lock(hook.rings_mutex);
  auto& rings = hook.rings;
  if (auto found = std::find(rings.begin(), rings.end(), ring); found != rings.end()) {
    rings.erase(found);
    ring->close(true);
  }
  for (const SeenContext& context : {ring->task, ring->greenlet, ring->left_greenlet})
    if (context.reference) hook.left.push_back(context.reference);
  delete ring;
}

void measure_stack(ThreadRing* ring) {
  pthread_attr_t attributes;
  void* low = nullptr;
  size_t size = 0, guard = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  pthread_attr_getstack(&attributes, &low, &size);
  pthread_attr_getguardsize(&attributes, &guard);
  pthread_attr_destroy(&attributes);
  // What must be left for the program's own C code once the hook has stepped aside, and for the frames that still go
  // through C until the interpreter has specialised (and so inlines) the instructions that the hook kept it from.
  const size_t reserve = size < (size_t{2} << 20) ? size / 8 * 7 : size / 2;
  ring->stack_end = static_cast<char*>(low) + guard;
  ring->stack_floor = ring->stack_end + reserve;
}

// In the child of a fork nothing of the parent's recording may be touched: its ring is shared memory. Python code
// runs in the child before os.register_at_fork's handlers, so this must be a pthread handler.
void after_fork_in_child() {
  new (&hook.rings_mutex) std::mutex();
  new (&hook.life) std::recursive_timed_mutex();
  for (ThreadRing* ring : hook.rings) {
    ring->close(false);
    if (ring != thread_ring) delete ring;
  }
  hook.rings.clear();
  if (thread_ring != &no_ring) {
    pthread_setspecific(thread_end_key, nullptr);
    delete thread_ring;
    thread_ring = &no_ring;
  }
  hook.active = false;
  ++hook.generation;
  hook.window.store(0, std::memory_order_relaxed);
  if (hook.file) hook.file->abandon();
  hook.file = nullptr;
}

}  // namespace

void install_fork_handlers() {
  static bool done = false;
  if (done) return;
  done = true;
  // below no stack is: the first look at a thread opens its ring
  no_ring.stack_floor = reinterpret_cast<char*>(~uintptr_t{0});
  pthread_key_create(&thread_end_key, thread_ended);
  // A thread that ends changes the list of rings without the GIL: not while a child gets its copy.
  pthread_atfork([] { hook.rings_mutex.lock(); }, [] { hook.rings_mutex.unlock(); }, after_fork_in_child);
}

ThreadRing* open_thread_ring(Frame* first) {
  if (!hook.active) return &no_ring;
  auto* ring = new (std::nothrow) ThreadRing();
  if (!ring) {
    hook.faults.fetch_add(1, std::memory_order_relaxed);
    return &no_ring;
  }
  measure_stack(ring);
  ring->open(hook.file, hook.threads++, static_cast<uint32_t>(syscall(SYS_gettid)));
  if (hook.windowed && !hook.window.load(std::memory_order_relaxed)) ring->window_closed = ticks();
  std::vector<PyObject*> left;
  {
    std::lock_guard lock(hook.rings_mutex);
    hook.rings.push_back(ring);
    left.swap(hook.left);
  }
  for (PyObject* reference : left) Py_DECREF(reference);
  pthread_setspecific(thread_end_key, ring);
  thread_ring = ring;
  ErrorGuard error;
  hook.slow.new_thread(ring, first ? first : current_frame(current_thread()));
  return ring;
}

void count_all_rings() {
  std::lock_guard lock(hook.rings_mutex);
  for (ThreadRing* ring : hook.rings) ring->count_events();
}

void mark_quieted(uint32_t code) {
  std::lock_guard lock(hook.rings_mutex);
  for (ThreadRing* ring : hook.rings)
    if (ring->has_page()) ring->emit_loss(LossReason::Quieted, code, ticks());
}

void close_all_rings() {
  std::lock_guard lock(hook.rings_mutex);
  for (ThreadRing* ring : hook.rings) {
    // The C calls of the time since the last window are missing too.
    if (ring->window_closed && !ring->window) ring->emit_loss(LossReason::DutyCycle, 0, ring->window_closed);
    ring->close(true);
    ring->window = 0;
  }
}

namespace {

// Back in the greenlet that was left last, as an asynchronous service is for each of its queries. False if there is more
// to find out than that.
bool go_back(ThreadRing* ring, PyThreadState* thread, PyObject* now) {
  if (seen(ring->left_greenlet) != now || !ring->file()) return false;
  const bool inner = ring->left_greenlet.serial != 0;
  const SeenContext& next = inner ? ring->left_greenlet : ring->task;
  if (next.named_to < ring->file()->order()) return false;
  if (!inner && (thread->context != ring->python_context || !tasks_are_known() || !next.reference ||
                 current_task(ring) != seen(next)))
    return false;
  const uint64_t serial = next.serial;
  std::swap(ring->greenlet, ring->left_greenlet);
  ring->in_greenlet = inner;
  go_on_in(ring, serial);
  return true;
}

// False if there is a task to be looked for as well.
bool look_for_greenlet(ThreadRing* ring, PyThreadState* thread) {
  if (PYSCOPE_UNLIKELY(!hook.current_greenlet)) {
    ErrorGuard error;
    hook.slow.find_greenlet();
    if (!hook.current_greenlet) return false;
  }
  PyObject* now = hook.current_greenlet();
  if (PYSCOPE_UNLIKELY(!now)) {
    PyErr_Clear();
    return false;
  }
  bool done = false;
  if (seen(ring->greenlet) != now) {
    done = go_back(ring, thread, now);
    if (!done) {
      ErrorGuard error;
      hook.slow.switch_greenlet(ring, now);
    }
  }
  Py_DECREF(now);
  return done || ring->in_greenlet;
}

}  // namespace

void look_at_context(ThreadRing* ring, PyThreadState* thread) {
  ring->context_version = thread->context_ver;
  if (hook.greenlet_imported && look_for_greenlet(ring, thread)) return;
  if (thread->context != ring->python_context || (tasks_are_known() && current_task(ring) != seen(ring->task))) {
    ErrorGuard error;
    hook.slow.switch_context(ring, thread);
  }
}

namespace {

PyObject* asyncio_task(ThreadRing* ring) {
  if constexpr (kTaskInThread) return running_task(current_thread());
  if (!hook.current_tasks) return nullptr;
  PyObject *loop = nullptr, *task = nullptr;
  Py_ssize_t at = 0;
  while (PyDict_Next(hook.current_tasks, &at, &loop, &task))
    if (loop == ring->loop) return task;
  return nullptr;
}

// By the thread's dict: a missing attribute would be an exception each time.
PyObject* trio_task() {
  ErrorGuard error;
  static PyObject* const attributes = PyUnicode_InternFromString("__dict__");
  static PyObject* const name = PyUnicode_InternFromString("task");
  PyObject* here = attributes && name ? PyObject_GetAttr(hook.trio_run, attributes) : nullptr;
  PyObject* task = here && PyDict_CheckExact(here) ? PyDict_GetItemWithError(here, name) : nullptr;
  if (!task) PyErr_Clear();  // none runs
  Py_XDECREF(here);  // the thread's state holds it, and trio the task
  return task;
}

}  // namespace

PyObject* current_task(ThreadRing* ring) {
  PyObject* task = asyncio_task(ring);
  return !task && PYSCOPE_UNLIKELY(hook.trio_run != nullptr) ? trio_task() : task;
}

}  // namespace pyscope
