"""All findings of a trace, worst first; and what the report prints of them."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import threading
import time
from contextvars import copy_context
from operator import attrgetter
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import pyscope
from pyscope.analysis.call_sites import call_site
from pyscope.analysis.ranking import Ranking, rank
from pyscope.probes.scope import Scope
from pyscope.report_findings import render
from pyscope.rows import Location


class Base(DeclarativeBase): ...


class Shop(Base):
    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"))
    shop: Mapped[Shop] = relationship(Shop)


def shops_of_items(engine: object) -> int:
    with Session(engine) as session:  # type: ignore[arg-type]
        return len([item.shop for item in session.scalars(select(Item))])


def dawdle() -> None:
    time.sleep(1.05)


def crash() -> None:
    raise OSError("the shop is closed")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranking") / "run.pyscope"
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Item(shop=Shop()) for _ in range(8)])
        session.commit()
    hook, threading.excepthook = threading.excepthook, lambda arguments: None
    try:
        with pyscope.record(path, modules=[__name__], probes=["auto"]):
            for _ in range(3):
                shops_of_items(engine)
            thread = threading.Thread(target=crash, name="seller")
            thread.start()
            thread.join()
    finally:
        threading.excepthook = hook
    return path


@pytest.fixture
def ranking(recording: Path) -> Ranking:
    found = rank(pyscope.load(recording))
    assert found is not None
    return found


def test_what_fails_comes_before_what_is_slow(ranking: Ranking) -> None:
    kinds = [row.kind for row in ranking.findings]
    assert kinds.index("child_terminated") < kinds.index("n_plus_one_query")
    weights = [(-row.severity, -row.weight) for row in ranking.findings]
    assert weights == sorted(weights)


def test_a_finding_says_what_where_why_and_what_to_change(ranking: Ranking) -> None:
    [queries] = [row for row in ranking.findings if row.kind == "n_plus_one_query"]
    assert "Item.shop, 24 statements" in queries.what
    assert queries.where is not None
    assert queries.where.file == __file__
    assert "one by one" in queries.why
    assert "joinedload(Item.shop)" in queries.change
    [crashed] = [row for row in ranking.findings if row.kind == "child_terminated"]
    assert "seller" in crashed.what
    assert "the shop is closed" in crashed.why


def test_the_findings_of_a_trace_can_be_had_in_python(recording: Path, ranking: Ranking) -> None:
    found = pyscope.diagnose(pyscope.load(recording))
    assert found[: len(ranking.findings)] == list(ranking.findings)
    assert found[0].severity == max(finding.severity for finding in found)


def test_a_program_that_answers_by_its_exit_code_has_not_crashed(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=[__name__], probes=["supervision"]):
        subprocess.run([sys.executable, "-c", "raise SystemExit(2)"])
        with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
            assert endless.stdout is not None
            endless.stdout.readline()
        assert endless.returncode == -signal.SIGPIPE
    [found] = pyscope.diagnose(pyscope.load(tmp_path / "run"))
    assert found.what.endswith(" ended with exit code 2 (subprocess)")
    assert found.severity == 2


def test_what_has_no_place_in_the_program_says_in_which_requests_it_was(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)

    def body() -> None:
        with Session(engine) as session:
            session.add_all([Item(shop=Shop()) for _ in range(8)])
            session.commit()
        for name in ("GET /items", "GET /all", "GET /items"):
            with Session(engine) as session, Scope("request", name):
                items = session.scalars(select(Item)).all()
                # Nothing but library code on its stack, as where a serializer reads what it was told to.
                reads = list, map(attrgetter("shop"), items)
                thread = threading.Thread(target=copy_context().run, args=reads)
                thread.start()
                thread.join()

    with pyscope.record(tmp_path / "run.pyscope", modules=["nothing"], probes=["sqlalchemy"]):
        body()
    [found] = pyscope.diagnose(pyscope.load(tmp_path / "run.pyscope"))
    assert found.kind == "n_plus_one_query"
    assert found.where is None
    assert "It was in GET /items, GET /all." in found.why


def test_a_command_of_multiprocessing_and_code_that_a_library_makes_are_no_place() -> None:
    given, own = Location("<string>", 1, "<module>"), Location("/srv/shop/web.py", 7, "order")
    assert call_site((given,)).line == 0
    assert call_site((own, given)) == own
    assert call_site((Location("<string>", 3, "order"), given)).line == 3
    assert call_site((Location("handle_request", 99, "handle_request"), own)) == own  # as Sanic makes it
    assert call_site((Location("handle_request", 99, "handle_request"),)).line == 0


def test_the_same_finding_again_and_again_is_one_row(ranking: Ranking) -> None:
    places = [(row.kind, row.where, row.what) for row in ranking.findings]
    assert len(places) == len(set(places))


def test_the_limit_counts_what_it_leaves_out(recording: Path, ranking: Ranking) -> None:
    cut = rank(pyscope.load(recording), limit=1)
    assert cut is not None
    assert (len(cut.findings), cut.more) == (1, len(ranking.findings) - 1)


def test_a_time_is_told_in_the_unit_that_suits_it(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=[__name__], probes=["gc"]):
        dawdle()
    [slow] = pyscope.diagnose(pyscope.load(tmp_path / "run"))
    assert re.fullmatch(r"dawdle slow: 1 ×, 1\.\d+ s", slow.what)
    assert re.search(r"up to 1\.\d+ s:", slow.why)


def test_a_recording_without_probes_has_no_ranking(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=[__name__]):
        pass
    assert rank(pyscope.load(tmp_path / "run")) is None


def test_the_report_prints_the_findings_first(recording: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "report", str(recording)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert (
        text.index("Findings, worst first")
        < text.index("N+1 queries: Item.shop")
        < text.index("Hottest functions")
    )
    assert "change  " in text
    assert "joinedload(Item.shop)" in text


@pytest.mark.parametrize(("processes", "says"), [(1, "1 MiB."), (3, "1 MiB, of the largest of 3 processes.")])
def test_of_several_processes_the_report_says_that_the_peak_is_one_s(processes: int, says: str) -> None:
    printed = io.StringIO()
    render(Ranking([], 0, [], 0, {}, 1 << 20, processes), Console(file=printed, width=100))
    assert f"Peak memory: {says}" in printed.getvalue()


def test_the_report_as_json_has_them_too(recording: Path) -> None:
    import json

    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "report", "--json", str(recording)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    found = json.loads(done.stdout)["ranking"]["findings"]
    assert "n_plus_one_query" in [row["kind"] for row in found]
