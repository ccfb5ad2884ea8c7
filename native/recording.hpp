// The bytes of a recording: the file that is kept, and the ring file that is mapped while recording.
//
// FILE. A recording is a sequence of blocks, each behind a BlockHeader and padded to 8 bytes. It begins
// with a PROCESS block; the blocks after it belong to that process, up to the next PROCESS block. So
// the concatenation of two recordings is a recording, and a child's part is joined by appending it.
// A reader that meets a damaged block looks for the next valid header (8-byte aligned) and says what
// it skipped.
//
//   PROCESS  exactly kProcessBlockBytes with its header: struct ProcessBlock. `info` never changes;
//            `summary` is rewritten in place at the stop (its bytes are allocated from the start, so that
//            a full disk cannot prevent it) and carries a checksum of its own. The block's crc covers
//            `info` only.
//   META     UTF-8 JSON: argv, python, backend and why, settings, host
//   TABLE    records of the interned table (RecordHeader), in order of id
//   EVENTS   one sealed segment: chunks (ChunkHeader + encoded bytes, padded to 8), each one page of one thread
//
// A page not yet drained lives only in the ring file that `info.ring_path` names. Reader's rule: copy the
// ring first, then read the file; a page that is in both (same thread and sequence) is taken once.
// While its process lives the ring file carries an open-file-description lock (F_OFD_SETLK, byte 0), which
// the kernel drops at death: F_OFD_GETLK tells the living from the dead.
//
// RING FILE.  RingHeader (4096 bytes) | table region | pages of kPageBytes each
//
// ENCODED CHUNK (the words of one page, in order; all integers are LEB128 varints):
//   token = code << 4 | op
//     op 0        a RETURN of the call on top of the encoder's stack; `code` is 0: the common case in one byte
//     op 1..15    the event's kind, for kinds below 16 (op = kind); `code` is the event's code id
//   Payload (kind 16) is written as op 14 (Rebase has no code) with code = payload type + 1; a Rebase has code 0.
//   then the time: varint of (now - before) where both are absolute ticks >> time_shift (ChunkHeader);
//     `before` starts as base_ticks >> time_shift. A Rebase has none and is dropped by the encoder: times
//     are relative to the event before, whatever the word's base was. (So op 14, code 0 never occurs.)
//   then the operands:
//     INSTANCE   for Raise, GenThrow and GenRaise: varint exception id. A Raise has no instance (it is 0). The others'
//                (the operand >> kExceptionBits) is told with the code in the token's `code` field: 2 * place + 1 if the
//                pair (instance, code) stands at that place of the list of the last kCodecRecent pairs, most
//                recent first; else 2 * code, and after the time, before an exception id, stands varint
//                zigzag(instance - instance of the last pair, 0 at first). Either way the pair moves to the front.
//     Switch     `code` is 1 + the place of the serial in a list of the last kCodecRecent serials of the same kind;
//                else 0, and varint serial follows the time
//     Loss       varint count, varint zigzag((ticks of first >> time_shift) - this event's ticks >> time_shift)
//     Payload    varint byte count, the bytes
//   The encoder's stack (at most kCodecStack codes deep, empty at the start of a chunk) pushes the code of a
//   Call, and pops on Return and Raise if its top is that code. Other kinds leave it alone. A Return is op 0
//   exactly if the stack is not empty and its top is the event's code. At the limit a Call is not pushed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pyscope {

inline constexpr uint32_t kFormatVersion = 1;  // a reader refuses any other
inline constexpr uint32_t kBlockMagic = 0x31425350;  // "PSB1"
inline constexpr uint64_t kRingMagic = 0x31474e4952535031;
inline constexpr uint32_t kPageMagic = 0x47505350;  // "PSPG"

inline constexpr size_t kPageBytes = 16 * 1024;
inline constexpr size_t kProcessBlockBytes = 8192;
inline constexpr size_t kRingHeaderBytes = 4096;
inline constexpr size_t kCodecStack = 256;
inline constexpr size_t kCodecRecent = 64;
inline constexpr size_t kMaxPayloadBytes = 4096;
inline constexpr size_t kPathBytes = 1024;

