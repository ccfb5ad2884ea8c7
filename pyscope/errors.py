"""Every error and warning of PyScope. Each message says what happened and what to do next."""

from __future__ import annotations

__all__ = [
    "AlreadyRecording",
    "BackendUnavailable",
    "ConfigError",
    "CorruptRecording",
    "ExportError",
    "MissingExtra",
    "NotARecording",
    "NotRecording",
    "PyScopeError",
    "PyScopeWarning",
    "RecorderError",
    "RecordingError",
    "RecordingNotFound",
    "VersionMismatch",
]


class PyScopeError(Exception):
    """The base of every exception that PyScope raises on purpose."""


class PyScopeWarning(UserWarning):
    """The base of every warning that PyScope gives."""


# --- reading a recording -------------------------------------------------------------------------


class RecordingError(PyScopeError):
    """A recording cannot be read."""


class RecordingNotFound(RecordingError, FileNotFoundError):
    """There is no file at the path."""


class NotARecording(RecordingError):
    """The file was not written by PyScope."""


class CorruptRecording(RecordingError):
    """The file was written by PyScope, but too little of it is left to make a trace."""


class VersionMismatch(RecordingError):
    """The file was written in a format that this version of PyScope does not read."""


class ExportError(PyScopeError):
    """A recording could not be written in another format."""


# --- making a recording --------------------------------------------------------------------------


class ConfigError(PyScopeError, ValueError):
    """A setting has a value that is not allowed; the message names the setting and its source."""


class RecorderError(PyScopeError):
    """A recording cannot be started, or could not go on."""


class BackendUnavailable(RecorderError):
    """The backend that was asked for cannot work here; the message says why and which can."""


class AlreadyRecording(RecorderError):
    """A recording is running in this process already."""


class NotRecording(RecorderError):
    """No recording is running in this process."""


# --- optional parts ------------------------------------------------------------------------------


class MissingExtra(PyScopeError, ImportError):
    """An optional dependency is not installed.

    Parameters: `feature`, what was asked for; `package`, what could not be imported; `extra`, the name
    of the extra of PyScope that installs it.
    """

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'pyscope[{extra}]'"
        )
        self.feature = feature
        self.package = package
        self.extra = extra
