// The codec: a page's words to the bytes of a chunk and back (the encoding is drawn in recording.hpp).
// Header only, no Python, no allocation; safe on arbitrary words and arbitrary bytes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "checksum.hpp"
#include "event.hpp"
#include "recording.hpp"

namespace pyscope {

static_assert(std::endian::native == std::endian::little, "recordings are little-endian");

// --- varints -------------------------------------------------------------------------------------

constexpr uint64_t zigzag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
constexpr int64_t unzigzag(uint64_t value) { return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1)); }

// `out` has room for ten bytes, whatever the value.
inline uint8_t* put_varint(uint8_t* out, uint64_t value) {
  // Up to four bytes without a branch on their number, which nobody could predict: the 7-bit groups pulled apart, a
  // continuation bit on all but the last.
  if (std::endian::native == std::endian::little && __builtin_expect(value >> 28 == 0, 1)) {
    const auto v = static_cast<uint32_t>(value);
    const uint32_t halves = (v & 0x0FFFC000) << 2 | (v & 0x3FFF);
    const uint32_t groups = (halves & 0x3F803F80) << 1 | (halves & 0x007F007F);
    const auto size = static_cast<unsigned>((std::bit_width(v | 1) + 6) * 37) >> 8;  // (bits + 6) / 7
    const uint32_t bytes = groups | (0x00808080 & ((uint32_t{1} << (8 * (size - 1))) - 1));
    std::memcpy(out, &bytes, 4);
    return out + size;
  }
  while (value >= 0x80) {
    *out++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<uint8_t>(value);
  return out;
}

// The position after the varint at `at`, or null if it does not end before `end` or within ten bytes.
// Bits above the 64th are dropped.
inline const uint8_t* get_varint(const uint8_t* at, const uint8_t* end, uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; at < end && shift < 70; shift += 7) {
    const uint8_t byte = *at++;
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return at;
  }
  return nullptr;
}

// What was seen lately, most recent first: coroutines are resumed and suspended in chains, tasks in turns, so what
// comes next stands near the front.
//
// A chain of coroutines is asked for in order, again and again: its places are 0, 1, 2, … To move each to the front would
// turn the chain round one by one. So the list stays as it is during such a run, and is turned round once at its end.
class Recent {
 public:
  static constexpr size_t kMissing = kCodecRecent;

  // The place of a pair, which moves to the front; kMissing (and it is put there) if it is not in the list.
  size_t find(uint64_t key, uint32_t code) {
    if (run_ < used_ && keys_[run_] == key && codes_[run_] == code) return run_++;
    const bool again = used_ && keys_[run_ - 1] == key && codes_[run_ - 1] == code;
    turn_round();
    if (again) return 0;
    size_t place = 1;
    while (place < used_ && !(keys_[place] == key && codes_[place] == code)) ++place;
    const bool found = place < used_;
    if (!found) {
      if (used_ < kCodecRecent) ++used_;
      place = used_ - 1;
    }
    to_front(place, key, code);
    return found ? place : kMissing;
  }
  // The pair at a place, which moves to the front; false if there is none.
  bool at(size_t place, uint64_t& key, uint32_t& code) {
    if (place >= used_) return false;
    if (place == run_) {
      key = keys_[run_];
      code = codes_[run_++];
      return true;
    }
    turn_round();
    key = keys_[place];
    code = codes_[place];
    to_front(place, key, code);
    return true;
  }
  uint64_t last() const { return used_ ? keys_[run_ - 1] : 0; }

 private:
  void turn_round() {
    if (run_ <= 1) return;
    std::reverse(keys_, keys_ + run_);
    std::reverse(codes_, codes_ + run_);
    run_ = 1;
  }
  void to_front(size_t place, uint64_t key, uint32_t code) {
    std::memmove(keys_ + 1, keys_, place * sizeof(*keys_));
    std::memmove(codes_ + 1, codes_, place * sizeof(*codes_));
    keys_[0] = key;
    codes_[0] = code;
    run_ = 1;
  }
  size_t used_ = 0;
  size_t run_ = 0;  // so many, from the front on, were asked for in order and stand the other way round
  uint64_t keys_[kCodecRecent];
  uint32_t codes_[kCodecRecent];
};

constexpr bool has_instance(Kind kind) { return kind >= Kind::GenStart && kind <= Kind::GenRaise; }

