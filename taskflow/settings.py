"""TaskFlow's settings, all from the environment, checked once at the start."""

from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from taskflow.faults import DEFAULT_FAULTS, parse_faults

# psycopg speaks to PostgreSQL on both sides, asynchronously and synchronously.
ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
SYNC_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}

EMBEDDED = "embedded"
OFF = "off"
CACHE_SCHEMES = ("redis", "rediss", "unix")


class Settings(BaseSettings):
    """What can be set, with its default. Each field `x` is read from `TASKFLOW_X`."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_", extra="ignore", populate_by_name=True)

    database_url: str = Field(
        default="sqlite:///taskflow.db",
        validation_alias=AliasChoices("DATABASE_URL", "TASKFLOW_DATABASE_URL"),
        description="SQLite file or PostgreSQL server; the driver is added when it is left out",
    )
    database_pool_size: int = Field(
        default=8, ge=1, le=100, description="most connections at a time, of coroutines and of threads each"
    )
    redis_url: str = Field(
        default=EMBEDDED,
        validation_alias=AliasChoices("REDIS_URL", "TASKFLOW_REDIS_URL"),
        description="the cache: embedded (a Valkey of TaskFlow's own), off, or redis://, rediss://, unix://",
    )
    cache_seconds: int = Field(
        default=30, ge=1, le=86_400, description="how long the cache keeps what nothing has changed"
    )
    faults: Annotated[frozenset[str], NoDecode] = Field(
        default=DEFAULT_FAULTS, description="comma-separated names out of taskflow.faults, or none"
    )
    pyscope: Path | None = Field(
        default=None, description="record this service with PyScope into that file; off when unset"
    )
    pyscope_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("PYSCOPE_TOKEN", "TASKFLOW_PYSCOPE_TOKEN"),
        description="opens PyScope's dashboard at /admin/pyscope, a long secret; no dashboard when unset",
    )
    pyscope_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated names under which that dashboard is reached, beside localhost",
    )
    shutdown_seconds: int = Field(
        default=10, ge=1, le=600, description="how long requests in flight may take after SIGTERM"
    )
    command_queue: int = Field(
        default=2000, ge=1, le=1_000_000, description="most commands on tasks that wait; further ones get 503"
    )
    command_seconds: float = Field(
        default=60.0, gt=0, le=600, description="how long a command may wait and take; then it gets 503"
    )
    worker_queue: int = Field(
        default=1000, ge=1, le=1_000_000, description="most messages a project's worker keeps; the oldest go"
    )
    smtp_url: SecretStr | None = Field(
        default=None, description="smtp://[user:password@]host[:port] or smtps://…; no e-mail when unset"
    )
    mail_sender: str = Field(default="taskflow@localhost", description="the From of notifications")
    webhook_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="comma-separated http(s) addresses that are told of every change"
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        validate_default=True,
        description="signs webhooks; needed where webhook_urls is set",
    )
    storage_url: str = Field(
        default="taskflow-files", description="a folder, or any fsspec URL, where files are kept"
    )
    external_retries: int = Field(
        default=3, ge=0, le=10, description="retries after the first attempt of a call to another service"
    )
    external_step_seconds: float = Field(
        default=5.0, gt=0, le=300, description="how long such a call waits to connect, or for one answer"
    )
    external_attempt_seconds: float = Field(
        default=10.0, gt=0, le=600, description="how long one attempt may take as a whole"
    )
    external_call_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="how long all attempts may take, with the waits between"
    )
    external_backoff_seconds: float = Field(
        default=0.2, ge=0, le=60, description="the first wait; each further one is twice as long, plus jitter"
    )
    external_backoff_max_seconds: float = Field(
        default=5.0, ge=0, le=600, description="the longest wait, also where a server asks for a longer one"
    )
    notification_concurrency: int = Field(
        default=4, ge=1, le=100, description="deliveries at a time, by e-mail and by webhook each"
    )
    notification_queue: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="notifications of a channel held in memory; more wait on disk",
    )
    notification_retry_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="when a failed delivery is due again; doubles up to an hour",
    )
    report_max_restarts: int = Field(
        default=3, ge=0, le=100, description="how often a report's process may crash and be started again …"
    )
    report_restart_seconds: float = Field(default=60.0, gt=0, le=3600, description="… within that time")

    @field_validator("faults", mode="before")
    @classmethod
    def _known_faults(cls, value: str | frozenset[str]) -> frozenset[str]:
        return parse_faults(value)

    @field_validator("pyscope", "pyscope_token", "smtp_url", mode="before")
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

    @field_validator("redis_url")
    @classmethod
    def _usable_cache(cls, value: str) -> str:
        value = value or EMBEDDED
        if value not in (EMBEDDED, OFF) and _split(value).scheme not in CACHE_SCHEMES:
            raise ValueError(f"not a cache; use {EMBEDDED}, {OFF}, or for example redis://localhost:6379")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _usable_mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = _split(value.get_secret_value())
            if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
                raise ValueError("not a mail server; an example: smtp://mail.example:25")
        return value

    @field_validator("webhook_urls", "pyscope_hosts", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return [url.strip() for url in value.split(",") if url.strip()] if isinstance(value, str) else value

    @field_validator("webhook_urls")
    @classmethod
    def _usable_webhooks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            parts = _split(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url} is not an http or https address")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhooks_are_signed(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("webhook_urls") and not value.get_secret_value():
            raise ValueError("webhooks have to be signed; set a secret that their receivers know")
        return value

    @field_validator("storage_url")
    @classmethod
    def _usable_storage(cls, value: str) -> str:
        if value and "://" not in value:
            return value
        from fsspec.registry import known_implementations

        if value.partition("://")[0].partition("::")[0] not in known_implementations:
            raise ValueError("not a folder nor an fsspec URL; examples: taskflow-files, s3://bucket/folder")
        return value

    @property
    def async_database_url(self) -> URL:
        """`database_url` with the asynchronous driver of its backend."""
        url = make_url(self.database_url)
        return url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()])

    @property
    def sync_database_url(self) -> URL:
        """`database_url` with the synchronous driver of its backend."""
        url = make_url(self.database_url)
        return url.set(drivername=SYNC_DRIVERS[url.get_backend_name()])


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    _ = parts.port  # ValueError where it is not a port
    return parts


def explain(error: ValidationError) -> str:
    """One line for each setting that `error` refused, named as in the environment, for people."""
    return "\n".join(f"TaskFlow setting {_variable(item['loc'])}: {item['msg']}" for item in error.errors())


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "?"
    return f"TASKFLOW_{name.upper()}" if name in Settings.model_fields else name
