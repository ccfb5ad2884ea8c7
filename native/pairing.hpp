// Pairing: the events of a process become calls with parent, depth, self time and outcome.
//
// One pass over all threads merged by time, since a generator may go on in another thread than it began in. A
// thread is followed as long as its next event is not later than those of the others.
//
// Time is accounted: what passed on a thread since its previous event goes to the call on top of the
// current stack. So the self times of a stack add up to exactly the time in which it was not empty.
//
// pyscope/fallback/codec.py does the same in Python and is what the tests compare with: change both.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <queue>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "call_stack.hpp"
#include "calls.hpp"
#include "codec.hpp"
#include "columns.hpp"
#include "event.hpp"
#include "generators.hpp"

#define PYSCOPE_RARE __attribute__((noinline))

namespace pyscope {

class Pairing {
 public:
  Pairing(const Process& process, uint32_t index, const std::vector<Bytes>& buffers, Calls& calls)
      : process_(process),
        index_(index),
        buffers_(buffers),
        calls_(calls),
        first_row_(calls.rows),
        first_probe_(calls.probes.size()),
        ready_rows_(calls.rows),
        stacks_(process.functions.size * 2) {}

  void run() {
    for (size_t i = 0; i < process_.chunk_count;) {
      Thread& thread = threads_.emplace_back();
      thread.index = static_cast<int32_t>(process_.chunks[i].thread);
      thread.chunk = process_.chunks + i;
      while (i < process_.chunk_count && static_cast<int32_t>(process_.chunks[i].thread) == thread.index) ++i;
      thread.chunks_end = process_.chunks + i;
      thread.context = &thread.own;
    }
    using Next = std::pair<int64_t, size_t>;
    std::priority_queue<Next, std::vector<Next>, std::greater<>> next;
    for (size_t i = 0; i < threads_.size(); ++i)
      if (fetch(threads_[i])) next.emplace(threads_[i].ns[0], i);
    while (!next.empty()) {
      const size_t i = next.top().second;
      next.pop();
      Thread& thread = threads_[i];
      if (follow(thread, next.empty() ? std::numeric_limits<int64_t>::max() : next.top().first))
        next.emplace(thread.ns[thread.at], i);
    }
    finish();
  }

 private:
  struct Context {
    uint64_t serial = 0;
    uint64_t parent = 0;
    int32_t number = 0;  // in order of appearance, from 1; 0: the thread itself
    uint8_t kind = 0;
    bool switched_to = false;
    bool called = false;
    int32_t origin = -1;  // the call from which it was first switched to
    int32_t origin_depth = -1;
    CallStack* stack = nullptr;  // null while empty and not current
    const uint8_t* name = nullptr;
    size_t name_bytes = 0;
  };

  struct Thread {
    int32_t index = 0;
    const Chunk* chunk = nullptr;
    const Chunk* chunks_end = nullptr;
    uint64_t next_sequence = 0;
    // the chunk in hand, decoded
    std::vector<int64_t> ns;       // ticks while it is decoded
    std::vector<uint32_t> words;   // kind | code << 5
    std::vector<uint64_t> extras;  // the operands of the events that have some
    size_t count = 0;
    size_t at = 0;
    size_t extra_at = 0;
    uint64_t before = 0;  // events of the thread before this chunk
    bool page_begins = false;
    uint64_t page_context = 0;
    int64_t decoded_to = std::numeric_limits<int64_t>::min();  // a time that steps back is held
    // accounting
    int64_t last = 0;
    bool timed = false;  // it had an event
    bool begun = false;  // it had a chunk
    Context own;
    Context* context = nullptr;
  };

  // --- the stream of a thread ----------------------------------------------------------------------

