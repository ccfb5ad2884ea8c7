"""The process of one report as a supervised actor: when the process dies, so does the actor, and is restarted."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from pykka import ActorDeadError

from taskflow.process import importable
from taskflow.services.report_messages import Failed, Finished, Message, Order, Progress, from_line
from taskflow.supervision import Exit, ExitKind, SupervisedActor

STOP_SECONDS: Final = 2.0
WORKER: Final = "taskflow.services.report_worker"


class ReportProcessDied(Exception):
    """The process ended without having said how its report turned out."""


@dataclass(frozen=True, slots=True)
class _Ended:
    status: int


class ReportProcess(SupervisedActor):
    """Starts the process, hands on what it says, and ends as it does.

    `tell` is called in the actor's thread with each message of the process. The actor ends normally after
    Finished or Failed, crashes with ReportProcessDied otherwise, and takes the process with it in any case.
    """

    def __init__(self, order: Order, tell: Callable[[Message], None]) -> None:
        super().__init__()
        self.label = f"report {order.report_id}"
        self._order = order
        self._hand_on = tell
        self._settled = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process, None before the start."""
        return self._process.pid if self._process else None

    def on_start(self) -> None:
        """Start the process and give it its order."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C in a terminal is for the service, which ends its processes
            env=importable(dict(os.environ)),
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(self._order)).encode() + b"\n")
            self._process.stdin.flush()  # and left open: its end is the end of the process
        except BrokenPipeError:
            pass  # it died at once, as its exit status will tell
        threading.Thread(
            target=self._listen, args=(self._process,), name=f"{self.label} ears", daemon=True
        ).start()

    def on_receive(self, message: Any) -> None:
        """Hand on what the process says; end when it has ended."""
        match message:
            case Progress() | Finished() | Failed():
                self._settled = self._settled or not isinstance(message, Progress)
                self._hand_on(message)
            case _Ended(status):
                if self._settled:
                    self.exit_with(Exit(ExitKind.NORMAL))
                raise ReportProcessDied(f"the report's process {_ending(status)}")

    def on_stop(self) -> None:
        """End the process."""
        self._end_process()

    def on_failure(self, *_: object) -> None:
        """The same."""
        self._end_process()

    def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        """In a thread of its own, since the actor's waits for its mailbox."""
        assert process.stdout is not None
        try:
            with process.stdout:
                for line in process.stdout:
                    try:
                        self.actor_ref.tell(from_line(line))
                    except ValueError:  # cut off in the middle of a line
                        break
            self.actor_ref.tell(_Ended(process.wait()))
        except ActorDeadError:
            pass


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"
