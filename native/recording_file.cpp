#include "recording_file.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "codec.hpp"

namespace pyscope {

namespace {

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

constexpr size_t padded(size_t bytes) { return (bytes + 7) & ~size_t{7}; }

BlockHeader block_header(BlockType type, const void* payload, size_t bytes) {
  BlockHeader header{};
  header.magic = kBlockMagic;
  header.type = static_cast<uint16_t>(type);
  header.version = kFormatVersion;
  header.length = static_cast<uint32_t>(bytes);
  header.crc = crc32(payload, bytes);
  header.header_crc = crc32(&header, offsetof(BlockHeader, header_crc));
  return header;
}

bool valid_header(const BlockHeader& header) {
  return header.magic == kBlockMagic && header.header_crc == crc32(&header, offsetof(BlockHeader, header_crc));
}

// Whether no block begins in the file from `at` on, where one that begins with zeros stands: what was written there has
// been taken back, but for its length. (Btrfs does so where a quota does not even allow a file to be cut.)
bool was_taken_back(int fd, uint64_t at, uint64_t size) {
  constexpr size_t kStep = 1 << 16;
  std::vector<uint8_t> part(kStep + sizeof(BlockHeader));
  for (uint64_t from = at; from < size; from += kStep) {
    const ssize_t n = ::pread(fd, part.data(), std::min<uint64_t>(part.size(), size - from), static_cast<off_t>(from));
    if (n <= 0) return false;
    for (size_t i = 0; i + sizeof(BlockHeader) <= static_cast<size_t>(n); i += 8) {
      BlockHeader header;
      std::memcpy(&header, part.data() + i, sizeof(header));
      if (valid_header(header)) return false;
      if (from == at && i == 0 &&
          std::any_of(part.data(), part.data() + sizeof(header), [](auto byte) { return byte; }))
        return false;
    }
  }
  return true;
}

ClockPair latest_clock(const RingHeader& header) {
  return {header.last_ticks.load(), header.last_monotonic_ns.load(), header.last_unix_ns.load()};
}

}  // namespace

RecordingFile::RecordingFile(const std::string& path, const ProcessInfo& info, const std::string& meta)
    : path_(path), info_(info) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd_ < 0) fail(errno, "cannot create the recording " + path);
  if (!remember()) {
    ::close(fd_);
    fail(EINVAL, "cannot write a recording into " + path + ", which is no file");
  }
  auto block = std::make_unique<ProcessBlock>();
  std::memset(static_cast<void*>(block.get()), 0, sizeof(ProcessBlock));
  block->header = block_header(BlockType::Process, &info_, sizeof(info_));
  block->header.length = kProcessBlockBytes - sizeof(BlockHeader);
  block->header.header_crc = crc32(&block->header, offsetof(BlockHeader, header_crc));
  block->info = info_;
  block->summary.end = info_.start2;
  block->summary.crc =
      crc32(reinterpret_cast<const uint8_t*>(&block->summary) + sizeof(uint32_t), sizeof(Summary) - sizeof(uint32_t));
  if (!write_at(0, block.get(), sizeof(ProcessBlock))) {
    const int error = error_;
    ::close(fd_);
    ::unlink(path.c_str());
    fail(error, "cannot write the recording " + path);
  }
  offset_ = sizeof(ProcessBlock);
  if (!append(BlockType::Meta, meta.data(), meta.size())) {
    const int error = error_;
    ::close(fd_);
    ::unlink(path.c_str());
    fail(error, "cannot write the recording " + path);
  }
}

