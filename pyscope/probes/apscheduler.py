"""APScheduler 3: each run of a job is a scope of kind "job" with the name of its function. A run that comes too late,
and is therefore left out, is none.
"""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope
from pyscope.probes.steps import Steps

__all__ = ["APSchedulerProbe", "patch", "run_coroutine_job", "run_job"]


class APSchedulerProbe(ClientProbe):
    """Watches the jobs that schedulers of this process run, and those that they give to other processes."""

    name = "apscheduler"
    adapters: ClassVar = {
        f"apscheduler.executors.{name}": "pyscope.probes.apscheduler"
        for name in ("asyncio", "debug", "gevent", "pool", "tornado", "twisted")
    }


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches what an executor runs."""
    patches.replace(library, "run_job", lambda original: run_job)
    patches.replace(library, "run_coroutine_job", lambda original: run_coroutine_job)


def run_job(job: Any, jobstore_alias: str, run_times: Sequence[Any], logger_name: str) -> list[Any]:
    """In the place of APScheduler's; a pool of processes finds it by its name."""
    base: Any = importlib.import_module("apscheduler.executors.base")
    if not emitter.active():
        events: list[Any] = base.run_job(job, jobstore_alias, run_times, logger_name)
        return events
    events = []
    for run_time in run_times:
        run = None if _is_missed(job, run_time) else Scope("job", _name(job)).enter()
        try:
            told = base.run_job(job, jobstore_alias, [run_time], logger_name)
        except BaseException as error:
            if run is not None:
                run.leave(error)
            raise
        if run is not None:
            run.leave(_error(told))
        events += told
    return events


async def run_coroutine_job(
    job: Any, jobstore_alias: str, run_times: Sequence[Any], logger_name: str
) -> list[Any]:
    """In the place of APScheduler's."""
    base: Any = importlib.import_module("apscheduler.executors.base")
    if not emitter.active():
        events: list[Any] = await base.run_coroutine_job(job, jobstore_alias, run_times, logger_name)
        return events
    emitter.scope.set(
        0
    )  # this task has the context of whoever scheduled something last, maybe a request that is over
    events = []
    for run_time in run_times:
        run = None if _is_missed(job, run_time) else Scope("job", _name(job)).enter()
        steps = Steps(base.run_coroutine_job(job, jobstore_alias, [run_time], logger_name))
        try:
            told = await steps
        except BaseException as error:
            if run is not None:
                run.cpu_ns = steps.cpu_ns
                run.leave(error)
            raise
        if run is not None:
            run.cpu_ns = steps.cpu_ns
            run.leave(_error(told))
        events += told
    return events


def _is_missed(job: Any, run_time: Any) -> bool:
    """Whether APScheduler will leave a run out."""
    try:
        grace = job.misfire_grace_time
        late = datetime.datetime.now(datetime.UTC) - run_time
        return grace is not None and late > datetime.timedelta(seconds=grace)
    except Exception:
        fault("apscheduler")
        return False


def _error(events: Sequence[Any]) -> BaseException | None:
    error = getattr(events[-1], "exception", None) if events else None
    return error if isinstance(error, BaseException) else None


def _name(job: Any) -> str:
    """The function's, not the job's: that may be another each time."""
    try:
        reference = job.func_ref
        if type(reference) is str:
            return reference.replace(":", ".")
        function = getattr(job.func, "func", job.func)  # of a partial
        return f"{function.__module__}.{function.__qualname__}"
    except Exception:
        fault("apscheduler")
        return "job"
