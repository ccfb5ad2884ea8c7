// The calls of a trace as the pairing makes them: a row each, in columns, with what was found on the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "columns.hpp"
#include "event.hpp"

namespace pyscope {

// Indexes into pyscope.trace.OUTCOMES.
enum Outcome : uint8_t { kReturned = 0, kRaised = 1, kOpen = 2, kCut = 3, kClosed = 4 };

// Reasons that only a reader can give, beside LossReason.
inline constexpr uint32_t kMissingPages = 100;
inline constexpr uint32_t kDamagedChunk = 101;

struct LossFound {
  uint32_t reason;
  uint32_t process;
  int32_t thread;
  uint64_t count;  // events; of kMissingPages: pages
  int64_t start_ns;
  int64_t end_ns;
};

struct ContextFound {
  uint64_t serial;
  uint64_t parent;
  uint32_t process;
  uint8_t kind;
  std::string name;
};

struct ProbeFound {
  int64_t time_ns;
  int32_t thread, context, call;  // call: the row of the call on top, -1 for none
  uint32_t process;
  ProbeHead head;
  const uint8_t* body;  // numbers, then texts; in a buffer of the caller
};

struct FunctionTotal {
  uint64_t calls = 0;
  uint64_t total_ns = 0;  // outermost calls of each stack only
  uint64_t self_ns = 0;
};

struct Calls {
  Column<int64_t> start_ns, duration_ns, self_ns;
  Column<int32_t> function, parent, depth, thread, context, exception;
  Column<uint8_t> outcome;
  size_t rows = 0;
  std::vector<FunctionTotal> totals;
  std::vector<int64_t> begun_before;  // rows of generators first seen when resumed
  std::vector<ContextFound> contexts;
  std::vector<LossFound> losses;
  std::vector<ProbeFound> probes;  // process after process
  std::vector<uint64_t> orphan_exits;  // for each process: exits without an entry
  std::vector<int64_t> last_ns;        // for each process: its last event

  Calls(size_t capacity, size_t functions)
      : start_ns(capacity),
        duration_ns(capacity),
        self_ns(capacity),
        function(capacity),
        parent(capacity),
        depth(capacity),
        thread(capacity),
        context(capacity),
        exception(capacity),
        outcome(capacity),
        totals(functions) {}

  void shrink() {
    start_ns.shrink(rows), duration_ns.shrink(rows), self_ns.shrink(rows), function.shrink(rows);
    parent.shrink(rows), depth.shrink(rows), thread.shrink(rows), context.shrink(rows);
    exception.shrink(rows), outcome.shrink(rows);
  }
};

}  // namespace pyscope