RecordingFile* RecordingFile::reopen(const std::string& path) {
  std::unique_ptr<RecordingFile> file(new RecordingFile());
  file->fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file->fd_ < 0) fail(errno, "cannot open the recording " + path);
  file->path_ = path;
  if (!file->remember()) throw std::runtime_error(path + " is not a recording");
  struct stat status{};
  if (::fstat(file->fd_, &status) != 0) fail(errno, "cannot read the recording " + path);
  const uint64_t size = static_cast<uint64_t>(status.st_size);
  BlockHeader header{};
  uint64_t at = 0;
  bool torn = false;
  while (at + sizeof(header) <= size) {
    if (::pread(file->fd_, &header, sizeof(header), static_cast<off_t>(at)) != sizeof(header)) break;
    if (!valid_header(header)) break;
    const uint64_t next = at + padded(sizeof(header) + header.length);
    if (at == 0) {
      if (header.type != static_cast<uint16_t>(BlockType::Process) || header.version != kFormatVersion ||
          ::pread(file->fd_, &file->info_, sizeof(ProcessInfo), sizeof(header)) != sizeof(ProcessInfo))
        throw std::runtime_error(path + " is not a recording of this version");
    }
    torn = next > size;
    if (torn) break;
    at = next;
  }
  if (at == 0) throw std::runtime_error(path + " is not a recording");
  // What a kill or a full disk has torn off: its pages are still in the ring. What is damaged otherwise stays for the
  // reader, which says what it skips.
  torn = torn || was_taken_back(file->fd_, at, size);
  if (torn && at < size && ::ftruncate(file->fd_, static_cast<off_t>(at)) != 0) fail(errno, "cannot mend " + path);
  file->offset_ = torn ? at : padded(size);
  return file.release();
}

RecordingFile::~RecordingFile() {
  if (is_ours()) ::close(fd_);
}

bool RecordingFile::remember() {
  struct stat status{};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) return false;
  device_ = status.st_dev;
  inode_ = status.st_ino;
  return true;
}

