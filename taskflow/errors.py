"""What can go wrong in TaskFlow's own terms; the web layer turns each into a problem document."""

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