namespace detail {

#if defined(__x86_64__)
#define PYSCOPE_HAS_BMI2 1
// By hand: the intrinsics are refused outside of functions compiled for BMI2.
inline uint64_t pext(uint64_t value, uint64_t mask) {
  uint64_t out;
  asm("pext %2, %1, %0" : "=r"(out) : "r"(value), "r"(mask));
  return out;
}
inline uint64_t pdep(uint64_t value, uint64_t mask) {
  uint64_t out;
  asm("pdep %2, %1, %0" : "=r"(out) : "r"(value), "r"(mask));
  return out;
}
// AMD before Zen 3 has the instructions in microcode, slower than doing without.
inline bool fast_bmi2() {
  static const bool fast = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool lzcnt = __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 5));  // where it is not, it is a bsr
    return lzcnt && __builtin_cpu_supports("bmi2") && !__builtin_cpu_is("bdver4") && !__builtin_cpu_is("znver1") &&
           !__builtin_cpu_is("znver2");
  }();
  return fast;
}
#else
#define PYSCOPE_HAS_BMI2 0
inline uint64_t pext(uint64_t, uint64_t) { return 0; }
inline uint64_t pdep(uint64_t, uint64_t) { return 0; }
#endif

// Two varints of less than 2^28 each, stored with one store of eight bytes and without a branch on their lengths.
template <bool kBmi2>
inline __attribute__((always_inline)) uint8_t* put_two(uint8_t* out, uint64_t first, uint64_t second) {
  if constexpr (kBmi2) {
    constexpr uint64_t kGroups = 0x7F7F7F7F, kTops = 0x80808080;
    const uint64_t one = pdep(first, kGroups), two = pdep(second, kGroups);
    // The bit at which the last byte begins; below it every byte has a continuation bit.
    const auto last_of_one = static_cast<unsigned>(63 - __builtin_clzll(one | 1)) & 0x38;
    const auto last_of_two = static_cast<unsigned>(63 - __builtin_clzll(two | 1)) & 0x38;
    const uint64_t bytes_of_one = one | (kTops & ((uint64_t{1} << last_of_one) - 1));
    const uint64_t bytes_of_two = two | (kTops & ((uint64_t{1} << last_of_two) - 1));
    const uint64_t both = bytes_of_one | bytes_of_two << (last_of_one + 8);
    std::memcpy(out, &both, 8);
    return out + ((last_of_one + last_of_two + 16) >> 3);
  } else {
    return put_varint(put_varint(out, first), second);
  }
}

}  // namespace detail

// --- encoder -------------------------------------------------------------------------------------

// No word takes more: a token of 4 bytes and a time of 10 for a head, at most 13 for an operand.
constexpr size_t max_encoded_bytes(size_t count) { return count * 14 + 16; }

inline constexpr uint64_t kInstanceMask = ~uint64_t{0} >> kExceptionBits;
inline constexpr uint32_t kOpPayload = 14;  // Rebase's number: it is not encoded

namespace detail {

constexpr uint32_t bit(Kind kind) { return uint32_t{1} << static_cast<unsigned>(kind); }
inline constexpr uint32_t kCKinds = bit(Kind::CCall) | bit(Kind::CReturn) | bit(Kind::CRaise);
inline constexpr uint32_t kGeneratorKinds =
    bit(Kind::GenStart) | bit(Kind::GenYield) | bit(Kind::GenResume) | bit(Kind::GenReturn);

// The words of one chunk, encoded one after the other.
class Encoder {
 public:
  Encoder(const uint64_t* words, size_t count, uint64_t base_ticks, unsigned time_shift, uint8_t* out)
      : at_(words),
        end_(words + count),
        begin_(out),
        out_(out),
        base_(base_ticks),
        shift_(time_shift & 63),
        before_(base_ticks >> shift_) {
    stack_[0] = ~uint32_t{0};
  }

  template <bool kBmi2>
  inline __attribute__((always_inline)) size_t encode(uint32_t& events) {
    do {
      calls<kBmi2>();
      steps<kBmi2>();
    } while (at_ < end_ && other());
    events = events_;
    return static_cast<size_t>(out_ - begin_);
  }

