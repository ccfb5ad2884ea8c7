// What the reading side works on: chunks found in buffers, the clock that dates them, and columns of results in
// memory that is reserved for the worst case and given back where it was not needed.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "codec.hpp"

namespace pyscope {

// A chunk in one of the buffers. pyscope/process_record.py builds arrays of these (CHUNK_DTYPE).
struct Chunk {
  uint64_t offset;  // of the encoded bytes in the buffer
  uint64_t sequence;
  uint64_t base_ticks;
  uint64_t context;  // serial at the page's start
  uint32_t buffer;
  uint32_t encoded;
  uint32_t events;
  uint32_t thread;  // index in the whole trace
  uint32_t time_shift;
  uint32_t reserved;
};
static_assert(sizeof(Chunk) == 56);

struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// Ticks to nanoseconds since the Unix epoch.
struct Clock {
  uint64_t start_ticks = 0;
  int64_t start_unix_ns = 0;
  double ns_per_tick = 1.0;

  int64_t operator()(uint64_t ticks) const {
    // Some years either way: no sum or difference of two times overflows.
    constexpr double kLimit = 1e17;
    const double elapsed = static_cast<double>(static_cast<int64_t>(ticks - start_ticks)) * ns_per_tick;
    return start_unix_ns + static_cast<int64_t>(std::min(std::max(elapsed, -kLimit), kLimit));
  }

  // The same for `count` times in ticks >> shift, in place. A time before `held`, or before its predecessor, is
  // held there. Returns the last, or `held`.
  int64_t operator()(int64_t* times, size_t count, unsigned shift, int64_t held) const {
    if (count == 0) return held;
    if (!plain(times, count, shift)) {
      for (size_t i = 0; i < count; ++i)
        times[i] = held = std::max(held, (*this)(static_cast<uint64_t>(times[i]) << shift));
      return held;
    }
    // Without a conversion instruction for 64-bit integers: as the mantissa of a double with a fixed exponent.
    const uint64_t from = start_ticks, exponent = std::bit_cast<uint64_t>(kTwo52);
    const int64_t to = start_unix_ns - std::bit_cast<int64_t>(kTwo52);
    const double scale = ns_per_tick;
    for (size_t i = 0; i < count; ++i) {
      const uint64_t ticks = (static_cast<uint64_t>(times[i]) << shift) - from;
      const double elapsed = (std::bit_cast<double>(ticks | exponent) - kTwo52) * scale;
      const double nearest = elapsed + kTwo52;
      const double below = elapsed - (nearest - kTwo52);  // negative where it was rounded up
      times[i] = to + std::bit_cast<int64_t>(nearest) - static_cast<int64_t>(std::bit_cast<uint64_t>(below) >> 63);
    }
    for (size_t i = 0; i < count && times[i] < held; ++i) times[i] = held;
    return times[count - 1];
  }

 private:
  static constexpr double kTwo52 = 4503599627370496.0;

  // Whether the times ascend and lie within 2^51 ticks and ns of the start.
  bool plain(const int64_t* times, size_t count, unsigned shift) const {
    constexpr uint64_t kSmall = uint64_t{1} << 51;
    const auto at = [&](size_t i) { return (static_cast<uint64_t>(times[i]) << shift) - start_ticks; };
    uint64_t back = 0;
    for (size_t i = 1; i < count; ++i) back |= static_cast<uint64_t>(times[i]) - static_cast<uint64_t>(times[i - 1]);
    return count < (size_t{1} << 20) && (back >> 40) == 0 && at(0) < kSmall && at(count - 1) < kSmall &&
           static_cast<uint64_t>(times[count - 1]) >> (63 - shift) == 0 &&
           static_cast<double>(at(count - 1)) * ns_per_tick < static_cast<double>(kSmall);
  }
};

// A table from ids in the recording to indexes in the trace.
struct Lookup {
  const int32_t* table = nullptr;
  size_t size = 0;
  int32_t otherwise = -1;

  int32_t operator[](uint32_t id) const { return id < size ? table[id] : otherwise; }
};

// One process's chunks, in order of thread and sequence.
struct Process {
  const Chunk* chunks = nullptr;
  size_t chunk_count = 0;
  Clock clock;
  Lookup functions;   // by code id
  Lookup exceptions;  // by exception id
  int32_t generator_exit = -1;  // its index among the exceptions
  bool flight = false;  // older pages were overwritten: a thread need not begin with page 0
};

// A column of at most `capacity` values. Pages that are never written take no memory.
template <class T>
class Column {
 public:
  Column() = default;
  explicit Column(size_t capacity) {
    if (capacity > std::numeric_limits<size_t>::max() / sizeof(T) / 2) throw std::bad_alloc();
    mapped_ = rounded(std::max<size_t>(capacity, 1) * sizeof(T));
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;
#endif
    void* at = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    ::madvise(at, mapped_, MADV_HUGEPAGE);
#endif
    data_ = static_cast<T*>(at);
  }
  Column(Column&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), mapped_(std::exchange(other.mapped_, 0)) {}
  Column& operator=(Column&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }
  ~Column() {
    if (data_) ::munmap(data_, mapped_);
  }

  T* data() const { return data_; }
  T& operator[](size_t row) const { return data_[row]; }

  // Gives back what is beyond `rows`.
  void shrink(size_t rows) {
    const size_t keep = rounded(std::max<size_t>(rows, 1) * sizeof(T));
    if (keep >= mapped_) return;
    ::munmap(reinterpret_cast<uint8_t*>(data_) + keep, mapped_ - keep);
    mapped_ = keep;
  }

 private:
  static size_t rounded(size_t bytes) {
    static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
  }

  T* data_ = nullptr;
  size_t mapped_ = 0;
};

// Whether a chunk's bytes lie in its buffer and can hold as many events as it says.
inline bool sound(const Chunk& chunk, const std::vector<Bytes>& buffers) {
  return chunk.buffer < buffers.size() && chunk.encoded <= buffers[chunk.buffer].size &&
         chunk.offset <= buffers[chunk.buffer].size - chunk.encoded && chunk.events <= chunk.encoded / 2;
}

inline size_t events_of(const Process& process, const std::vector<Bytes>& buffers) {
  size_t events = 0;
  for (size_t i = 0; i < process.chunk_count; ++i)
    if (sound(process.chunks[i], buffers)) events += process.chunks[i].events;
  return events;
}

}  // namespace pyscope
