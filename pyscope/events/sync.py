"""Events of synchronisation: what threads and tasks do one after another, and what they read and write meanwhile.

Everywhere `task` numbers the asyncio task that ran, 0 for none. What a thread or task did before a GIVE happens
before what another does after the TAKE of the same channel (and item); the same holds for the steps of locks,
threads and tasks.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from pyscope.events import EventType

__all__ = [
    "ACCESS",
    "LOCK",
    "LOCK_MADE",
    "SIGNAL",
    "TASK",
    "THREAD",
    "AccessFlag",
    "Channel",
    "LockStep",
    "Operation",
    "SignalStep",
    "TaskStep",
    "ThreadStep",
]


class LockStep(IntEnum):
    """What happened to a lock."""

    ACQUIRED = 1  # told after it
    RELEASED = 2  # told before it


class SignalStep(IntEnum):
    """Which end of a channel."""

    GIVE = 1  # told before it
    TAKE = 2  # told after it


class Channel(IntEnum):
    """What kind of channel orders its two ends."""

    EVENT = 1
    CONDITION = 2
    BARRIER = 3  # `item`: how many it waits for
    QUEUE = 4  # `item`: which of its items
    QUEUE_DONE = 5  # task_done and join
    SUBMIT = 6  # an executor's work: handed over, begun
    FUTURE = 7  # its result: set, taken
    LOOP = 8  # a callback from another thread; the TAKE says only on which thread the loop runs


class ThreadStep(IntEnum):
    """A thread's life. STARTED and JOINED are told by another thread."""

    STARTED = 1
    BEGAN = 2
    ENDED = 3
    JOINED = 4


class TaskStep(IntEnum):
    """An asyncio task's life."""

    CREATED = 1  # by `task`
    ENDED = 2  # `task` created it
    JOINED = 3  # `task` waited for it


class Operation(IntEnum):
    """What was done with an attribute, or with the container that it holds."""

    READ = 1  # told after it
    WRITE = 2  # told before it
    DELETE = 3
    UNDONE = 4  # the write or delete told before raised an exception
    CONTENT_READ = 5  # of the container; `key` says which part of it
    CONTENT_WRITE = 6
    CONTENT_CLAIM = 7  # checks and writes in one step, such as dict.setdefault
    ITERATE = 8  # an iteration over the container begins


class AccessFlag(IntFlag):
    """What the bytecode says of an access."""

    CHECK = 1  # the value read goes into a comparison or a branch
    CONSTANT = 2  # the value written is a constant
    DISCARDED = 4  # the value read does not outlive its statement
    UNSEEN_LOCK = 8  # the code that accesses may hold a lock that is not seen
    BRANCHES = 16  # `lines` is known, if only to be empty
    VARIABLE = (
        32  # the value read is in a local variable only, and `lines` are all that make anything of that
    )


# waited_ns: until it was acquired. capacity: how many may hold it at once; 0 unknown.
LOCK = EventType(90, "lock", "step lock capacity task waited_ns")
# What a lock is called: where a lock that existed before was found, or the stack that made it.
LOCK_MADE = EventType(91, "lock_made", "lock capacity name:string stack:stack")
SIGNAL = EventType(92, "signal", "step channel kind item task waited_ns")
# number: of the thread that is started or joined.
THREAD = EventType(93, "thread", "step number task name:text")
# number: of the task. outcome: of ENDED, "returned", "raised" or "cancelled".
TASK = EventType(94, "task", "step number task outcome:string name:text")
# object: unique in the recording. attribute: "Class.attribute". key: which element of the container, a salted
# hash; 0 all of it or unknown. level: by how many frames of the stack the value read was handed outward before
# it was used there. lines: of that frame's function, those that run or not as the value decides ("12-14,20"),
# empty if unknown. loop_step: differs where the task was suspended.
ACCESS = EventType(
    95,
    "access",
    "object operation flags key level task loop_step attribute:string lines:string stack:stack",
)
