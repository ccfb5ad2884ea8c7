"""Names of what is called, safe to record: no credentials, no query, nothing that looks like an id or a token."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["operation", "peer", "template"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "smtp": 25, "smtps": 465}
_MOST_SEGMENTS = 8
# Letters, or letters and at most two digits (v1, oauth2), and the same with a file's ending. What is longer, or mixes
# letters and digits in another way, may be an id or a secret.
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,23}\d{0,2}(?:\.[A-Za-z]{1,8})?", re.ASCII)
_METHOD = re.compile(r"[A-Z]{1,12}", re.ASCII)


def template(path: str) -> str:
    """A path with `{}` for each part that varies: `/users/42/tasks?x=1` is `/users/{}/tasks`."""
    path = path.partition("?")[0].partition("#")[0].partition(";")[0]
    parts = path.split("/")
    kept = [part if not part or _WORD.fullmatch(part) else "{}" for part in parts[: _MOST_SEGMENTS + 1]]
    return "/".join(kept) + ("/…" if len(parts) > len(kept) else "") or "/"


@lru_cache(maxsize=4096)
def operation(method: str, path: str) -> str:
    """An HTTP request's name: `GET /users/{}`."""
    if not _METHOD.fullmatch(method):
        method = "OTHER"
    return f"{method} {template(path)}"


@lru_cache(maxsize=1024)
def peer(host: str, port: int | None, scheme: str = "") -> str:
    """`host:port`, with the scheme's own port where none is given; `host` alone when that is unknown."""
    host = host.rpartition("@")[2].lower()
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    port = port or _DEFAULT_PORTS.get(scheme)
    return f"{host}:{port}" if port else host
