#include "drain.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <system_error>
#include <vector>

namespace pyscope {

namespace {
constexpr uint32_t kCycleMs = 100;  // a fuller ring wakes it before
constexpr int64_t kClockEveryNs = 100'000'000;
constexpr int64_t kPartsEveryNs = 1'000'000'000;
constexpr double kLongestEnd = 10;  // seconds

timespec in_seconds(double seconds) {
  timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  const auto ns = static_cast<int64_t>(seconds * 1e9) + until.tv_nsec;
  until.tv_sec += ns / 1'000'000'000;
  until.tv_nsec = ns % 1'000'000'000;
  return until;
}
}  // namespace

Drain::Drain(RingFile* ring, RecordingFile* file, std::string parts_prefix)
    : ring_(ring), file_(file), parts_prefix_(std::move(parts_prefix)) {
  if (file_) saver_ = new Saver(*ring_, *file_);
  pthread_mutex_init(&mutex_, nullptr);
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&wake_, &attributes);
  pthread_cond_init(&ended_, &attributes);
  pthread_condattr_destroy(&attributes);
  if (file_) ring_->wake_when_filling(&wake_);
}

Drain::~Drain() {
  ring_->wake_when_filling(nullptr);
  delete saver_;
  pthread_cond_destroy(&ended_);
  pthread_cond_destroy(&wake_);
  pthread_mutex_destroy(&mutex_);
}

void Drain::start() {
  // The host's signals are not ours to receive.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&thread_, nullptr, &Drain::run, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error) throw std::system_error(error, std::generic_category(), "cannot start the drain thread");
  started_ = true;
}

void* Drain::run(void* self) {
  prctl(PR_SET_NAME, "pyscope-drain");
  static_cast<Drain*>(self)->run_here();
  return nullptr;
}

void Drain::run_here() noexcept {
  try {
    loop();
  } catch (...) {
    failed_.store(ENOMEM, std::memory_order_release);
  }
  pthread_mutex_lock(&mutex_);
  over_ = true;
  pthread_cond_broadcast(&ended_);
  pthread_mutex_unlock(&mutex_);
}

void Drain::wait(uint32_t milliseconds) {
  const timespec until = in_seconds(milliseconds / 1e3);
  pthread_mutex_lock(&mutex_);
  if (++cycles_ == wanted_) pthread_cond_broadcast(&ended_);
  if (!stop_ && !pausing_ && cycles_ >= wanted_) pthread_cond_timedwait(&wake_, &mutex_, &until);
  pthread_mutex_unlock(&mutex_);
}

void Drain::loop() {
  // What this thread had taken before is not the drain's; what an earlier thread of the drain took is.
  const int64_t cpu_base = static_cast<int64_t>(cpu_ns()) - clock_ns(CLOCK_THREAD_CPUTIME_ID);
  int64_t clock_due = 0, parts_due = clock_ns(CLOCK_MONOTONIC) + kPartsEveryNs;
  for (;;) {
    pthread_mutex_lock(&mutex_);
    const bool stopping = stop_;
    const bool pausing = leaving_ = pausing_;
    pthread_mutex_unlock(&mutex_);
    if (pausing) break;

    const int64_t now = clock_ns(CLOCK_MONOTONIC);
    if (now >= clock_due || stopping) {
      ring_->publish_clock(read_clock_pair());
      clock_due = now + kClockEveryNs;
      cpu_ns_.store(static_cast<uint64_t>(cpu_base + clock_ns(CLOCK_THREAD_CPUTIME_ID)), std::memory_order_relaxed);
    }
    // After a failed write recording is over; the stop tries once more to save what the ring holds.
    if (saver_ && (!failed() || stopping)) {
      failed_.store(cycle(stopping) ? 0 : file_->error() ? file_->error() : EIO, std::memory_order_release);
      if (failed() && !stopping && on_failure_) {
        // The stop may have given up on a stalled disk meanwhile: what records now is not ours to end.
        pthread_mutex_lock(&mutex_);
        const bool abandoned = stop_;
        pthread_mutex_unlock(&mutex_);
        if (!abandoned) on_failure_();
      }
    }
    if (stopping) break;
    if (saver_ && now >= parts_due) {
      adopt_dead_parts();
      parts_due = now + kPartsEveryNs;
    }
    wait(kCycleMs);
  }
  cpu_ns_.store(static_cast<uint64_t>(cpu_base + clock_ns(CLOCK_THREAD_CPUTIME_ID)), std::memory_order_relaxed);
}

bool Drain::cycle(bool all) {
  std::vector<uint32_t>& pages = pending_;
  for (;;) {
    uint32_t index;
    while (pages.size() < Saver::kPagesPerSegment && ring_->take_full(index)) pages.push_back(index);
    // Names first: whoever reads an event in the file finds its name there too.
    if (!saver_->save_table()) return false;
    if (pages.empty()) return true;
    if (!saver_->save_pages(pages)) return false;
    const bool more = pages.size() == Saver::kPagesPerSegment;
    ring_->header().events_saved.store(saver_->events(), std::memory_order_relaxed);
    for (uint32_t page : pages) ring_->release(page);
    pages.clear();
    if (!more && !all) return true;
  }
}

