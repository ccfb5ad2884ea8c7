// The ring and the drain: several producers, stream and flight mode, losses, a death, a dump.
#include "ring.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "codec.hpp"
#include "drain.hpp"
#include "recording_file.hpp"

using namespace pyscope;

namespace pyscope {
struct RingProbe {
  static void age(Ring& ring, uint64_t ticks) {
    ring.base_ -= ticks;
    ring.file_->page(ring.page_).base_ticks -= ticks;
  }
};
}  // namespace pyscope

namespace {

std::string folder() {
  static const std::string made = [] {
    char name[] = "/tmp/pyscope-ring-test-XXXXXX";
    return std::string(mkdtemp(name));
  }();
  return made;
}

ProcessInfo info(bool flight) {
  ProcessInfo info{};
  info.pid = static_cast<uint32_t>(getpid());
  info.process_id[0] = 7;
  info.flight = flight;
  info.start = read_clock_pair();
  info.start2 = read_clock_pair();
  info.time_shift = time_shift_for(0.4);
  return info;
}

RingOptions options(const std::string& name, size_t bytes, bool flight) {
  RingOptions options;
  options.path = folder() + "/" + name;
  options.bytes = bytes;
  options.info = info(flight);
  options.meta = "{}";
  return options;
}

struct Read {
  uint64_t events = 0, losses = 0, lost = 0;
  std::map<uint32_t, uint64_t> calls;                    // by thread
  std::map<uint32_t, std::map<uint64_t, bool>> pages;    // sequence numbers by thread
  std::set<uint32_t> codes;                              // that the table names
  bool ordered = true;
};

// What the EVENTS blocks of a file hold, chunk by chunk, and the code records of its TABLE blocks.
Read read_back(const std::string& path) {
  Read read;
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  size_t at = 0;
  while (at + sizeof(BlockHeader) <= bytes.size()) {
    BlockHeader header;
    std::memcpy(&header, &bytes[at], sizeof(header));
    CHECK(header.magic == kBlockMagic);
    const auto* payload = reinterpret_cast<const uint8_t*>(&bytes[at]) + sizeof(header);
    if (header.type == static_cast<uint16_t>(BlockType::Table)) {
      CHECK(header.crc == crc32(payload, header.length));
      for (size_t in = 0; in < header.length; in += sizeof(CodeRecord)) {
        CodeRecord record;
        std::memcpy(&record, payload + in, sizeof(record));
        CHECK(record.header.length == sizeof(record));
        read.codes.insert(record.id);
      }
    }
    if (header.type == static_cast<uint16_t>(BlockType::Events)) {
      CHECK(header.crc == crc32(payload, header.length));
      size_t in = 0;
      while (in < header.length) {
        ChunkHeader chunk;
        std::memcpy(&chunk, payload + in, sizeof(chunk));
        read.pages[chunk.thread][chunk.sequence] = true;
        size_t rest = 0;
        std::vector<uint64_t> times(chunk.events);
        std::vector<uint32_t> words(chunk.events);
        const auto rich = [&](size_t, Kind kind, uint32_t, const Operands& operands) {
          if (kind != Kind::Loss) return;
          ++read.losses;
          read.lost += operands.count;
        };
        const size_t decoded = decode_chunk(payload + in + sizeof(chunk), chunk.encoded, chunk.events, chunk.base_ticks,
                                            chunk.time_shift, times.data(), words.data(), rich, rest);
        CHECK(decoded == chunk.events && rest == 0);
        read.events += decoded;
        for (uint32_t word : words)
          if (kind_of(word) == Kind::Call) ++read.calls[chunk.thread];
        if (!std::is_sorted(times.begin(), times.end())) read.ordered = false;
        in += (sizeof(chunk) + chunk.encoded + 7) & ~size_t{7};
      }
    }
    at += (sizeof(header) + header.length + 7) & ~size_t{7};
  }
  return read;
}

void produce(Ring& ring, uint64_t calls) {
  for (uint64_t i = 0; i < calls; ++i) {
    ring.emit(head(Kind::Call, 1 + i % 100));
    if (i % 3 == 0)
      ring.emit(head(Kind::Raise, 1 + i % 100), instance(nullptr, 5));
    else
      ring.emit(head(Kind::Return, 1 + i % 100));
    if (i % 1000 == 0) ring.emit_payload(PayloadType::Context, "a payload of some bytes", 23);
  }
}

void every_event_of_every_thread_reaches_the_file_in_order() {
  constexpr int kThreads = 6;
  constexpr uint64_t kCalls = 40'000;
  RingFile ring(options("stream.ring", 32 << 20, false));
  const std::string path = folder() + "/stream.pyscope";
  RecordingFile file(path, ring.header().info, "{}");
  Drain drain(&ring, &file, "");
  drain.start();
  std::vector<std::unique_ptr<Ring>> rings;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    rings.push_back(std::make_unique<Ring>());
    rings.back()->open(&ring, t, t);
    threads.emplace_back([producer = rings.back().get()] {
      produce(*producer, kCalls);
      producer->close(true);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(drain.finish(60));
  CHECK(!drain.failed());
  const Read read = read_back(path);
  CHECK(read.ordered);
  uint64_t calls = 0;
  for (uint32_t t = 0; t < kThreads; ++t) {
    calls += read.calls.at(t);
    CHECK(read.pages.at(t).size() == read.pages.at(t).rbegin()->first + 1);  // no sequence number missing
  }
  CHECK(calls + ring.header().dropped.load() >= kThreads * kCalls || read.losses > 0);
  if (ring.header().dropped.load() == 0) CHECK(calls == kThreads * kCalls);
  ring.unlink();
}

void what_finds_no_page_is_counted_and_placed() {
  RingFile ring(options("small.ring", 256 << 10, false));
  const std::string path = folder() + "/small.pyscope";
  RecordingFile file(path, ring.header().info, "{}");
  Ring producer;
  producer.open(&ring, 0, 1);
  uint64_t emitted = 0;
  for (; emitted < 100'000; ++emitted) producer.emit(head(Kind::Call, 1));
  const uint64_t dropped = ring.header().dropped.load();
  CHECK(dropped > 0 && dropped < emitted);
  Drain drain(&ring, &file, "");
  drain.start();
  while (ring.header().events_saved.load() == 0) usleep(1000);
  usleep(50'000);
  producer.emit(head(Kind::Call, 2));  // the first that finds room again says what is missing before it
  producer.close(true);
  CHECK(drain.finish(60));
  const Read read = read_back(path);
  CHECK(read.losses == 1);
  CHECK(read.lost == dropped);
  CHECK(read.calls.at(0) + dropped == emitted + 1);
  ring.unlink();
}

CodeRecord code_record(uint32_t id) {
  CodeRecord record{};
  record.header.length = sizeof(record);
  record.id = id;
  return record;
}

void a_table_that_was_written_for_the_most_part_has_room() {
  RingFile ring(options("names.ring", 256 << 10, false));
  const std::string path = folder() + "/names.pyscope";
  RecordingFile file(path, ring.header().info, "{}");
  Saver saver(ring, file);
  constexpr uint32_t kCodes = 10'000;
  for (uint32_t id = 1; id <= kCodes; ++id) {
    const CodeRecord record = code_record(id);
    CHECK(ring.append_record(&record, sizeof(record)));
    if (id % 97 == 0) CHECK(saver.save_table());
  }
  CHECK(saver.save_table());
  CHECK(read_back(path).codes.size() == kCodes);
  ring.unlink();
}

void names_of_a_process_that_was_killed_as_it_began_the_table_anew_are_saved() {
  RingFile ring(options("killed.ring", 256 << 10, false));
  const std::string path = folder() + "/killed.pyscope";
  RecordingFile file(path, ring.header().info, "{}");
  for (uint32_t id = 1; id <= 5; ++id) {
    const CodeRecord record = code_record(id);
    CHECK(ring.append_record(&record, sizeof(record)));
  }
  ring.header().table_saved.store(ring.header().table_used.load() + 64);  // `saved` would have been stored next
  Saver saver(ring, file);
  CHECK(saver.save_table());
  CHECK(saver.save_table());  // once
  CHECK(read_back(path).codes.size() == 5);
  CHECK(ring.header().table_saved.load() == ring.header().table_used.load());
  ring.unlink();
}

void names_reach_the_file_whole_while_the_table_begins_anew() {
  RingFile ring(options("busy.ring", 256 << 10, false));
  const std::string path = folder() + "/busy.pyscope";
  RecordingFile file(path, ring.header().info, "{}");
  Drain drain(&ring, &file, "");
  drain.start();
  constexpr uint32_t kCodes = 50'000;
  for (uint32_t id = 1; id <= kCodes; ++id) {
    const CodeRecord record = code_record(id);
    while (!ring.append_record(&record, sizeof(record))) usleep(10);
  }
  CHECK(drain.finish(60));
  CHECK(read_back(path).codes.size() == kCodes);
  ring.unlink();
}

void flight_mode_keeps_the_latest_and_a_dump_does_not_stop_producers() {
  RingFile ring(options("flight.ring", 1 << 20, true));
  Drain drain(&ring, nullptr, "");
  drain.start();
  std::vector<std::unique_ptr<Ring>> rings;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    rings.push_back(std::make_unique<Ring>());
    rings.back()->open(&ring, t, t);
    threads.emplace_back([producer = rings.back().get()] { produce(*producer, 100'000); });
  }
  for (int i = 0; i < 5; ++i) dump_ring(ring, folder() + "/flight-" + std::to_string(i) + ".pyscope");
  for (auto& thread : threads) thread.join();
  dump_ring(ring, folder() + "/flight.pyscope");
  CHECK(drain.finish(60));
  const Read read = read_back(folder() + "/flight.pyscope");
  CHECK(read.ordered);
  CHECK(read.events > 50'000);
  CHECK(ring.header().overwritten.load() > 0);
  CHECK(ring.header().dropped.load() == 0);
  for (auto& producer : rings) producer->close(false);
  ring.unlink();
}

void a_time_too_far_from_the_base_gets_a_new_base() {
  RingFile ring(options("rebase.ring", 256 << 10, false));
  const std::string path = folder() + "/rebase.pyscope";
  RecordingFile file(path, ring.header().info, "{}");
  Ring producer;
  producer.open(&ring, 0, 1);
  producer.emit(head(Kind::Call, 1));
  // As if the page had been begun long ago.
  RingProbe::age(producer, uint64_t{1} << 37);
  producer.emit(head(Kind::Return, 1));
  producer.close(true);
  Drain drain(&ring, &file, "");
  drain.start();
  CHECK(drain.finish(60));
  const Read read = read_back(path);
  CHECK(read.events == 2);
  CHECK(read.ordered);
  ring.unlink();
}

void the_ring_of_a_killed_process_is_sealed_into_its_file() {
  const std::string path = folder() + "/killed.pyscope", ring_path = folder() + "/killed.ring";
  const pid_t child = fork();
  if (child == 0) {
    auto* ring = new RingFile(options("killed.ring", 4 << 20, false));
    new RecordingFile(path, ring->header().info, "{}");
    Ring producer;
    producer.open(ring, 0, 1);
    for (int i = 0; i < 10'000; ++i) producer.emit(head(Kind::Call, 1));
    _exit(0);  // the lock goes with the process
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(!RingFile::owner_alive(ring_path));
  const AdoptReport report = adopt(path, ring_path);
  CHECK(report.events == 10'000);
  CHECK(access(ring_path.c_str(), F_OK) != 0);
  CHECK(read_back(path).calls.at(0) == 10'000);
}

void a_ring_that_does_not_fit_is_refused_before_the_start() {
  bool refused = false;
  try {
    RingFile ring(options("huge.ring", size_t{1} << 46, false));
  } catch (const std::system_error&) {
    refused = true;
  }
  CHECK(refused);
  CHECK(access((folder() + "/huge.ring").c_str(), F_OK) != 0);
}

}  // namespace

int main() {
  every_event_of_every_thread_reaches_the_file_in_order();
  what_finds_no_page_is_counted_and_placed();
  a_table_that_was_written_for_the_most_part_has_room();
  names_of_a_process_that_was_killed_as_it_began_the_table_anew_are_saved();
  names_reach_the_file_whole_while_the_table_begins_anew();
  flight_mode_keeps_the_latest_and_a_dump_does_not_stop_producers();
  a_time_too_far_from_the_base_gets_a_new_base();
  the_ring_of_a_killed_process_is_sealed_into_its_file();
  a_ring_that_does_not_fit_is_refused_before_the_start();
  const std::string clean = "rm -rf " + folder();
  return std::system(clean.c_str());
}
