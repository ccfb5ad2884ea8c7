"""What can go wrong in TaskFlow's own terms; the web layer turns each into a problem document."""

from collections.abc import Iterable

from taskflow.data.models import TaskStatus


class TaskFlowError(Exception):
    """Base of every error TaskFlow raises on purpose."""


class NotFound(TaskFlowError):
    """The thing the caller addressed does not exist."""

    def __init__(self, kind: str, identity: int) -> None:
        super().__init__(f"There is no {kind} with id {identity}.")
        self.kind = kind
        self.identity = identity


class UnknownReference(TaskFlowError):
    """A valid request names another thing (an assignee, an owner) that does not exist."""

    def __init__(self, field: str, kind: str, identity: int) -> None:
        super().__init__(f"{field} refers to {kind} {identity}, which does not exist.")
        self.field = field


class InvalidTransition(TaskFlowError):
    """The task is not in the state from which the wanted transition leads."""

    def __init__(self, task_id: int, current: TaskStatus, wanted: TaskStatus) -> None:
        super().__init__(f"Task {task_id} is {current.value} and cannot become {wanted.value}.")
        self.task_id = task_id
        self.current = current
        self.wanted = wanted


class NothingAvailable(TaskFlowError):
    """The project has no open task that could be assigned."""

    def __init__(self, project_id: int) -> None:
        super().__init__(f"Project {project_id} has no open task.")
        self.project_id = project_id


class AlreadyWatching(TaskFlowError):
    """The user watches the task already."""

    def __init__(self, task_id: int, user_id: int) -> None:
        super().__init__(f"User {user_id} watches task {task_id} already.")


class LastWatcher(TaskFlowError):
    """An urgent task keeps at least one watcher."""

    def __init__(self, task_id: int) -> None:
        super().__init__(f"Task {task_id} is urgent and would be left without a watcher.")
        self.task_id = task_id


class Busy(TaskFlowError):
    """A part of TaskFlow cannot take the request now; the same request may succeed a little later."""


class NothingToReport(TaskFlowError):
    """No task was created in that year."""

    def __init__(self, year: int) -> None:
        super().__init__(f"No task was created in {year}.")


class ReportNotReady(TaskFlowError):
    """The report has no file yet, or never will."""


class ReportsUnavailable(TaskFlowError):
    """This service cannot make reports as it is set up."""


class OutdatedSchema(TaskFlowError):
    """The database was made by an older TaskFlow; there are no migrations."""

    def __init__(self, table: str, columns: Iterable[str]) -> None:
        super().__init__(
            f"The table {table} lacks {', '.join(sorted(columns))}: an older TaskFlow made this database. "
            "Name a new one with DATABASE_URL, or remove it and run `python -m taskflow seed` again."
        )