enum class BlockType : uint16_t { Process = 1, Meta = 2, Table = 3, Events = 4 };

struct BlockHeader {
  uint32_t magic;  // kBlockMagic
  uint16_t type;  // BlockType
  uint16_t version;  // kFormatVersion
  uint32_t length;  // payload bytes, without padding
  uint32_t crc;  // CRC-32 (zlib's polynomial) of the payload
  uint32_t header_crc;  // CRC-32 of the 16 bytes before
  uint32_t reserved;
};
static_assert(sizeof(BlockHeader) == 24);

// Two simultaneous readings; two pairs give the tick length and the offset to wall time.
struct ClockPair {
  uint64_t ticks;
  int64_t monotonic_ns;
  int64_t unix_ns;
};

enum class ClockKind : uint32_t { Tsc = 1, VirtualCounter = 2, Monotonic = 3 };
enum class ProcessState : uint32_t {
  Recording = 0,  // alive, or killed: the ring's lock tells
  Stopped = 1,
  Recovered = 2,  // killed; its ring was sealed afterwards
  WriteFailed = 3,  // the disk was full or failed: recording stopped there
};

struct ProcessInfo {
  uint8_t recording_id[16];  // shared by a process and its children
  uint8_t process_id[16];  // of this process's run alone; the ring carries it too
  uint32_t pid;
  uint32_t parent_pid;
  uint32_t clock_kind;  // ClockKind
  uint32_t time_shift;  // resolution on disk: 2^time_shift ticks (under 4 ns)
  ClockPair start;  // at the start ...
  ClockPair start2;  // ... and a little later: a first estimate of the tick length
  uint32_t flight;  // 1 in flight mode
  uint32_t reserved;
  char ring_path[kPathBytes];  // NUL-terminated, UTF-8 (surrogateescape)
};

struct LossRow {
  uint32_t reason;  // LossReason
  uint32_t reserved;
  uint64_t count;  // events; 0: unknown
  uint64_t first_ticks;
  uint64_t last_ticks;
};

inline constexpr size_t kSummaryLosses = 32;

struct Summary {
  uint32_t crc;  // CRC-32 of the bytes after this field
  uint32_t state;  // ProcessState
  ClockPair end;  // the latest pair
  uint64_t file_bytes;  // of this process's blocks; 0 while recording. Less on disk: truncated
  uint64_t events;  // head words drained
  uint64_t drain_cpu_ns;  // CPU time of the drain thread
  uint64_t error;  // errno of a WriteFailed
  uint64_t lost_pages;
  uint32_t losses_used;  // rows; what does not fit is added to the last row
  uint32_t reserved;
  LossRow losses[kSummaryLosses];
};

struct ProcessBlock {
  BlockHeader header;
  ProcessInfo info;
  Summary summary;
  uint8_t padding[kProcessBlockBytes - sizeof(BlockHeader) - sizeof(ProcessInfo) - sizeof(Summary)];
};
static_assert(sizeof(ProcessBlock) == kProcessBlockBytes);

// --- table ---------------------------------------------------------------------------------------

enum class RecordType : uint16_t { String = 1, Code = 2, Exception = 3, Location = 4, Stack = 5, Quieting = 6 };

struct RecordHeader {
  uint32_t length;  // of the whole record, a multiple of 8
  uint16_t type;  // RecordType
  uint16_t reserved;
};

struct StringRecord {  // followed by the bytes: UTF-8, surrogates replaced
  RecordHeader header;
  uint32_t id;
  uint32_t bytes;
};

enum CodeFlag : uint16_t { kGenerator = 1, kCoroutine = 2, kAsyncGenerator = 4, kCFunction = 8 };

struct CodeRecord {
  RecordHeader header;
  uint32_t id;
  uint32_t module;  // string ids
  uint32_t qualname;
  uint32_t file;
  uint32_t line;
  uint16_t arity;  // parameters without self or cls
  uint16_t flags;  // CodeFlag
};
static_assert(sizeof(CodeRecord) == 32);

struct ExceptionRecord {
  RecordHeader header;
  uint32_t id;
  uint32_t name;  // string id of "module.QualName"
};

