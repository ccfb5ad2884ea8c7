// The stack of calls of one thread or context while a recording is paired, with a count of each code on it, so
// that an exit without its entry is known at once however deep the stack is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "generators.hpp"

namespace pyscope {

// One running call. A generator's is kept in `Generator`; its entry counts only since the last resume.
struct Entry {
  uint64_t self;
  union {
    int64_t start;
    Generator* generator;
  };
  int32_t call;
  int32_t depth;
  uint32_t key;  // code << 1 | is a generator
  bool outermost;
};

constexpr uint32_t plain_key(uint32_t code) { return code << 1; }
constexpr uint32_t generator_key(uint32_t code) { return code << 1 | 1; }

struct CallStack {
  static constexpr uint32_t kNoKey = ~uint32_t{0};

  // `counted`: how many keys have a place in an array; the others go to a map.
  explicit CallStack(size_t counted) : entries(64), counts(counted, 0) {
    entries[0] = Entry{0, {0}, -1, -1, kNoKey, false};  // takes the time in which nothing runs
    top = entries.data();
    last = top + entries.size() - 1;
  }
  CallStack(const CallStack&) = delete;
  CallStack& operator=(const CallStack&) = delete;

  std::vector<Entry> entries;
  Entry* top;   // the first entry: empty
  Entry* last;  // that there is room for
  std::vector<uint32_t> counts;
  std::unordered_map<uint32_t, uint32_t> rare;

  bool empty() const { return top == entries.data(); }
  size_t position() const { return static_cast<size_t>(top - entries.data()); }

  // Counts one more of the key; how many there were.
  uint32_t enter(uint32_t key) {
    if (__builtin_expect(key < counts.size(), 1)) return counts[key]++;
    return rare[key]++;
  }
  void leave(uint32_t key) {
    if (__builtin_expect(key < counts.size(), 1)) {
      --counts[key];
    } else {
      const auto found = rare.find(key);
      if (--found->second == 0) rare.erase(found);
    }
  }
  bool holds(uint32_t key) const { return key < counts.size() ? counts[key] != 0 : rare.find(key) != rare.end(); }

  Entry& push() {
    if (__builtin_expect(top == last, 0)) grow();
    return *++top;
  }

 private:
  __attribute__((noinline)) void grow() {
    const size_t at = position();
    entries.resize(entries.size() * 2);
    top = entries.data() + at;
    last = entries.data() + entries.size() - 1;
  }
};

// Stacks are handed round: a task's is empty while the task is suspended, so a million tasks need few.
class CallStacks {
 public:
  explicit CallStacks(size_t keys) : keys_(keys) {}

  CallStack* take() {
    if (!free_.empty()) {
      CallStack* stack = free_.back();
      free_.pop_back();
      return stack;
    }
    const bool roomy = (all_.size() + 1) * keys_ * sizeof(uint32_t) <= kCountBytes;
    return all_.emplace_back(std::make_unique<CallStack>(roomy ? keys_ : 0)).get();
  }
  void give_back(CallStack* empty) { free_.push_back(empty); }

  const std::vector<std::unique_ptr<CallStack>>& all() const { return all_; }

 private:
  static constexpr size_t kCountBytes = 64 << 20;
  size_t keys_;
  std::vector<std::unique_ptr<CallStack>> all_;
  std::vector<CallStack*> free_;
};

}  // namespace pyscope
