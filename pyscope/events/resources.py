"""Samples of what processes, threads and mailboxes use."""

from __future__ import annotations

from pyscope.events import EventType

__all__ = ["MAILBOX_SAMPLE", "PROCESS_SAMPLE", "THREAD_SAMPLE"]

# tick: the same for samples taken together. rss, peak: bytes; peak: of resident memory since the sampling
# began. exact: whether the peak is the kernel's own; else it is the highest sample. cpu_ns: CPU time of all
# threads within the last wall_ns.
PROCESS_SAMPLE = EventType(80, "process_sample", "tick pid rss peak exact cpu_ns wall_ns name:string")
# Of the sampling process's threads. tid: the operating system's.
THREAD_SAMPLE = EventType(81, "thread_sample", "tick tid cpu_ns wall_ns")
# length: messages that wait for a declared actor (or in a queue).
MAILBOX_SAMPLE = EventType(82, "mailbox_sample", "tick actor length name:string")
