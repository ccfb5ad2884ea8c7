// The event word: the one definition of what the hook writes and every reader decodes.
//
// One event is one 8-byte word:
//
//    63                                    28 27                    5 4       0
//   +----------------------------------------+-----------------------+---------+
//   |  time: ticks since the base (36 bits)  |    code id (23 bits)  | kind (5)|
//   +----------------------------------------+-----------------------+---------+
//
//  * kind 0 does not exist: a page is zeroed before use, so the first zero word is its end. That is how
//    a reader finds the end after a kill. A word is one aligned store: it is there whole, or not at all.
//  * time counts clock ticks since the base: the page header's `base_ticks`, or the last REBASE in the
//    page. When the distance no longer fits (2^36 ticks, some 30 s at 2.25 GHz) the producer writes a
//    REBASE first.
//  * code id indexes the recording's table (recording.hpp). Id 0 is "unnamed": the table or the id
//    space was exhausted. Ids grow in the order of first execution.
//
// Some kinds are followed by operand words (`operands()`; their number is fixed by the kind, except
// for PAYLOAD). Operands are stored before the head word is published, so a torn record reads as the
// end of the page, never as garbage.
//
//  INSTANCE operand (generators and coroutines; exception of a plain call):
//    63                                    20 19                    0
//   +----------------------------------------+-----------------------+
//   |  instance: address >> 4 (44 bits)      |  exception id (20)    |
//   +----------------------------------------+-----------------------+
//  Two interleaved generators of one function are told apart by the instance. An address may be used
//  again after a generator's end; GEN_START always opens a new instance.
#pragma once

#include <cstdint>

namespace pyscope {

inline constexpr unsigned kKindBits = 5;
inline constexpr unsigned kCodeBits = 23;
inline constexpr unsigned kTimeBits = 36;
inline constexpr unsigned kCodeShift = kKindBits;
inline constexpr unsigned kTimeShift = kKindBits + kCodeBits;
inline constexpr uint64_t kKindMask = (uint64_t{1} << kKindBits) - 1;
inline constexpr uint64_t kCodeMask = (uint64_t{1} << kCodeBits) - 1;
inline constexpr uint64_t kMaxCode = kCodeMask;
inline constexpr unsigned kExceptionBits = 20;
inline constexpr uint64_t kExceptionMask = (uint64_t{1} << kExceptionBits) - 1;

enum class Kind : uint8_t {
  End = 0,        // not an event: the unwritten rest of a page
  Call = 1,       // a plain Python function is entered
  Return = 2,     // ... and returns
  Raise = 3,      // ... and is left by an exception                    +INSTANCE (instance 0)
  GenStart = 4,   // first resume of a generator, coroutine, async gen. +INSTANCE
  GenYield = 5,   // it suspends (yield, await)                         +INSTANCE
  GenResume = 6,  // it is resumed by send/next                         +INSTANCE
  GenThrow = 7,   // it is resumed by throw() or close()                +INSTANCE (exception thrown in)
  GenReturn = 8,  // it returns                                         +INSTANCE
  GenRaise = 9,   // it is left by an exception                         +INSTANCE
  CCall = 10,     // a C function is called (code id names it)
  CReturn = 11,   // ... and returns
  CRaise = 12,    // ... and raises
  Switch = 13,    // the thread goes on in another context              +serial of the context (0: the thread itself)
  Rebase = 14,    // time base for what follows                         +absolute ticks
  Loss = 15,      // events are missing here; code = LossReason         +count (0: unknown) +ticks of the first
  Payload = 16,   // bytes in line; code = PayloadType                  +byte count, +bytes padded to 8
};

enum class LossReason : uint8_t {
  RingFull = 1,    // no free page: the drain (or the disk) did not keep up
  StackGuard = 2,  // the frame hook stepped aside because the C stack ran low
  Fork = 3,        // between fork and the restart of the recorder in the child
  Fault = 4,       // an internal fault of the recorder
  WriteError = 5,  // pages that could not be written (disk full)
  Overwritten = 6, // flight mode: older than the ring holds
  DutyCycle = 7,   // C calls outside the armed windows
  Quieted = 8,     // calls of one function, to keep within the budget (QuietingRecord). As an event it ends the open
  // calls of the code id that stands as its count, in the context in hand: their exit will not be told
};

enum class PayloadType : uint8_t {
  Context = 1,  // u64 serial, u64 parent serial, u8 ContextKind, then the name in UTF-8
  Probe = 2,  // an event of a probe: struct ProbeHead, its numbers (i64 each), its texts (u16 bytes, UTF-8 each)
};

// What a probe tells; pyscope/events/ names the kinds and their numbers.
struct ProbeHead {
  uint16_t kind;
  uint16_t numbers;  // how many follow
  uint16_t text_bytes;
  uint16_t texts;  // how many follow
  uint64_t scope;  // the request, message or report it belongs to; 0: none
};
static_assert(sizeof(ProbeHead) == 16);

enum class ContextKind : uint8_t { Thread = 0, Task = 1, Greenlet = 2 };

// The number of operand words after a head word, the byte words of a PAYLOAD not counted.
constexpr unsigned operands(Kind kind) {
  switch (kind) {
    case Kind::Raise:
    case Kind::GenStart:
    case Kind::GenYield:
    case Kind::GenResume:
    case Kind::GenThrow:
    case Kind::GenReturn:
    case Kind::GenRaise:
    case Kind::Switch:
    case Kind::Rebase:
    case Kind::Payload:
      return 1;
    case Kind::Loss:
      return 2;
    default:
      return 0;
  }
}

constexpr Kind kind_of(uint64_t word) { return static_cast<Kind>(word & kKindMask); }
constexpr uint32_t code_of(uint64_t word) { return static_cast<uint32_t>((word >> kCodeShift) & kCodeMask); }
constexpr uint64_t time_of(uint64_t word) { return word >> kTimeShift; }
constexpr uint64_t head(Kind kind, uint64_t code) { return static_cast<uint64_t>(kind) | (code << kCodeShift); }
inline uint64_t instance(const void* address, uint64_t exception) {
  return ((reinterpret_cast<uint64_t>(address) >> 4) << kExceptionBits) | (exception & kExceptionMask);
}

}  // namespace pyscope
