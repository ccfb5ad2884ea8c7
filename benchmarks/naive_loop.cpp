// The yardstick of the decoder: a naive loop over 8-byte event words in memory, into columns and into calls.
//
//   naive_loop EVENTS    prints two numbers a repetition: million events a second decoded, and paired
//
// It knows nothing of pages, deltas, threads, contexts or missing exits: no decoder can do less. The output
// is allocated and touched beforehand.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

namespace {

constexpr uint64_t kCall = 1, kReturn = 2;

double seconds() {
  timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return static_cast<double>(ts.tv_sec) + static_cast<double>(ts.tv_nsec) * 1e-9;
}

// The calls and returns of a tree with ten children a node, as the recorder would write them.
void tree(std::vector<uint64_t>& words, uint64_t& now, size_t most, uint64_t depth) {
  if (words.size() + depth + 2 > most) return;
  words.push_back((now += 30) << 28 | depth << 5 | kCall);
  if (depth)
    for (int i = 0; i < 10; ++i) tree(words, now, most, depth - 1);
  words.push_back((now += 30) << 28 | depth << 5 | kReturn);
}

}  // namespace

int main(int argc, char** argv) {
  const size_t most = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000'000;
  std::vector<uint64_t> words;
  words.reserve(most);
  uint64_t now = 0;
  while (words.size() + 16 < most) {
    const size_t before = words.size();
    tree(words, now, most, 7);
    if (words.size() == before) break;
  }
  const size_t events = words.size();
  std::vector<int64_t> time(events, 1), start(events, 1), duration(events, 1), self(events, 1);
  std::vector<uint8_t> kind(events, 1);
  std::vector<int32_t> code(events, 1), function(events, 1), parent(events, 1), depth(events, 1);

  for (int repetition = 0; repetition < 3; ++repetition) {
    double began = seconds();
    for (size_t i = 0; i < events; ++i) {
      time[i] = static_cast<int64_t>(words[i] >> 28);
      kind[i] = words[i] & 31;
      code[i] = static_cast<int32_t>(words[i] >> 5 & 0x7fffff);
    }
    const double decode = seconds() - began;

    began = seconds();
    std::vector<int32_t> stack;
    int32_t calls = 0;
    for (size_t i = 0; i < events; ++i) {
      const auto at = static_cast<int64_t>(words[i] >> 28);
      if ((words[i] & 31) == kCall) {
        function[calls] = static_cast<int32_t>(words[i] >> 5 & 0x7fffff);
        start[calls] = at;
        parent[calls] = stack.empty() ? -1 : stack.back();
        depth[calls] = static_cast<int32_t>(stack.size());
        self[calls] = 0;
        stack.push_back(calls++);
      } else if (!stack.empty()) {
        const int32_t call = stack.back();
        stack.pop_back();
        duration[call] = at - start[call];
        self[call] += duration[call];
        if (!stack.empty()) self[stack.back()] -= duration[call];
      }
    }
    const double pair = seconds() - began;
    // The sums keep the compiler from leaving the loops out.
    const int64_t sum = time[events / 2] + kind[events / 3] + code[events / 5] + duration[calls / 2] +
                        parent[calls / 3] + self[calls / 5] + depth[calls / 7] + function[calls / 9];
    std::fprintf(stderr, "%lld\n", static_cast<long long>(sum));
    std::printf("%.3f %.3f\n", static_cast<double>(events) / decode / 1e6, static_cast<double>(events) / pair / 1e6);
  }
}
