// The files of a recording, written: append-only blocks; the ring's pages encoded into segments; a dead
// process's ring sealed; a living one's copied. Nothing here knows Python.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recording.hpp"
#include "ring.hpp"

namespace pyscope {

// One process's blocks in a file. Every write either succeeds whole or is taken back.
class RecordingFile {
 public:
  // A new file with its PROCESS and META blocks. Throws std::system_error.
  RecordingFile(const std::string& path, const ProcessInfo& info, const std::string& meta);
  // An existing file of a process that died, to append to; a torn last block is cut off.
  static RecordingFile* reopen(const std::string& path);
  ~RecordingFile();
  RecordingFile(const RecordingFile&) = delete;
  RecordingFile& operator=(const RecordingFile&) = delete;

  // False when the bytes could not be written; `error()` says why. The file is then as before, or ends with a torn block
  // that is cut off before anything else is written: by the next append, or by reopen().
  bool append(BlockType type, const void* payload, size_t bytes);
  // Likewise, of a block that stands in memory with room for its header in front and up to 7 bytes of padding behind.
  bool append_in_place(BlockType type, uint8_t* block, size_t payload_bytes);
  bool write_summary(Summary summary);
  int error() const { return error_; }
  uint64_t bytes() const { return offset_; }
  const ProcessInfo& info() const { return info_; }

 private:
  RecordingFile() = default;
  bool write_at(uint64_t offset, const void* data, size_t bytes);
  bool take_back();  // what was written behind the last whole block
  bool remember();  // which file `fd_` is
  bool is_ours() const;
  bool held();  // whether `fd_` is this file still: a program may close every descriptor that it finds
  std::string path_;
  int fd_ = -1;
  uint64_t device_ = 0, inode_ = 0;
  uint64_t offset_ = 0;
  int error_ = 0;
  bool torn_ = false;  // it could not be taken back: over a quota not even that is allowed everywhere
  ProcessInfo info_{};
  std::vector<uint8_t> block_;
};

// Moves what the ring holds into a file.
class Saver {
 public:
  // Pages that save_pages and save_copies take at a time, at most.
  static constexpr size_t kPagesPerSegment = 64;
  Saver(RingFile& ring, RecordingFile& file);
  bool save_table();                                  // what is not in the file yet
  bool save_pages(const std::vector<uint32_t>& pages); // as one segment; does not release them
  bool save_copies(const std::vector<uint32_t>& pages);  // likewise, of pages that may still be written
  uint64_t events() const { return events_; }

 private:
  void encode_page(const PageHeader& header, const uint64_t* words);
  RingFile& ring_;
  RecordingFile& file_;
  bool append_segment();
  // Not a vector: that would clear what is about to be written. Pages are encoded one behind the other.
  std::unique_ptr<uint8_t[]> segment_;
  size_t segment_bytes_ = 0;
  uint64_t events_ = 0;
};

struct AdoptReport {
  uint32_t pages = 0;
  uint64_t events = 0;
  uint64_t dropped = 0;
};

// The summary block's figures as the ring's header tells them.
Summary summarise(const RingFile& ring, ProcessState state, uint64_t events);

// Seals the ring of a dead process into its recording and removes the ring. Throws std::system_error or
// std::runtime_error; the ring is kept then.
AdoptReport adopt(const std::string& recording_path, const std::string& ring_path);

// A copy of a living (or dead) ring as a recording of its own: the flight recorder's dump. The producers
// are not stopped; a page overwritten while it is copied is left out.
AdoptReport dump_ring(RingFile& ring, const std::string& path);

}  // namespace pyscope
