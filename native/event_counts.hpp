// How often each code object was met, counted from the words of a thread's page: once for many events, and nothing at
// the event itself. For the governor (pyscope/governor.py).
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "event.hpp"

namespace pyscope {

struct EventCount {
  uint64_t events;  // of Python code
  uint64_t calls;   // ... of which begin a call
  uint64_t leaves;  // ... of which return with nothing in between
};

// Threads count for themselves; only one that ends does so beside another (without the GIL), and then a count may be lost.
class EventCounts {
 public:
  static constexpr size_t kCodes = size_t{1} << 20;  // codes beyond are not told apart: they count as 0

  EventCounts() {
    void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    counts_ = at == MAP_FAILED ? nullptr : static_cast<EventCount*>(at);
  }
  ~EventCounts() {
    if (counts_) ::munmap(counts_, kBytes);
  }
  EventCounts(const EventCounts&) = delete;
  EventCounts& operator=(const EventCounts&) = delete;

  void count(const uint64_t* at, const uint64_t* end) {
    if (!counts_) return;
    uint64_t before = 0;
    while (at < end) {
      const uint64_t word = *at;
      const Kind kind = kind_of(word);
      if (kind == Kind::End) break;
      if (kind <= Kind::GenRaise) {
        EventCount& count = counts_[code_of(word) < kCodes ? code_of(word) : 0];
        add(count.events);
        if (kind == Kind::Call || kind == Kind::GenStart)
          add(count.calls);
        else if (kind == Kind::Return && kind_of(before) == Kind::Call && code_of(before) == code_of(word))
          add(count.leaves);
      }
      before = word;
      at += 1 + operands(kind);
      if (kind == Kind::Payload) at += (at[-1] + 7) / 8;
    }
  }

  // What was counted of a code since it was taken last.
  EventCount take(size_t code) {
    if (!counts_ || !load(counts_[code].events)) return {};
    EventCount& count = counts_[code];
    const EventCount taken{load(count.events), load(count.calls), load(count.leaves)};
    store(count.events, 0), store(count.calls, 0), store(count.leaves, 0);
    return taken;
  }

 private:
  static constexpr size_t kBytes = kCodes * sizeof(EventCount);
  static uint64_t load(uint64_t& value) { return std::atomic_ref<uint64_t>(value).load(std::memory_order_relaxed); }
  static void store(uint64_t& value, uint64_t now) {
    std::atomic_ref<uint64_t>(value).store(now, std::memory_order_relaxed);
  }
  static void add(uint64_t& value) { store(value, load(value) + 1); }

  EventCount* counts_ = nullptr;
};

}  // namespace pyscope
