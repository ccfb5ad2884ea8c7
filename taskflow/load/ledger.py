"""The ledger of a load: what the service acknowledged to its clients, to be held against the database."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Ledger:
    """Every change that was answered with success.

    The tasks of a load bear `title`, so that those which the service stored can be told from others.
    `unanswered` counts changes whose fate is unknown: asked for, and no answer came.
    """

    title: str
    created: list[int] = field(default_factory=list)
    taken: list[tuple[int, int]] = field(default_factory=list)
    assigned: list[tuple[int, int]] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    minutes: dict[int, int] = field(default_factory=dict)
    watched: list[int] = field(default_factory=list)
    unanswered: int = 0

    def add_minutes(self, task_id: int, minutes: int) -> None:
        """Note time that was spent on a task."""
        self.minutes[task_id] = self.minutes.get(task_id, 0) + minutes

    def write(self, path: Path) -> None:
        """Keep the ledger as JSON in `path`."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """The ledger in `path`; ValueError when there is another thing in it, OSError when nothing."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["minutes"] = {int(task): minutes for task, minutes in values["minutes"].items()}
            for name in ("taken", "assigned"):
                values[name] = [(task, user) for task, user in values[name]]
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is not the ledger of a load: {error}") from error
