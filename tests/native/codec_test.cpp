// The codec on its own: what is encoded comes back, and no words or bytes make it read or write out of bounds.
#include "codec.hpp"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "check.hpp"

using namespace pyscope;

namespace {

struct Event {
  uint64_t time = 0;
  Kind kind = Kind::End;
  uint32_t code = 0;
  Operands operands{};
};

std::vector<Event> decode(const std::vector<uint8_t>& bytes, size_t events, uint64_t base, unsigned shift,
                          size_t& rest) {
  std::vector<uint64_t> times(events);
  std::vector<uint32_t> words(events);
  std::vector<Event> out(events);
  auto rich = [&](size_t i, Kind, uint32_t, const Operands& operands) { out[i].operands = operands; };
  out.resize(decode_chunk(bytes.data(), bytes.size(), events, base, shift, times.data(), words.data(), rich, rest));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i].time = times[i];
    out[i].kind = static_cast<Kind>(words[i] & kKindMask);
    out[i].code = words[i] >> kKindBits;
  }
  // Both variants of the decoder give the same.
  auto ignore = [](size_t, Kind, uint32_t, const Operands&) {};
  std::vector<uint64_t> other_times(events);
  std::vector<uint32_t> other_words(events);
  size_t other_rest = 0;
  const size_t n = detail::decode_portably(bytes.data(), bytes.size(), events, base, shift, other_times.data(),
                                           other_words.data(), ignore, other_rest);
  CHECK(n == out.size() && other_rest == rest && other_times == times && other_words == words);
  return out;
}

std::vector<uint8_t> encode(const std::vector<uint64_t>& words, uint64_t base, unsigned shift, uint32_t& events) {
  std::vector<uint8_t> bytes(max_encoded_bytes(words.size()));
  bytes.resize(encode_words(words.data(), words.size(), base, shift, bytes.data(), events));
  bytes.shrink_to_fit();
  // Both variants of the encoder give the same.
  std::vector<uint8_t> other(max_encoded_bytes(words.size()));
  uint32_t other_events = 0;
  other.resize(detail::encode_portably(words.data(), words.size(), base, shift, other.data(), other_events));
  CHECK(other == bytes && other_events == events);
  return bytes;
}

void random_streams_round_trip(std::mt19937_64& random) {
  auto below = [&](uint64_t n) { return random() % n; };
  for (int round = 0; round < 400; ++round) {
    const unsigned shift = static_cast<unsigned>(below(6));
    const uint64_t base = random() >> below(40);
    std::vector<uint64_t> words;
    std::vector<Event> expected;
    std::vector<std::vector<uint8_t>> payloads;
    uint64_t from = base, now = base;
    const unsigned codes = 1u << below(24);
    while (words.size() < kPageWords - 40) {
      now += below(uint64_t{1} << below(30));
      if ((now - from) >> kTimeBits || below(200) == 0) {
        words.push_back(head(Kind::Rebase, 0));
        words.push_back(now);
        from = now;
      }
      Event e;
      e.kind = static_cast<Kind>(below(3) ? 1 + below(2) : 1 + below(16));
      if (e.kind == Kind::Rebase) e.kind = Kind::Call;
      e.code = static_cast<uint32_t>(below(codes) & kMaxCode);
      if (e.kind == Kind::Payload) e.code = 1;
      if (e.kind == Kind::Switch) e.code = 0;
      e.time = now >> shift;
      words.push_back(head(e.kind, e.code) | (now - from) << kTimeShift);
      const unsigned n = operands(e.kind);
      if (e.kind == Kind::Switch) {
        words.push_back(e.operands.serial = below(8) ? below(90) : random());
      } else if (e.kind == Kind::Loss) {
        words.push_back(e.operands.count = random());
        const uint64_t first = now - below(1000);
        words.push_back(first);
        e.operands.first = first >> shift;
      } else if (e.kind == Kind::Payload) {
        std::vector<uint8_t> bytes(below(120));
        for (auto& b : bytes) b = static_cast<uint8_t>(random());
        words.push_back(e.operands.payload_bytes = bytes.size());
        const size_t at = words.size();
        words.resize(at + (bytes.size() + 7) / 8);
        if (!bytes.empty()) std::memcpy(&words[at], bytes.data(), bytes.size());
        payloads.push_back(bytes);
      } else if (n == 1) {
        const bool raises = e.kind == Kind::Raise || e.kind == Kind::GenThrow || e.kind == Kind::GenRaise;
        e.operands.exception = raises ? static_cast<uint32_t>(random() & kExceptionMask) : 0;
        // Few generators as a rule, so that most are found in the list of recent ones.
        e.operands.instance = below(8) ? below(90) : random() & kInstanceMask;
        if (e.kind == Kind::Raise) e.operands.instance = 0;
        words.push_back(e.operands.instance << kExceptionBits | e.operands.exception);
      }
      expected.push_back(e);
    }
    words.resize(kPageWords);
    uint32_t events = 0;
    const auto bytes = encode(words, base, shift, events);
    CHECK((events == expected.size()) && "each head word but REBASE is counted");
    size_t rest = 1;
    const auto got = decode(bytes, events, base, shift, rest);
    CHECK((rest == 0) && "all bytes are read");
    CHECK((got.size() == expected.size()) && "every event comes back");
    size_t payload = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const Event &a = got[i], &b = expected[i];
      CHECK((a.time == b.time && a.kind == b.kind && a.code == b.code) && "time, kind and code come back");
      CHECK((a.operands.instance == b.operands.instance && a.operands.exception == b.operands.exception &&
             a.operands.serial == b.operands.serial && a.operands.count == b.operands.count &&
             a.operands.first == b.operands.first && a.operands.payload_bytes == b.operands.payload_bytes) &&
            "operands come back");
      if (b.kind == Kind::Payload) {
        const auto& bytes_in = payloads[payload++];
        CHECK((std::equal(bytes_in.begin(), bytes_in.end(), a.operands.payload)) && "payload bytes come back");
      }
    }
    // Cut anywhere, a chunk gives the events before the cut.
    std::vector<uint8_t> cut(bytes.begin(), bytes.begin() + static_cast<long>(below(bytes.size())));
    CHECK((decode(cut, events, base, shift, rest).size() <= got.size()) && "a cut chunk gives fewer events");
  }
}

