// The CPU time of a thread's steps, without asking the kernel at each: its clock of a thread takes half a microsecond.
//
// A short step is taken to have run all the while. The kernel is asked after a step that was not short, and before one
// that begins long after it was asked last. In between, other work of the thread goes unnoticed: of a step that mostly
// waited so much may be counted too, kStaleNs at most beside the step's own.
#pragma once

#include <algorithm>
#include <cstdint>

#include "clock.hpp"

namespace pyscope {

struct StepBegin {
  int64_t estimate;
  int64_t at;
};

class StepClock {
 public:
  StepBegin begin() {
    const int64_t now = clock_ns(CLOCK_MONOTONIC);
    if (depth_ > 0 && now - mark_ < kShortNs)
      estimate_ += now - mark_;
    else if (depth_ > 0 || now - asked_ > kStaleNs)
      ask(now);
    mark_ = now;
    ++depth_;
    return {estimate_, now};
  }

  // The CPU time since, in nanoseconds.
  int64_t end(const StepBegin& begin) {
    const int64_t now = clock_ns(CLOCK_MONOTONIC);
    estimate_ += now - mark_;
    mark_ = now;
    --depth_;
    if (now - begin.at < kShortNs) return estimate_ - begin.estimate;
    const int64_t at_most = estimate_;
    ask(now);
    const int64_t used = std::clamp(estimate_, begin.estimate, at_most) - begin.estimate;
    if (depth_ > 0) estimate_ = begin.estimate + used;  // the steps around count from there on
    return used;
  }

 private:
  static constexpr int64_t kShortNs = 50'000;
  static constexpr int64_t kStaleNs = 1'000'000;

  void ask(int64_t now) {
    estimate_ = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    asked_ = now;
  }

  int64_t estimate_ = 0;  // of the thread's CPU time
  int64_t mark_ = 0;      // ... at this time
  int64_t asked_ = INT64_MIN / 2;
  int depth_ = 0;  // steps within steps
};

inline constinit thread_local StepClock step_clock __attribute__((tls_model("initial-exec")));

}  // namespace pyscope
