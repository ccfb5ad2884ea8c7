// The event word: what is put into its fields comes out of them.
#include "event.hpp"

#include <initializer_list>

#include "check.hpp"

using namespace pyscope;

namespace {

void every_field_comes_back_at_its_limits() {
  const uint64_t latest = (uint64_t{1} << kTimeBits) - 1;
  for (uint64_t code : {uint64_t{0}, uint64_t{1}, kMaxCode}) {
    for (uint64_t time : {uint64_t{0}, uint64_t{1}, latest}) {
      for (auto kind = static_cast<unsigned>(Kind::Call); kind <= static_cast<unsigned>(Kind::Payload); ++kind) {
        const uint64_t word = head(static_cast<Kind>(kind), code) | (time << kTimeShift);
        CHECK(word != 0);
        CHECK(static_cast<unsigned>(kind_of(word)) == kind);
        CHECK(code_of(word) == code);
        CHECK(time_of(word) == time);
      }
    }
  }
}

void an_instance_keeps_address_and_exception_apart() {
  const auto* address = reinterpret_cast<const void*>(uint64_t{0x7ffff7abcdf0});
  const uint64_t word = instance(address, kExceptionMask);
  CHECK((word & kExceptionMask) == kExceptionMask);
  CHECK((word >> kExceptionBits) == uint64_t{0x7ffff7abcdf0} >> 4);
  CHECK((instance(address, 0) & kExceptionMask) == 0);
}

}  // namespace

int main() {
  every_field_comes_back_at_its_limits();
  an_instance_keeps_address_and_exception_apart();
  return 0;
}