// The encoder's stack holds kCodecStack calls: what is deeper returns with its code.
void deep_calls_round_trip() {
  std::vector<uint64_t> words;
  const auto add = [&](Kind kind, size_t code) { words.push_back(head(kind, code) | (words.size() << kTimeShift)); };
  const size_t deepest = kCodecStack + 40;
  for (size_t code = 1; code <= deepest; ++code) add(Kind::Call, code);
  for (size_t code = deepest; code >= 1; --code) add(Kind::Return, code);
  add(Kind::Return, 7);  // of a call before the chunk
  uint32_t events = 0;
  const auto bytes = encode(words, 0, 0, events);
  size_t rest = 1;
  const auto got = decode(bytes, events, 0, 0, rest);
  CHECK(events == words.size() && got.size() == words.size() && rest == 0);
  for (size_t i = 0; i < got.size(); ++i)
    CHECK(got[i].kind == kind_of(words[i]) && got[i].code == code_of(words[i]) && got[i].time == i);
}

// Against a list in which each pair is moved to the front: at random, in chains as coroutines make them, and longer than
// the list.
void recent_pairs_are_told_by_place(std::mt19937_64& random) {
  for (int round = 0; round < 400; ++round) {
    Recent found, told;
    std::vector<std::pair<uint64_t, uint32_t>> list;
    const size_t pairs = 1 + random() % (round % 3 ? 40 : 2 * kCodecRecent);
    size_t next = 0;
    bool forward = true;
    for (int step = 0; step < 400; ++step) {
      if (random() % 8 == 0) {
        next = random() % pairs;
        forward = random() % 2;
      } else if (random() % 4 != 0) {
        next = (next + (forward ? 1 : pairs - 1)) % pairs;
      } else {
        forward = !forward;
      }
      const std::pair<uint64_t, uint32_t> pair{next / 2, static_cast<uint32_t>(next % 2)};
      const auto known = std::find(list.begin(), list.end(), pair);
      const size_t place = known == list.end() ? Recent::kMissing : static_cast<size_t>(known - list.begin());
      CHECK(found.last() == (list.empty() ? 0 : list.front().first));
      CHECK(found.find(pair.first, pair.second) == place);
      if (known != list.end()) list.erase(known);
      list.insert(list.begin(), pair);
      if (list.size() > kCodecRecent) list.pop_back();
      // What the decoder does with it.
      uint64_t key = 0;
      uint32_t code = 0;
      if (place == Recent::kMissing)
        told.find(pair.first, pair.second);
      else
        CHECK(told.at(place, key, code) && key == pair.first && code == pair.second);
      CHECK(told.last() == pair.first);
      CHECK(!told.at(list.size(), key, code));
    }
  }
}

void checksum_is_zlibs(std::mt19937_64& random) {
  CHECK((crc32("123456789", 9) == 0xCBF43926u) && "the check value of CRC-32");
  std::vector<uint8_t> bytes(700);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  uint32_t state = ~uint32_t{0};
  for (size_t n = 0; n <= bytes.size(); ++n) {
    CHECK(crc32(bytes.data(), n) == ~state);
    const size_t cut = random() % (n + 1);
    CHECK(crc32(bytes.data() + cut, n - cut, crc32(bytes.data(), cut)) == ~state);
    if (n < bytes.size()) state = (state >> 8) ^ detail::kCrcTables[0][(state ^ bytes[n]) & 0xFF];
  }
}

void arbitrary_words_are_safe(std::mt19937_64& random) {
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint64_t> words(random() % 60);
    for (auto& word : words) {
      word = random();
      if (random() % 2) word = (word & ~kKindMask) | (1 + random() % 16);
      if (random() % 4 == 0) word = random() % 300;
    }
    words.shrink_to_fit();
    uint32_t events = 0;
    const uint64_t base = random();
    const auto bytes = encode(words, base, 1, events);
    CHECK((bytes.size() <= max_encoded_bytes(words.size())) && "the bound holds");
    size_t rest = 1;
    CHECK((decode(bytes, events, base, 1, rest).size() == events && rest == 0) && "what was encoded decodes");
  }
}

void arbitrary_bytes_are_safe(std::mt19937_64& random) {
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> bytes(random() % 80);
    for (auto& b : bytes) b = static_cast<uint8_t>(random() % 3 ? random() & 0x1F : random());
    bytes.shrink_to_fit();
    size_t rest = 0;
    decode(bytes, random() % 100, random(), static_cast<unsigned>(random()), rest);
  }
}

}  // namespace

int main() {
  std::mt19937_64 random(20240607);
  random_streams_round_trip(random);
  deep_calls_round_trip();
  recent_pairs_are_told_by_place(random);
  checksum_is_zlibs(random);
  arbitrary_words_are_safe(random);
  arbitrary_bytes_are_safe(random);
  return 0;
}
