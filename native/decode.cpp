// The extension module pyscope._codec: the reading side's native part, without the GIL while it works.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "codec.hpp"
#include "columns.hpp"
#include "event_columns.hpp"
#include "pairing.hpp"

namespace py = pybind11;

namespace pyscope {
namespace {

// A contiguous view of a bytes-like object, held as long as this lives.
class View {
 public:
  explicit View(const py::handle& object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
    held_ = true;
  }
  View(View&& other) noexcept : view_(other.view_), held_(std::exchange(other.held_, false)) {}
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (held_) PyBuffer_Release(&view_);
  }
  Bytes bytes() const { return {static_cast<const uint8_t*>(view_.buf), static_cast<size_t>(view_.len)}; }
  template <class T>
  std::pair<const T*, size_t> as(const char* what) const {
    if (static_cast<size_t>(view_.len) % sizeof(T) != 0) throw py::value_error(std::string(what) + ": wrong item size");
    return {static_cast<const T*>(view_.buf), static_cast<size_t>(view_.len) / sizeof(T)};
  }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

// The arguments shared by pair_calls and decode_events, checked. (What a process is: _codec.pyi)
struct Input {
  std::vector<View> views;
  std::vector<Bytes> buffers;
  std::vector<Process> processes;

  Input(const py::sequence& given_buffers, const py::sequence& given_processes, int64_t functions) {
    for (const auto& buffer : given_buffers) {
      views.emplace_back(buffer);
      buffers.push_back(views.back().bytes());
    }
    for (const auto& given : given_processes) {
      Process process;
      process.clock = {given.attr("start_ticks").cast<uint64_t>(), given.attr("start_unix_ns").cast<int64_t>(),
                       given.attr("ns_per_tick").cast<double>()};
      constexpr int64_t kLatest = int64_t{1} << 62;
      if (!(process.clock.ns_per_tick > 0) || process.clock.start_unix_ns < -kLatest ||
          process.clock.start_unix_ns > kLatest)
        throw py::value_error("the clock is out of range");
      views.emplace_back(given.attr("chunks"));
      std::tie(process.chunks, process.chunk_count) = views.back().as<Chunk>("chunks");
      views.emplace_back(given.attr("functions"));
      std::tie(process.functions.table, process.functions.size) = views.back().as<int32_t>("functions");
      process.functions.otherwise = given.attr("unnamed").cast<int32_t>();
      views.emplace_back(given.attr("exceptions"));
      std::tie(process.exceptions.table, process.exceptions.size) = views.back().as<int32_t>("exceptions");
      process.generator_exit = given.attr("generator_exit").cast<int32_t>();
      process.flight = given.attr("flight").cast<bool>();
      const auto known = [&](int32_t index) { return index >= 0 && index < functions; };
      if (!known(process.functions.otherwise) ||
          !std::all_of(process.functions.table, process.functions.table + process.functions.size, known))
        throw py::value_error("a code id is mapped to no function");
      processes.push_back(process);
    }
  }
};

template <class T>
py::array_t<T> array(Column<T>&& column, size_t rows) {
  auto owned = std::make_unique<Column<T>>(std::move(column));
  T* data = owned->data();
  py::capsule owner(owned.get(), [](void* held) { delete static_cast<Column<T>*>(held); });
  owned.release();
  return py::array_t<T>({static_cast<py::ssize_t>(rows)}, {static_cast<py::ssize_t>(sizeof(T))}, data, owner);
}

template <class T>
py::array_t<T> array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

template <class Field, class Rows, class Get>
py::array_t<Field> gather(const Rows& rows, Get&& get) {
  py::array_t<Field> out(static_cast<py::ssize_t>(rows.size()));
  Field* at = out.mutable_data();
  for (const auto& row : rows) *at++ = static_cast<Field>(get(row));
  return out;
}

// The probe events of one kind with so many numbers, in order of time.
py::dict probe_columns(const std::vector<const ProbeFound*>& rows) {
  py::dict columns;
  columns["time_ns"] = gather<int64_t>(rows, [](auto* row) { return row->time_ns; });
  columns["process"] = gather<int32_t>(rows, [](auto* row) { return row->process; });
  columns["thread"] = gather<int32_t>(rows, [](auto* row) { return row->thread; });
  columns["context"] = gather<int32_t>(rows, [](auto* row) { return row->context; });
  columns["call"] = gather<int32_t>(rows, [](auto* row) { return row->call; });
  columns["scope"] = gather<int64_t>(rows, [](auto* row) { return row->head.scope; });
  const size_t numbers = rows.front()->head.numbers;
  py::array_t<int64_t> table({static_cast<py::ssize_t>(numbers), static_cast<py::ssize_t>(rows.size())});
  int64_t* out = table.mutable_data();
  for (size_t number = 0; number < numbers; ++number)
    for (const ProbeFound* row : rows) std::memcpy(out++, row->body + number * 8, 8);
  columns["numbers"] = table;
  std::string texts;
  for (const ProbeFound* row : rows)
    texts.append(reinterpret_cast<const char*>(row->body) + numbers * 8, row->head.text_bytes);
  columns["texts"] = py::bytes(texts);
  columns["text_bytes"] = gather<int64_t>(rows, [](auto* row) { return row->head.text_bytes; });
  return columns;
}

py::dict probe_tables(const std::vector<ProbeFound>& found) {
  std::map<std::pair<uint16_t, uint16_t>, std::vector<const ProbeFound*>> kinds;
  for (const ProbeFound& row : found) kinds[{row.head.kind, row.head.numbers}].push_back(&row);
  py::dict tables;
  for (auto& [key, rows] : kinds) {
    std::stable_sort(rows.begin(), rows.end(), [](auto* a, auto* b) { return a->time_ns < b->time_ns; });
    tables[py::make_tuple(key.first, key.second)] = probe_columns(rows);
  }
  return tables;
}

py::dict pair_calls_py(const py::sequence& buffers, const py::sequence& processes, int64_t functions) {
  const Input input(buffers, processes, functions);
  auto calls = [&] {
    py::gil_scoped_release unlocked;
    return pair_calls(input.processes, input.buffers, static_cast<size_t>(functions));
  }();
  py::dict columns;
  const size_t rows = calls.rows;
  columns["function"] = array(std::move(calls.function), rows);
  columns["start_ns"] = array(std::move(calls.start_ns), rows);
  columns["duration_ns"] = array(std::move(calls.duration_ns), rows);
  columns["self_ns"] = array(std::move(calls.self_ns), rows);
  columns["parent"] = array(std::move(calls.parent), rows);
  columns["depth"] = array(std::move(calls.depth), rows);
  columns["thread"] = array(std::move(calls.thread), rows);
  columns["context"] = array(std::move(calls.context), rows);
  columns["outcome"] = array(std::move(calls.outcome), rows);
  columns["exception"] = array(std::move(calls.exception), rows);

  py::dict totals;
  totals["calls"] = gather<int64_t>(calls.totals, [](auto& row) { return row.calls; });
  totals["total_ns"] = gather<int64_t>(calls.totals, [](auto& row) { return row.total_ns; });
  totals["self_ns"] = gather<int64_t>(calls.totals, [](auto& row) { return row.self_ns; });

  py::dict contexts;
  std::string names;
  std::vector<int64_t> name_ends;
  for (const auto& context : calls.contexts) {
    names += context.name;
    name_ends.push_back(static_cast<int64_t>(names.size()));
  }
  contexts["serial"] = gather<uint64_t>(calls.contexts, [](auto& row) { return row.serial; });
  contexts["parent"] = gather<uint64_t>(calls.contexts, [](auto& row) { return row.parent; });
  contexts["process"] = gather<int32_t>(calls.contexts, [](auto& row) { return row.process; });
  contexts["kind"] = gather<uint8_t>(calls.contexts, [](auto& row) { return row.kind; });
  contexts["name_end"] = array(name_ends);

  py::list losses;
  for (const auto& loss : calls.losses)
    losses.append(py::make_tuple(loss.reason, loss.process, loss.thread, loss.count, loss.start_ns, loss.end_ns));

  py::dict result;
  result["columns"] = columns;
  result["totals"] = totals;
  result["contexts"] = contexts;
  result["context_names"] = py::bytes(names);
  result["losses"] = losses;
  result["probes"] = probe_tables(calls.probes);
  result["begun_before"] = array(calls.begun_before);
  result["orphan_exits"] = gather<int64_t>(calls.orphan_exits, [](auto row) { return row; });
  result["last_ns"] = array(calls.last_ns);
  return result;
}

py::dict decode_events_py(const py::sequence& buffers, const py::sequence& processes, int64_t functions,
                          unsigned workers) {
  const Input input(buffers, processes, functions);
  auto events = [&] {
    py::gil_scoped_release unlocked;
    return decode_events(input.processes, input.buffers,
                         workers ? workers : std::min(std::thread::hardware_concurrency(), 8u));
  }();
  py::dict columns;
  const size_t rows = events.rows;
  columns["time_ns"] = array(std::move(events.time_ns), rows);
  columns["thread"] = array(std::move(events.thread), rows);
  columns["context"] = array(std::move(events.context), rows);
  columns["kind"] = array(std::move(events.kind), rows);
  columns["code"] = array(std::move(events.code), rows);
  return columns;
}

py::tuple encode_words_py(const py::object& words, uint64_t base_ticks, unsigned time_shift) {
  const View view(words);
  const auto [data, count] = view.as<uint64_t>("words");
  std::string out(max_encoded_bytes(count), '\0');
  uint32_t events = 0;
  out.resize(encode_words(data, count, base_ticks, time_shift, reinterpret_cast<uint8_t*>(out.data()), events));
  return py::make_tuple(py::bytes(out), events);
}

uint32_t crc32_py(const py::object& data, uint32_t before) {
  const View view(data);
  const Bytes bytes = view.bytes();
  py::gil_scoped_release unlocked;
  return crc32(bytes.data, bytes.size, before);
}

}  // namespace
}  // namespace pyscope

PYBIND11_MODULE(_codec, m) {
  m.doc() = "Chunks of a recording to columns of events and calls; see pyscope/_codec.pyi.";
  m.def("encode_words", &pyscope::encode_words_py, py::arg("words"), py::arg("base_ticks"), py::arg("time_shift"));
  m.def("pair_calls", &pyscope::pair_calls_py, py::arg("buffers"), py::arg("processes"), py::arg("functions"));
  m.def("decode_events", &pyscope::decode_events_py, py::arg("buffers"), py::arg("processes"), py::arg("functions"),
        py::arg("workers") = 0);
  m.def("crc32", &pyscope::crc32_py, py::arg("data"), py::arg("before") = 0);
}
