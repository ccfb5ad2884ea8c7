"""What is read at every statement: compiled with the native recorder, in Python where none is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyscope import backends
from pyscope.fallback import statements as in_python

__all__ = [
    "ConnectionFields",
    "KnownFields",
    "LoadsFields",
    "StatementsFields",
    "TransactionFields",
    "identity_number",
    "loaded",
]

if TYPE_CHECKING:
    from pyscope.fallback.statements import (
        ConnectionFields,
        KnownFields,
        LoadsFields,
        StatementsFields,
        TransactionFields,
        identity_number,
        loaded,
    )
else:
    _compiled: Any = backends.native() or in_python
    ConnectionFields = _compiled.ConnectionFields
    TransactionFields = _compiled.TransactionFields
    KnownFields = _compiled.KnownFields
    LoadsFields = _compiled.LoadsFields
    StatementsFields = _compiled.StatementsFields
    identity_number = _compiled.identity_number
    loaded = _compiled.loaded
