#!/bin/sh
# The native tests: each tests/native/*_test.cpp is a program, linked with the C++ sources of native/ and
# run twice, under AddressSanitizer + UndefinedBehaviorSanitizer and under ThreadSanitizer.
# Compiled again only when a source changed. CXX names another compiler.
set -eu
cd "$(dirname "$0")/../.."
cxx=${CXX:-g++}
command -v "$cxx" >/dev/null 2>&1 || { echo "the native tests need a C++ compiler; $cxx was not found (Debian and Ubuntu: apt install g++)" >&2; exit 1; }

# Those of native/ that know nothing of Python.
sources=$(for source in native/*.cpp; do
  $cxx -std=c++20 -M -MG -Inative "$source" | grep -qE 'Python\.h|pybind11' || echo "$source"
done)
newest=$(ls -t native/*.hpp native/*.cpp tests/native/* | head -n 1)

# Newer kernels randomise more address bits than the ThreadSanitizer of older compilers allows for.
plain=""
command -v setarch >/dev/null 2>&1 && setarch -R true 2>/dev/null && plain="setarch -R"

passed=0
for kind in address,undefined thread; do
  folder=build/native/$(echo "$kind" | tr , -)
  mkdir -p "$folder"
  for source in $sources; do
    object=$folder/$(basename "$source" .cpp).o
    [ -e "$object" ] && [ -z "$(find "$newest" -newer "$object")" ] ||
      $cxx -std=c++20 -O1 -g -fno-omit-frame-pointer -Wall -Wextra -Inative -fsanitize="$kind" -pthread -c "$source" -o "$object"
  done
  for test in tests/native/*_test.cpp; do
    program=$folder/$(basename "$test" .cpp)
    # shellcheck disable=SC2046,SC2086
    [ -e "$program" ] && [ -z "$(find "$newest" -newer "$program")" ] ||
      $cxx -std=c++20 -O1 -g -fno-omit-frame-pointer -Wall -Wextra -Inative -Itests/native -fsanitize="$kind" \
        -fno-sanitize-recover=all -pthread "$test" $(ls "$folder"/*.o 2>/dev/null) -o "$program"
    echo "native [$kind] $(basename "$test")"
    if [ "$kind" = thread ]; then
      TSAN_OPTIONS=halt_on_error=1 $plain "$program"
    else
      ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 "$program"
    fi
    passed=$((passed + 1))
  done
done
echo "native tests: $passed passed"
