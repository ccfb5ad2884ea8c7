"""What routes ask for: the application and its parts, and a page of a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query
from fastapi.requests import HTTPConnection
from pydantic import BaseModel

from taskflow.actors.system import ActorSystem
from taskflow.application import Application
from taskflow.data.cache import Cache
from taskflow.data.database import Database
from taskflow.services.events import EventBus
from taskflow.services.notifications import NotificationService
from taskflow.services.reports import ReportGenerator
from taskflow.settings import Settings
from taskflow.web.schemas import LARGEST_ID, LARGEST_PAGE, Page

Out = TypeVar("Out", bound=BaseModel)


def _application(connection: HTTPConnection) -> Application:
    application: Application = connection.app.state.taskflow
    return application


def _settings(connection: HTTPConnection) -> Settings:
    return _application(connection).settings


def _database(connection: HTTPConnection) -> Database:
    return _application(connection).database


def _actors(connection: HTTPConnection) -> ActorSystem:
    return _application(connection).actors


def _bus(connection: HTTPConnection) -> EventBus:
    return _application(connection).bus


def _cache(connection: HTTPConnection) -> Cache:
    return _application(connection).cache


def _notifications(connection: HTTPConnection) -> NotificationService:
    return _application(connection).notifications


def _reports(connection: HTTPConnection) -> ReportGenerator:
    return _application(connection).reports


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a page begins (behind the id `after`) and how many items it holds at most."""

    after: Annotated[int, Query(ge=0, le=LARGEST_ID, description="show what follows this id")] = 0
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="at most so many items")] = 50

    def page(self, rows: Sequence[Any], kind: type[Out]) -> Page[Out]:
        """The answer for `rows`, of which one more than `limit` was asked for, to see whether more follow."""
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        return Page(
            items=[kind.model_validate(row) for row in shown], next_after=shown[-1].id if more else None
        )


CurrentApplication = Annotated[Application, Depends(_application)]
CurrentSettings = Annotated[Settings, Depends(_settings)]
CurrentDatabase = Annotated[Database, Depends(_database)]
CurrentActors = Annotated[ActorSystem, Depends(_actors)]
CurrentBus = Annotated[EventBus, Depends(_bus)]
CurrentCache = Annotated[Cache, Depends(_cache)]
CurrentNotifications = Annotated[NotificationService, Depends(_notifications)]
CurrentReports = Annotated[ReportGenerator, Depends(_reports)]
CurrentPaging = Annotated[Paging, Depends()]
PathId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
QueryId = Annotated[int | None, Query(ge=1, le=LARGEST_ID)]