  // Decodes the thread's next chunk that has events. False when there is none.
  bool fetch(Thread& thread) {
    while (thread.chunk != thread.chunks_end) {
      const Chunk& chunk = *thread.chunk++;
      const unsigned shift = chunk.time_shift & 63;
      const int64_t base = process_.clock(chunk.base_ticks);
      const bool known = thread.begun || !process_.flight;
      if (chunk.sequence > thread.next_sequence && known)
        lose(kMissingPages, thread, chunk.sequence - thread.next_sequence,
             thread.begun ? thread.decoded_to : process_.clock.start_unix_ns, base);
      thread.begun = true;
      thread.decoded_to = std::max(thread.decoded_to, base);
      thread.next_sequence = chunk.sequence + 1;
      size_t decoded = 0, rest = 0;
      if (sound(chunk, buffers_)) {
        if (thread.ns.size() < chunk.events) {
          thread.ns.resize(chunk.events);
          thread.words.resize(chunk.events);
        }
        thread.extras.clear();
        auto keep = [this, &thread, shift](size_t, Kind kind, uint32_t, const Operands& operands) {
          keep_operands(thread, kind, shift, operands);
        };
        decoded =
            decode_chunk(buffers_[chunk.buffer].data + chunk.offset, chunk.encoded, chunk.events, chunk.base_ticks,
                         shift, reinterpret_cast<uint64_t*>(thread.ns.data()), thread.words.data(), keep, rest);
        thread.decoded_to = process_.clock(thread.ns.data(), decoded, shift, thread.decoded_to);
      }
      if (decoded < chunk.events || rest != 0)
        lose(kDamagedChunk, thread, chunk.events - decoded, thread.decoded_to, thread.decoded_to);
      if (decoded == 0) continue;
      thread.before += thread.count;
      thread.count = decoded;
      thread.at = thread.extra_at = 0;
      thread.page_begins = true;
      thread.page_context = chunk.context;
      return true;
    }
    return false;
  }

  void keep_operands(Thread& thread, Kind kind, unsigned shift, const Operands& operands) {
    auto& extras = thread.extras;
    if (kind == Kind::Switch) {
      extras.push_back(operands.serial);
    } else if (kind == Kind::Loss) {
      extras.push_back(operands.count);
      extras.push_back(static_cast<uint64_t>(process_.clock(operands.first << shift)));
    } else if (kind == Kind::Payload) {
      extras.push_back(reinterpret_cast<uintptr_t>(operands.payload));
      extras.push_back(operands.payload_bytes);
    } else {
      extras.push_back(operands.instance);
      extras.push_back(operands.exception);
    }
  }

  // Pairs the thread's events up to and including `limit`. False when the thread has no more.
  bool follow(Thread& thread, int64_t limit) {
    for (;;) {
      if (thread.page_begins) {
        thread.page_begins = false;
        go_on_in(thread, thread.page_context);
        if (!thread.timed) thread.last = thread.ns[0];
        thread.timed = true;
      }
      pair(thread, limit);
      if (thread.at < thread.count) return true;
      if (!fetch(thread)) return false;
      if (thread.ns[0] > limit) return true;
    }
  }

  void pair(Thread& thread, int64_t limit) {
    const int64_t* const ns = thread.ns.data();
    const uint32_t* const words = thread.words.data();
    const size_t count = thread.count;
    CallStack* stack = stack_of(*thread.context);
    int64_t last = thread.last;
    size_t i = thread.at, row = begin_rows(count - i);
    for (; i < count; ++i) {
      const int64_t now = ns[i];
      if (now > limit) break;
      Entry* top = stack->top;
      top->self += static_cast<uint64_t>(now - last);
      last = now;
      const uint32_t word = words[i], code = word >> kKindBits;
      const auto kind = static_cast<Kind>(word & kKindMask);
      if (kind == Kind::Call || kind == Kind::CCall) {
        int32_t parent = top->call, depth = top->depth + 1;
        if (parent < 0) find_root(*thread.context, parent, depth);
        const bool outermost = stack->enter(plain_key(code)) == 0;
        const int32_t call = open(row++, code, parent, depth, now);
        stack->push() = Entry{0, {now}, call, depth, plain_key(code), outermost};
      } else if ((kind == Kind::Return || kind == Kind::CReturn) && top->key == plain_key(code)) {
        end(top->call, top->start, top->self, top->outermost, now, kReturned, -1);
        stack->leave(plain_key(code));
        --stack->top;
      } else {
        end_rows(thread, row);
        thread.last = last;
        thread.at = i;
        take_rare(thread, kind, code, now);
        stack = stack_of(*thread.context);
        row = calls_.rows;
      }
    }
    end_rows(thread, row);
    thread.last = last;
    thread.at = i;
  }

