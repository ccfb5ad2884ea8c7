"""APScheduler 3: each run of a job is a scope of kind "job" with the name of its function. A run that comes too late,
and is therefore left out, is none.
"""

from __future__ import annotations

import datetime
import functools
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope
from pyscope.probes.steps import Steps

__all__ = ["APSchedulerProbe", "patch", "run_job"]


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
    patches.replace(library, "run_coroutine_job", functools.partial(_awaiting, patches))


def run_job(job: Any, jobstore_alias: str, run_times: Sequence[Any], logger_name: str) -> list[Any]:
    """In the place of APScheduler's; a pool of processes finds it by its name."""
    base: Any = importlib.import_module("apscheduler.executors.base")
    if not emitter.active():
        events: list[Any] = base.run_job(job, jobstore_alias, run_times, logger_name)
        return events
    events = []
    for run_time in run_times:
        run = _begun(job, run_time)
        try:
            told = base.run_job(job, jobstore_alias, [run_time], logger_name)
        except BaseException as error:
            if run is not None:
                run.leave(error)
            raise
        _end(run, told)
        events += told
    return events


def _awaiting(patches: Patches, original: Any) -> Any:
    @functools.wraps(original)
    async def run_coroutine_job(
        job: Any, jobstore_alias: str, run_times: Sequence[Any], logger_name: str
    ) -> Any:
        if not patches.on or not emitter.active():
            return await original(job, jobstore_alias, run_times, logger_name)
        events: list[Any] = []
        # The task has the context of whoever scheduled something last: maybe a request, which is over by now.
        emitter.scope.set(0)
        for run_time in run_times:
            run = _begun(job, run_time)
            steps = Steps(original(job, jobstore_alias, [run_time], logger_name))
            try:
                told = await steps
            except BaseException as error:
                if run is not None:
                    run.cpu_ns = steps.cpu_ns
                    run.leave(error)
                raise
            if run is not None:
                run.cpu_ns = steps.cpu_ns
            _end(run, told)
            events += told
        return events

    return run_coroutine_job


def _begun(job: Any, run_time: Any) -> Scope | None:
    """The scope of a run that begins now; None for one that APScheduler will leave out."""
    try:
        grace = job.misfire_grace_time
        late = datetime.datetime.now(datetime.UTC) - run_time
        if grace is not None and late > datetime.timedelta(seconds=grace):
            return None
        return Scope("job", _name(job)).enter()
    except Exception:
        fault("apscheduler")
        return None


def _end(run: Scope | None, events: Sequence[Any]) -> None:
    if run is not None:
        error = getattr(events[-1], "exception", None) if events else None
        run.leave(error if isinstance(error, BaseException) else None)


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