bool RecordingFile::is_ours() const {
  struct stat status{};
  return fd_ >= 0 && ::fstat(fd_, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

bool RecordingFile::held() {
  if (is_ours()) return true;
  fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  if (is_ours()) return true;
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  error_ = EBADF;
  return false;
}

bool RecordingFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  if (!held()) return false;
  const auto* from = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error_ = n < 0 ? errno : EIO;
      return false;
    }
    from += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

bool RecordingFile::append(BlockType type, const void* payload, size_t bytes) {
  block_.resize(padded(sizeof(BlockHeader) + bytes) + 8);
  if (bytes) std::memcpy(block_.data() + sizeof(BlockHeader), payload, bytes);
  return append_in_place(type, block_.data(), bytes);
}

bool RecordingFile::append_in_place(BlockType type, uint8_t* block, size_t payload_bytes) {
  const BlockHeader header = block_header(type, block + sizeof(BlockHeader), payload_bytes);
  std::memcpy(block, &header, sizeof(header));
  const size_t bytes = sizeof(header) + payload_bytes;
  std::memset(block + bytes, 0, padded(bytes) - bytes);
  if (torn_ && !take_back()) return false;
  if (!write_at(offset_, block, padded(bytes))) {
    const int error = error_;
    take_back();
    error_ = error;
    return false;
  }
  offset_ += padded(bytes);
  return true;
}

bool RecordingFile::take_back() {
  torn_ = !held() || ::ftruncate(fd_, static_cast<off_t>(offset_)) != 0;
  if (torn_) error_ = fd_ < 0 ? EBADF : errno;
  return !torn_;
}

bool RecordingFile::write_summary(Summary summary) {
  summary.file_bytes = offset_;
  summary.crc =
      crc32(reinterpret_cast<const uint8_t*>(&summary) + sizeof(uint32_t), sizeof(Summary) - sizeof(uint32_t));
  return write_at(offsetof(ProcessBlock, summary), &summary, sizeof(summary));
}

// --- Saver ---------------------------------------------------------------------------------------

bool Saver::save_table() {
  RingHeader& header = ring_.header();
  std::atomic_flag& saving = ring_.saving_table();
  while (saving.test_and_set(std::memory_order_acquire))
    sched_yield();  // no longer than a copy of half the table takes
  const uint64_t used = header.table_used.load(std::memory_order_acquire);
  uint64_t saved = header.table_saved.load(std::memory_order_acquire);
  if (saved > used) saved = 0;  // its process was killed as it began the table anew
  const bool written = used <= saved || file_.append(BlockType::Table, ring_.table() + saved, used - saved);
  if (written && used > saved) header.table_saved.store(used, std::memory_order_release);
  saving.clear(std::memory_order_release);
  return written;
}

Saver::Saver(RingFile& ring, RecordingFile& file)
    : ring_(ring),
      file_(file),
      segment_(std::make_unique_for_overwrite<uint8_t[]>(
          sizeof(BlockHeader) + kPagesPerSegment * (sizeof(ChunkHeader) + max_encoded_bytes(kPageWords) + 8) + 8)) {}

void Saver::encode_page(const PageHeader& header, const uint64_t* words) {
  const unsigned shift = file_.info().time_shift;
  uint8_t* const at = segment_.get() + sizeof(BlockHeader) + segment_bytes_;
  ChunkHeader chunk{};
  uint32_t events = 0;
  chunk.encoded = static_cast<uint32_t>(
      encode_words(words, kPageWords, header.base_ticks, shift, at + sizeof(ChunkHeader), events));
  chunk.events = events;
  chunk.thread = header.thread;
  chunk.os_tid = header.os_tid;
  chunk.sequence = header.sequence.load(std::memory_order_relaxed);
  chunk.base_ticks = header.base_ticks;
  chunk.context = header.context;
  chunk.time_shift = shift;
  std::memcpy(chunk.thread_name, header.thread_name, kThreadNameBytes);
  std::memcpy(at, &chunk, sizeof(chunk));
  const size_t bytes = sizeof(ChunkHeader) + chunk.encoded;
  std::memset(at + bytes, 0, padded(bytes) - bytes);
  segment_bytes_ += padded(bytes);
  events_ += events;
}

bool Saver::append_segment() {
  return segment_bytes_ == 0 || file_.append_in_place(BlockType::Events, segment_.get(), segment_bytes_);
}

bool Saver::save_pages(const std::vector<uint32_t>& pages) {
  segment_bytes_ = 0;
  const uint64_t before = events_;
  for (uint32_t index : pages) encode_page(ring_.page(index), ring_.words(index));
  if (!append_segment()) {
    events_ = before;
    return false;
  }
  return true;
}

// A page may be overwritten while it is copied, which is found out afterwards (PageHeader): no race for ThreadSanitizer.
__attribute__((no_sanitize("thread"))) bool Saver::save_copies(const std::vector<uint32_t>& pages) {
  segment_bytes_ = 0;
  alignas(8) uint8_t bytes[kPageBytes];
  for (uint32_t index : pages) {
    const PageHeader& live = ring_.page(index);
    const uint32_t state = live.state.load(std::memory_order_acquire);
    const uint64_t sequence = live.sequence.load(std::memory_order_acquire);
    const uint64_t order = live.order.load(std::memory_order_acquire);
    if (state == static_cast<uint32_t>(PageState::Free)) continue;
    // Word by word: the head of a record is published after its operands, so read in ascending order
    // the copy is a prefix of the page.
    auto* to = reinterpret_cast<uint64_t*>(bytes);
    const auto* from = reinterpret_cast<const volatile uint64_t*>(&live);
    for (size_t i = 0; i < kPageBytes / 8; ++i) {
      to[i] = from[i];
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (live.sequence.load(std::memory_order_acquire) != sequence ||
        live.order.load(std::memory_order_acquire) != order ||
        live.state.load(std::memory_order_acquire) == static_cast<uint32_t>(PageState::Free))
      continue;  // overwritten meanwhile
    encode_page(*reinterpret_cast<const PageHeader*>(bytes), to + sizeof(PageHeader) / 8);
  }
  return append_segment();
}

// --- whole rings ---------------------------------------------------------------------------------

namespace {

// In order of claiming. While its process lives a page may be claimed behind the back of the first look, and the thread's
// next one before it: the second look finds every page that is older than the newest of the first.
std::vector<uint32_t> used_pages(const RingFile& ring) {
  std::vector<std::pair<uint64_t, uint32_t>> found;
  uint64_t newest = 0;
  for (const bool again : {false, true}) {
    found.clear();
    for (uint32_t i = 0; i < ring.page_count(); ++i) {
      if (ring.page(i).state.load(std::memory_order_acquire) == static_cast<uint32_t>(PageState::Free)) continue;
      const uint64_t order = ring.page(i).order.load(std::memory_order_relaxed);
      if (!again || order <= newest) found.emplace_back(order, i);
    }
    if (!again)
      for (const auto& [order, page] : found) newest = std::max(newest, order);
  }
  std::sort(found.begin(), found.end());
  std::vector<uint32_t> pages;
  for (const auto& [order, page] : found) pages.push_back(page);
  return pages;
}

}  // namespace

Summary summarise(const RingFile& ring, ProcessState state, uint64_t events) {
  const RingHeader& header = ring.header();
  Summary summary{};
  summary.state = static_cast<uint32_t>(state);
  summary.end = latest_clock(header);
  summary.events = events;
  auto add = [&](LossReason reason, uint64_t count, uint64_t first, uint64_t last) {
    summary.losses[summary.losses_used++] = {static_cast<uint32_t>(reason), 0, count, first, last};
  };
  if (const uint64_t overwritten = header.overwritten.load())
    add(LossReason::Overwritten, overwritten * 0, header.info.start.ticks, header.overwritten_until_ticks.load());
  return summary;
}

AdoptReport adopt(const std::string& recording_path, const std::string& ring_path) {
  std::unique_ptr<RingFile> ring(RingFile::attach(ring_path, true));
  std::unique_ptr<RecordingFile> file(RecordingFile::reopen(recording_path));
  if (std::memcmp(ring->header().info.process_id, file->info().process_id, 16) != 0)
    throw std::runtime_error(ring_path + " is not the ring of " + recording_path);
  Saver saver(*ring, *file);
  const std::vector<uint32_t> pages = used_pages(*ring);
  AdoptReport report;
  bool ok = saver.save_table();
  for (size_t at = 0; ok && at < pages.size(); at += Saver::kPagesPerSegment) {
    const size_t end = std::min(at + Saver::kPagesPerSegment, pages.size());
    ok = saver.save_pages({pages.begin() + static_cast<long>(at), pages.begin() + static_cast<long>(end)});
  }
  report.pages = static_cast<uint32_t>(pages.size());
  report.events = saver.events();
  report.dropped = ring->header().dropped.load();
  Summary summary = summarise(*ring, ProcessState::Recovered, ring->header().events_saved.load() + saver.events());
  if (report.dropped)
    summary.losses[summary.losses_used++] = {static_cast<uint32_t>(LossReason::RingFull), 0, report.dropped,
                                             ring->header().dropped_first_ticks.load(),
                                             ring->header().dropped_last_ticks.load()};
  if (!ok || !file->write_summary(summary))
    fail(file->error(), "cannot append the ring of a dead process to " + recording_path);
  ring->unlink();
  return report;
}

AdoptReport dump_ring(RingFile& ring, const std::string& path) {
  RecordingFile file(path, ring.header().info, ring.meta());
  Saver saver(ring, file);
  AdoptReport report;
  const uint64_t used = ring.header().table_used.load(std::memory_order_acquire);
  bool ok = file.append(BlockType::Table, ring.table(), used);
  const std::vector<uint32_t> pages = used_pages(ring);
  for (size_t at = 0; ok && at < pages.size(); at += Saver::kPagesPerSegment) {
    const size_t end = std::min(at + Saver::kPagesPerSegment, pages.size());
    ok = saver.save_copies({pages.begin() + static_cast<long>(at), pages.begin() + static_cast<long>(end)});
  }
  report.pages = static_cast<uint32_t>(pages.size());
  report.events = saver.events();
  report.dropped = ring.header().dropped.load();
  Summary summary = summarise(ring, ProcessState::Stopped, saver.events());
  summary.end = read_clock_pair();
  if (!ok || !file.write_summary(summary)) fail(file.error(), "cannot write the dump " + path);
  return report;
}

}  // namespace pyscope
