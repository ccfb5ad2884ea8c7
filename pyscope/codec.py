"""Which implementation decodes: the extension module, or its pure-Python twin where that cannot be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Codec(Protocol):
    """What `pyscope._codec` and `pyscope.fallback.codec` both offer; see _codec.pyi."""

    def encode_words(self, words: Any, base_ticks: int, time_shift: int) -> tuple[bytes, int]: ...

    def pair_calls(self, buffers: Sequence[Any], processes: Sequence[Any], functions: int) -> dict[str, Any]: ...

    def decode_events(
        self, buffers: Sequence[Any], processes: Sequence[Any], functions: int, workers: int = 0
    ) -> dict[str, np.ndarray[Any, Any]]: ...


def preferred() -> Codec:
    """The extension module if it can be imported, else the twin."""
    try:
        from pyscope import _codec as native
    except ImportError:
        from pyscope.fallback import codec as twin

        return twin
    return native