 private:
  // As many calls and returns as come one after the other: most events by far, and so unpredictable in their order that
  // no branch tells them apart. That a return is of the call on top can be predicted: no event has to wait until the
  // stack of the one before is known.
  template <bool kBmi2>
  inline __attribute__((always_inline)) void calls() {
    const uint64_t *at = at_, *const end = end_, base = base_;
    const unsigned shift = shift_;
    uint32_t* const stack = stack_;
    uint64_t before = before_;
    size_t depth = depth_;
    uint8_t* out = out_;
    for (; at < end; ++at) {
      const uint64_t word = *at;
      const uint32_t code = code_of(word), op = static_cast<uint32_t>(kind_of(word));
      const uint32_t returns = op - static_cast<uint32_t>(Kind::Call);
      if (returns > 1) break;
      const uint32_t amiss = ((stack[depth] ^ code) & (0 - returns)) | static_cast<uint32_t>(depth >= kCodecStack);
      const uint64_t now = (base + time_of(word)) >> shift, elapsed = now - before;
      if (__builtin_expect((elapsed >> 28 | amiss) != 0, 0)) break;
      stack[depth + 1] = code;
      depth += 1 - 2 * static_cast<size_t>(returns);
      out = put_two<kBmi2>(out, (code << 4 | op) & (returns - 1), elapsed);
      before = now;
    }
    events_ += static_cast<uint32_t>(at - at_);
    at_ = at;
    before_ = before;
    depth_ = depth;
    out_ = out;
  }

  // As many C calls, resumes and suspensions as come one after the other, but for those with an exception.
  template <bool kBmi2>
  inline __attribute__((always_inline)) void steps() {
    while (end_ - at_ >= 2) {
      const uint64_t word = *at_;
      const uint32_t code = code_of(word), op = static_cast<uint32_t>(kind_of(word));
      if (!((kCKinds | kGeneratorKinds) >> op & 1)) break;
      const uint64_t now = (base_ + time_of(word)) >> shift_, elapsed = now - before_;
      if (__builtin_expect(elapsed >> 28 != 0, 0)) break;
      if (kCKinds >> op & 1) {
        out_ = put_two<kBmi2>(out_, code << 4 | op, elapsed);
        ++at_;
      } else {
        const uint64_t instance = at_[1] >> kExceptionBits, last = instances_.last();
        const size_t place = instances_.find(instance, code);
        const bool known = place != Recent::kMissing;
        const uint32_t told = known ? static_cast<uint32_t>(2 * place + 1) : 2 * code;
        out_ = put_two<kBmi2>(out_, told << 4 | op, elapsed);
        if (!known) out_ = put_varint(out_, zigzag(static_cast<int64_t>(instance - last)));
        at_ += 2;
      }
      before_ = now;
      ++events_;
    }
  }

  // Any one event. False if there is none.
  bool other();

