// The yardstick of the decoder: a naive loop over 8-byte event words in memory, into columns and into calls.
//
//   naive_loop WORDS    WORDS is a file of uint64: time in ns << 28 | code << 5 | kind (1 begins a call, 2 ends it)
//
// It prints four rates in million events a second: decoded and paired into memory that was touched before ("warm"),
// and into fresh memory, whose pages the kernel has to provide ("cold"), as any first decoding must. It knows nothing
// of pages, deltas, threads, contexts or missing exits: no decoder can do less.
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <vector>

namespace {

constexpr uint64_t kBegin = 1, kEnd = 2;

double seconds() {
  timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return static_cast<double>(ts.tv_sec) + static_cast<double>(ts.tv_nsec) * 1e-9;
}

template <class T>
using Column = std::unique_ptr<T[]>;

template <class T>
Column<T> fresh(size_t rows) {
  return std::make_unique_for_overwrite<T[]>(rows);
}

struct Events {
  explicit Events(size_t rows) : time(fresh<int64_t>(rows)), kind(fresh<uint8_t>(rows)), code(fresh<int32_t>(rows)) {}
  Column<int64_t> time;
  Column<uint8_t> kind;
  Column<int32_t> code;
};

struct Calls {
  explicit Calls(size_t rows)
      : start(fresh<int64_t>(rows)), duration(fresh<int64_t>(rows)), self(fresh<int64_t>(rows)),
        function(fresh<int32_t>(rows)), parent(fresh<int32_t>(rows)), depth(fresh<int32_t>(rows)) {}
  Column<int64_t> start, duration, self;
  Column<int32_t> function, parent, depth;
};

double decode(const std::vector<uint64_t>& words, Events& out) {
  const double began = seconds();
  for (size_t i = 0; i < words.size(); ++i) {
    out.time[i] = static_cast<int64_t>(words[i] >> 28);
    out.kind[i] = words[i] & 31;
    out.code[i] = static_cast<int32_t>(words[i] >> 5 & 0x7fffff);
  }
  return seconds() - began;
}

double pair(const std::vector<uint64_t>& words, Calls& out) {
  const double began = seconds();
  std::vector<int32_t> stack;
  int32_t calls = 0;
  for (const uint64_t word : words) {
    const auto at = static_cast<int64_t>(word >> 28);
    if ((word & 31) == kBegin) {
      out.function[calls] = static_cast<int32_t>(word >> 5 & 0x7fffff);
      out.start[calls] = at;
      out.duration[calls] = 0;
      out.parent[calls] = stack.empty() ? -1 : stack.back();
      out.depth[calls] = static_cast<int32_t>(stack.size());
      out.self[calls] = 0;
      stack.push_back(calls++);
    } else if ((word & 31) == kEnd && !stack.empty()) {
      const int32_t call = stack.back();
      stack.pop_back();
      out.duration[call] = at - out.start[call];
      out.self[call] += out.duration[call];
      if (!stack.empty()) out.self[stack.back()] -= out.duration[call];
    }
  }
  return seconds() - began;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  std::ifstream file(argv[1], std::ios::binary | std::ios::ate);
  if (!file) return 1;
  std::vector<uint64_t> words(static_cast<size_t>(file.tellg()) / sizeof(uint64_t));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(words.data()), static_cast<std::streamsize>(words.size() * sizeof(uint64_t)));
  if (words.empty()) return 1;

  Events events(words.size());
  Calls calls(words.size());
  const double decode_cold = decode(words, events), pair_cold = pair(words, calls);
  const double decode_warm = decode(words, events), pair_warm = pair(words, calls);
  const auto rate = [&](double taken) { return static_cast<double>(words.size()) / taken / 1e6; };
  std::printf("%.3f %.3f %.3f %.3f\n", rate(decode_warm), rate(pair_warm), rate(decode_cold), rate(pair_cold));
  // Something of the output is used, so that the compiler leaves nothing out.
  const size_t middle = words.size() / 4;
  std::fprintf(stderr, "%lld\n", static_cast<long long>(events.time[middle] + events.kind[middle] + events.code[middle] +
                                                        calls.duration[0] + calls.self[0] + calls.depth[0]));
}
