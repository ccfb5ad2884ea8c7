"""The mailbox of an actor: first in, first out, with a bound and a stated behaviour at the bound.

Messages of the supervision itself (orders to stop, notices of exits) are never refused or dropped and
do not count; an order to shut down goes to the head of the line.
"""

from collections import deque
from enum import StrEnum
from threading import Condition
from typing import Any

from pykka import ActorDeadError
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from taskflow.supervision.answers import error_answer
from taskflow.supervision.exits import Killed


class Overflow(StrEnum):
    """What a full mailbox does with a further message."""

    REFUSE = "refuse"
    """The sender gets MailboxFull, and nothing is queued."""
    DROP_OLDEST = "drop_oldest"
    """The message waiting longest is dropped and counted; its asker, if any, gets MailboxFull."""


class MailboxFull(Exception):
    """A message found no place in an actor's mailbox, or lost it to a newer one."""


class NotHandled(ActorDeadError):
    """The actor ended before it began with the message; it had no effect."""


class SystemMessage:
    """Base of the messages that supervision sends: never refused, never dropped."""


class ShutdownOrder(SystemMessage):
    """A supervisor's order to end now; what still waits in the mailbox is not handled any more."""


class Mailbox:
    """Any number of senders, one receiver. `capacity` bounds the messages that wait; None is no bound.

    `refused` and `dropped` count what overflowed, `longest` is the greatest length there was.
    """

    def __init__(self, capacity: int | None = None, overflow: Overflow = Overflow.REFUSE) -> None:
        if capacity is not None and capacity < 1:
            raise ValueError("a mailbox holds at least one message")
        self.capacity = capacity
        self.overflow = overflow
        self.refused = 0
        self.dropped = 0
        self.longest = 0
        self._waiting: deque[Envelope[Any]] = deque()
        self._system_messages = 0
        self._closed = False
        self._news = Condition()

    def put(self, envelope: Envelope[Any]) -> None:
        """Queue a message. MailboxFull as `overflow` says; NotHandled once the actor has ended."""
        dropped = None
        with self._news:
            if self._closed:
                if envelope.reply_to is None:
                    raise NotHandled("the actor has ended")
                _answer_with(envelope, NotHandled("the actor has ended"))
                return
            if _is_exempt(envelope):
                self._system_messages += 1
            elif self.capacity is not None and self.qsize() >= self.capacity:
                dropped = self._make_room()
            if isinstance(envelope.message, ShutdownOrder):
                self._waiting.appendleft(envelope)
            else:
                self._waiting.append(envelope)
            self.longest = max(self.longest, self.qsize())
            self._news.notify()
        if dropped is not None:
            _answer_with(dropped, MailboxFull(f"dropped: newer messages filled its {self.capacity} places"))

    def _make_room(self) -> Envelope[Any]:
        if self.overflow is Overflow.REFUSE:
            self.refused += 1
            raise MailboxFull(f"{self.capacity} messages wait already")
        oldest = next(index for index, waiting in enumerate(self._waiting) if not _is_exempt(waiting))
        dropped = self._waiting[oldest]
        del self._waiting[oldest]
        self.dropped += 1
        return dropped

    def get(self) -> Envelope[Any]:
        """The next message, waited for. A receiver that goes on after its end was declared is Killed."""
        with self._news:
            while not self._waiting:
                if self._closed:
                    raise Killed
                self._news.wait()
            envelope = self._waiting.popleft()
            if _is_exempt(envelope):
                self._system_messages -= 1
            return envelope

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def qsize(self) -> int:
        """How many messages wait, those of the supervision not counted."""
        return len(self._waiting) - self._system_messages

    def close(self) -> None:
        """Take no more messages; whoever waits for an answer gets NotHandled, or None for having it stopped."""
        with self._news:
            self._closed = True
            unread, self._waiting = self._waiting, deque()
            self._system_messages = 0
            self._news.notify_all()
        for envelope in unread:
            if isinstance(envelope.message, _ActorStop):
                if envelope.reply_to is not None:
                    envelope.reply_to.set(None)
            else:
                _answer_with(envelope, NotHandled("the actor ended before it handled the message"))


def _is_exempt(envelope: Envelope[Any]) -> bool:
    return isinstance(envelope.message, SystemMessage | _ActorStop)


def _answer_with(envelope: Envelope[Any], error: Exception) -> None:
    if envelope.reply_to is not None:
        envelope.reply_to.set_exception(error_answer(error))
