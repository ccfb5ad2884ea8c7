"""Events of actors: their lives, and their messages on the way from sender to receiver."""

from __future__ import annotations

from pyscope.events import EventType

__all__ = ["ACTOR", "MESSAGE_ANSWERED", "MESSAGE_HANDLED", "MESSAGE_RECEIVED", "MESSAGE_SENT"]

# actor: numbers an actor; name: its class. what: "started", "stopped", "failed". reason: an exception's type
# and text.
ACTOR = EventType(50, "actor", "actor name:string what:string stack:stack reason:text")
# message: numbers a message; what the sender did before happens before what the receiver does after MESSAGE_RECEIVED.
# length: messages that waited before it, -1 unknown. name: the method that is called, or the message's type.
MESSAGE_SENT = EventType(51, "message_sent", "message actor length name:string actor_name:string stack:stack")
# message: 0 if its sending was not seen. waited_ns: since it was sent, -1 unknown. length: messages still waiting.
# The event's scope is the message's own; that of MESSAGE_SENT is the sender's.
MESSAGE_RECEIVED = EventType(
    52, "message_received", "message actor waited_ns length name:string actor_name:string"
)
# outcome: "returned", "raised". error: an exception's type and text.
MESSAGE_HANDLED = EventType(53, "message_handled", "message actor duration_ns outcome:string error:text")
# The sender has the answer: what the receiver did before MESSAGE_HANDLED happens before what follows this.
MESSAGE_ANSWERED = EventType(54, "message_answered", "message actor")
