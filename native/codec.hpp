// The codec: a page's words to the bytes of a chunk and back (the encoding is drawn in recording.hpp), and the
// checksum of blocks. Header only, no Python, no allocation; safe on arbitrary words and arbitrary bytes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "event.hpp"
#include "recording.hpp"

namespace pyscope {

// --- checksum ------------------------------------------------------------------------------------

namespace detail {

// Slice-by-16: table[k][b] is the effect of byte b followed by k zero bytes.
inline constexpr auto kCrcTables = [] {
  std::array<std::array<uint32_t, 256>, 16> tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t value = b;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0);
    tables[0][b] = value;
  }
  for (size_t k = 1; k < 16; ++k)
    for (uint32_t b = 0; b < 256; ++b)
      tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xFF];
  return tables;
}();

inline uint32_t load32(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

inline uint64_t load64(const uint8_t* at) {
  uint64_t value;
  std::memcpy(&value, at, 8);
  return value;
}

}  // namespace detail

static_assert(std::endian::native == std::endian::little, "recordings are little-endian");

// CRC-32 with zlib's polynomial; `before` is the checksum of the bytes that precede.
inline uint32_t crc32(const void* data, size_t bytes, uint32_t before = 0) {
  const auto& t = detail::kCrcTables;
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t crc = ~before;
  for (; bytes >= 16; bytes -= 16, at += 16) {
    uint32_t next = 0;
    const uint32_t in[4] = {detail::load32(at) ^ crc, detail::load32(at + 4), detail::load32(at + 8),
                            detail::load32(at + 12)};
    for (size_t i = 0; i < 4; ++i)
      next ^= t[15 - 4 * i][in[i] & 0xFF] ^ t[14 - 4 * i][(in[i] >> 8) & 0xFF] ^ t[13 - 4 * i][(in[i] >> 16) & 0xFF] ^
              t[12 - 4 * i][in[i] >> 24];
    crc = next;
  }
  for (; bytes > 0; --bytes) crc = (crc >> 8) ^ t[0][(crc ^ *at++) & 0xFF];
  return ~crc;
}

// --- varints -------------------------------------------------------------------------------------

constexpr uint64_t zigzag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
constexpr int64_t unzigzag(uint64_t value) {
  return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
}

inline uint8_t* put_varint(uint8_t* out, uint64_t value) {
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

// --- encoder -------------------------------------------------------------------------------------

// No word takes more: a token of 4 bytes and a time of 10 for a head, at most 13 for an operand.
constexpr size_t max_encoded_bytes(size_t count) { return count * 14 + 16; }

inline constexpr uint64_t kInstanceMask = ~uint64_t{0} >> kExceptionBits;
inline constexpr uint32_t kOpPayload = 14;  // Rebase's number: it is not encoded

// Encodes the words up to the first zero word, an unknown kind, a time shift that is none, or a record
// that does not end within `count`. `out` has room for max_encoded_bytes(count). Returns the bytes
// written; `events` gets the number of head words, REBASE not counted.
inline size_t encode_words(const uint64_t* words, size_t count, uint64_t base_ticks, unsigned time_shift, uint8_t* out,
                           uint32_t& events) {
  uint8_t* const begin = out;
  uint32_t stack[kCodecStack];
  size_t depth = 0;
  uint64_t base = base_ticks, before = base_ticks >> (time_shift & 63), instance = 0;
  events = 0;
  for (size_t i = 0; i < count;) {
    const uint64_t word = words[i];
    const Kind kind = kind_of(word);
    if (word == 0 || kind == Kind::End || kind > Kind::Payload) break;
    if (count - i < 1 + operands(kind)) break;
    const uint64_t* operand = words + i + 1;
    if (kind == Kind::Rebase) {
      base = operand[0];
      i += 2;
      continue;
    }
    size_t payload_words = 0;
    if (kind == Kind::Payload) {
      const size_t room = count - i - 2;
      if (operand[0] > room * 8 || code_of(word) == kMaxCode) break;
      payload_words = (static_cast<size_t>(operand[0]) + 7) / 8;
    }
    const uint32_t code = code_of(word);
    const bool on_top = depth > 0 && stack[depth - 1] == code;
    uint32_t token;
    if (kind == Kind::Return && on_top) {
      token = 0;
      --depth;
    } else if (kind == Kind::Payload) {
      token = (code + 1) << 4 | kOpPayload;
    } else {
      token = code << 4 | static_cast<uint32_t>(kind);
      if (kind == Kind::Raise && on_top) --depth;
      if (kind == Kind::Call && depth < kCodecStack) stack[depth++] = code;
    }
    out = put_varint(out, token);
    const uint64_t now = (base + time_of(word)) >> (time_shift & 63);
    out = put_varint(out, now - before);
    before = now;
    switch (kind) {
      case Kind::Raise:
      case Kind::GenStart:
      case Kind::GenYield:
      case Kind::GenResume:
      case Kind::GenThrow:
      case Kind::GenReturn:
      case Kind::GenRaise: {
        const uint64_t which = operand[0] >> kExceptionBits;
        out = put_varint(out, zigzag(static_cast<int64_t>(which - instance)));
        instance = which;
        if (kind == Kind::Raise || kind == Kind::GenThrow || kind == Kind::GenRaise)
          out = put_varint(out, operand[0] & kExceptionMask);
        break;
      }
      case Kind::Switch:
        out = put_varint(out, operand[0]);
        break;
      case Kind::Loss:
        out = put_varint(out, operand[0]);
        out = put_varint(out, zigzag(static_cast<int64_t>((operand[1] >> (time_shift & 63)) - now)));
        break;
      case Kind::Payload:
        out = put_varint(out, operand[0]);
        std::memcpy(out, operand + 1, static_cast<size_t>(operand[0]));
        out += operand[0];
        break;
      default:
        break;
    }
    i += 1 + operands(kind) + payload_words;
    ++events;
  }
  return static_cast<size_t>(out - begin);
}

// --- decoder -------------------------------------------------------------------------------------

// One event with operands, as the decoder hands it to a sink. What a kind does not have is zero.
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

// Two varints of up to four bytes, one in each half: their 7-bit groups pushed together.
constexpr uint64_t pack7(uint64_t x) {
  x = ((x & 0x7F007F007F007F00) >> 1) | (x & 0x007F007F007F007F);
  return ((x & 0x3FFF00003FFF0000) >> 2) | (x & 0x00003FFF00003FFF);
}

}  // namespace detail

