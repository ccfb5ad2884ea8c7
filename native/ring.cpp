#include "ring.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace pyscope {

namespace {

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

// What the lock of a ring's owner is on.
struct flock first_byte() {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  return lock;
}

}  // namespace

// What the other constructor has made whole is taken down again where this one throws.
RingFile::RingFile(const RingOptions& options) : RingFile() {
  path_ = options.path;
  const size_t table_bytes = (options.bytes / 8) & ~size_t{4095};
  const size_t pages = (options.bytes - table_bytes - kRingHeaderBytes) / kPageBytes;
  const size_t pages_offset = (kRingHeaderBytes + table_bytes + 4095) & ~size_t{4095};
  const size_t bytes = pages_offset + pages * kPageBytes;

  // Named as a ring only when it is locked and whole: whoever looks for rings of the dead would take it for one.
  const std::string unfinished = path_ + kUnfinished;
  fd_ = ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0) fail(errno, "cannot create the ring file " + path_);
  // In full, before the start: a store to a sparse map on a full disk is a SIGBUS for the host.
  const int unallocated = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  struct flock lock = first_byte();
  try {
    if (unallocated)
      fail(unallocated, "cannot allocate " + std::to_string(bytes) + " bytes for the ring file " + path_);
    if (::fcntl(fd_, F_OFD_SETLK, &lock) != 0) fail(errno, "cannot lock the ring file " + path_);
    begin(options, bytes, table_bytes, pages);
    if (::rename(unfinished.c_str(), path_.c_str()) != 0) fail(errno, "cannot name the ring file " + path_);
  } catch (...) {
    ::unlink(unfinished.c_str());
    throw;
  }
}

void RingFile::begin(const RingOptions& options, size_t bytes, size_t table_bytes, size_t pages) {
  map(bytes, true, true);
  header_->version = kFormatVersion;
  header_->page_bytes = kPageBytes;
  header_->page_count = static_cast<uint32_t>(pages);
  header_->table_offset = kRingHeaderBytes;
  header_->table_bytes = table_bytes;
  header_->pages_offset = bytes - pages * kPageBytes;
  header_->file_bytes = bytes;
  header_->info = options.info;
  const size_t meta = std::min(options.meta.size(), table_bytes / 2);
  std::memcpy(reinterpret_cast<uint8_t*>(header_) + kRingHeaderBytes + table_bytes - meta, options.meta.data(), meta);
  header_->meta_bytes.store(meta);
  publish_clock(options.info.start2);
  pages_ = reinterpret_cast<uint8_t*>(header_) + header_->pages_offset;
  flight_ = options.info.flight != 0;
  free_ = std::make_unique<PageStack>(static_cast<uint32_t>(pages));
  full_ = std::make_unique<PageQueue>(static_cast<uint32_t>(pages));
  wake_at_ = std::max(1u, static_cast<uint32_t>(pages) / 8);
  for (uint32_t i = static_cast<uint32_t>(pages); i-- > 0;) {
    page(i).magic = kPageMagic;
    free_->push(i);
  }
  std::atomic_ref<uint64_t>(header_->magic).store(kRingMagic, std::memory_order_release);
}

RingFile* RingFile::attach(const std::string& path, bool writable) {
  auto* file = new RingFile();
  file->path_ = path;
  try {
    file->fd_ = ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (file->fd_ < 0) fail(errno, "cannot open the ring file " + path);
    struct stat status{};
    // Of two that save a dead process's ring at a time, each would write over the other. The mapping keeps the lock.
    struct flock lock = first_byte();
    if (writable && ::fcntl(file->fd_, F_OFD_SETLK, &lock) != 0)
      fail(errno, "another process holds the ring file " + path);
    if (::fstat(file->fd_, &status) != 0) fail(errno, "cannot read the ring file " + path);
    if (writable && status.st_nlink == 0) fail(ENOENT, "another process has saved the ring file " + path);
    const size_t bytes = static_cast<size_t>(status.st_size);
    if (bytes < kRingHeaderBytes) throw std::runtime_error(path + " is not a ring file");
    file->map(bytes, false, writable);
    const RingHeader& h = *file->header_;
    const bool sound = h.magic == kRingMagic && h.version == kFormatVersion && h.page_bytes == kPageBytes &&
                       h.file_bytes <= bytes && h.table_offset == kRingHeaderBytes &&
                       h.table_bytes <= bytes - kRingHeaderBytes && h.table_used <= h.table_bytes &&
                       h.meta_bytes <= h.table_bytes && h.pages_offset >= kRingHeaderBytes + h.table_bytes &&
                       h.pages_offset <= bytes && h.page_count <= (bytes - h.pages_offset) / kPageBytes;
    if (!sound) throw std::runtime_error(path + " is not a ring file of this version");
    file->pages_ = reinterpret_cast<uint8_t*>(file->header_) + h.pages_offset;
    file->flight_ = h.info.flight != 0;
  } catch (...) {
    delete file;
    throw;
  }
  return file;
}

