// Generator and coroutine calls that are open, found by instance: a hash table with linear probing, since each
// resume and each yield looks one up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace pyscope {

struct CallStack;

struct Generator {
  uint64_t instance = 0;
  uint32_t code = 0;
  int32_t call = -1;
  int32_t depth = 0;
  bool outermost = false;
  int64_t start = 0;
  int64_t suspended_at = 0;  // the last time; the start before the first
  uint64_t self = 0;         // up to the last suspension
  CallStack* stack = nullptr;  // where it runs; null while suspended
  size_t position = 0;       // ... and at which place
  bool closing = false;      // GeneratorExit was thrown in since it was resumed last
  uint64_t closing_event = 0;  // ... by which event of which thread
  int32_t closing_thread = 0;
  uint64_t self_before_closing = 0;
};

class Generators {
 public:
  Generators() : slots_(1024, nullptr) {}

  Generator* find(uint64_t instance) const {
    for (size_t i = home(instance);; i = next(i)) {
      Generator* found = slots_[i];
      if (!found || found->instance == instance) return found;
    }
  }

  // A new one; `instance` is not in the table.
  Generator* insert(uint64_t instance) {
    if ((used_ + 1) * 2 > slots_.size()) grow();
    Generator* generator;
    if (free_.empty()) {
      generator = &pool_.emplace_back();
    } else {
      generator = free_.back();
      free_.pop_back();
      *generator = Generator{};
    }
    generator->instance = instance;
    place(generator);
    ++used_;
    return generator;
  }

  void erase(Generator* generator) {
    size_t hole = home(generator->instance);
    while (slots_[hole] != generator) hole = next(hole);
    // Those behind move up where the hole would cut them off from their home.
    for (size_t i = next(hole); slots_[i]; i = next(i)) {
      const size_t from_home = (i - home(slots_[i]->instance)) & (slots_.size() - 1);
      const size_t from_hole = (i - hole) & (slots_.size() - 1);
      if (from_home >= from_hole) {
        slots_[hole] = slots_[i];
        hole = i;
      }
    }
    slots_[hole] = nullptr;
    free_.push_back(generator);
    --used_;
  }

  template <class Visit>
  void each(Visit&& visit) {
    for (Generator* generator : slots_)
      if (generator) visit(*generator);
  }

 private:
  size_t home(uint64_t instance) const {
    return static_cast<size_t>((instance * 0x9E3779B97F4A7C15u) >> 20) & (slots_.size() - 1);
  }
  size_t next(size_t i) const { return (i + 1) & (slots_.size() - 1); }
  void place(Generator* generator) {
    size_t i = home(generator->instance);
    while (slots_[i]) i = next(i);
    slots_[i] = generator;
  }
  void grow() {
    std::vector<Generator*> before(slots_.size() * 2, nullptr);
    before.swap(slots_);
    for (Generator* generator : before)
      if (generator) place(generator);
  }

  std::vector<Generator*> slots_;
  size_t used_ = 0;
  std::deque<Generator> pool_;
  std::vector<Generator*> free_;
};

}  // namespace pyscope
