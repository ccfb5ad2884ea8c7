// Where pages wait: one compare-and-swap to push or pop, no allocation, no lock that a killed or forked thread could
// leave held.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace pyscope {

// Full pages, first in first out, many producers and consumers (D. Vyukov's bounded array queue).
class PageQueue {
 public:
  explicit PageQueue(uint32_t at_least) {
    uint32_t size = 2;
    while (size < at_least) size *= 2;
    mask_ = size - 1;
    cells_ = std::make_unique<Cell[]>(size);
    for (uint32_t i = 0; i < size; ++i) cells_[i].turn.store(i, std::memory_order_relaxed);
  }

  bool push(uint32_t page) {
    uint64_t at = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at & mask_];
      const int64_t ahead = static_cast<int64_t>(cell.turn.load(std::memory_order_acquire) - at);
      if (ahead == 0) {
        if (tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
          cell.page = page;
          cell.turn.store(at + 1, std::memory_order_release);
          return true;
        }
      } else if (ahead < 0) {
        return false;
      } else {
        at = tail_.load(std::memory_order_relaxed);
      }
    }
  }

  bool pop(uint32_t& page) {
    uint64_t at = head_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at & mask_];
      const int64_t ahead = static_cast<int64_t>(cell.turn.load(std::memory_order_acquire) - (at + 1));
      if (ahead == 0) {
        if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
          page = cell.page;
          cell.turn.store(at + mask_ + 1, std::memory_order_release);
          return true;
        }
      } else if (ahead < 0) {
        return false;
      } else {
        at = head_.load(std::memory_order_relaxed);
      }
    }
  }

 private:
  struct Cell {
    std::atomic<uint64_t> turn;
    uint32_t page;
  };
  uint64_t mask_;
  std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<uint64_t> tail_{0};
  alignas(64) std::atomic<uint64_t> head_{0};
};

// Free pages, last in first out: what was just emptied is still in the processor's cache. (R. K. Treiber's stack; the
// count beside the top makes a page that went and came back differ.)
class PageStack {
 public:
  explicit PageStack(uint32_t size) : below_(std::make_unique<std::atomic<uint32_t>[]>(size)) {}

  void push(uint32_t page) {
    uint64_t top = top_.load(std::memory_order_relaxed);
    do {
      below_[page].store(static_cast<uint32_t>(top), std::memory_order_relaxed);
    } while (
        !top_.compare_exchange_weak(top, next(top, page + 1), std::memory_order_release, std::memory_order_relaxed));
  }

  bool pop(uint32_t& page) {
    uint64_t top = top_.load(std::memory_order_acquire);
    for (;;) {
      const auto above = static_cast<uint32_t>(top);
      if (above == 0) return false;
      const uint32_t below = below_[above - 1].load(std::memory_order_relaxed);
      if (top_.compare_exchange_weak(top, next(top, below), std::memory_order_acquire)) {
        page = above - 1;
        return true;
      }
    }
  }

 private:
  static uint64_t next(uint64_t top, uint32_t page) { return ((top >> 32) + 1) << 32 | page; }
  std::unique_ptr<std::atomic<uint32_t>[]> below_;  // 1 + the page below; 0: none
  alignas(64) std::atomic<uint64_t> top_{0};         // count of changes, 1 + the page on top
};

}  // namespace pyscope
