"""Bounded mailboxes: what waits, what is refused, what is dropped, and what never is."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pykka._envelope import Envelope

from taskflow.supervision import Answer, Mailbox, MailboxFull, Overflow, Supervisor
from taskflow.supervision.mailbox import ShutdownOrder, SystemMessage
from tests.taskflow.children import Child, Diary, Stuck, no_threads_left, wait_until


class Small(Child):
    capacity = 2


class Forgetful(Child):
    capacity = 2
    overflow = Overflow.DROP_OLDEST


def stuck_actor(kind: type[Child]) -> tuple[Child, Stuck]:
    """An actor that handles a message until it is released."""
    actor, stuck = kind(kind.__name__, Diary()), Stuck()
    actor.launch()
    actor.actor_ref.tell(stuck)
    stuck.entered.wait()
    return actor, stuck


def test_a_full_mailbox_refuses_at_the_sender() -> None:
    actor, stuck = stuck_actor(Small)
    first = actor.actor_ref.ask("first", block=False)
    actor.actor_ref.tell("second")
    assert actor.message_queue_length == 2
    with pytest.raises(MailboxFull, match="2 messages wait already"):
        actor.actor_ref.tell("third")
    with pytest.raises(MailboxFull):
        actor.actor_ref.ask("third", block=False)
    assert actor.mailbox.refused == 2
    assert actor.message_queue_length == 2
    stuck.released.set()
    assert first.get() == "first"
    assert actor.actor_ref.ask("there is room again") == "there is room again"
    assert actor.mailbox.longest == 2
    actor.shutdown()


def test_a_forgetful_mailbox_drops_the_oldest_counts_it_and_tells_its_asker() -> None:
    actor, stuck = stuck_actor(Forgetful)
    answers = [actor.actor_ref.ask(number, block=False) for number in range(5)]
    assert actor.message_queue_length == 2
    assert actor.mailbox.dropped == 3
    stuck.released.set()
    for answer in answers[:3]:
        with pytest.raises(MailboxFull, match="dropped"):
            answer.get()
    assert [answer.get() for answer in answers[3:]] == [3, 4]
    actor.shutdown()


@pytest.mark.parametrize("kind", [Small, Forgetful])
def test_orders_to_stop_are_never_refused_nor_dropped(kind: type[Child]) -> None:
    with no_threads_left():
        actor, stuck = stuck_actor(kind)
        actor.actor_ref.tell("one")
        actor.actor_ref.tell("two")
        stopping = actor.actor_ref.stop(block=False)
        assert actor.message_queue_length == 2
        if kind is Forgetful:
            actor.actor_ref.tell("three")
            actor.actor_ref.tell("four")
        stuck.released.set()
        assert stopping.get()
        actor.join()


def test_a_supervisor_with_a_full_mailbox_still_hears_of_exits() -> None:
    class Besieged(Supervisor):
        capacity = 1

        def on_receive(self, message: object) -> None:
            message() if callable(message) else super().on_receive(message)

    diary, stuck = Diary(), Stuck()
    with Besieged("root", [diary.spec("a")], max_restarts=1) as root:
        child = root.whereis("a")
        assert child is not None
        root.actor_ref.tell(stuck)
        stuck.entered.wait()
        root.actor_ref.tell(lambda: None)
        with pytest.raises(MailboxFull):
            root.actor_ref.tell(lambda: None)
        child.actor_ref.tell("crash")
        child.join()
        stuck.released.set()
        wait_until(lambda: root.whereis("a") not in (None, child))


def test_a_mailbox_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mailbox(0)


class System(SystemMessage):
    pass


Message = int | SystemMessage
puts = st.lists(st.one_of(st.integers(), st.builds(System), st.builds(ShutdownOrder), st.none()), max_size=60)


@given(actions=puts, capacity=st.integers(1, 4), overflow=st.sampled_from(Overflow))
def test_a_mailbox_keeps_order_and_bounds_whatever_is_put_and_got(
    actions: list[Message | None], capacity: int, overflow: Overflow
) -> None:
    """None takes a message out. The model is a plain list."""
    mailbox, model = Mailbox(capacity, overflow), list[Message]()
    refused = dropped = 0
    for action in actions:
        ordinary = [message for message in model if isinstance(message, int)]
        if action is None:
            if model:
                assert mailbox.get().message is model.pop(0)
        elif isinstance(action, ShutdownOrder):
            model.insert(0, action)
            mailbox.put(Envelope(action))
        elif isinstance(action, int) and len(ordinary) >= capacity and overflow is Overflow.REFUSE:
            refused += 1
            with pytest.raises(MailboxFull):
                mailbox.put(Envelope(action))
        else:
            if isinstance(action, int) and len(ordinary) >= capacity:
                dropped += 1
                model.pop(next(i for i, message in enumerate(model) if isinstance(message, int)))
            model.append(action)
            mailbox.put(Envelope(action))
        assert mailbox.qsize() == sum(isinstance(message, int) for message in model)
        assert mailbox.empty() == (not model)
        assert (mailbox.refused, mailbox.dropped) == (refused, dropped)


def test_many_senders_lose_no_message_and_keep_each_ones_order() -> None:
    mailbox = Mailbox()
    senders = [
        threading.Thread(target=lambda s=s: [mailbox.put(Envelope((s, n))) for n in range(500)])
        for s in range(8)
    ]
    for sender in senders:
        sender.start()
    got = [mailbox.get().message for _ in range(8 * 500)]
    for sender in senders:
        sender.join()
    assert all([n for s, n in got if s == sender] == list(range(500)) for sender in range(8))


def test_an_answer_is_given_once_and_its_watchers_hear_of_it_once() -> None:
    answer, heard = Answer(), list[object]()
    answer.watch(lambda given: heard.append(given.get()))
    answer.set("first")
    answer.set("second")
    answer.watch(lambda given: heard.append(given.get()))
    assert heard == ["first", "first"]
