"""Supervision in the terms of OTP, for Pykka actors: domain-free, and knowing nothing of TaskFlow.

The rules are those of Erlang/OTP's supervisor (https://www.erlang.org/doc/apps/stdlib/supervisor.html;
principles: https://www.erlang.org/doc/system/sup_princ.html).

**Start.** Children are started in the order of their specifications, each when the `on_start` of the one
before it is through. If one fails, those that run are ended in reverse order and the supervisor's own
start fails. A child added later (`start_child`) is last in order; if it fails to start, its specification
is not kept and the caller is told.

**Restart.** A `permanent` child is always restarted, a `transient` one when it ended abnormally (anything
but a normal stop or a shutdown), a `temporary` one never. Every end is noticed: an exception in a handler
or in `on_start`, SystemExit, a normal stop, a kill. The strategy says who is restarted with it:
`one_for_one` nobody, `rest_for_one` the children started after it, `one_for_all` every child. Those that
still run are ended first, in reverse order; all are started in order. Temporary siblings are ended and
forgotten; siblings that were down already are started too.

**A restart that fails** (the child's `on_start` raises again) is tried again, and each try counts. Between
two tries the supervisor looks into its mailbox, so that it can be asked, and ended.

**Restart intensity.** More than `max_restarts` restarts within `max_seconds`, counted over all children
(a restart of several at once counts once), are too many: the supervisor tells `max_restarts_exceeded`,
ends its children in reverse order and ends itself, with the reason *shutdown*. **Escalation**: its own
supervisor treats that like the end of any child. A permanent supervisor is restarted and counts there; a
transient one is not, since a shutdown is no abnormal end (in OTP as well). At the root nobody is left:
`Supervisor.exit` and `join` tell, the log says so, and who runs the program decides.

**Shutdown.** Children are ended one by one in the reverse order of their start: each finishes the handler
that runs, its `on_stop` is called, what waits in its mailbox is not handled. One that takes longer than
its `shutdown` is killed, as is one with `shutdown="kill"` at once. Python cannot end a thread that is
inside a call into C; such a thread is *abandoned*: logged as an error, told in the event's reason, and out
of everybody's way from then on.

**Mailboxes** may be bounded (`SupervisedActor.capacity`), with a stated overflow behaviour
(`Overflow`). Orders to stop and notices of exits never count, wait for a place, or get lost.

**Observers** give `add_listener` an object with `on_event(event: SupervisorEvent)`; a supervisor hands on
what those below it tell, so a listener at the root hears of the whole tree.

Not taken over: simple_one_for_one (`start_child` serves), automatic shutdown by significant children, code
change. A restart is made at once, without a delay, as in OTP.
"""

from taskflow.supervision.actor import Interrupted, StartFailed, SupervisedActor
from taskflow.supervision.answers import Answer
from taskflow.supervision.events import EventKind, Listener, SupervisorEvent
from taskflow.supervision.exits import Exit, ExitKind
from taskflow.supervision.mailbox import Mailbox, MailboxFull, NotHandled, Overflow
from taskflow.supervision.specs import ChildCounts, ChildInfo, ChildSpec, ChildStatus, ChildType, Restart
from taskflow.supervision.supervisor import (
    AlreadyPresent,
    ChildStartFailed,
    MaxRestartsExceeded,
    NoSuchChild,
    Strategy,
    SupervisionError,
    Supervisor,
)

__all__ = [
    "Supervisor",
    "Strategy",
    "ChildSpec",
    "Restart",
    "ChildType",
    "ChildStatus",
    "ChildInfo",
    "ChildCounts",
    "SupervisedActor",
    "Answer",
    "Exit",
    "ExitKind",
    "Mailbox",
    "MailboxFull",
    "Overflow",
    "SupervisorEvent",
    "EventKind",
    "Listener",
    "AlreadyPresent",
    "ChildStartFailed",
    "Interrupted",
    "MaxRestartsExceeded",
    "NoSuchChild",
    "NotHandled",
    "StartFailed",
    "SupervisionError",
]
