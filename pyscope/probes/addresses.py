"""Names of what is called, safe to record: no credentials, no query, nothing that looks like an id or a token."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["operation", "peer", "plain_route", "template"]

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


@lru_cache(maxsize=4096)
def plain_route(route: str) -> str:
    """A route that is a regular expression, as one would write it without: `^users/(?P<pk>[^/.]+)/$` is `users/<pk>/`,
    a group without a name `<var>`. Another route stays as it is."""
    if not ("(?P<" in route or "^" in route or route.endswith("$")):
        return route
    return _plain(route)


def _plain(expression: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(expression):
        character, end = expression[at], at + 1
        if character == "\\":
            end += 1
            character = expression[at + 1 : end]
            parts.append("<var>" if character in "dDwWsS" else "" if character.isalnum() else character)
        elif character == "{":
            end = expression.find("}", at) + 1 or end
        elif character in "([":
            end = _closing(expression, at) + 1
            parts.append(_group(expression[at + 1 : end - 1]) if character == "(" else "<var>")
        elif character not in "^$?*+":
            parts.append(character)
        at = end
    return "".join(parts)


def _group(inside: str) -> str:
    if named := re.match(r"\?P<(\w+)>", inside):
        return f"<{named[1]}>"
    if inside.startswith("?:") and "|" not in inside:
        return _plain(inside[2:])
    return "" if inside.startswith("?") and not inside.startswith("?:") else "<var>"


def _closing(expression: str, at: int) -> int:
    """Where the bracket or the parenthesis at `at` ends; the end where it does not."""
    if expression[at] == "[":
        found = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*").match(expression, at)
        return found.end() if found else len(expression)
    at += 1
    while at < len(expression) and expression[at] != ")":
        if expression[at] in "([":
            at = _closing(expression, at)
        at += 2 if expression[at : at + 1] == "\\" else 1
    return at
