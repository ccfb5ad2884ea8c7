"""PyScope inside TaskFlow, as any service would have it: one setting, and never in the way.

Off, pyscope is not even imported. A recorder that cannot start leaves a warning and the service running.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def recording(path: Path | None) -> Iterator[None]:
    """Record TaskFlow's own modules into `path` while the block runs; None records nothing."""
    started = path is not None and _start(path)
    try:
        yield
    finally:
        if started:
            _stop()


def _start(path: Path) -> bool:
    try:
        import pyscope

        pyscope.start(path, modules=["taskflow.*"])
    except Exception:
        logger.warning("PyScope could not start; TaskFlow runs without it", exc_info=True)
        return False
    return True


def _stop() -> None:
    try:
        import pyscope

        pyscope.stop()
    except Exception:
        logger.warning("PyScope could not finish its recording", exc_info=True)