  const uint64_t* at_;
  const uint64_t* const end_;
  uint8_t* const begin_;
  uint8_t* out_;
  uint64_t base_;
  const unsigned shift_;
  uint64_t before_;
  uint32_t events_ = 0;
  size_t depth_ = 0;
  uint32_t stack_[kCodecStack + 2];  // [0] is no code and never popped; the one above the top is scratch
  Recent instances_, serials_;
};

inline bool Encoder::other() {
  const uint64_t word = *at_;
  const Kind kind = kind_of(word);
  const auto left = static_cast<size_t>(end_ - at_);
  if (word == 0 || kind == Kind::End || kind > Kind::Payload) return false;
  if (left < 1 + operands(kind)) return false;
  const uint64_t* operand = at_ + 1;
  if (kind == Kind::Rebase) {
    base_ = operand[0];
    at_ += 2;
    return true;
  }
  size_t payload_words = 0;
  if (kind == Kind::Payload) {
    if (operand[0] > (left - 2) * 8 || code_of(word) == kMaxCode) return false;
    payload_words = (static_cast<size_t>(operand[0]) + 7) / 8;
  }
  const uint32_t code = code_of(word);
  const bool on_top = stack_[depth_] == code;
  uint32_t token;
  uint64_t instance = 0, last = 0;
  bool known = false;
  if (has_instance(kind)) {
    instance = operand[0] >> kExceptionBits;
    last = instances_.last();
    const size_t place = instances_.find(instance, code);
    known = place != Recent::kMissing;
    token = (known ? static_cast<uint32_t>(2 * place + 1) : 2 * code) << 4 | static_cast<uint32_t>(kind);
  } else if (kind == Kind::Switch) {
    const size_t place = serials_.find(operand[0], 0);
    known = place != Recent::kMissing;
    token = (known ? static_cast<uint32_t>(place + 1) : 0) << 4 | static_cast<uint32_t>(kind);
  } else if (kind == Kind::Payload) {
    token = (code + 1) << 4 | kOpPayload;
  } else {
    const bool returns = kind == Kind::Return;
    token = returns && on_top ? 0 : code << 4 | static_cast<uint32_t>(kind);
    if (kind == Kind::Call && depth_ < kCodecStack) stack_[++depth_] = code;
    if ((returns || kind == Kind::Raise) && on_top) --depth_;
  }
  uint8_t* out = put_varint(out_, token);
  const uint64_t now = (base_ + time_of(word)) >> shift_;
  out = put_varint(out, now - before_);
  before_ = now;
  if (has_instance(kind) && !known) out = put_varint(out, zigzag(static_cast<int64_t>(instance - last)));
  switch (kind) {
    case Kind::Raise:
    case Kind::GenThrow:
    case Kind::GenRaise:
      out = put_varint(out, operand[0] & kExceptionMask);
      break;
    case Kind::Switch:
      if (!known) out = put_varint(out, operand[0]);
      break;
    case Kind::Loss:
      out = put_varint(out, operand[0]);
      out = put_varint(out, zigzag(static_cast<int64_t>((operand[1] >> shift_) - now)));
      break;
    case Kind::Payload:
      out = put_varint(out, operand[0]);
      std::memcpy(out, operand + 1, static_cast<size_t>(operand[0]));
      out += operand[0];
      break;
    default:
      break;
  }
  out_ = out;
  at_ += 1 + operands(kind) + payload_words;
  ++events_;
  return true;
}

inline size_t encode_portably(const uint64_t* words, size_t count, uint64_t base_ticks, unsigned time_shift,
                              uint8_t* out, uint32_t& events) {
  return Encoder(words, count, base_ticks, time_shift, out).encode<false>(events);
}

#if PYSCOPE_HAS_BMI2
__attribute__((target("bmi,bmi2,lzcnt"))) inline size_t encode_with_bmi2(const uint64_t* words, size_t count,
                                                                         uint64_t base_ticks, unsigned time_shift,
                                                                         uint8_t* out, uint32_t& events) {
  return Encoder(words, count, base_ticks, time_shift, out).encode<true>(events);
}
#endif

}  // namespace detail

// Encodes the words up to the first zero word, an unknown kind, a time shift that is none, or a record
// that does not end within `count`. `out` has room for max_encoded_bytes(count). Returns the bytes
// written; `events` gets the number of head words, REBASE not counted.
inline size_t encode_words(const uint64_t* words, size_t count, uint64_t base_ticks, unsigned time_shift, uint8_t* out,
                           uint32_t& events) {
#if PYSCOPE_HAS_BMI2
  if (detail::fast_bmi2()) return detail::encode_with_bmi2(words, count, base_ticks, time_shift, out, events);
#endif
  return detail::encode_portably(words, count, base_ticks, time_shift, out, events);
}

// --- decoder -------------------------------------------------------------------------------------

// What an event has beside time, kind and code. What a kind does not have is zero.
struct Operands {
  uint64_t instance = 0;
  uint32_t exception = 0;
  uint64_t serial = 0;               // Switch
  uint64_t count = 0;                // Loss
  uint64_t first = 0;                // Loss: ticks >> time_shift
  const uint8_t* payload = nullptr;  // Payload, with its length
  size_t payload_bytes = 0;
};

namespace detail {

inline uint64_t load64(const uint8_t* at) {
  uint64_t value;
  std::memcpy(&value, at, 8);
  return value;
}

// Two varints of up to four bytes, one in each half: their 7-bit groups pushed together.
constexpr uint64_t pack7(uint64_t x) {
  x = ((x & 0x7F007F007F007F00) >> 1) | (x & 0x007F007F007F007F);
  return ((x & 0x3FFF00003FFF0000) >> 2) | (x & 0x00003FFF00003FFF);
}

// Of each of the 64 bytes at `at` whether it ends a varint (its top bit is clear), one bit a byte.
#if defined(__SSE2__)
#define PYSCOPE_HAS_ENDS 1
inline uint64_t varint_ends(const uint8_t* at) {
  const auto part = [at](int i) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at) + i);
    return static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(bytes)));
  };
  return ~(part(0) | part(1) << 16 | part(2) << 32 | part(3) << 48);
}
#else
#define PYSCOPE_HAS_ENDS 0
inline uint64_t varint_ends(const uint8_t*) { return 0; }
#endif

