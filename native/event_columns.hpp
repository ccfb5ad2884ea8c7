// Events as columns: chunks decoded side by side, each into its own rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "codec.hpp"
#include "columns.hpp"
#include "event.hpp"

namespace pyscope {

struct Events {
  Column<int64_t> time_ns;
  Column<int32_t> thread, context, code;
  Column<uint8_t> kind;
  size_t rows = 0;

  explicit Events(size_t capacity)
      : time_ns(capacity), thread(capacity), context(capacity), code(capacity), kind(capacity) {}

  void shrink() {
    time_ns.shrink(rows), thread.shrink(rows), context.shrink(rows), code.shrink(rows), kind.shrink(rows);
  }
};

namespace detail {

// One chunk's place in the columns, and where its context changes.
struct Span {
  const Chunk* chunk;
  const Process* process;
  uint32_t process_index;
  size_t row;
  size_t decoded = 0;
  std::vector<std::pair<size_t, uint64_t>> switches{};  // from this row of the chunk on: serial
  std::vector<uint64_t> described{};  // serials that only a PAYLOAD names
};

// What a worker keeps from chunk to chunk.
struct Scratch {
  std::vector<uint32_t> words;
  std::vector<std::pair<size_t, int32_t>> reasons;  // rows whose code names no function
};

inline void decode_span(Span& span, const std::vector<Bytes>& buffers, Events& events, Scratch& scratch) {
  const Chunk& chunk = *span.chunk;
  const Process& process = *span.process;
  const unsigned shift = chunk.time_shift & 63;
  int64_t* const times = events.time_ns.data() + span.row;
  int32_t* const codes = events.code.data() + span.row;
  uint8_t* const kinds = events.kind.data() + span.row;
  if (scratch.words.size() < chunk.events) scratch.words.resize(chunk.events);
  scratch.reasons.clear();
  auto rich = [&](size_t i, Kind kind, uint32_t code, const Operands& operands) {
    if (kind > Kind::CRaise) scratch.reasons.emplace_back(i, static_cast<int32_t>(code));
    if (kind == Kind::Switch)
      span.switches.emplace_back(i, operands.serial);
    else if (kind == Kind::Payload && code == static_cast<uint32_t>(PayloadType::Context) &&
             operands.payload_bytes >= 17)
      span.described.push_back(load64(operands.payload));
  };
  size_t rest;
  span.decoded = decode_chunk(buffers[chunk.buffer].data + chunk.offset, chunk.encoded, chunk.events, chunk.base_ticks,
                              shift, reinterpret_cast<uint64_t*>(times), scratch.words.data(), rich, rest);
  process.clock(times, span.decoded, shift, process.clock(chunk.base_ticks));
  const uint32_t* const words = scratch.words.data();
  const Lookup functions = process.functions;
  const size_t count = span.decoded;
  for (size_t i = 0; i < count; ++i) kinds[i] = static_cast<uint8_t>(words[i] & kKindMask);
  for (size_t i = 0; i < count; ++i) codes[i] = functions[words[i] >> kKindBits];
  for (const auto& [row, code] : scratch.reasons) codes[row] = code;
  std::fill_n(events.thread.data() + span.row, span.decoded, static_cast<int32_t>(chunk.thread));
}

// A chunk that held fewer events than it said leaves rows empty: what follows moves up.
inline void close_ranks(std::vector<Span>& spans, Events& events) {
  size_t row = 0;
  for (Span& span : spans) {
    if (row != span.row) {
      const auto move = [&](auto& column) {
        std::memmove(column.data() + row, column.data() + span.row, span.decoded * sizeof(column[0]));
      };
      move(events.time_ns), move(events.thread), move(events.code), move(events.kind);
      span.row = row;
    }
    row += span.decoded;
  }
  events.rows = row;
}

// Times do not step back from one chunk of a thread to its next either.
inline void hold_times(const std::vector<Span>& spans, Events& events) {
  int64_t held = 0;
  for (size_t s = 0; s < spans.size(); ++s) {
    const Span& span = spans[s];
    const int64_t base = span.process->clock(span.chunk->base_ticks);
    const bool same = s > 0 && spans[s - 1].process == span.process && spans[s - 1].chunk->thread == span.chunk->thread;
    held = same ? std::max(held, base) : base;
    int64_t* times = events.time_ns.data() + span.row;
    for (size_t i = 0; i < span.decoded && times[i] < held; ++i) times[i] = held;
    if (span.decoded) held = times[span.decoded - 1];
  }
}

// Contexts are numbered as pair_calls() does: in order of serial, process by process; 0 is the thread itself.
inline void fill_contexts(const std::vector<Span>& spans, size_t processes, Events& events) {
  int32_t base = 0;
  size_t s = 0;
  for (size_t process = 0; process < processes; ++process) {
    const size_t from = s;
    std::vector<uint64_t> serials;
    for (; s < spans.size() && spans[s].process_index == process; ++s) {
      if (spans[s].decoded == 0) continue;
      serials.push_back(spans[s].chunk->context);
      for (const auto& change : spans[s].switches) serials.push_back(change.second);
      serials.insert(serials.end(), spans[s].described.begin(), spans[s].described.end());
    }
    std::sort(serials.begin(), serials.end());
    serials.erase(std::unique(serials.begin(), serials.end()), serials.end());
    if (!serials.empty() && serials.front() == 0) serials.erase(serials.begin());
    const auto number = [&](uint64_t serial) {
      if (serial == 0) return int32_t{0};
      const auto found = std::lower_bound(serials.begin(), serials.end(), serial);
      return base + 1 + static_cast<int32_t>(found - serials.begin());
    };
    for (size_t i = from; i < s; ++i) {
      const Span& span = spans[i];
      int32_t* out = events.context.data() + span.row;
      size_t row = 0;
      int32_t current = span.decoded ? number(span.chunk->context) : 0;
      for (const auto& [at, serial] : span.switches) {
        std::fill(out + row, out + at, current);
        row = at;
        current = number(serial);
      }
      std::fill(out + row, out + span.decoded, current);
    }
    base += static_cast<int32_t>(serials.size());
  }
}

}  // namespace detail

// The events of all processes, thread by thread, in order of time within each. A context's first row is
// the Switch to it. At most `workers` threads. Throws std::length_error for 2^31 events or more.
inline Events decode_events(const std::vector<Process>& processes, const std::vector<Bytes>& buffers,
                            unsigned workers) {
  std::vector<detail::Span> spans;
  size_t rows = 0;
  for (size_t p = 0; p < processes.size(); ++p)
    for (size_t i = 0; i < processes[p].chunk_count; ++i) {
      const Chunk& chunk = processes[p].chunks[i];
      if (!sound(chunk, buffers)) continue;
      spans.push_back({&chunk, &processes[p], static_cast<uint32_t>(p), rows});
      rows += chunk.events;
    }
  if (rows > static_cast<size_t>(std::numeric_limits<int32_t>::max())) throw std::length_error("2^31 events or more");
  Events events(rows);

  constexpr size_t kWorthAThread = 1 << 17;
  const size_t parts = std::clamp<size_t>(rows / kWorthAThread, 1, std::max(workers, 1u));
  std::vector<std::thread> threads;
  size_t next = 0;
  std::vector<int> failed(parts, 0);
  for (size_t part = 0; part < parts; ++part) {
    const size_t from = next;
    while (next < spans.size() && (part + 1 == parts || spans[next].row < rows / parts * (part + 1))) ++next;
    auto work = [&spans, &buffers, &events, &failed, part, from, to = next] {
      try {
        detail::Scratch scratch;
        for (size_t i = from; i < to; ++i) detail::decode_span(spans[i], buffers, events, scratch);
      } catch (const std::bad_alloc&) {
        failed[part] = 1;
      }
    };
    if (part + 1 == parts) {
      work();
      break;
    }
    try {
      threads.emplace_back(work);
    } catch (const std::system_error&) {
      work();  // no more threads to be had
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (std::find(failed.begin(), failed.end(), 1) != failed.end()) throw std::bad_alloc();

  detail::close_ranks(spans, events);
  detail::hold_times(spans, events);
  detail::fill_contexts(spans, processes.size(), events);
  events.shrink();
  return events;
}

}  // namespace pyscope
