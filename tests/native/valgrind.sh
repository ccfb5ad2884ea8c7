#!/bin/sh
# The native tests under valgrind: reads of memory that was never written, which the sanitizers of run.sh do not see.
# Not part of `make test`: valgrind runs one thread at a time, about fifty times as slowly.
set -eu
cd "$(dirname "$0")/../.."
cxx=${CXX:-g++}
command -v valgrind >/dev/null 2>&1 || { echo "valgrind was not found (Debian and Ubuntu: apt install valgrind)" >&2; exit 1; }

sources=$(for source in native/*.cpp; do
  $cxx -std=c++20 -M -MG -Inative "$source" | grep -qE 'Python\.h|pybind11' || echo "$source"
done)
folder=build/native/valgrind
mkdir -p "$folder"
passed=0
for test in tests/native/*_test.cpp; do
  program=$folder/$(basename "$test" .cpp)
  # shellcheck disable=SC2086
  $cxx -std=c++20 -O1 -g -Wall -Wextra -Inative -Itests/native -pthread "$test" $sources -o "$program"
  echo "native [valgrind] $(basename "$test")"
  valgrind -q --fair-sched=yes --error-exitcode=9 --leak-check=full --show-leak-kinds=definite "$program"
  passed=$((passed + 1))
done
echo "native tests: $passed passed"
