"""Settings: arguments over `PYSCOPE_*` over `[tool.pyscope]` of the nearest pyproject.toml over defaults.

A bad value is a `ConfigError` that names the setting, where the value came from and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pyscope import probes
from pyscope.errors import ConfigError

__all__ = ["Backend", "Detail", "Mode", "ModuleSelector", "Settings", "check", "resolve", "unknown_variables"]

Detail: TypeAlias = Literal["calls", "c_calls"]
Mode: TypeAlias = Literal["stream", "flight"]
Backend: TypeAlias = Literal["auto", "monitoring", "frame", "setprofile", "python"]
ModuleSelector: TypeAlias = str | types.ModuleType

DETAILS: tuple[Detail, ...] = ("calls", "c_calls")
MODES: tuple[Mode, ...] = ("stream", "flight")
BACKENDS: tuple[Backend, ...] = ("auto", "monitoring", "frame", "setprofile", "python")

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one recording was asked to do. Made by `resolve`, which checks every value."""

    path: str | None = None  # of the recording; None: chosen by whoever starts it
    modules: tuple[str, ...] | None = None  # globs; None: all but the standard library and site-packages
    exclude: tuple[str, ...] = ()  # globs, stronger than `modules`
    detail: Detail = "calls"
    mode: Mode = "stream"
    backend: Backend = "auto"
    ring_mb: int = 64  # MiB of each process's ring
    budget: float | None = None  # upper bound of the recorder's own cost, as a fraction of CPU time
    keep: tuple[str, ...] = ()  # globs of what a budget never quiets
    token: str | None = None  # secret that the live view asks for
    disable: bool = False  # record nothing
    ring_dir: str | None = None  # folder of the ring; None: tmpfs where it fits
    children: bool = True  # record child processes too
    probes: tuple[str, ...] = ()  # what is watched beside calls
    values: tuple[str, ...] = ()  # which of the program's values probes may record
    # for each setting that is not a default: where its value came from
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def source(self, name: str) -> str:
        """Where the value of the setting `name` came from, in words."""
        return self.sources.get(name, DEFAULT)

    def to_json(self) -> str:
        """These settings as text, for a child process; `from_json` reads it."""
        return json.dumps({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` wrote. Raises ConfigError if `text` is something else."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"settings handed to a child process are not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError("settings handed to a child process are not a JSON object")
        sources = values.pop("sources", {})
        if not isinstance(sources, dict):
            sources = {}
        checked = {
            name: check(name, value, sources.get(name, "the parent process"))
            for name, value in values.items()
            if value is not None
        }
        return cls(**checked, sources=sources)


def resolve(**arguments: object) -> Settings:
    """The settings in force here and now.

    Parameters: the fields of `Settings` by name. None means "not given": then the environment variable
    decides (`PYSCOPE_MODULES`, `PYSCOPE_RING_MB`, … and `PYSCOPE_OUTPUT` for `path`; lists are comma
    separated, an empty variable counts as unset), then the key of the same name in `[tool.pyscope]` of
    the nearest pyproject.toml from the working directory upward, then the default. Paths in that file
    are relative to its folder.

    `modules`, `exclude` and `keep` take module objects and dotted globs (`shop.*` also means `shop`); a
    package object means the package and all below it. `budget` is "3%" or 0.03.

    Raises `ConfigError` for a value that is not allowed and for a name that is no setting.
    """
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in (_from_pyproject, _from_environment, lambda: _from_arguments(arguments)):
        for name, value, source in layer():
            found[name] = check(name, value, source)
            sources[name] = source
    return Settings(**found, sources=sources)


# --- the three layers ----------------------------------------------------------------------------

_ENVIRONMENT = {
    "PYSCOPE_OUTPUT": "path",
    **{
        f"PYSCOPE_{name.upper()}": name
        for name in (field.name for field in dataclasses.fields(Settings))
        if name not in ("path", "sources")
    },
}

_NO_SETTINGS = (
    "PYSCOPE_CHILD_OF",
    "PYSCOPE_PURE",
    "PYSCOPE_SANITIZE",
)  # for child processes, and for building


def _from_arguments(arguments: Mapping[str, object]) -> Iterator[tuple[str, object, str]]:
    for name, value in arguments.items():
        if name not in _CHECKS:
            raise ConfigError(f"there is no setting {name!r}{_did_you_mean(name)}")
        if value is not None:
            yield name, value, f"argument {name}="


def _from_environment() -> Iterator[tuple[str, object, str]]:
    for variable, name in _ENVIRONMENT.items():
        value = os.environ.get(variable, "")
        if value.strip():
            yield name, value.strip(), f"environment variable {variable}"


def unknown_variables() -> list[str]:
    """Variables of the environment that look like settings and are none, in words with what may have been meant."""
    found = []
    for variable in sorted(os.environ):
        if variable.startswith("PYSCOPE_") and variable not in _ENVIRONMENT and variable not in _NO_SETTINGS:
            close = difflib.get_close_matches(variable, _ENVIRONMENT, n=1)
            found.append(f"{variable} is no setting" + (f"; did you mean {close[0]}?" if close else ""))
    return found


def _from_pyproject() -> Iterator[tuple[str, object, str]]:
    file = _nearest_pyproject()
    if file is None:
        return
    import tomllib  # only where there is a file: it takes milliseconds to import

    try:
        text = file.read_text(encoding="utf-8")
        if "pyscope" not in text:
            return
        table = tomllib.loads(text).get("tool", {}).get("pyscope", {})
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file} cannot be read for [tool.pyscope]: {error}") from None
    source = f"{file} [tool.pyscope]"
    if not isinstance(table, dict):
        raise ConfigError(f"{source} must be a table")
    for name, value in table.items():
        if name not in _CHECKS:
            raise ConfigError(
                f"{source} has an unknown key {name!r}{_did_you_mean(name)} Allowed: {', '.join(_CHECKS)}."
            )
        if name in ("path", "ring_dir") and isinstance(value, str):
            value = str(file.parent / value)
        yield name, value, source


def _nearest_pyproject() -> Path | None:
    try:
        here = Path.cwd()
    except OSError:  # the working directory was removed
        return None
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        if os.path.isfile(file):  # Path.is_file raises where it may not look, as below another user's home
            return file
    return None


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), _CHECKS, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


# --- the checks: each takes a raw value and returns it clean, or raises _Refused with what is allowed ---


class _Refused(Exception):
    pass


def check(name: str, value: object, source: str) -> Any:
    """The value of a setting, clean. Raises ConfigError, which names `source`, for one that is not allowed."""
    checks = _CHECKS.get(name)
    if checks is None:
        raise ConfigError(f"there is no setting {name!r}{_did_you_mean(name)}")
    try:
        return checks(value)
    except _Refused as refused:
        raise ConfigError(f"{name} = {_short(value)} ({source}): {refused}") from None


def _short(value: object) -> str:
    if isinstance(value, str | int | float | bool | list | tuple | dict):
        text = repr(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return f"an object of type {type(value).__name__}"


def _path(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text and "\0" not in text:
            return text
    raise _Refused("must be a path, as text or an os.PathLike")


def _token(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise _Refused("must be a text that is not empty")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off"):
            return False
    raise _Refused("must be true or false (1 or 0, yes or no, on or off)")


def _choice(allowed: tuple[str, ...]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        close = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise _Refused(f"must be one of {', '.join(map(repr, allowed))}{hint}")

    return check


def _ring_mb(value: object) -> int:
    number: object = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        number = int(value)
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 1 << 20:
        return number
    raise _Refused("must be a whole number of MiB from 1 to 1048576 (the default is 64)")


def _budget(value: object) -> float:
    allowed = 'must be a percentage such as "3%" or a fraction such as 0.03, above 0 and below 100 %'
    fraction: float
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(%?)", value.strip())
        if match is None:
            raise _Refused(allowed)
        fraction = float(match[1]) / (100 if match[2] else 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        fraction = float(value)
    else:
        raise _Refused(allowed)
    if 0 < fraction < 1:
        return fraction
    raise _Refused(allowed)


_GLOB = re.compile(r"[\w*?\[\]!-]+(\.[\w*?\[\]!-]+)*")


def _globs(value: object) -> tuple[str, ...]:
    allowed = 'must be module objects or dotted globs such as "shop.*"'
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, types.ModuleType) or not isinstance(value, Iterable):
        raise _Refused(f"{allowed}, in a list")
    globs = []
    for item in value:
        if isinstance(item, types.ModuleType):
            name = item.__name__
            globs.append(f"{name}.*" if hasattr(item, "__path__") else name)
        elif isinstance(item, str) and _GLOB.fullmatch(item):
            globs.append(item)
        elif isinstance(item, str) and ("/" in item or item.endswith(".py")):
            raise _Refused(f"{allowed}, not files: {item!r} is a path")
        else:
            raise _Refused(f"{allowed}; {_short(item)} is neither")
    return tuple(globs)


def _probes(value: object) -> tuple[str, ...]:
    allowed = 'must be "auto" or names of probes'
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, Iterable):
        raise _Refused(f"{allowed}, in a list")
    names = tuple(value)
    try:
        probes.expand(names)
    except (ConfigError, TypeError) as error:
        raise _Refused(f"{allowed}: {error}") from None
    return names


_VALUE = re.compile(r"sql_parameters|request_body|request_header:[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _values(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    items = tuple(value) if isinstance(value, Iterable) else (None,)
    if all(isinstance(item, str) and _VALUE.fullmatch(item) for item in items):
        return items
    raise _Refused("must be some of sql_parameters, request_body and request_header:NAME, in a list")


_CHECKS: dict[str, Callable[[object], object]] = {
    "path": _path,
    "modules": _globs,
    "exclude": _globs,
    "detail": _choice(DETAILS),
    "mode": _choice(MODES),
    "backend": _choice(BACKENDS),
    "ring_mb": _ring_mb,
    "budget": _budget,
    "keep": _globs,
    "token": _token,
    "disable": _switch,
    "ring_dir": _path,
    "children": _switch,
    "probes": _probes,
    "values": _values,
}
