"""TaskFlow's settings, all from the environment, checked once at the start."""

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from taskflow.faults import DEFAULT_FAULTS, parse_faults

ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class Settings(BaseSettings):
    """What can be set, with its default. Each field `x` is read from `TASKFLOW_X`."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_", extra="ignore", populate_by_name=True)

    database_url: str = Field(
        default="sqlite:///taskflow.db",
        validation_alias=AliasChoices("DATABASE_URL", "TASKFLOW_DATABASE_URL"),
        description="SQLite file or PostgreSQL server; the driver is added when it is left out",
    )
    database_pool_size: int = Field(default=8, ge=1, le=100, description="most connections at a time")
    faults: Annotated[frozenset[str], NoDecode] = Field(
        default=DEFAULT_FAULTS, description="comma-separated names out of taskflow.faults, or none"
    )
    pyscope: Path | None = Field(
        default=None, description="record this service with PyScope into that file; off when unset"
    )
    shutdown_seconds: int = Field(
        default=10, ge=1, le=600, description="how long requests in flight may take after SIGTERM"
    )

    @field_validator("faults", mode="before")
    @classmethod
    def _known_faults(cls, value: str | frozenset[str]) -> frozenset[str]:
        return parse_faults(value)

    @field_validator("pyscope", mode="before")
    @classmethod
    def _empty_means_off(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _usable_database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError as error:
            raise ValueError("not a database URL; an example: sqlite:///taskflow.db") from error
        backend = url.get_backend_name()
        if backend not in ASYNC_DRIVERS:
            raise ValueError(f"{backend} is not supported; use {' or '.join(ASYNC_DRIVERS)}")
        if backend == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError("an in-memory SQLite database is private to one connection; name a file")
        return value

    @property
    def async_database_url(self) -> URL:
        """`database_url` with the asynchronous driver of its backend."""
        url = make_url(self.database_url)
        return url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()])


def explain(error: ValidationError) -> str:
    """One line for each setting that `error` refused, named as in the environment, for people."""
    return "\n".join(f"TaskFlow setting {_variable(item['loc'])}: {item['msg']}" for item in error.errors())


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "?"
    return f"TASKFLOW_{name.upper()}" if name in Settings.model_fields else name
