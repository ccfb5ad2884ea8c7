"""Which flow of control something belongs to: a thread, an asyncio task, or a greenlet that is one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["flow_of_contexts"]


def flow_of_contexts(trace: Trace, contexts: NDArray[Any]) -> NDArray[np.int64]:
    """For each context the one whose flow it runs in: a greenlet that a task waits for is that task.

    SQLAlchemy's asynchronous engine runs each statement in a greenlet of its own.
    """
    around = trace.contexts.around("greenlet", contexts)
    return np.where(around > 0, around, contexts)
