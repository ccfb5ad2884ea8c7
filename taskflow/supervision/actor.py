"""An actor that can be supervised: a Pykka actor whose every ending is noticed, once, with its reason."""

import ctypes
import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from threading import Event, RLock, Thread, current_thread
from typing import Any, ClassVar, Final, NoReturn

from pykka import ActorRegistry, ThreadingActor
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from taskflow.supervision.answers import Answer, error_answer
from taskflow.supervision.exits import Exit, ExitKind, Killed
from taskflow.supervision.mailbox import Mailbox, Overflow, ShutdownOrder

logger = logging.getLogger(__name__)

KILL_GRACE_SECONDS: Final = 0.5
"""How long a killed thread may take to reach its next bytecode before it is abandoned."""

Watcher = Callable[["SupervisedActor", Exit], None]
_numbers = count(1)


class StartFailed(Exception):
    """An actor could not be started: its `on_start` raised, or took too long."""


class Interrupted(Exception):
    """The actor was killed while it handled the message; whether that took effect is not known."""


class _ExitWanted(Exception):
    def __init__(self, exit: Exit) -> None:
        super().__init__(str(exit))
        self.exit = exit


class SupervisedActor(ThreadingActor):
    """Base of supervised actors. The hooks are Pykka's: on_start, on_receive, on_stop, on_failure.

    It differs from a plain Pykka actor in what OTP does otherwise:

    - An exception in a handler ends the actor, also when somebody waits for the answer (who gets the
      exception as well). Exceptions of the types `answers_with` are answers like others instead.
    - Nothing ends other actors: not even SystemExit, which Pykka would take for an order to stop all.
    - Whoever waits for an answer gets one, however the actor ends.
    - The mailbox holds `capacity` messages (None: any number) and does what `overflow` says when full.
    """

    use_daemon_thread = True  # a stuck actor that was abandoned must not keep the process from ending

    capacity: int | None = None
    overflow: Overflow = Overflow.REFUSE
    answers_with: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.label = type(self).__name__
        self._watchers: list[Watcher] = []
        self._lock = RLock()
        self._thread: Thread | None = None
        self._struck = False
        self._current: Envelope[Any] | None = None
        self._last_words: list[Callable[[], None]] = []
        self._exit: Exit | None = None
        self._start_failure: BaseException | None = None
        self._initialised = Event()
        self._ended = Event()

    def _create_actor_inbox(self) -> Mailbox:  # type: ignore[override]
        return Mailbox(self.capacity, self.overflow)

    @staticmethod
    def _create_future() -> Answer:
        return Answer()

    @property
    def mailbox(self) -> Mailbox:
        """Where the messages wait."""
        inbox: Mailbox = self.actor_inbox  # type: ignore[assignment]
        return inbox

    @property
    def message_queue_length(self) -> int:
        """How many messages wait; may be read from any thread."""
        return self.mailbox.qsize()

    @property
    def exit(self) -> Exit | None:
        """How the actor ended; None as long as it has not."""
        return self._exit

    def launch(self, watcher: Watcher | None = None, timeout: float | None = None) -> None:
        """Start the actor and wait until `on_start` is through.

        `watcher` is called once, in the actor's thread, when the actor ends. StartFailed when `on_start`
        raises, or takes longer than `timeout` seconds; the actor has ended then.
        """
        if watcher is not None:
            self._watchers.append(watcher)
        ActorRegistry.register(self.actor_ref)
        self._start_actor_loop()
        if not self._initialised.wait(timeout):
            self.kill()
            raise StartFailed(f"{self.label} was not ready after {timeout:g} s")
        if self._start_failure is not None:
            self.join()
            reason = Exit.of(self._start_failure)
            raise StartFailed(f"{self.label} could not start: {reason}") from self._start_failure

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the actor has ended and its watchers know; False when `timeout` seconds were too few."""
        if not self._ended.wait(timeout):
            return False
        if self._thread is not None and self._exit is not None and self._exit.kind is not ExitKind.ABANDONED:
            self._thread.join(timeout)
        return True

    def shutdown(self, timeout: float | None = None) -> Exit:
        """Order the actor to end now, and wait for it; returns how it ended.

        The handler that is running is finished and `on_stop` called, what waits in the mailbox is not
        handled. After `timeout` seconds the actor is killed.
        """
        if self._thread is None:
            self._end(Exit(ExitKind.SHUTDOWN))
        elif self._exit is None:
            self.mailbox.put(Envelope(ShutdownOrder(), reply_to=Answer()))
            if not self.join(timeout):
                self.kill()
        self.join()
        assert self._exit is not None
        return self._exit

    def kill(self) -> Exit:
        """End the actor without any hook; returns how it ended.

        Killed is raised inside its thread. A thread that does not get to it within KILL_GRACE_SECONDS
        (a long call into C) is abandoned: for everyone else the actor has ended, and the thread ends
        when the call returns.
        """
        self._strike()
        if not self._ended.wait(KILL_GRACE_SECONDS):
            alive = self._thread is not None and self._thread.is_alive()
            if alive and self._exit is None:
                logger.error("%s does not end and is abandoned; its thread still runs", self.label)
            self._end(Exit(ExitKind.ABANDONED if alive else ExitKind.KILLED))
        assert self._exit is not None
        return self._exit

    def _strike(self) -> None:
        """Have Killed raised in the actor's thread, once."""
        with self._lock:
            # Under the lock, so that a thread that is through with its actor is never hit.
            if self._exit is None and not self._struck and self._thread is not None:
                self._struck = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(Killed)
                )
        self.mailbox.close()  # wakes it where it waits for a message

    def exit_with(self, exit: Exit) -> NoReturn:
        """Called in a handler: end this actor in order, for that reason."""
        raise _ExitWanted(exit)

    def _start_actor_loop(self) -> None:
        self._thread = Thread(
            target=self._live, name=f"{self.label}-{next(_numbers)}", daemon=self.use_daemon_thread
        )
        self._thread.start()

    def _live(self) -> None:
        try:
            try:
                exit = self._run()
            except BaseException as error:
                exit = Exit.of(error)
            self._end(exit)
        except Killed as killed:  # it can strike anywhere, also while the actor is ending, but only once
            self._end(Exit.of(killed))

    def _run(self) -> Exit:
        try:
            self.on_start()
        except BaseException as error:
            self._start_failure = error
            return self._failed(error)
        self._initialised.set()
        while True:
            envelope = self.mailbox.get()
            answer = envelope.reply_to
            if isinstance(envelope.message, ShutdownOrder | _ActorStop):
                if answer is not None:
                    self._last_words.append(partial(answer.set, None))
                ordered = isinstance(envelope.message, ShutdownOrder)
                return self._stopped(Exit(ExitKind.SHUTDOWN if ordered else ExitKind.NORMAL))
            if isinstance(answer, Answer) and not answer.begin():
                continue
            self._current = envelope
            try:
                response = self._handle_receive(envelope.message)
            except _ExitWanted as wanted:
                return self._stopped(wanted.exit)
            except self.answers_with as error:
                if answer is None:
                    return self._failed(error)
                answer.set_exception()
            except BaseException as error:
                exit = self._failed(error)
                if answer is not None and exit.kind is ExitKind.CRASHED:
                    # Said at the very end: who gets this answer can rely on the actor being dead.
                    self._last_words.append(
                        partial(answer.set_exception, (type(error), error, error.__traceback__))
                    )
                return exit
            else:
                if answer is not None:
                    answer.set(response)
            self._current = None

    def _stopped(self, exit: Exit) -> Exit:
        try:
            self.on_stop()
        except BaseException as error:
            return self._failed(error, tell=False)
        return exit

    def _failed(self, error: BaseException, tell: bool = True) -> Exit:
        if isinstance(error, Killed):
            return Exit.of(error)
        logger.error("%s crashed", self.label, exc_info=error)
        if tell:
            try:
                self.on_failure(type(error), error, error.__traceback__)
            except Exception:
                logger.exception("%s failed again in on_failure", self.label)
        return Exit.of(error)

    def _end(self, exit: Exit) -> None:
        with self._lock:
            if self._exit is None:
                self._exit = exit
            ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            self.mailbox.close()
            while self._watchers:
                self._watchers[-1](self, self._exit)
                self._watchers.pop()
            for say in self._last_words:
                say()
            if self._current is not None and self._current.reply_to is not None:
                interrupted = Interrupted(f"{self.label} ended while it handled the message")
                self._current.reply_to.set_exception(error_answer(interrupted))
            self._initialised.set()
            self._ended.set()


def is_own_thread(actor: SupervisedActor) -> bool:
    """Whether the calling code runs inside `actor`."""
    return actor._thread is current_thread()
