"""Which implementation decodes: the extension module, or its pure-Python twin where that cannot be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np


class Codec(Protocol):
    """What `pyscope._codec` and `pyscope.fallback.codec` both offer; _codec.pyi says what the dict holds."""

    @staticmethod
    def encode_words(words: Any, base_ticks: int, time_shift: int) -> tuple[bytes, int]: ...

    @staticmethod
    def pair_calls(buffers: Sequence[Any], processes: Sequence[Any], functions: int) -> dict[str, Any]: ...

    @staticmethod
    def decode_events(
        buffers: Sequence[Any], processes: Sequence[Any], functions: int, workers: int = 0
    ) -> dict[str, np.ndarray[Any, Any]]: ...


def preferred() -> Codec:
    """The extension module if it can be imported, else the twin."""
    try:
        from pyscope import _codec as native
    except ImportError:
        from pyscope.fallback import codec as twin

        return cast(Codec, twin)
    return cast(Codec, native)
