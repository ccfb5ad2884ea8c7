"""The SQLAlchemy probe: what it tells, and that SQLAlchemy and the program are as they were."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, String, create_engine, event, exc, select, text, update
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_cursor
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.orm.instrumentation import ClassManager
from sqlalchemy.pool import StaticPool

from pyscope import _hook, emitter, probes
from pyscope.errors import PyScopeWarning
from pyscope.events.sql import ROW, STATEMENT, TRANSACTION, Load, Operation, Step, Touch
from pyscope.probes import sqlalchemy as sqlalchemy_module
from pyscope.probes.sql import loads as loads_module
from pyscope.probes.sql import statements as statements_module
from pyscope.probes.sqlalchemy import SQLAlchemyProbe
from pyscope.trace import Trace
from tests.unit.watching import DEADLINE, watching

SECRET = "correct horse battery staple"


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    size: Mapped[int] = mapped_column(default=0)
    members: Mapped[list[Member]] = relationship(back_populates="team")


class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id", deferrable=True, initially="DEFERRED"))
    team: Mapped[Team] = relationship(back_populates="members")


def use(monkeypatch: pytest.MonkeyPatch, compiled: object) -> None:
    """The compiled paths from here on, or with None the Python twins."""
    for module in (statements_module, sqlalchemy_module):
        monkeypatch.setattr(module, "_compiled", compiled)


@pytest.fixture(autouse=True, params=["compiled", "python"])
def path_of_statements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test is of the compiled paths of statements and transactions, and of their Python twins."""
    if request.param == "python":
        use(monkeypatch, None)
    return str(request.param)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Team(id=key, name=f"team {key}", members=[Member()]) for key in range(1, 4))
        session.commit()
    yield engine
    engine.dispose()


def statements(trace: Trace) -> list[Any]:
    return list(trace.probe_events(STATEMENT).records())


def steps(trace: Trace) -> list[Step]:
    return [Step(row.step) for row in trace.probe_events(TRANSACTION).records()]


def rows(trace: Trace) -> list[tuple[Touch, str, str]]:
    return [(Touch(row.touch), row.table, row.columns) for row in trace.probe_events(ROW).records()]


def found_state() -> dict[str, object]:
    """Everything of SQLAlchemy's classes that listeners change."""
    state: dict[str, object] = {}
    for cls in (Engine, Dialect, ClassManager, Session):
        state[f"{cls.__name__}._has_events"] = cls.__dict__.get("_has_events", "missing")
        for name in cls.dispatch._event_names:
            state[f"{cls.__name__}.{name}"] = list(getattr(cls.dispatch, name)._clslevel.get(cls, ()))
    state |= {f"Connection.{name}": method for name, method in vars(Connection).items() if callable(method)}
    return state


def test_sqlalchemy_is_left_as_it_was_found(engine: Engine, tmp_path: Path) -> None:
    before = found_state()
    with watching(tmp_path, "sqlalchemy"):
        assert found_state() != before
        with Session(engine) as session:
            session.scalars(select(Team)).all()
    assert found_state() == before