  // --- calls ---------------------------------------------------------------------------------------

  // Rows that up to `most` calls may take begin as open, without an exception. Returns the first.
  size_t begin_rows(size_t most) {
    const size_t to = calls_.rows + most;
    if (to > ready_rows_) {
      std::fill(calls_.outcome.data() + ready_rows_, calls_.outcome.data() + to, uint8_t{kOpen});
      std::fill(calls_.exception.data() + ready_rows_, calls_.exception.data() + to, -1);
      ready_rows_ = to;
    }
    return calls_.rows;
  }

  // Rows up to `row` were opened, in the thread's present context.
  void end_rows(const Thread& thread, size_t row) {
    std::fill(calls_.thread.data() + calls_.rows, calls_.thread.data() + row, thread.index);
    std::fill(calls_.context.data() + calls_.rows, calls_.context.data() + row, thread.context->number);
    calls_.rows = row;
  }

  int32_t open(size_t row, uint32_t code, int32_t parent, int32_t depth, int64_t now) {
    calls_.start_ns[row] = now;
    calls_.function[row] = process_.functions[code];
    calls_.parent[row] = parent;
    calls_.depth[row] = depth;
    return static_cast<int32_t>(row);
  }

  void end(int32_t call, int64_t start, uint64_t self, bool outermost, int64_t now, Outcome outcome,
           int32_t exception) {
    const auto row = static_cast<size_t>(call);
    const int64_t duration = now - start;
    calls_.duration_ns[row] = duration;
    calls_.self_ns[row] = static_cast<int64_t>(self);
    calls_.outcome[row] = outcome;
    if (exception >= 0) calls_.exception[row] = exception;
    FunctionTotal& total = calls_.totals[static_cast<size_t>(calls_.function[row])];
    ++total.calls;
    total.self_ns += self;
    total.total_ns += static_cast<uint64_t>(duration) & (0 - static_cast<uint64_t>(outermost));
  }

  // The parent of a call on an empty stack: for a greenlet the call that first switched to it, unless others ran between.
  void find_root(Context& context, int32_t& parent, int32_t& depth) {
    if (context.kind == static_cast<uint8_t>(ContextKind::Greenlet) && context.origin >= 0 &&
        (!context.called || calls_.outcome[static_cast<size_t>(context.origin)] == kOpen)) {
      parent = context.origin;
      depth = context.origin_depth + 1;
    }
    context.called = true;
  }

  // --- what is not a plain call or return ----------------------------------------------------------

