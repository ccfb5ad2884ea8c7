// The ring: pages in a mapped file, written by one thread each, wait-free on the fast path.
//
// RingFile owns the mapping and the pages. A Ring is one thread's producer end: it holds one page at a
// time and takes the next from the free queue. Two policies when none is free: in stream mode the
// event is dropped and counted; in flight mode the oldest full page of the process is overwritten.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

#include "clock.hpp"
#include "event.hpp"
#include "event_counts.hpp"
#include "page_queue.hpp"
#include "recording.hpp"

#define PYSCOPE_COLD __attribute__((cold, noinline))
#define PYSCOPE_LIKELY(x) __builtin_expect(!!(x), 1)
#define PYSCOPE_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PYSCOPE_INLINE inline __attribute__((always_inline))

namespace pyscope {

inline constexpr const char* kUnfinished = ".new";  // behind a ring file's name while it is being made

struct RingOptions {
  std::string path;
  size_t bytes = 64u << 20;  // of pages and table together
  ProcessInfo info{};
  std::string meta;  // JSON
};

class RingFile {
 public:
  // Creates, allocates in full and prefaults. Throws std::system_error (ENOSPC where it does not fit).
  explicit RingFile(const RingOptions& options);
  // Maps the ring of another (dead or living) process. Throws std::runtime_error if it is none.
  static RingFile* attach(const std::string& path, bool writable);
  ~RingFile();
  RingFile(const RingFile&) = delete;
  RingFile& operator=(const RingFile&) = delete;

  RingHeader& header() const { return *header_; }
  PageHeader& page(uint32_t index) const { return *reinterpret_cast<PageHeader*>(pages_ + size_t{index} * kPageBytes); }
  uint64_t* words(uint32_t index) const { return reinterpret_cast<uint64_t*>(&page(index) + 1); }
  uint32_t page_count() const { return header_->page_count; }
  const uint8_t* table() const { return reinterpret_cast<const uint8_t*>(header_) + header_->table_offset; }
  size_t table_capacity() const { return header_->table_bytes - header_->meta_bytes; }
  std::string meta() const;
  const std::string& path() const { return path_; }
  uint64_t order() const { return order_.load(std::memory_order_relaxed); }

  // A page for a producer: free, else (flight) the oldest full one; false when there is none.
  bool claim(uint32_t& index);
  // A page that its producer has left.
  void seal(uint32_t index, uint64_t now) {
    page(index).sealed_ticks = now;
    page(index).state.store(static_cast<uint32_t>(PageState::Full), std::memory_order_release);
    full_->push(index);
    // Just once on the way up: the drain looks by itself, this is for bursts.
    if (waiting_.fetch_add(1, std::memory_order_relaxed) + 1 == wake_at_ && wake_) pthread_cond_signal(wake_);
    if (PYSCOPE_UNLIKELY(on_seal_.load(std::memory_order_relaxed) != nullptr))
      if (void (*call)() = on_seal_.exchange(nullptr)) call();
  }
  // Called once, by whoever seals the next page.
  void call_on_next_seal(void (*call)()) { on_seal_.store(call); }
  bool take_full(uint32_t& index) {
    if (!full_->pop(index)) return false;
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    return true;
  }
  // Signalled when an eighth of the pages, or of the table, waits to be drained.
  void wake_when_filling(pthread_cond_t* wake) { wake_ = wake; }
  // Back to the free pages, zeroed.
  void release(uint32_t index);

  // Appends a table record; false when the table is full (the record is not stored then). Whoever calls it holds the GIL.
  bool append_record(const void* record, size_t bytes);
  // Appends a record that goes on to change; in flight mode, whose table is never emptied into a file, it is written
  // over the one at `place` (1 + its offset; 0: none yet) instead.
  bool replace_record(uint64_t& place, const void* record, size_t bytes);
  // Whoever writes the table into the file holds it meanwhile.
  std::atomic_flag& saving_table() { return saving_table_; }
  // From now on producers count what they wrote; null: no more. `counts` must outlive that.
  void count_events(EventCounts* counts) { counts_ = counts; }
  void publish_clock(const ClockPair& pair);
  void unlink();
  // In the child of a fork: gives up the mapping and the lock without touching the file.
  void abandon();
  // Whether a living process holds the ring's lock.
  static bool owner_alive(const std::string& path);

 private:
  RingFile() = default;
  void map(size_t bytes, bool populate, bool writable);
  void begin_table_anew();
  void begin(const RingOptions& options, size_t bytes, size_t table_bytes, size_t pages);

  std::string path_;
  int fd_ = -1;
  size_t mapped_ = 0;
  RingHeader* header_ = nullptr;
  uint8_t* pages_ = nullptr;
  bool flight_ = false;
  std::atomic<uint64_t> order_{0};
  std::atomic<void (*)()> on_seal_{nullptr};
  std::atomic<uint32_t> waiting_{0};
  std::atomic_flag saving_table_;
  uint32_t wake_at_ = 0;
  pthread_cond_t* wake_ = nullptr;
  EventCounts* counts_ = nullptr;
  std::unique_ptr<PageStack> free_;
  std::unique_ptr<PageQueue> full_;

