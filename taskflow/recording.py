"""PyScope inside TaskFlow, as any service would have it: one setting, and never in the way.

Off, pyscope is not even imported. A recorder that is missing or cannot start leaves a warning and the service running.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import SecretStr

logger = logging.getLogger(__name__)


def recording(path: Path | None) -> AbstractContextManager[Any]:
    """Record TaskFlow's own modules, and what PyScope's probes see, into `path` while the block runs; None is off."""
    if path is None:
        return nullcontext()
    try:
        from pyscope import runtime
    except ImportError:
        logger.warning("PyScope is not installed; TaskFlow runs without it")
        return nullcontext()
    tracing = {"modules": ["taskflow.*"], "level": "function_calls", "path": path, "probes": ["auto"]}
    return runtime.Controller(auto_start=True, default_tracing=tracing)


def mount_dashboard(app: Any, token: SecretStr | None, hosts: Sequence[str]) -> None:
    """Put PyScope's dashboard of this process at /admin/pyscope; without a token there is none."""
    if token is None:
        return
    try:
        from pyscope import live

        live.mount(app, "/admin/pyscope", token=token.get_secret_value(), allowed_hosts=hosts)
    except Exception:
        logger.warning("PyScope's dashboard is not there", exc_info=True)


def watch(supervisor: object, states: Sequence[object] = (), shared: Sequence[object] = ()) -> None:
    """Let PyScope follow a supervision tree, if it records this process: by our setting, or from outside.

    `states`: classes whose instances' changes it tells, too; `shared`: objects that threads and tasks share.
    """
    if "pyscope.recorder" not in sys.modules:
        return
    from pyscope import runtime

    try:
        if runtime.is_recording():
            runtime.monitor_supervisor_tree(supervisor)
            for subject in states:
                runtime.monitor_process(subject)
            if shared:
                runtime.monitor_concurrency(shared)
    except Exception:
        logger.warning("PyScope does not follow the supervisors", exc_info=True)