def test_listeners_of_the_program_stay(engine: Engine, tmp_path: Path) -> None:
    heard: list[str] = []

    def listener(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        heard.append(statement)

    event.listen(Engine, "before_cursor_execute", listener)
    try:
        before = found_state()
        with watching(tmp_path, "sqlalchemy"), engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        assert found_state() == before
        with engine.connect() as connection:
            connection.execute(text("SELECT 2"))
        assert heard == ["SELECT 1", "SELECT 2"]
    finally:
        event.remove(Engine, "before_cursor_execute", listener)


def test_connections_dispatch_no_events_for_our_sake(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "_has_events", False)
    with watching(tmp_path, "sqlalchemy") as watch, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert not Engine._has_events
    assert len(statements(watch.trace)) == 1


def test_a_listener_of_the_program_that_does_the_drivers_work_goes_on_to_do_it(
    engine: Engine, tmp_path: Path
) -> None:
    heard: list[str] = []

    def refuses(_cursor: Any, statement: str, *_rest: Any) -> bool:
        heard.append(statement)
        return False

    def answers(cursor: Any, statement: str, *_rest: Any) -> bool:
        cursor.execute("SELECT 'another'")
        return True

    event.listen(engine, "do_execute", refuses)
    event.listen(engine, "do_execute", answers)
    with watching(tmp_path, "sqlalchemy") as watch, engine.connect() as connection:
        assert connection.execute(text("SELECT :a"), {"a": 1}).scalar() == "another"
        assert connection.execute(text("SELECT 1")).scalar() == "another"
        event.remove(engine, "do_execute", answers)
        assert connection.execute(text("SELECT 'from the database'")).scalar() == "from the database"
    assert heard == ["SELECT ?", "SELECT 1", "SELECT 'from the database'"]
    # What the listener has answered by itself was handed to no driver.
    assert [row.statement for row in statements(watch.trace)] == ["SELECT ?"]


class Derived(SQLiteDialect_pysqlite):
    """A dialect of somebody else's: one of its methods goes on to its base's, the other does not."""

    supports_statement_cache = True

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        super().do_execute(cursor, statement, parameters, context=context)

    def do_executemany(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        cursor.executemany(statement, parameters)


def test_statements_of_a_derived_dialect_are_told_once_each(tmp_path: Path) -> None:
    registry.register("sqlite.derived", __name__, "Derived")
    before = dict(vars(Derived))
    with (
        watching(tmp_path, "sqlalchemy") as watch,
        create_engine("sqlite+derived://").connect() as connection,
    ):
        connection.execute(text("CREATE TABLE t (a)"))
        connection.execute(text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
        assert connection.execute(text("SELECT sum(a) FROM t")).scalar() == 3
        connection.exec_driver_sql("SELECT 1", execution_options={"no_parameters": True})
    assert [row.statement for row in statements(watch.trace)] == [
        "CREATE TABLE t (a)", "INSERT INTO t VALUES (?)", "SELECT sum(a) FROM t", "SELECT ?",
    ]  # fmt: skip
    assert dict(vars(Derived)) == before


class FurtherDerived(Derived):
    """One that overrides what its base has overridden."""

    supports_statement_cache = True

    def do_executemany(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        super().do_executemany(cursor, statement, parameters, context)


def test_a_dialect_is_watched_though_one_that_derives_from_it_came_first(tmp_path: Path) -> None:
    found = []
    for name in ("FurtherDerived", "Derived"):
        registry.register(f"sqlite.{name.lower()}", __name__, name)
    with watching(tmp_path, "sqlalchemy") as watch:
        for name in ("furtherderived", "derived", "furtherderived"):
            with create_engine(f"sqlite+{name}://").connect() as connection:
                connection.execute(text(f"CREATE TABLE {name} (a)"))
                connection.execute(text(f"INSERT INTO {name} VALUES (:a)"), [{"a": 1}, {"a": 2}])
            found += [f"CREATE TABLE {name} (a)", f"INSERT INTO {name} VALUES (?)"]
    assert [row.statement for row in statements(watch.trace)] == found


def test_a_statement_that_is_refused_is_told_with_the_errors_type(engine: Engine, tmp_path: Path) -> None:
    with watching(tmp_path, "sqlalchemy") as watch, engine.connect() as connection:
        with pytest.raises(exc.OperationalError):
            connection.execute(text("SELECT * FROM nowhere"))
        with pytest.raises(exc.IntegrityError):
            connection.execute(
                text("INSERT INTO teams (id, name, size) VALUES (:id, 'x', 1)"), [{"id": 1}] * 2
            )
    assert [(row.operation, row.error) for row in statements(watch.trace)] == [
        (Operation.SELECT, "OperationalError"),
        (Operation.INSERT, "IntegrityError"),
    ]
    assert steps(watch.trace) == [Step.BEGIN, Step.ROLLBACK]


def test_a_statement_that_is_being_run_does_not_keep_the_probe(engine: Engine, tmp_path: Path) -> None:
    began, end = threading.Event(), threading.Event()
    found: list[Any] = []

    def slowly() -> int:
        began.set()
        return int(end.wait(DEADLINE))

    def work() -> None:
        with engine.connect() as connection:
            connection.connection.driver_connection.create_function("slowly", 0, slowly)
            found.append(connection.execute(text("SELECT slowly()")).scalar())

    before = found_state()
    thread = threading.Thread(target=work)
    with watching(tmp_path, "sqlalchemy"):
        thread.start()
        assert began.wait(DEADLINE)
    assert found_state() == before
    end.set()
    thread.join(DEADLINE)
    assert found == [1]


def test_engines_and_connections_are_seen_once_each_whenever_they_were_made(
    engine: Engine, tmp_path: Path
) -> None:
    early = engine.connect()
    with watching(tmp_path, "sqlalchemy") as watch:
        early.execute(text("SELECT 'early connection'"))
        with engine.execution_options(any_option=1).connect() as connection:
            connection.execute(text("SELECT 'early engine' AS a"))
        with create_engine("sqlite://").connect() as connection:
            connection.execute(text("SELECT 'late engine' AS b"))
    early.close()
    assert [row.statement for row in statements(watch.trace)] == [
        "SELECT ?",
        "SELECT ? AS a",
        "SELECT ? AS b",
    ]


def test_no_select_to_sqlite_is_asked_for_rows_that_it_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    count = AsyncAdapt_dbapi_cursor.rowcount.fget

    def rowcount(cursor: Any) -> int:
        asked.append(count(cursor))
        return asked[-1]

    async def work() -> list[int]:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE things (id INTEGER)"))
            await connection.execute(text("INSERT INTO things VALUES (1), (2)"))
            asked.clear()
            await connection.execute(text("SELECT id FROM things"))
            of_the_select = list(asked)
            await connection.execute(text("UPDATE things SET id = id + 1"))
        await engine.dispose()
        return of_the_select

    monkeypatch.setattr(AsyncAdapt_dbapi_cursor, "rowcount", property(rowcount))
    untraced = asyncio.run(work())
    with watching(tmp_path, "sqlalchemy") as watch:
        assert asyncio.run(work()) == untraced
    rows = {row.statement.split()[0]: row.rows for row in statements(watch.trace)}
    assert (rows["SELECT"], rows["UPDATE"]) == (-1, 2)


def test_an_asynchronous_engine_is_attached_to_once(tmp_path: Path) -> None:
    async def work() -> None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add(Team(id=1, name="one"))
            await session.commit()
            await session.get(Team, 1, populate_existing=True)
        await engine.dispose()

    with watching(tmp_path, "sqlalchemy") as watch:
        asyncio.run(work())
    found = [row for row in statements(watch.trace) if row.operation != Operation.OTHER]
    assert [(Operation(row.operation), Load(row.load)) for row in found] == [
        (Operation.INSERT, Load.NONE),
        (Operation.SELECT, Load.GET),
    ]
    assert all(row.duration_ns > 0 for row in found)
    places = [place.function for row in found for place in row.stack if not place.file.startswith("<")]
    assert places[0].endswith("work")  # beyond the greenlet


def test_no_value_of_a_parameter_or_literal_is_recorded(engine: Engine, tmp_path: Path) -> None:
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        session.scalars(select(Team).where(Team.name == SECRET)).all()
        session.add(Team(id=77, name=SECRET))
        session.flush()
        session.execute(text(f"SELECT * FROM teams WHERE name = '{SECRET}' -- {SECRET}"))
        with pytest.raises(exc.IntegrityError):
            session.execute(text("INSERT INTO teams (id, name) VALUES (77, :name)"), {"name": SECRET})
        session.rollback()
        with pytest.raises(exc.OperationalError):
            session.execute(text(f'SELECT nonsense FROM "{SECRET}x"'))
    assert [row.error for row in statements(watch.trace)][-2:] == ["IntegrityError", "OperationalError"]
    data = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    trace_strings = [string for string in watch.trace.strings if SECRET in string]
    assert trace_strings == [f'SELECT nonsense FROM "{SECRET}x"']  # a name, as far as anyone can tell
    assert data


def test_what_a_statement_was_sent_for(engine: Engine, tmp_path: Path) -> None:
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        team = session.get_one(Team, 1)
        assert team.members
        session.expire(team)
        assert team.name
        session.refresh(team)
        member = session.scalars(select(Member).where(Member.id == 2)).one()
        assert member.team
        session.scalars(select(Team).options(selectinload(Team.members))).all()
        session.execute(text("SELECT count(*) FROM teams"))
    assert [(Load(row.load).name, row.relationship) for row in statements(watch.trace)] == [
        ("GET", ""),
        ("COLLECTION", "Team.members"),
        ("EXPIRED", "Team"),
        ("REFRESH", "Team"),
        ("QUERY", ""),
        ("SCALAR", "Member.team"),
        ("QUERY", ""),
        ("EAGER", "Team.members"),
        ("NONE", ""),
    ]
    lazy = statements(watch.trace)[1]
    assert lazy.parent
    assert lazy.parent_statement == statements(watch.trace)[0].statement


def test_steps_of_transactions(engine: Engine, tmp_path: Path) -> None:
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        session.get_one(Team, 1).size = 1
        nested = session.begin_nested()
        session.get_one(Team, 2).size = 2
        session.flush()
        nested.rollback()
        with session.begin_nested():
            session.get_one(Team, 3).size = 3
        session.commit()
        session.scalars(select(Team)).all()
    assert steps(watch.trace) == [
        Step.BEGIN,
        Step.SAVEPOINT,
        Step.ROLLBACK_TO,
        Step.SAVEPOINT,
        Step.RELEASE,
        Step.COMMIT,
        Step.BEGIN,
        Step.ROLLBACK,
    ]
    written = [row for row in rows(watch.trace) if row[0] is Touch.WRITE]
    assert written == [(Touch.WRITE, "teams", "size")] * 2  # not what the savepoint took back


def test_a_transaction_that_only_reads_or_is_rolled_back_tells_no_rows(
    engine: Engine, tmp_path: Path
) -> None:
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        session.scalars(select(Team)).all()
        session.commit()
        session.get_one(Team, 1).size = 5
        session.flush()
        session.rollback()
    assert rows(watch.trace) == []


def test_a_refused_commit_is_told(engine: Engine, tmp_path: Path) -> None:
    with engine.connect() as connection:
        connection.execute(text("PRAGMA foreign_keys = ON"))
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        session.add(Member(team_id=999))
        with pytest.raises(exc.IntegrityError):
            session.commit()
    assert steps(watch.trace)[:3] == [Step.BEGIN, Step.COMMIT, Step.FAILED]


def test_values_of_the_program_are_told_from_those_of_the_database(engine: Engine, tmp_path: Path) -> None:
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        team = session.get_one(Team, 1)
        team.size = Team.size + 1
        team.name = "new"
        session.flush()
        session.execute(update(Team).where(Team.id == 2, Team.size == 0).values(size=5))
        session.execute(update(Team).where(Team.id == 3, Team.size == 8).values(size=5))  # changes nothing
        session.commit()
    written = [row for row in trace_rows(watch.trace) if row.touch == Touch.WRITE]
    assert [(row.columns, row.computed, row.guards) for row in written] == [
        ("name", "size", ""),
        ("size", "", "size"),
    ]


def trace_rows(trace: Trace) -> list[Any]:
    return list(trace.probe_events(ROW).records())


def test_what_is_remembered_is_bounded(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads_module, "MOST_STATEMENTS", 50)
    with Session(engine) as session:
        session.add_all(Team(id=key, name="x") for key in range(100, 4000))
        session.commit()
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as session:
        teams = session.scalars(select(Team).order_by(Team.id)).all()
        assert len(teams) > 3000
        for team in teams[:100]:
            session.refresh(team)
        loads = watch.probe("sqlalchemy")._here.loads
        assert all(len(each) <= 2 * loads_module.MOST_ROWS for each in loads.rows)
        assert all(len(each) <= 50 for each in loads.sent)
        teams[0].size = 1
        session.commit()
        assert loads.rows == ([], [])  # no transaction is open
    assert 1 < len(rows(watch.trace)) <= 1001


def test_rows_of_ended_transactions_are_forgotten_while_another_stays_open(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'teams.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Team(id=key, name="x") for key in range(1, 41))
        session.commit()
    with watching(tmp_path, "sqlalchemy") as watch, Session(engine) as patient:
        mine = patient.scalars(select(Team).where(Team.id < 3)).all()
        loads = watch.probe("sqlalchemy")._here.loads
        for _ in range(50):
            with Session(engine) as hasty:
                assert len(hasty.scalars(select(Team)).all()) == 40
                assert len(loads.rows[0]) == len(loads.rows[1]) <= loads_module.FEW_ROWS
        mine[0].size = 1
        patient.commit()
    engine.dispose()
    told = rows(watch.trace)
    assert [touch for touch, _, _ in told].count(Touch.READ) == 2  # what it read first is not forgotten
    assert [touch for touch, _, _ in told].count(Touch.WRITE) == 1


def test_what_is_known_of_connections_that_are_gone_is_bounded(engine: Engine, tmp_path: Path) -> None:
    def asks(connection: Connection) -> Connection:
        connection.execute(text("SELECT 1"))
        return connection

    with watching(tmp_path, "sqlalchemy") as watch:
        known = watch.probe("sqlalchemy")._connections
        with engine.connect() as first:
            asks(first)
            for _ in range(3):
                crowd = [asks(engine.connect()) for _ in range(200)]
                assert len(known) > 200
                for connection in crowd:
                    connection.close()
                del connection, crowd
                gc.collect()
            few = [asks(engine.connect()) for _ in range(100)]
            assert len(known) <= known.most <= 512
            for connection in few:
                connection.close()
            asks(first)
    numbers = [row.connection for row in statements(watch.trace)]
    assert len(set(numbers)) == 701  # one that is made at the address of another is not taken for it
    assert numbers[0] == numbers[-1]


def test_without_a_recording_nothing_is_kept(engine: Engine) -> None:
    probes.acquire(["sqlalchemy"])
    try:
        with Session(engine) as session:
            session.get_one(Team, 1).size = 9
            session.commit()
        probe: Any = probes.installed("sqlalchemy")
        assert probe.faults == 0
        assert probe._here.loads.rows == ([], [])
    finally:
        probes.release(["sqlalchemy"])


def test_threads_that_run_statements_do_not_notice_coming_and_going(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'busy.db'}")
    Base.metadata.create_all(engine)
    heard = threading.Event()

    @event.listens_for(engine, "before_cursor_execute")
    def _listener(*_arguments: Any) -> None:
        heard.set()
        sum(range(200))  # a listener that takes its time: threads change within it

    failures: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1 FROM teams"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert heard.wait(DEADLINE)
    before = found_state()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(20):
            probes.acquire(["sqlalchemy"])
            probes.release(["sqlalchemy"])
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        for thread in threads:
            thread.join()
        engine.dispose()
    assert failures == []
    assert found_state() == before


def test_a_probe_that_fails_removes_itself_and_the_program_goes_on(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> str:
        raise RuntimeError("broken on purpose")

    before = found_state()
    with watching(tmp_path, "sqlalchemy") as watch:
        monkeypatch.setattr(emitter, "next_id", broken)
        with warnings.catch_warnings(record=True) as told, Session(engine) as session:
            warnings.simplefilter("always")
            for _ in range(20):
                assert len(session.scalars(select(Team)).all()) == 3
        assert [type(warning.message) for warning in told] == [PyScopeWarning]
        assert "has removed itself" in str(told[0].message)
        assert watch.probe("sqlalchemy").faults >= 10
        end = time.monotonic() + DEADLINE
        while found_state() != before:
            assert time.monotonic() < end, "it is still there"
            time.sleep(0.01)


def test_both_paths_tell_the_same(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(name: str, compiled: Any) -> list[dict[str, Any]]:
        use(monkeypatch, compiled)
        (tmp_path / name).mkdir()
        with watching(tmp_path / name, "sqlalchemy") as watch:
            tells_all(engine)
        return [
            {field: value for field, value in row._asdict().items() if field not in of_one_run}
            | {"stack": getattr(row, "stack", ())[:1]}
            for kind in (STATEMENT, TRANSACTION, ROW)
            for row in watch.trace.probe_events(kind).records()
        ]

    of_one_run = {
        "time_ns",
        "number",
        "duration_ns",
        "connection",
        "transaction",
        "process",
        "thread",
        "arguments",
    }
    compiled = told("compiled", _hook)
    assert compiled == told("python", None)
    assert {row.get("step", 0) for row in compiled} >= {Step.BEGIN, Step.COMMIT, Step.ROLLBACK, Step.FAILED}
    assert {row.get("load") for row in compiled} >= {
        Load.COLLECTION,
        Load.SCALAR,
        Load.GET,
        Load.EXPIRED,
        Load.QUERY,
    }


def tells_all(engine: Engine) -> None:
    """Statements of all kinds, and transactions that end in each way."""
    with Session(engine) as session:
        for team in session.scalars(select(Team).order_by(Team.id)):
            assert team.members
        session.expire_all()
        assert session.get_one(Team, 2).members[0].team.name == "team 2"
        session.execute(text("SELECT count(*) FROM teams")).scalar()
        session.execute(update(Team).where(Team.id == 1).values(size=Team.size + 1))
        session.get_one(Team, 3).size += 1
        session.rollback()
        session.execute(text("SELECT :value"), {"value": 2**70 % 97})
        with pytest.raises(exc.OperationalError):
            session.execute(text("SELECT nothing FROM nowhere"))
        session.rollback()
        session.execute(text("PRAGMA foreign_keys = ON"))
        session.get_one(Team, 1).size += 7
        session.add(Member(team_id=999))
        with pytest.raises(exc.IntegrityError):
            session.commit()
        session.rollback()


@pytest.mark.parametrize(
    "name", ["opened", "started", "follow", "known_of", "purpose", "fingerprint", "template_of"]
)
def test_what_a_statement_asks_may_raise(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError(name)

    owner: Any = next(
        owner for owner in (statements_module, SQLAlchemyProbe, loads_module.Loads) if name in vars(owner)
    )
    tells_all(engine)
    monkeypatch.setattr(owner, name, fails)
    monkeypatch.setattr(statements_module, "compiled_statements", {})
    with engine.connect() as begun_before:
        begun_before.execute(text("SELECT 1"))
        with watching(tmp_path, "sqlalchemy") as watch:
            begun_before.execute(text("SELECT 2"))
            tells_all(engine)
            faults = watch.probe("sqlalchemy").faults
    assert faults
