"""Pure functions from a trace to findings: no I/O, no globals."""