RingFile::~RingFile() {
  if (header_) ::munmap(header_, mapped_);
  if (fd_ >= 0) ::close(fd_);
}

void RingFile::map(size_t bytes, bool populate, bool writable) {
  void* at = ::mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                    MAP_SHARED | (populate ? MAP_POPULATE : 0), fd_, 0);
  if (at == MAP_FAILED) fail(errno, "cannot map the ring file " + path_);
  mapped_ = bytes;
  header_ = static_cast<RingHeader*>(at);
  // The mapping keeps the file, and its lock. A program that closes the descriptors that it has inherited, as a daemon
  // does, would have ours for another file.
  ::close(fd_);
  fd_ = -1;
}

std::string RingFile::meta() const {
  const auto* base = reinterpret_cast<const char*>(header_) + header_->table_offset;
  return std::string(base + header_->table_bytes - header_->meta_bytes, header_->meta_bytes);
}

bool RingFile::claim(uint32_t& index) {
  if (!free_->pop(index)) {
    if (!flight_ || !take_full(index)) return false;
    PageHeader& oldest = page(index);
    oldest.state.store(static_cast<uint32_t>(PageState::Free), std::memory_order_release);
    oldest.sequence.store(0, std::memory_order_release);
    std::memset(words(index), 0, kPageWords * 8);
    header_->overwritten.fetch_add(1, std::memory_order_relaxed);
    header_->overwritten_until_ticks.store(oldest.sealed_ticks, std::memory_order_relaxed);
  }
  return true;
}

void RingFile::release(uint32_t index) {
  PageHeader& header = page(index);
  header.state.store(static_cast<uint32_t>(PageState::Free), std::memory_order_release);
  header.sequence.store(0, std::memory_order_release);
  std::memset(words(index), 0, kPageWords * 8);
  free_->push(index);
}

bool RingFile::append_record(const void* record, size_t bytes) {
  if (header_->table_used.load(std::memory_order_relaxed) + bytes > table_capacity()) begin_table_anew();
  const uint64_t used = header_->table_used.load(std::memory_order_relaxed);
  const uint64_t waiting = used - header_->table_saved.load(std::memory_order_relaxed);
  const uint64_t many = table_capacity() / 8;
  const bool fits = used + bytes <= table_capacity();
  // Once on the way up, and once more by whatever finds no room.
  if ((!fits || (waiting < many && waiting + bytes >= many)) && wake_) pthread_cond_signal(wake_);
  if (!fits) return false;
  std::memcpy(const_cast<uint8_t*>(table()) + used, record, bytes);
  header_->table_used.store(used + bytes, std::memory_order_release);
  return true;
}

// What is in the file already makes room. (A reader takes a record by its id, so one that is there twice is harmless.)
void RingFile::begin_table_anew() {
  if (saving_table_.test_and_set(std::memory_order_acquire)) return;  // the drain is at work there
  const uint64_t used = header_->table_used.load(std::memory_order_relaxed);
  const uint64_t saved = header_->table_saved.load(std::memory_order_relaxed);
  const uint64_t waiting = used - saved;
  // A kill may come after any store here: after the first, fewer bytes are used than saved, which never is otherwise.
  if (waiting < saved) {
    auto* const begin = const_cast<uint8_t*>(table());
    std::memcpy(begin, begin + saved, waiting);
    header_->table_used.store(waiting, std::memory_order_release);
    header_->table_saved.store(0, std::memory_order_release);
  }
  saving_table_.clear(std::memory_order_release);
}

bool RingFile::replace_record(uint64_t& place, const void* record, size_t bytes) {
  if (flight_ && place) {
    std::memcpy(const_cast<uint8_t*>(table()) + place - 1, record, bytes);
    return true;
  }
  if (!append_record(record, bytes)) return false;
  place = header_->table_used.load(std::memory_order_relaxed) - bytes + 1;
  return true;
}

void RingFile::publish_clock(const ClockPair& pair) {
  header_->last_version.fetch_add(1, std::memory_order_acq_rel);
  header_->last_ticks.store(pair.ticks, std::memory_order_relaxed);
  header_->last_monotonic_ns.store(pair.monotonic_ns, std::memory_order_relaxed);
  header_->last_unix_ns.store(pair.unix_ns, std::memory_order_relaxed);
  header_->last_version.fetch_add(1, std::memory_order_release);
}