  friend class Ring;
};

// One thread's producer end. Every member function is called by that thread, or by another one while
// neither can be inside (the recorder's stop, which holds the GIL that every event needs).
class Ring {
 public:
  // Appends an event: one clock read, one store, two compares.
  PYSCOPE_INLINE void emit(uint64_t head_word) {
    uint64_t now = ticks();
    uint64_t* at = cursor_;
    fetch_ahead(at);
    if (PYSCOPE_UNLIKELY(at >= limit_ || (now - base_) >> kTimeBits)) {
      at = make_room(now);
      if (!at) return;
    }
    publish(at, head_word | ((now - base_) << kTimeShift));
    cursor_ = at + 1;
  }

  PYSCOPE_INLINE void emit(uint64_t head_word, uint64_t operand) {
    uint64_t now = ticks();
    uint64_t* at = cursor_;
    fetch_ahead(at);
    if (PYSCOPE_UNLIKELY(at >= limit_ || (now - base_) >> kTimeBits)) {
      at = make_room(now);
      if (!at) return;
    }
    put(at + 1, operand);
    publish(at, head_word | ((now - base_) << kTimeShift));
    cursor_ = at + 2;
  }

  // Makes the last event a GEN_THROW if it is this GEN_RESUME; false if it is not.
  bool amend_resume(uint64_t resume_head, uint64_t operand, uint64_t exception) {
    if (!end_ || cursor_ < file_->words(page_) + 2) return false;
    uint64_t* at = cursor_ - 2;
    if ((at[0] & ((uint64_t{1} << kTimeShift) - 1)) != resume_head || at[1] != operand) return false;
    put(at + 1, operand | (exception & kExceptionMask));
    publish(at, (at[0] & ~kKindMask) | static_cast<uint64_t>(Kind::GenThrow));
    return true;
  }

  // A LOSS event placed now, for what is missing since `first_ticks`.
  PYSCOPE_COLD void emit_loss(LossReason reason, uint64_t count, uint64_t first_ticks);
  // Counts what was written since the last time, if events are counted. Whoever calls it holds the GIL.
  PYSCOPE_COLD void count_events();
  bool has_page() const { return end_ != nullptr; }
  // Bytes in line; cut to kMaxPayloadBytes.
  PYSCOPE_COLD void emit_payload(PayloadType type, const void* data, size_t bytes);

  void open(RingFile* file, uint32_t thread, uint32_t os_tid);
  // Leaves the page (sealed if `seal`) and the file: events are ignored until the next open().
  void close(bool seal);
  RingFile* file() const { return file_; }
  void set_name(const char* name);
  const char* name() const { return name_; }
  void set_context(uint64_t serial) { context_ = serial; }
  uint64_t context() const { return context_; }
  uint64_t sequence() const { return sequence_; }
  uint32_t os_tid() const { return os_tid_; }

 private:
  friend struct RingProbe;  // tests
  // The time base advanced or a fresh page claimed; null when the event must be dropped.
  PYSCOPE_COLD uint64_t* make_room(uint64_t now);
  uint64_t* next_page(uint64_t now);
  uint64_t* drop(uint64_t now);
  void put_loss(uint64_t now, LossReason reason, uint64_t count, uint64_t first_ticks);
  // A page comes from another core's cache, or from none: two lines ahead of the events, the store need not wait for it.
  static PYSCOPE_INLINE void fetch_ahead(const uint64_t* at) { __builtin_prefetch(at + 16, 1); }
  // Readers may be looking at the page: every word is a whole store.
  static PYSCOPE_INLINE void put(uint64_t* at, uint64_t word) {
    std::atomic_ref<uint64_t>(*at).store(word, std::memory_order_relaxed);
  }
  // A store that other threads and processes see after the operands stored before it.
  static PYSCOPE_INLINE void publish(uint64_t* at, uint64_t word) {
    std::atomic_ref<uint64_t>(*at).store(word, std::memory_order_release);
  }

  // A REBASE and the longest record of fixed size (LOSS, three words) fit from any cursor below limit_.
  static constexpr size_t kTailRoom = 4;

  uint64_t* cursor_ = nullptr;
  uint64_t* limit_ = nullptr;
  uint64_t base_ = 0;
  RingFile* file_ = nullptr;
  uint64_t* end_ = nullptr;
  const uint64_t* counted_ = nullptr;  // up to here events were counted
  uint64_t sequence_ = 0;  // of the next page
  uint64_t context_ = 0;
  uint64_t dropped_ = 0;
  uint64_t dropped_first_ = 0;
  uint32_t page_ = 0;
  uint32_t thread_ = 0;
  uint32_t os_tid_ = 0;
  char name_[kThreadNameBytes] = {};
};

}  // namespace pyscope
