"""A load in a process of its own: started, waited for, and never left behind."""

import json
import os
import subprocess
import sys
from typing import Final

from taskflow.load.plan import LoadError, LoadPlan
from taskflow.load.report import LoadReport
from taskflow.process import importable, interrupts_deferred

# After its time is up a load waits for the answers that are still out.
GRACE_SECONDS: Final = 90.0
STOP_SECONDS: Final = 10.0
WRONG_CALL: Final = 2


def drive(plan: LoadPlan) -> LoadReport:
    """Drive the load of `plan` in a child process and return its report.

    LoadError when it cannot be driven as asked, or when the driver fails. Whatever interrupts the
    waiting, the child is ended.
    """
    plan.check()
    command = [sys.executable, "-m", "taskflow.load", *plan.arguments(), "--json"]
    process: subprocess.Popen[str] | None = None
    try:
        # A child has to be known before it can be ended.
        with interrupts_deferred():
            # A session of its own: Ctrl-C reaches it only through us.
            process = subprocess.Popen(
                command,
                env=importable(dict(os.environ)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        output, complaints = process.communicate(timeout=plan.seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"the load did not end within {plan.seconds + GRACE_SECONDS:g} s") from error
    finally:
        if process is not None:
            _end(process)
    if process.returncode not in (0, 1) or not output:
        raise LoadError(complaints.strip() or f"the load driver ended with status {process.returncode}")
    return LoadReport.from_dict(json.loads(output))


def _end(process: "subprocess.Popen[str]") -> None:
    """End what still runs: SIGTERM, then SIGKILL."""
    try:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