// Decodes at most `events` events. For each the sink is called once, in order:
//   sink.plain(index, time, kind, code)              the kinds without operands
//   sink.rich(index, time, kind, code, operands)     the others
// `time` is absolute, in ticks >> time_shift. Returns how many were decoded: fewer than `events`
// when the bytes are malformed. `rest` gets the bytes left over (0 when all is well).
template <class Sink>
inline size_t decode_chunk(const uint8_t* at, size_t bytes, size_t events, uint64_t base_ticks, unsigned time_shift,
                           Sink&& sink, size_t& rest) {
  constexpr uint32_t kPlainOps = 0x1C07;  // 0 1 2 10 11 12: no operand follows
  const uint8_t* const end = at + bytes;
  uint32_t stack[kCodecStack + 2];  // stack[0] is never popped; one more above the top is scratch
  stack[0] = 0;
  size_t depth = 0;
  uint64_t now = base_ticks >> (time_shift & 63), instance = 0;
  size_t index = 0;
  for (; index < events; ++index) {
    uint64_t token;
    const uint8_t* next = nullptr;
    // Token and time in one load of eight bytes, without a branch on their lengths. The last byte of a varint has
    // its top bit clear: `ends` marks those bits.
    if (__builtin_expect(end - at >= 8, 1)) {
      const uint64_t word = detail::load64(at);
      const uint64_t ends = ~word & 0x8080808080808080;
      const uint64_t later = ends & (ends - 1);
      if (__builtin_expect(later != 0 && (ends & 0x80808080) != 0, 1)) {
        const auto first = static_cast<unsigned>(__builtin_ctzll(ends));    // 7, 15, 23 or 31
        const auto second = static_cast<unsigned>(__builtin_ctzll(later));  // ... up to 63
        if (__builtin_expect(second - first <= 32, 1)) {
          const uint64_t to_first = ends ^ (ends - 1), to_second = later ^ (later - 1);
          const uint64_t both =
              detail::pack7((word & to_first) | (word & (to_first ^ to_second)) << (first ^ 31));
          token = both & 0xFFFFFFFF;
          now += both >> 32;
          next = at + (second + 1) / 8;
        }
      }
    }
    if (__builtin_expect(next == nullptr, 0)) {
      uint64_t elapsed;
      next = get_varint(at, end, token);
      if (!next || !(next = get_varint(next, end, elapsed))) break;
      now += elapsed;
    }
    if (__builtin_expect(token >> (kCodeBits + 4) != 0, 0)) break;
    const auto op = static_cast<uint32_t>(token & 15);
    auto code = static_cast<uint32_t>(token >> 4);
    if (__builtin_expect((kPlainOps >> op) & 1, 1)) {
      // Calls and returns alternate unpredictably: no branch tells them apart.
      const auto pop = static_cast<uint32_t>(op == 0);
      const auto push = static_cast<uint32_t>(op == static_cast<uint32_t>(Kind::Call)) &
                        static_cast<uint32_t>(depth < kCodecStack);
      const uint32_t popping = 0 - pop;
      if (__builtin_expect((popping & (code | static_cast<uint32_t>(depth == 0))) != 0, 0)) break;
      code |= stack[depth] & popping;
      stack[depth + 1] = code;
      depth = depth + push - pop;
      sink.plain(index, now, static_cast<Kind>(op + 2 * pop), code);
      at = next;
      continue;
    }
    Operands operands;
    uint64_t value = 0;
    auto kind = static_cast<Kind>(op);
    switch (op) {
      case static_cast<uint32_t>(Kind::Switch):
        next = get_varint(next, end, operands.serial);
        break;
      case static_cast<uint32_t>(Kind::Loss):
        next = get_varint(next, end, operands.count);
        if (next) next = get_varint(next, end, value);
        operands.first = now + static_cast<uint64_t>(unzigzag(value));
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
        next = get_varint(next, end, value);
        instance += static_cast<uint64_t>(unzigzag(value));
        operands.instance = instance & kInstanceMask;
        if (next && (kind == Kind::Raise || kind == Kind::GenThrow || kind == Kind::GenRaise)) {
          next = get_varint(next, end, value);
          operands.exception = static_cast<uint32_t>(value & kExceptionMask);
        }
        if (kind == Kind::Raise && depth > 0 && stack[depth] == code) --depth;
    }
    if (!next) break;
    sink.rich(index, now, kind, code, operands);
    at = next;
  }
  rest = static_cast<size_t>(end - at);
  return index;
}

}  // namespace pyscope
