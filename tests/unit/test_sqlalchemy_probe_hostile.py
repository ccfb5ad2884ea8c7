"""Models and values whose own methods raise: the program's results are those of a run that is not watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Integer, String, TypeDecorator, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import ForeignKey

from pyscope.analysis import database_races, queries
from pyscope.events.sql import STATEMENT
from tests.unit.watching import watching

calls: list[str] = []


def _refuse(name: str) -> Any:
    def method(self: object, *arguments: object) -> NoReturn:
        calls.append(name)
        raise RuntimeError(f"{name} was called")

    return method


class Key:
    """A primary key of the program's own type; how often it is hashed and compared is counted."""

    asked = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Key.asked += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Key.asked += 1
        return isinstance(other, Key) and other.number == self.number

    __repr__ = _refuse("Key.__repr__")
    __index__ = _refuse("Key.__index__")

    def __getattr__(self, name: str) -> NoReturn:
        calls.append(f"Key.__getattr__ {name}")
        raise AttributeError(name)


class KeyType(TypeDecorator[Key]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> int | None:
        return value.number if type(value) is Key else value

    def process_result_value(self, value: Any, dialect: Any) -> Key | None:
        return None if value is None else Key(value)


class Base(DeclarativeBase):
    __repr__ = _refuse("__repr__")
    __str__ = _refuse("__str__")
    __eq__ = _refuse("__eq__")
    __hash__ = _refuse("__hash__")
    __bool__ = _refuse("__bool__")
    __len__ = _refuse("__len__")

    def __getattr__(self, name: str) -> NoReturn:
        calls.append(f"__getattr__ {name}")
        raise AttributeError(name)


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[Key] = mapped_column(KeyType, primary_key=True)
    name: Mapped[str] = mapped_column(String)
    notes: Mapped[str] = mapped_column(String, deferred=True)
    jars: Mapped[list[Jar]] = relationship(order_by="Jar.id")


class Jar(Base):
    __tablename__ = "jars"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[Key] = mapped_column(KeyType, ForeignKey("shelves.id"))
    label: Mapped[str] = mapped_column(default="")


def program() -> list[object]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    calls.clear()
    Key.asked = 0
    results: list[object] = []
    with Session(engine) as session:
        with session.no_autoflush:
            for number in range(1, 8):
                session.add(Shelf(id=Key(number), name=f"shelf {number}", notes="n"))
                session.add(Jar(id=number, shelf_id=Key(number)))
        session.commit()
        for shelf in session.scalars(select(Shelf).order_by(Shelf.id)).all():
            results.append((shelf.name, [jar.label for jar in shelf.jars], shelf.notes))
            shelf.name = shelf.name + "!"
        session.commit()
        shelf = session.get(Shelf, Key(3))
        assert shelf is not None
        results.append(shelf.name)
        results.append(session.execute(text("SELECT count(*) FROM jars")).scalar_one())
    engine.dispose()
    return [*results, list(calls), Key.asked]


def test_the_program_runs_as_if_it_were_not_watched(tmp_path: Path) -> None:
    expected = program()
    with watching(tmp_path, "sqlalchemy") as watch:
        assert program() == expected
        assert watch.probe("sqlalchemy").faults == 0
    assert len(watch.trace.probe_events(STATEMENT)) > 20
    found = {(issue.cause, issue.relationship) for issue in queries.find(watch.trace)}
    assert {("collection", "Shelf.jars"), ("deferred", "Shelf.notes")} <= found
    assert database_races.find(watch.trace) == []
