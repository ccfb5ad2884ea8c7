"""A recording as one HTML file: the dashboard's page with the views' data inside. It asks no host for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import IO, TYPE_CHECKING, Any

from pyscope.analysis import external as external_calls
from pyscope.analysis.placement import Placement
from pyscope.views import (
    external,
    findings,
    flame,
    functions,
    losses,
    metrics,
    queries,
    requests,
    source,
    states,
    supervision,
)
from pyscope.views.values import text
from pyscope.views.waterfall import Waterfalls

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["data", "render", "write"]

MOST_BYTES = 2_500_000
"""How large the data may be: a browser reads so much in some 30 ms."""

_REQUESTS = 1000
_WATERFALLS = 100
_LEADING = 5  # waterfalls that are told in full; of others the longest spans
_SPANS = 1000, 200

_STYLE = re.compile(r'<link rel="stylesheet" href="static/([\w./-]+)">\n?')
_SCRIPT = re.compile(r'<script defer src="static/([\w./-]+)"></script>\n?')
_ICON = re.compile(r'<link rel="icon"[^>]*>\n?')
_TITLE = re.compile(r"<title>[^<]*</title>")


def render(trace: Trace) -> str:
    """The page. Raises FileNotFoundError if the installation lacks the dashboard's files."""
    static = importlib.resources.files("pyscope") / "live" / "static"
    page = (static / "index.html").read_text("utf-8")
    scripts = [_script(static, name) for name in _SCRIPT.findall(page)]
    styles = [_read(static, name) for name in _STYLE.findall(page)]
    page = _SCRIPT.sub("", _STYLE.sub("", _ICON.sub("", page)))
    title = html.escape(text(f"{source.source(trace)['name']} – PyScope"))
    head = [
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
        *(f"<style>\n{style}</style>" for style in styles),
    ]
    body = [
        f'<script type="application/json" id="pyscope-data">{_embedded(data(trace))}</script>',
        *(f"<script>{script}</script>" for script in scripts),
    ]
    page = _TITLE.sub(lambda _: f"<title>{title}</title>", page, count=1)
    page = page.replace("</head>", "\n".join([*head, "</head>"]), 1)
    before, end, after = page.rpartition("</body>")
    return "\n".join([before.rstrip(), *body, end + after])


def write(trace: Trace, file: IO[bytes]) -> None:
    """Writes the page."""
    file.write(render(trace).encode())


def data(trace: Trace, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """What the page shows: a message of each type, and of the requests that matter most what they did."""
    placement = Placement(trace)
    calls = external_calls.find(trace)
    found = findings.find(trace, calls)
    by_scope = findings.by_scope(found)
    shown = findings.message(trace, 100, found=found)
    wanted = requests.notable(trace, _REQUESTS, by_scope, findings.linked(shown))
    told: dict[str, Any] = {
        "hello": source.hello(trace),
        "messages": [
            requests.message(trace, _REQUESTS, findings=by_scope, rows=wanted),
            metrics.message(trace),
            losses.message(trace),
            shown,
            supervision.message(trace, 500),
            states.message(trace, 1000) | {"total": states.count(trace)},
            external.message(trace, 500, found=calls) | {"total": len(calls)},
        ],
        "flame": flame.tree(trace, placement=placement),
        "functions": functions.table(trace, limit=500),
        "queries": queries.table(trace),
        "waterfalls": {},
    }
    room = most_bytes - len(_encoded(told))
    waterfalls = Waterfalls(trace, calls=calls, findings=by_scope, placement=placement)
    for number, row in enumerate(wanted[:_WATERFALLS].tolist()):
        identity = str(int(trace.scopes["id"][row]))
        waterfall = waterfalls.of(identity, _SPANS[0] if number < _LEADING else _SPANS[1])
        size = len(_encoded(waterfall)) + len(identity) + 4
        if size <= room:
            room -= size
            told["waterfalls"][identity] = waterfall
    return told


def _encoded(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _embedded(value: object) -> str:
    """JSON that HTML reads as text: what could end the element or begin a comment is escaped."""
    found = _encoded(value)
    for character in "<>&\u2028\u2029":
        found = found.replace(character, f"\\u{ord(character):04x}")
    return found


def _read(static: Traversable, name: str) -> str:
    return static.joinpath(*name.split("/")).read_text("utf-8")


def _script(static: Traversable, name: str) -> str:
    """A script that may stand in a page: what HTML would take for its end, or for a comment, is written otherwise."""
    found = _read(static, name)
    found = re.sub(r"</(script)", r"<\\/\1", found, flags=re.I)
    return "\n" + found.replace("<!--", r"<\u0021--")


def _policy(scripts: list[str]) -> str:
    """Only these scripts run, and nothing is fetched or sent."""
    hashes = " ".join(_hashes(scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(scripts: list[str]) -> Iterator[str]:
    for script in scripts:
        digest = hashlib.sha256(script.encode()).digest()
        yield f"'sha256-{base64.b64encode(digest).decode()}'"
