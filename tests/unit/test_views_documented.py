"""The shapes in docs/live.md are those of the views."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pyscope.trace import Trace
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
    waterfall,
)

PAGE = Path(__file__).parents[2] / "docs" / "live.md"
MESSAGES = {
    "hello": source.hello,
    "traces": requests.message,
    "metrics": metrics.message,
    "losses": losses.message,
    "findings": findings.message,
    "supervision": supervision.message,
    "state": states.message,
    "external": external.message,
}
FREE = {"mailboxes"}  # their keys are names


def examples() -> list[Any]:
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.S)]


def example(key: str, value: object = None) -> Any:
    [found] = [one for one in examples() if key in one and value in (None, one[key])]
    return found


def shape(value: Any) -> Any:
    """The keys and types of a value, those of a list's items put together."""
    if isinstance(value, dict):
        return {key: {} if key in FREE else shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return ["list", *(shape(one) for one in value[:1])]
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def differences(told: Any, found: Any, path: str = "") -> list[str]:
    """Where a documented shape is not that of what was found; null and empty lists say nothing of what they hold."""
    if "NoneType" in (told, found) or told == found:
        return []
    if isinstance(told, dict) and isinstance(found, dict):
        wrong = [f"{path}.{key}" for key in sorted(told.keys() ^ found.keys())]
        for key in told.keys() & found.keys():
            wrong += differences(told[key], found[key], f"{path}.{key}")
        return wrong
    if isinstance(told, list) and isinstance(found, list):
        return differences(told[1], found[1], f"{path}[]") if len(told) == len(found) == 2 else []
    return [f"{path}: {told} and {found}"]


@pytest.mark.parametrize("kind", MESSAGES)
def test_messages_have_the_documented_shape(shop_trace: Trace, kind: str) -> None:
    told, found = example("type", kind), MESSAGES[kind](shop_trace)
    if kind == "findings":
        alike = [row for row in found["findings"] if row["kind"] == told["findings"][0]["kind"]]
        found = found | {"findings": alike}
    assert differences(shape(told), shape(found)) == []


def test_answers_have_the_documented_shape(shop_trace: Trace) -> None:
    [first, *_] = requests.message(shop_trace)["requests"]
    assert differences(shape(example("spans")), shape(waterfall.of_request(shop_trace, first["id"]))) == []
    assert differences(shape(example("window")), shape(flame.tree(shop_trace))) == []
    assert differences(shape(example("functions")), shape(functions.table(shop_trace))) == []
    assert differences(shape(example("queries")), shape(queries.table(shop_trace))) == []


def test_a_difference_would_be_seen() -> None:
    told = {"rows": [{"a": 1, "b": "x"}], "c": None}
    assert differences(shape(told), shape({"rows": [{"a": 2.5, "b": ""}], "c": 3})) == []
    assert differences(shape(told), shape({"rows": [{"a": "1"}], "c": 3})) == [
        ".rows[].b",
        ".rows[].a: number and str",
    ]