  PYSCOPE_RARE void take_rare(Thread& thread, Kind kind, uint32_t code, int64_t now) {
    CallStack& stack = *stack_of(*thread.context);
    uint64_t extra[2] = {0, 0};
    if (kind == Kind::Switch) {
      extra[0] = thread.extras[thread.extra_at++];
    } else if (operands(kind) != 0) {
      extra[0] = thread.extras[thread.extra_at++];
      extra[1] = thread.extras[thread.extra_at++];
    }
    switch (kind) {
      case Kind::Return:
      case Kind::CReturn:
        exit(stack, code, now, kReturned, -1);
        break;
      case Kind::Raise:
        exit(stack, code, now, kRaised, process_.exceptions[static_cast<uint32_t>(extra[1])]);
        break;
      case Kind::CRaise:
        exit(stack, code, now, kRaised, -1);
        break;
      case Kind::GenStart:
      case Kind::GenResume:
      case Kind::GenThrow:
        enter_generator(thread, stack, kind, code, extra[0], static_cast<uint32_t>(extra[1]), now);
        break;
      case Kind::GenYield:
      case Kind::GenReturn:
      case Kind::GenRaise:
        leave_generator(thread, kind, code, extra[0], static_cast<uint32_t>(extra[1]), now);
        break;
      case Kind::Switch:
        go_on_in(thread, extra[0]);
        break;
      case Kind::Loss:
        if (code == static_cast<uint32_t>(LossReason::Quieted))
          quiet(stack, static_cast<uint32_t>(extra[0]), now);
        else
          lose(code, thread, extra[0], static_cast<int64_t>(extra[1]), now);
        break;
      case Kind::Payload:
        if (code == static_cast<uint32_t>(PayloadType::Context))
          describe_context(reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(extra[0])),
                           static_cast<size_t>(extra[1]));
        else if (code == static_cast<uint32_t>(PayloadType::Probe))
          note_probe(thread, reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(extra[0])),
                     static_cast<size_t>(extra[1]), now);
        break;
      default:
        break;
    }
  }

  void exit(CallStack& stack, uint32_t code, int64_t now, Outcome outcome, int32_t exception) {
    if (!stack.holds(plain_key(code))) {
      ++orphan_exits_;
      return;
    }
    while (stack.top->key != plain_key(code)) cut(stack, now);
    const Entry& top = *stack.top;
    end(top.call, top.start, top.self, top.outermost, now, outcome, exception);
    stack.leave(top.key);
    --stack.top;
  }

  // Ends the call on top, whose exit was not seen.
  void cut(CallStack& stack, int64_t now) {
    const Entry top = *stack.top;
    if (top.key & 1) {
      end_generator(suspend(*top.generator, now), now, kCut, -1);
    } else {
      end(top.call, top.start, top.self, top.outermost, now, kCut, -1);
      stack.leave(top.key);
      --stack.top;
    }
  }

  // Ends the calls of a function whose exits will not be told; what they called goes on. A generator waits from here.
  void quiet(CallStack& stack, uint32_t code, int64_t now) {
    const size_t top = stack.position();
    size_t kept = 1;
    for (size_t i = 1; i <= top; ++i) {
      const Entry& entry = stack.entries[i];
      const bool generator = (entry.key & 1) != 0;
      if (generator ? entry.generator->code != code : entry.key != plain_key(code)) {
        if (generator) entry.generator->position = kept;
        stack.entries[kept++] = entry;
        continue;
      }
      stack.leave(entry.key);
      if (!generator) {
        end(entry.call, entry.start, entry.self, entry.outermost, now, kCut, -1);
        continue;
      }
      entry.generator->self += entry.self;
      entry.generator->suspended_at = now;
      entry.generator->stack = nullptr;
      entry.generator->closing = false;
    }
    stack.top -= top + 1 - kept;
  }

  // --- generators and coroutines -------------------------------------------------------------------

  // Takes a running generator off its stack; what stands above it is cut.
  Generator& suspend(Generator& generator, int64_t now) {
    CallStack& stack = *generator.stack;
    while (stack.position() > generator.position) cut(stack, now);
    generator.self += stack.top->self;
    generator.stack = nullptr;
    generator.closing = false;
    stack.leave(generator_key(generator.code));
    --stack.top;
    return generator;
  }

  void end_generator(Generator& generator, int64_t now, Outcome outcome, int32_t exception) {
    end(generator.call, generator.start, generator.self, generator.outermost, now, outcome, exception);
    generators_.erase(&generator);
  }

  // Ends a generator whose end was not seen: its address is in use again.
  void retire(Generator& generator, int64_t now) {
    if (generator.stack)
      end_generator(suspend(generator, now), now, kCut, -1);
    else
      end_generator(generator, generator.suspended_at, kClosed, -1);
  }

  void enter_generator(Thread& thread, CallStack& stack, Kind kind, uint32_t code, uint64_t instance,
                       uint32_t exception, int64_t now) {
    Generator* generator = generators_.find(instance);
    if (generator && (kind == Kind::GenStart || generator->code != code)) {
      retire(*generator, now);
      generator = nullptr;
    }
    if (!generator) {
      int32_t parent = stack.top->call, depth = stack.top->depth + 1;
      if (parent < 0) find_root(*thread.context, parent, depth);
      generator = generators_.insert(instance);
      generator->code = code;
      const size_t row = begin_rows(1);
      generator->call = open(row, code, parent, depth, now);
      end_rows(thread, row + 1);
      generator->depth = depth;
      generator->start = generator->suspended_at = now;
      generator->outermost = !stack.holds(generator_key(code));
      if (kind != Kind::GenStart) calls_.begun_before.push_back(generator->call);
    } else if (generator->stack) {
      suspend(*generator, now);  // its last yield was lost
    }
    generator->closing = kind == Kind::GenThrow && process_.generator_exit >= 0 &&
                         process_.exceptions[exception] == process_.generator_exit;
    generator->closing_event = thread.before + thread.at;
    generator->closing_thread = thread.index;
    generator->self_before_closing = generator->self;
    stack.enter(generator_key(code));
    Entry& entry = stack.push();
    entry = Entry{0, {0}, generator->call, generator->depth, generator_key(code), generator->outermost};
    entry.generator = generator;
    generator->stack = &stack;
    generator->position = stack.position();
  }

  void leave_generator(Thread& thread, Kind kind, uint32_t code, uint64_t instance, uint32_t exception, int64_t now) {
    Generator* generator = generators_.find(instance);
    const bool running = generator && generator->stack;
    if (!generator || generator->code != code || (kind == Kind::GenYield && !running)) {
      ++orphan_exits_;
      return;
    }
    const bool closing = generator->closing;
    if (running) suspend(*generator, now);
    if (kind == Kind::GenYield) {
      generator->suspended_at = now;
    } else if (kind == Kind::GenReturn) {
      end_generator(*generator, now, kReturned, -1);
    } else if (!closing || process_.exceptions[exception] != process_.generator_exit) {
      end_generator(*generator, now, kRaised, process_.exceptions[exception]);
    } else if (generator->closing_thread == thread.index && generator->closing_event + 1 == thread.before + thread.at) {
      // Nothing ran in between: as if it had not been resumed to be closed.
      generator->self = generator->self_before_closing;
      end_generator(*generator, generator->suspended_at, kClosed, -1);
    } else {
      end_generator(*generator, now, kClosed, -1);
    }
  }

  // --- contexts ------------------------------------------------------------------------------------

  CallStack* stack_of(Context& context) {
    if (__builtin_expect(context.stack == nullptr, 0)) context.stack = stacks_.take();
    return context.stack;
  }

  Context& context(uint64_t serial) {
    const auto found = by_serial_.find(serial);
    if (found != by_serial_.end()) return *found->second;
    Context& context = contexts_.emplace_back();
    context.serial = serial;
    context.number = static_cast<int32_t>(contexts_.size());
    by_serial_.emplace(serial, &context);
    return context;
  }

  void go_on_in(Thread& thread, uint64_t serial) {
    Context& before = *thread.context;
    Context& after = serial == 0 ? thread.own : context(serial);
    if (&after == &before) return;
    const CallStack* left = before.stack;
    if (serial != 0 && !after.switched_to && after.parent == before.serial && left && !left->empty()) {
      after.origin = left->top->call;
      after.origin_depth = left->top->depth;
    }
    after.switched_to = true;
    if (left && left->empty()) {
      stacks_.give_back(before.stack);
      before.stack = nullptr;
    }
    thread.context = &after;
  }

  void describe_context(const uint8_t* at, size_t bytes) {
    constexpr size_t kFixed = 17;
    if (bytes < kFixed) return;
    const uint64_t serial = detail::load64(at);
    if (serial == 0) return;
    Context& described = context(serial);
    described.parent = detail::load64(at + 8);
    described.kind = at[16];
    described.name = at + kFixed;
    described.name_bytes = bytes - kFixed;
  }

  void note_probe(const Thread& thread, const uint8_t* at, size_t bytes, int64_t now) {
    ProbeHead head;
    if (bytes < sizeof(head)) return;
    std::memcpy(&head, at, sizeof(head));
    if (bytes < sizeof(head) + size_t{head.numbers} * 8 + head.text_bytes) return;
    const Context& context = *thread.context;
    const int32_t call = context.stack ? context.stack->top->call : -1;
    calls_.probes.push_back({now, thread.index, context.number, call, index_, head, at + sizeof(head)});
  }

  // --- the end -------------------------------------------------------------------------------------

  void lose(uint32_t reason, const Thread& thread, uint64_t count, int64_t start, int64_t end) {
    calls_.losses.push_back({reason, index_, thread.index, count, std::min(start, end), end});
  }

  void finish() {
    int64_t end_ns = process_.clock.start_unix_ns;
    bool any = false;
    for (const Thread& thread : threads_)
      if (thread.timed) {
        end_ns = any ? std::max(end_ns, thread.last) : thread.last;
        any = true;
      }
    generators_.each([&](Generator& generator) {
      const uint64_t running = generator.stack ? generator.stack->entries[generator.position].self : 0;
      end(generator.call, generator.start, generator.self + running, generator.outermost, end_ns, kOpen, -1);
    });
    for (const auto& stack : stacks_.all())
      for (size_t i = 1; i <= stack->position(); ++i) {
        const Entry& entry = stack->entries[i];
        if (!(entry.key & 1)) end(entry.call, entry.start, entry.self, entry.outermost, end_ns, kOpen, -1);
      }
    calls_.orphan_exits.push_back(orphan_exits_);
    calls_.last_ns.push_back(end_ns);
    number_contexts();
  }

  // In order of serial, behind those of the processes before; so the events' columns agree.
  void number_contexts() {
    std::vector<const Context*> ordered;
    for (const Context& context : contexts_) ordered.push_back(&context);
    std::sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->serial < b->serial; });
    std::vector<int32_t> numbers(contexts_.size() + 1, 0);
    for (const Context* context : ordered) {
      calls_.contexts.push_back({context->serial, context->parent, index_, context->kind,
                                 std::string(reinterpret_cast<const char*>(context->name), context->name_bytes)});
      numbers[static_cast<size_t>(context->number)] = static_cast<int32_t>(calls_.contexts.size());
    }
    if (ordered.empty()) return;
    for (size_t row = first_row_; row < calls_.rows; ++row)
      calls_.context[row] = numbers[static_cast<size_t>(calls_.context[row])];
    for (size_t i = first_probe_; i < calls_.probes.size(); ++i)
      calls_.probes[i].context = numbers[static_cast<size_t>(calls_.probes[i].context)];
  }

  const Process process_;
  const uint32_t index_;
  const std::vector<Bytes>& buffers_;
  Calls& calls_;
  const size_t first_row_;
  const size_t first_probe_;
  size_t ready_rows_;
  CallStacks stacks_;
  Generators generators_;
  std::deque<Thread> threads_;
  std::deque<Context> contexts_;
  std::unordered_map<uint64_t, Context*> by_serial_;
  uint64_t orphan_exits_ = 0;
};

// The calls of all processes, one after another. `functions`: how many the trace knows; every index in
// the lookups is below. Throws std::length_error for 2^31 events or more.
inline Calls pair_calls(const std::vector<Process>& processes, const std::vector<Bytes>& buffers, size_t functions) {
  size_t events = 0;
  for (const Process& process : processes) events += events_of(process, buffers);
  if (events > static_cast<size_t>(std::numeric_limits<int32_t>::max())) throw std::length_error("2^31 events or more");
  Calls calls(events, functions);
  for (size_t i = 0; i < processes.size(); ++i) Pairing(processes[i], static_cast<uint32_t>(i), buffers, calls).run();
  calls.shrink();
  return calls;
}

}  // namespace pyscope