// Children that were killed or left by os._exit leave a ring each: seal it while the parent lives, so
// that a program with short-lived children does not fill the memory.
void Drain::adopt_dead_parts() {
  const size_t slash = parts_prefix_.rfind('/');
  if (slash == std::string::npos) return;
  const std::string folder = parts_prefix_.substr(0, slash + 1), prefix = parts_prefix_.substr(slash + 1);
  DIR* directory = ::opendir(folder.c_str());
  if (!directory) return;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name.size() < prefix.size() + 5 || name.compare(0, prefix.size(), prefix) != 0 ||
        name.compare(name.size() - 5, 5, ".part") != 0)
      continue;
    ProcessInfo info{};
    const int fd = ::open((folder + name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    const bool read = ::pread(fd, &info, sizeof(info), sizeof(BlockHeader)) == sizeof(info);
    ::close(fd);
    info.ring_path[kPathBytes - 1] = 0;
    // The folder may be everybody's: whose file says that it is a part, and names a ring, must know the recording's id.
    if (std::memcmp(info.recording_id, ring_->header().info.recording_id, sizeof info.recording_id) != 0) continue;
    if (!read || ::access(info.ring_path, F_OK) != 0 || RingFile::owner_alive(info.ring_path)) continue;
    try {
      adopt(folder + name, info.ring_path);
    } catch (const std::exception&) {
      // left for `pyscope recover`, which says why
    }
  }
  ::closedir(directory);
}

bool Drain::finish(double timeout_seconds) {
  std::lock_guard lock(changing_);
  const bool threadless = paused_ && !go_on();
  if (!started_ && !threadless) return true;
  pthread_mutex_lock(&mutex_);
  stop_ = true;
  pthread_mutex_unlock(&mutex_);
  if (!threadless) return end(timeout_seconds);
  paused_ = false;
  run_here();  // what is left is written all the same
  return true;
}

bool Drain::pause(double timeout_seconds) {
  std::lock_guard lock(changing_);
  if (!started_) return true;
  pthread_mutex_lock(&mutex_);
  pausing_ = true;
  pthread_mutex_unlock(&mutex_);
  bool ended = end(timeout_seconds);
  pthread_mutex_lock(&mutex_);
  pausing_ = false;
  const bool leaving = leaving_;
  pthread_mutex_unlock(&mutex_);
  if (!ended && leaving) ended = end(kLongestEnd);  // too late to take it back, and it has nothing to wait for
  if (ended) paused_ = true;
  return ended;
}

bool Drain::resume() noexcept {
  std::unique_lock lock(changing_, std::try_to_lock);
  if (!lock) return false;
  return !paused_ || go_on();
}

// Begins the thread that `pause` has ended; false where that fails.
bool Drain::go_on() noexcept {
  pthread_mutex_lock(&mutex_);
  over_ = leaving_ = false;
  pthread_mutex_unlock(&mutex_);
  try {
    start();
  } catch (const std::system_error&) {
    return false;
  }
  paused_ = false;
  return true;
}

bool Drain::catch_up(double timeout_seconds) {
  const timespec until = in_seconds(timeout_seconds);
  pthread_mutex_lock(&mutex_);
  const uint64_t wanted = wanted_ = cycles_ + 2;  // the cycle under way may have looked too early
  pthread_cond_signal(&wake_);
  int waited = 0;
  while (started_ && !over_ && cycles_ < wanted && waited == 0)
    waited = pthread_cond_timedwait(&ended_, &mutex_, &until);
  pthread_mutex_unlock(&mutex_);
  return waited == 0;
}

// Waits for the thread's end. After a time-out it is left to itself (but goes on: see pause).
bool Drain::end(double timeout_seconds) {
  const timespec until = in_seconds(timeout_seconds);
  pthread_mutex_lock(&mutex_);
  pthread_cond_broadcast(&wake_);
  int waited = 0;
  while (!over_ && waited == 0) waited = pthread_cond_timedwait(&ended_, &mutex_, &until);
  const bool over = over_;
  pthread_mutex_unlock(&mutex_);
  if (over) {
    pthread_join(thread_, nullptr);
    started_ = false;
  } else if (stop_) {
    pthread_detach(thread_);
    started_ = false;
  }
  return over;
}

Summary Drain::summary(ProcessState state) const {
  Summary summary = summarise(*ring_, state, saver_ ? saver_->events() : 0);
  summary.drain_cpu_ns = cpu_ns();
  summary.error = static_cast<uint64_t>(error());
  summary.lost_pages = pending_.size();
  return summary;
}

}  // namespace pyscope
