"""Ask an actor from a coroutine: the answer is awaited, the event loop never waits."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pykka import ActorDeadError
from pykka.messages import ProxyCall

from taskflow.errors import Busy
from taskflow.supervision import Answer, MailboxFull, NotHandled, SupervisedActor

ASK_AGAIN_SECONDS: Final = 0.02
"""How often to look whether an actor that is being restarted is back."""

Kind = TypeVar("Kind", bound=SupervisedActor)


async def ask(find: Callable[[], Kind | None], method: str, *arguments: Any, seconds: float) -> Any:
    """The answer of the actor that `find` finds to `method(*arguments)`, or the exception it answers with.

    A message that died with the actor before it was begun is sent again to its restarted successor; one
    that was begun is not. Busy when the mailbox is full, or when the message was not begun within
    `seconds`: it is withdrawn then and will not be handled. What was begun in time is waited for, so that
    Busy always means that nothing was done. A cancelled caller's message is withdrawn as well.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    try:
        while loop.time() < deadline:
            actor = find()
            if actor is not None:
                try:
                    return await _answer(actor, ProxyCall((method,), arguments, {}), deadline)
                except NotHandled:
                    pass
            await asyncio.sleep(ASK_AGAIN_SECONDS)
    except MailboxFull as full:
        raise Busy(f"Too many requests wait already: {full}.") from full
    raise Busy(f"There was no answer within {seconds:g} s.")


async def _answer(actor: SupervisedActor, message: ProxyCall, deadline: float) -> Any:
    loop = asyncio.get_running_loop()
    awaited: asyncio.Future[Any] = loop.create_future()

    def settle(answer: Answer) -> None:
        if awaited.done():  # cancelled
            return
        try:
            awaited.set_result(answer.get(timeout=0))
        except BaseException as error:
            awaited.set_exception(error)

    def hand_over(answer: Answer) -> None:
        """Called in the actor's thread."""
        try:
            loop.call_soon_threadsafe(settle, answer)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            pass

    answer: Answer = actor.actor_ref.ask(message, block=False)
    answer.watch(hand_over)
    try:
        await asyncio.wait([awaited], timeout=deadline - loop.time())
        if not awaited.done() and answer.withdraw():
            raise NotHandled
        return await awaited
    except ActorDeadError as error:
        if str(error) == f"{actor.actor_ref} not found":  # Pykka's words where it had ended before
            raise NotHandled from error
        raise
    except asyncio.CancelledError:
        answer.withdraw()
        raise
    finally:
        awaited.cancel()
