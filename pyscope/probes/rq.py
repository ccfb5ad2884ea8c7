"""RQ: each run of a job is a scope of kind "job" with the function's name, in the work horse or wherever it runs."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope

__all__ = ["RQProbe", "patch"]


class RQProbe(ClientProbe):
    """Watches the jobs that this process runs."""

    name = "rq"
    adapters: ClassVar = {"rq.job": "pyscope.probes.rq"}


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches Job.perform, which all workers call."""

    def make(original: Any) -> Any:
        @functools.wraps(original)
        def perform(self: Any) -> Any:
            run = _begun(self) if patches.on and emitter.active() else None
            if run is None:
                return original(self)
            try:
                result = original(self)
            except BaseException as error:
                run.leave(error)
                raise
            run.leave()
            return result

        return perform

    patches.replace(library.Job, "perform", make)


def _begun(job: Any) -> Scope | None:
    try:
        return Scope("job", _name(job)).enter()
    except Exception:
        fault("rq")
        return None


def _name(job: Any) -> str:
    try:
        return str(job.func_name)
    except Exception:  # it cannot be read, which RQ says itself
        return "job"