// The two varints, token and time, that the eight bytes of `word` begin with, without a branch on their lengths.
// False if they are longer. `size` gets their bytes.
template <bool kBmi2>
inline bool get_two(uint64_t word, uint64_t& token, uint64_t& elapsed, size_t& size) {
  constexpr uint64_t kTops = 0x8080808080808080;
  const uint64_t ends = ~word & kTops;
  const uint64_t later = ends & (ends - 1);
  if (__builtin_expect(later == 0, 0)) return false;
  const uint64_t to_first = ends ^ (ends - 1), to_second = later ^ (later - 1);
  const auto second = static_cast<unsigned>(__builtin_ctzll(later));  // the last bit of the time
  if constexpr (kBmi2) {
    token = pext(word, to_first & ~kTops);
    elapsed = pext(word, (to_first ^ to_second) & ~kTops);
  } else {
    const auto first = static_cast<unsigned>(__builtin_ctzll(ends));
    if (__builtin_expect(first > 31 || second - first > 32, 0)) return false;
    const uint64_t both = pack7((word & to_first) | (word & (to_first ^ to_second)) << (first ^ 31));
    token = both & 0xFFFFFFFF;
    elapsed = both >> 32;
  }
  size = (second >> 3) + 1;
  return true;
}

template <bool kBmi2, class Rich>
inline __attribute__((always_inline)) size_t decode_body(const uint8_t* at, size_t bytes, size_t events,
                                                         uint64_t base_ticks, unsigned time_shift, uint64_t* times,
                                                         uint32_t* words, Rich& rich, size_t& rest) {
  constexpr uint32_t kPlainOps = 0x1C07;  // 0 1 2 10 11 12: no operand follows
  constexpr int8_t kDepth[16] = {-1, 1};
  const uint8_t* const end = at + bytes;
  uint32_t stack[kCodecStack + 2];  // stack[0] is never popped; the one above the top is scratch
  stack[0] = 0;
  size_t depth = 0;
  uint64_t now = base_ticks >> (time_shift & 63);
  Recent instances, serials;
  // Where varints end is found for 64 bytes at once, so that one event need not wait for the one before it.
  constexpr ptrdiff_t kBlock = 64;
  const uint8_t* block = at;
  uint64_t block_ends = 0, left = 0;  // of the block; of its part from `at` on
  size_t index = 0;
  for (; index < events; ++index) {
    uint64_t token = 0, elapsed = 0, later = left & (left - 1);
    size_t size = 0;
    if (PYSCOPE_HAS_ENDS && __builtin_expect(later == 0 && end - at >= kBlock + 8, 0)) {
      block = at;
      block_ends = left = varint_ends(at);
      later = left & (left - 1);
    }
    if (__builtin_expect(end - at >= 8 && get_two<kBmi2>(load64(at), token, elapsed, size), 1)) {
      const uint8_t* next = later ? block + __builtin_ctzll(later) + 1 : at + size;
      const auto op = static_cast<uint32_t>(token) & 15;
      const size_t deeper = depth + static_cast<size_t>(static_cast<ptrdiff_t>(kDepth[op]));
      if (__builtin_expect(((kPlainOps >> op) & 1) && deeper <= kCodecStack && token >> (kCodeBits + 4) == 0, 1)) {
        // Calls and returns alternate unpredictably: no branch tells them apart.
        const auto popping = static_cast<uint32_t>(static_cast<int32_t>(op - 1) >> 31);  // all ones for op 0
        const uint32_t code = (static_cast<uint32_t>(token >> 4) & ~popping) | (stack[depth] & popping);
        stack[depth + 1] = code;
        depth = deeper;
        now += elapsed;
        times[index] = now;
        words[index] = (op + (popping & 2)) | code << kKindBits;
        at = next;
        left = later & (later - 1);
        continue;
      }
    }
    // Anything else: one event, step by step.
    const uint8_t* next = get_varint(at, end, token);
    if (!next || !(next = get_varint(next, end, elapsed))) break;
    const uint64_t then = now + elapsed;
    const auto op = static_cast<uint32_t>(token) & 15;
    const bool generator = has_instance(static_cast<Kind>(op));
    if (token >> (kCodeBits + 4 + static_cast<unsigned>(generator)) != 0) break;
    auto code = static_cast<uint32_t>(token >> 4);
    auto kind = static_cast<Kind>(op);
    Operands operands;
    uint64_t value = 0;
    bool plain = false;
    switch (op) {
      case 0:
        if (depth == 0) {
          next = nullptr;
          break;
        }
        kind = Kind::Return;
        code = stack[depth--];
        plain = true;
        break;
      case static_cast<uint32_t>(Kind::Call):
        if (depth < kCodecStack) stack[++depth] = code;
        plain = true;
        break;
      case static_cast<uint32_t>(Kind::Return):
      case static_cast<uint32_t>(Kind::CCall):
      case static_cast<uint32_t>(Kind::CReturn):
      case static_cast<uint32_t>(Kind::CRaise):
        plain = true;
        break;
      case static_cast<uint32_t>(Kind::Switch): {
        uint32_t none = 0;
        if (code == 0) {
          next = get_varint(next, end, operands.serial);
          if (next) serials.find(operands.serial, 0);
        } else if (!serials.at(code - 1, operands.serial, none)) {
          next = nullptr;
        }
        code = 0;
        break;
      }
      case static_cast<uint32_t>(Kind::Loss):
        next = get_varint(next, end, operands.count);
        if (next) next = get_varint(next, end, value);
        operands.first = then + static_cast<uint64_t>(unzigzag(value));
        break;
      case kOpPayload:
        kind = Kind::Payload;
        if (code-- == 0) next = nullptr;
        if (next) next = get_varint(next, end, value);
        if (!next || value > static_cast<uint64_t>(end - next)) {
          next = nullptr;
          break;
        }
        operands.payload = next;
        operands.payload_bytes = static_cast<size_t>(value);
        next += value;
        break;
      default:
        if (generator && (code & 1)) {
          if (!instances.at(code >> 1, operands.instance, code)) next = nullptr;
        } else if (generator) {
          code >>= 1;
          next = get_varint(next, end, value);
          operands.instance = (instances.last() + static_cast<uint64_t>(unzigzag(value))) & kInstanceMask;
          if (next) instances.find(operands.instance, code);
        }
        if (next && (kind == Kind::Raise || kind == Kind::GenThrow || kind == Kind::GenRaise)) {
          next = get_varint(next, end, value);
          operands.exception = static_cast<uint32_t>(value & kExceptionMask);
        }
        if (kind == Kind::Raise && depth > 0 && stack[depth] == code) --depth;
    }
    if (!next) break;
    times[index] = now = then;
    words[index] = static_cast<uint32_t>(kind) | code << kKindBits;
    if (!plain) rich(index, kind, code, operands);
    at = next;
    left = at - block < kBlock ? block_ends & (~uint64_t{0} << (at - block)) : 0;
  }
  rest = static_cast<size_t>(end - at);
  return index;
}

