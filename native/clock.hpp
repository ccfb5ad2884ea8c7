// Time: the cheapest clock that does not stop and does not change its rate.
//
// x86-64 with an invariant TSC: rdtsc (not serialising: an event's time may slip by a few ns, but stays
// ordered within its thread). AArch64: the virtual counter. Elsewhere CLOCK_MONOTONIC in nanoseconds.
// Ticks are calibrated to wall time by pairs of readings kept in the recording.
#pragma once

#include <time.h>

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

#include "recording.hpp"

namespace pyscope {

inline int64_t clock_ns(clockid_t id) {
  timespec ts;
  clock_gettime(id, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

#if defined(__x86_64__)
inline bool invariant_tsc() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & (1u << 8));
}
inline const bool kUseTsc = invariant_tsc();
inline uint64_t ticks() {
  if (__builtin_expect(kUseTsc, 1)) return __rdtsc();
  return static_cast<uint64_t>(clock_ns(CLOCK_MONOTONIC));
}
inline ClockKind clock_kind() { return kUseTsc ? ClockKind::Tsc : ClockKind::Monotonic; }
#elif defined(__aarch64__)
inline uint64_t ticks() {
  uint64_t t;
  asm volatile("mrs %0, cntvct_el0" : "=r"(t));
  return t;
}
inline ClockKind clock_kind() { return ClockKind::VirtualCounter; }
#else
inline uint64_t ticks() { return static_cast<uint64_t>(clock_ns(CLOCK_MONOTONIC)); }
inline ClockKind clock_kind() { return ClockKind::Monotonic; }
#endif

// Ticks and both clocks at one moment: of several tries the one with the least time between its tick readings.
inline ClockPair read_clock_pair() {
  ClockPair best{};
  uint64_t best_width = ~uint64_t{0};
  for (int i = 0; i < 8; ++i) {
    const uint64_t before = ticks();
    const int64_t mono = clock_ns(CLOCK_MONOTONIC);
    const int64_t unix_ns = clock_ns(CLOCK_REALTIME);
    const uint64_t after = ticks();
    if (after - before < best_width) {
      best_width = after - before;
      best = {before + (after - before) / 2, mono, unix_ns};
    }
  }
  return best;
}

// Nanoseconds a tick, from two pairs; 1 where the pairs are too close to tell.
inline double tick_ns(const ClockPair& a, const ClockPair& b) {
  if (b.ticks <= a.ticks || b.monotonic_ns <= a.monotonic_ns) return 1.0;
  return static_cast<double>(b.monotonic_ns - a.monotonic_ns) / static_cast<double>(b.ticks - a.ticks);
}

// The largest shift that keeps the resolution on disk finer than 4 ns.
inline unsigned time_shift_for(double ns_per_tick) {
  unsigned shift = 0;
  while (shift < 8 && ns_per_tick * static_cast<double>(2u << shift) < 4.0) ++shift;
  return shift;
}

}  // namespace pyscope
