// The drain: a native thread, never holding the GIL, that moves full pages from the ring into the file.
#pragma once

#include <pthread.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "recording_file.hpp"

namespace pyscope {

// start() begins the thread; finish() asks for the rest to be written and waits.
class Drain {
 public:
  // `file` may be null (flight mode): the thread then only keeps the clock.
  Drain(RingFile* ring, RecordingFile* file, std::string parts_prefix);
  ~Drain();
  void start();  // throws std::system_error
  // False when the thread did not end in time (a stalled disk): it goes on by itself and must not be deleted.
  bool finish(double timeout_seconds);
  // Ends the thread until `resume`, without the last cycle: CPython 3.12+ warns of a fork beside any other thread.
  // False (and it goes on) when it does not end in time.
  bool pause(double timeout_seconds);
  // Goes on if paused; called by the first producer that fills a page. False, and nothing has changed, where no thread
  // can be made, or where another thread is ending this one: ask again at the next page.
  bool resume() noexcept;
  // Waits until the pages that are full now have been looked at; false when that took too long.
  bool catch_up(double timeout_seconds);
  bool failed() const { return failed_.load(std::memory_order_acquire) != 0; }
  int error() const { return failed_.load(std::memory_order_acquire); }
  Summary summary(ProcessState state) const;
  // Called once on the drain thread when a write has failed and recording is over.
  void set_on_failure(void (*call)()) { on_failure_ = call; }
  uint64_t cpu_ns() const { return cpu_ns_.load(std::memory_order_relaxed); }

 private:
  static void* run(void* self);
  void loop();
  void run_here() noexcept;
  bool go_on() noexcept;
  bool cycle(bool all);
  void adopt_dead_parts();
  void wait(uint32_t milliseconds);

  RingFile* ring_;
  RecordingFile* file_;
  Saver* saver_ = nullptr;
  std::vector<uint32_t> pending_;  // taken from the ring, not yet in the file
  std::string parts_prefix_;
  pthread_t thread_{};
  std::mutex changing_;  // whoever begins or ends the thread
  std::atomic<bool> started_{false};
  bool end(double timeout_seconds);
  pthread_mutex_t mutex_;
  pthread_cond_t wake_, ended_;
  bool stop_ = false, over_ = false, pausing_ = false;
  bool leaving_ = false;  // the thread has seen that it is to pause
  uint64_t cycles_ = 0, wanted_ = 0;  // made; to be made without a pause
  bool paused_ = false;              // guarded by changing_
  std::atomic<int> failed_{0};
  std::atomic<uint64_t> cpu_ns_{0};
  void (*on_failure_)() = nullptr;
};

}  // namespace pyscope