template <class Rich>
size_t decode_portably(const uint8_t* at, size_t bytes, size_t events, uint64_t base_ticks, unsigned time_shift,
                       uint64_t* times, uint32_t* words, Rich& rich, size_t& rest) {
  return decode_body<false>(at, bytes, events, base_ticks, time_shift, times, words, rich, rest);
}

#if PYSCOPE_HAS_BMI2
template <class Rich>
__attribute__((target("bmi,bmi2"))) size_t decode_with_bmi2(const uint8_t* at, size_t bytes, size_t events,
                                                            uint64_t base_ticks, unsigned time_shift, uint64_t* times,
                                                            uint32_t* words, Rich& rich, size_t& rest) {
  return decode_body<true>(at, bytes, events, base_ticks, time_shift, times, words, rich, rest);
}
#endif

}  // namespace detail

// Decodes at most `events` events: `times` gets ticks >> time_shift, absolute; `words` kind | code << kKindBits.
// For each kind with operands `rich(index, kind, code, operands)` is called, in order. Returns how many events
// were decoded: fewer than `events` when the bytes are malformed. `rest` gets the bytes left over, 0 when all is well.
template <class Rich>
inline size_t decode_chunk(const uint8_t* at, size_t bytes, size_t events, uint64_t base_ticks, unsigned time_shift,
                           uint64_t* times, uint32_t* words, Rich&& rich, size_t& rest) {
#if PYSCOPE_HAS_BMI2
  if (detail::fast_bmi2())
    return detail::decode_with_bmi2(at, bytes, events, base_ticks, time_shift, times, words, rich, rest);
#endif
  return detail::decode_portably(at, bytes, events, base_ticks, time_shift, times, words, rich, rest);
}

}  // namespace pyscope