struct LocationRecord {  // a line of a function
  RecordHeader header;
  uint32_t id;
  uint32_t file;  // string ids
  uint32_t function;
  uint32_t line;
};

struct StackRecord {  // a calling context: a location, and the stack that called it
  RecordHeader header;
  uint32_t id;
  uint32_t caller;  // a stack id, less than this one's; 0: none
  uint32_t location;
  uint32_t reserved;
};

// One function that the governor quieted, so far: of records with one id the last holds.
struct QuietingRecord {
  RecordHeader header;
  uint32_t id;
  uint32_t code;  // 0: every function (backend `frame`, the hook itself was out)
  uint64_t first_ticks;  // it was quiet from here, but for the windows
  uint64_t last_ticks;  // ... to here
  uint64_t calls;  // an estimate of those that were not recorded, and its 95 % interval
  uint64_t low;
  uint64_t high;
  uint32_t windows;  // that it rests on
  uint32_t reserved;
};
static_assert(sizeof(QuietingRecord) == 64);

// --- segments ------------------------------------------------------------------------------------

inline constexpr size_t kThreadNameBytes = 48;

struct ChunkHeader {
  uint32_t encoded;  // bytes that follow, without padding to 8
  uint32_t events;  // head words in the page, REBASE not counted
  uint32_t thread;  // index of the thread in its process, from 0
  uint32_t os_tid;
  uint64_t sequence;  // of the page in its thread, from 0
  uint64_t base_ticks;
  uint64_t context;  // serial of the context at the page's start
  uint32_t time_shift;
  uint32_t reserved;
  char thread_name[kThreadNameBytes];  // NUL-padded
};
static_assert(sizeof(ChunkHeader) == 96);

// --- ring ----------------------------------------------------------------------------------------

enum class PageState : uint32_t { Free = 0, Active = 1, Full = 2 };

// A page's header; the words follow up to kPageBytes. `sequence` and `state` are written last on
// claiming and cleared first on release, so a reader that copies a page and finds both unchanged
// afterwards has a page that was not recycled meanwhile.
struct PageHeader {
  uint32_t magic;
  std::atomic<uint32_t> state;  // PageState
  uint32_t thread;
  uint32_t os_tid;
  std::atomic<uint64_t> sequence;
  uint64_t base_ticks;
  uint64_t context;
  std::atomic<uint64_t> order;  // global order of claiming, for the flight recorder
  char thread_name[kThreadNameBytes];
  uint64_t sealed_ticks;  // when the producer left it
  uint8_t reserved[128 - 104];
};
static_assert(sizeof(PageHeader) == 128);
inline constexpr size_t kPageWords = (kPageBytes - sizeof(PageHeader)) / 8;

struct RingHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t page_bytes;
  uint32_t page_count;
  uint32_t reserved;
  uint64_t table_offset;
  uint64_t table_bytes;
  uint64_t pages_offset;
  uint64_t file_bytes;
  ProcessInfo info;  // the same as in the file's PROCESS block
  std::atomic<uint64_t> table_used;  // bytes of records published
  std::atomic<uint64_t> table_saved;  // ... of which so many are in the file (stream mode)
  std::atomic<uint64_t> last_ticks;  // the latest clock pair, under a sequence lock:
  std::atomic<int64_t> last_monotonic_ns;
  std::atomic<int64_t> last_unix_ns;
  std::atomic<uint64_t> last_version;  // odd while being written
  std::atomic<uint64_t> dropped;  // events dropped for want of a page
  std::atomic<uint64_t> dropped_first_ticks;
  std::atomic<uint64_t> dropped_last_ticks;
  std::atomic<uint64_t> overwritten;  // pages overwritten in flight mode
  std::atomic<uint64_t> overwritten_until_ticks;  // everything after this is held
  std::atomic<uint64_t> events_saved;  // head words drained
  std::atomic<uint64_t> meta_bytes;  // the META JSON stands in the table region's last bytes
};
static_assert(sizeof(RingHeader) <= kRingHeaderBytes);

}  // namespace pyscope