void RingFile::abandon() {
  if (header_) ::munmap(header_, mapped_);
  if (fd_ >= 0) ::close(fd_);
  header_ = nullptr;
  pages_ = nullptr;
  fd_ = -1;
}

void RingFile::unlink() { ::unlink(path_.c_str()); }

bool RingFile::owner_alive(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  struct flock lock = first_byte();
  const bool alive = ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  ::close(fd);
  return alive;
}

// --- Ring ----------------------------------------------------------------------------------------

void Ring::open(RingFile* file, uint32_t thread, uint32_t os_tid) {
  file_ = file;
  thread_ = thread;
  os_tid_ = os_tid;
  sequence_ = 0;
  context_ = 0;
  dropped_ = 0;
  cursor_ = limit_ = end_ = nullptr;
}

void Ring::close(bool seal) {
  if (seal && file_ && end_) file_->seal(page_, ticks());
  file_ = nullptr;
  cursor_ = limit_ = end_ = nullptr;
}

void Ring::set_name(const char* name) {
  std::strncpy(name_, name, kThreadNameBytes - 1);
  // The page in hand carries the name too: a thread is often named after its first event.
  if (end_) std::memcpy(file_->page(page_).thread_name, name_, kThreadNameBytes);
}

uint64_t* Ring::make_room(uint64_t now) {
  if (!file_) return nullptr;
  if (cursor_ < limit_) {  // only the time field is exhausted
    put(cursor_ + 1, now);
    publish(cursor_, head(Kind::Rebase, 0));
    base_ = now;
    cursor_ += 2;
    return cursor_;
  }
  return next_page(now);
}

uint64_t* Ring::next_page(uint64_t now) {
  if (end_) {
    count_events();
    file_->seal(page_, now);
    cursor_ = limit_ = end_ = nullptr;
  }
  if (!file_->claim(page_)) return drop(now);
  PageHeader& header = file_->page(page_);
  header.thread = thread_;
  header.os_tid = os_tid_;
  header.base_ticks = now;
  header.context = context_;
  header.order.store(file_->order_.fetch_add(1, std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  std::memcpy(header.thread_name, name_, kThreadNameBytes);
  header.sequence.store(sequence_++, std::memory_order_relaxed);
  header.state.store(static_cast<uint32_t>(PageState::Active), std::memory_order_release);
  base_ = now;
  cursor_ = file_->words(page_);
  counted_ = cursor_;
  end_ = cursor_ + kPageWords;
  limit_ = end_ - kTailRoom;
  if (dropped_) {
    put_loss(now, LossReason::RingFull, dropped_, dropped_first_);
    dropped_ = 0;
  }
  return cursor_;
}

void Ring::count_events() {
  if (!end_ || !file_->counts_) return;
  file_->counts_->count(counted_, cursor_);
  counted_ = cursor_;
}

uint64_t* Ring::drop(uint64_t now) {
  if (!dropped_++) dropped_first_ = now;
  RingHeader& header = file_->header();
  if (header.dropped.fetch_add(1, std::memory_order_relaxed) == 0)
    header.dropped_first_ticks.store(now, std::memory_order_relaxed);
  header.dropped_last_ticks.store(now, std::memory_order_relaxed);
  return nullptr;
}

void Ring::emit_loss(LossReason reason, uint64_t count, uint64_t first_ticks) {
  const uint64_t now = ticks();
  if ((cursor_ >= limit_ || (now - base_) >> kTimeBits) && !make_room(now)) return;
  put_loss(now, reason, count, first_ticks);
}

void Ring::put_loss(uint64_t now, LossReason reason, uint64_t count, uint64_t first_ticks) {
  put(cursor_ + 1, count);
  put(cursor_ + 2, first_ticks);
  publish(cursor_, head(Kind::Loss, static_cast<uint64_t>(reason)) | ((now - base_) << kTimeShift));
  cursor_ += 3;
}

void Ring::emit_payload(PayloadType type, const void* data, size_t bytes) {
  if (!file_) return;
  bytes = std::min(bytes, kMaxPayloadBytes);
  const size_t words = 2 + (bytes + 7) / 8;
  const uint64_t now = ticks();
  uint64_t* at = cursor_;
  if (at >= limit_ || static_cast<size_t>(end_ - at) < words + 2)
    at = next_page(now);
  else if ((now - base_) >> kTimeBits)
    at = make_room(now);
  if (!at) return;
  put(at + 1, bytes);
  std::memcpy(at + 2, data, bytes);
  publish(at, head(Kind::Payload, static_cast<uint64_t>(type)) | ((now - base_) << kTimeShift));
  cursor_ = at + words;
}

}  // namespace pyscope
