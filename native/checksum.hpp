// The checksum of blocks: CRC-32 with zlib's polynomial.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <smmintrin.h>
#include <wmmintrin.h>
#endif

namespace pyscope {

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
    for (uint32_t b = 0; b < 256; ++b) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xFF];
  return tables;
}();

inline uint32_t load32(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

inline constexpr size_t kLeastFolded = 64;

#if defined(__x86_64__)
inline bool has_clmul() {
  static const bool has = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  return has;
}

// By carry-less multiplication (V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
// Instruction", Intel 2009; the constants are those of the reflected polynomial). `bytes`: a multiple of 16, at least
// kLeastFolded. Takes and returns the inverted checksum.
__attribute__((target("sse4.1,pclmul"))) inline uint32_t crc32_folded(const uint8_t* at, size_t bytes, uint32_t crc) {
  const auto load = [](const uint8_t* from) __attribute__((target("sse4.1,pclmul"), always_inline)) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  };
  const auto fold = [](__m128i value, __m128i by,
                       __m128i next) __attribute__((target("sse4.1,pclmul"), always_inline)) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(value, by, 0x00), _mm_clmulepi64_si128(value, by, 0x11)),
                         next);
  };
  const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
  const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
  const __m128i low_halves = _mm_setr_epi32(~0, 0, ~0, 0);
  __m128i a = _mm_xor_si128(load(at), _mm_cvtsi32_si128(static_cast<int>(crc)));
  __m128i b = load(at + 16), c = load(at + 32), d = load(at + 48);
  for (at += 64, bytes -= 64; bytes >= 64; at += 64, bytes -= 64) {
    a = fold(a, by_64, load(at));
    b = fold(b, by_64, load(at + 16));
    c = fold(c, by_64, load(at + 32));
    d = fold(d, by_64, load(at + 48));
  }
  a = fold(fold(fold(a, by_16, b), by_16, c), by_16, d);
  for (; bytes >= 16; at += 16, bytes -= 16) a = fold(a, by_16, load(at));
  a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by_16, 0x10));  // 128 bits to 64
  a = _mm_xor_si128(_mm_srli_si128(a, 4),
                    _mm_clmulepi64_si128(_mm_and_si128(a, low_halves), _mm_set_epi64x(0, 0x0163cd6124), 0x00));
  const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
  __m128i rest = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(a, low_halves), barrett, 0x10), low_halves);
  rest = _mm_clmulepi64_si128(rest, barrett, 0x00);
  return static_cast<uint32_t>(_mm_extract_epi32(_mm_xor_si128(a, rest), 1));
}
#else
inline bool has_clmul() { return false; }
inline uint32_t crc32_folded(const uint8_t*, size_t, uint32_t) { return 0; }
#endif

}  // namespace detail

// CRC-32 with zlib's polynomial; `before` is the checksum of the bytes that precede.
inline uint32_t crc32(const void* data, size_t bytes, uint32_t before = 0) {
  const auto& t = detail::kCrcTables;
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t crc = ~before;
  if (bytes >= detail::kLeastFolded && detail::has_clmul()) {
    const size_t folded = bytes & ~size_t{15};
    crc = detail::crc32_folded(at, folded, crc);
    at += folded;
    bytes -= folded;
  }
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

}  // namespace pyscope
