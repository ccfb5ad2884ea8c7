/* Marks off what callgrind counts in a Python program that was started with --instr-atstart=no. */
#include <valgrind/callgrind.h>

void begin(void) {
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
}

/* With a name, writes what the calling thread has counted since begin() to a file of its own. */
void end(const char *name) {
  if (name) CALLGRIND_DUMP_STATS_AT(name);
  CALLGRIND_STOP_INSTRUMENTATION;
}
