// Decoding and pairing of arbitrary chunks: nothing is read or written out of bounds, whatever the bytes and headers
// say; results stay in range; several workers give what one gives.
#include "pairing.hpp"

#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "event_columns.hpp"

using namespace pyscope;

namespace {

struct Given {
  std::vector<uint8_t> bytes;
  std::vector<Chunk> chunks;
  std::vector<int32_t> functions{0, 1, 2, 3}, exceptions{-1, 0, 1};

  Process process(bool flight) const {
    Process process;
    process.chunks = chunks.data();
    process.chunk_count = chunks.size();
    process.clock = {1000, 1'700'000'000'000'000'000, 0.4};
    process.functions = {functions.data(), functions.size(), 4};
    process.exceptions = {exceptions.data(), exceptions.size(), -1};
    process.generator_exit = 0;
    process.flight = flight;
    return process;
  }
};

// Pages of events of all kinds that need not make sense, some of them damaged afterwards.
Given random_pages(std::mt19937_64& random, bool damage) {
  auto below = [&](uint64_t n) { return random() % n; };
  Given given;
  for (uint32_t thread = 0; thread < 1 + below(4); ++thread) {
    uint64_t now = 1000 + below(500);
    for (uint64_t sequence = below(2); sequence < 4; sequence += 1 + (below(5) == 0)) {
      std::vector<uint64_t> words;
      const uint64_t base = now;
      while (words.size() < 200) {
        now += below(30);
        const auto kind = static_cast<Kind>(below(2) ? 1 + below(2) : 1 + below(16));
        if (kind == Kind::Rebase) continue;
        const uint64_t code = below(4) ? below(5) : below(kMaxCode);
        words.push_back(head(kind, kind == Kind::Payload ? 1 : code) | (now - base) << kTimeShift);
        if (kind == Kind::Switch) {
          words.push_back(below(4));
        } else if (kind == Kind::Loss) {
          words.push_back(below(9));
          words.push_back(random());
        } else if (kind == Kind::Payload) {
          words.push_back(24);
          words.push_back(below(4));
          words.push_back(below(4));
          words.push_back(below(4));
        } else if (operands(kind) == 1) {
          words.push_back(below(5) << kExceptionBits | below(4));
        }
      }
      const size_t at = given.bytes.size();
      given.bytes.resize(at + max_encoded_bytes(words.size()));
      uint32_t events = 0;
      const size_t size = encode_words(words.data(), words.size(), base, 1, given.bytes.data() + at, events);
      given.bytes.resize(at + size);
      given.chunks.push_back({at, sequence, base, below(4), 0, static_cast<uint32_t>(size), events, thread, 1, 0});
    }
  }
  given.bytes.shrink_to_fit();
  if (damage) {
    for (int i = 0; i < 5; ++i) given.bytes[below(given.bytes.size())] = static_cast<uint8_t>(random());
    Chunk& chunk = given.chunks[below(given.chunks.size())];
    auto* raw = reinterpret_cast<uint8_t*>(&chunk);
    const size_t place = below(sizeof(Chunk));
    if (place < offsetof(Chunk, thread) || place >= offsetof(Chunk, time_shift)) raw[place] ^= uint8_t(1u << below(8));
  }
  return given;
}

void results_are_in_range(const Given& given, bool whole) {
  const std::vector<Bytes> buffers{{given.bytes.data(), given.bytes.size()}};
  const std::vector<Process> processes{given.process(false), given.process(true)};
  const Calls calls = pair_calls(processes, buffers, 5);
  uint64_t counted = 0;
  for (const auto& total : calls.totals) counted += total.calls;
  CHECK(counted == calls.rows && "every call ends once");
  for (size_t row = 0; row < calls.rows; ++row) {
    CHECK(calls.parent[row] < static_cast<int32_t>(row) && calls.parent[row] >= -1);
    CHECK(calls.function[row] >= 0 && calls.function[row] < 5);
    CHECK(calls.outcome[row] <= kClosed && calls.duration_ns[row] >= 0 && calls.self_ns[row] >= 0);
    CHECK(calls.exception[row] >= -1 && calls.exception[row] <= 1);
    CHECK(calls.context[row] >= 0 && static_cast<size_t>(calls.context[row]) <= calls.contexts.size());
    const int32_t parent = calls.parent[row];
    CHECK(calls.depth[row] == (parent < 0 ? 0 : calls.depth[static_cast<size_t>(parent)] + 1));
  }
  const Events one = decode_events(processes, buffers, 1), four = decode_events(processes, buffers, 4);
  CHECK(one.rows == four.rows);
  CHECK(std::memcmp(one.time_ns.data(), four.time_ns.data(), one.rows * 8) == 0);
  CHECK(std::memcmp(one.context.data(), four.context.data(), one.rows * 4) == 0);
  CHECK(std::memcmp(one.code.data(), four.code.data(), one.rows * 4) == 0);
  size_t events = 0;
  for (const Chunk& chunk : given.chunks) events += 2 * size_t{chunk.events};
  CHECK((!whole || one.rows == events) && "nothing is lost of whole chunks");
}

// Enough events that several workers share them.
void workers_share_many_chunks() {
  Given given;
  std::vector<uint64_t> words;
  for (uint64_t i = 0; i < 2000; ++i)
    words.push_back(head(i % 2 ? Kind::Return : Kind::Call, i / 2 % 5) | i * 3 << kTimeShift);
  for (uint64_t sequence = 0; sequence < 400; ++sequence) {
    const size_t at = given.bytes.size();
    given.bytes.resize(at + max_encoded_bytes(words.size()));
    uint32_t events = 0;
    const size_t size =
        encode_words(words.data(), words.size(), 1000 + sequence * 6000, 1, given.bytes.data() + at, events);
    given.bytes.resize(at + size);
    given.chunks.push_back(
        {at, sequence, 1000 + sequence * 6000, sequence % 3, 0, static_cast<uint32_t>(size), events, 0, 1, 0});
  }
  results_are_in_range(given, true);
}

}  // namespace

int main() {
  std::mt19937_64 random(7);
  for (int round = 0; round < 150; ++round) results_are_in_range(random_pages(random, false), true);
  for (int round = 0; round < 400; ++round) results_are_in_range(random_pages(random, true), false);
  workers_share_many_chunks();
  return 0;
}
