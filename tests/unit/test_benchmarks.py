"""The benchmarks' plan fits into an hour, what was measured is kept, and the document says what is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import curve, document, kept, plan
from benchmarks.curve import Curve, Point
from benchmarks.effort import Effort
from benchmarks.estimator import BASELINE, CONTROL, Interval, Samples, Verdict
from benchmarks.figure import Figure, percent
from benchmarks.interpreters import Interpreter
from benchmarks.kept import Circumstances, Kept, Store
from benchmarks.levels import STOPPED, Levels

RATIO = Interval(1.02, 1.01, 1.03)
FIGURE = Figure("TaskFlow over HTTP: own modules", "3.12", "≤ 4%", percent(RATIO), "", Verdict.REACHED, RATIO)
CURVE = Curve(
    "threads",
    "3.12",
    tuple(
        Point(size, Interval(30.0 + size, 29.0, 70.0 + size), 62.5, 2.1, 4_000_000, 7, 0.4, 0.2)
        for size in (1, 8, 64)
    ),
)
CIRCUMSTANCES = Circumstances(
    commit="0123456789", date="2026-01-02 03:04 UTC", machine="a machine, 2 cores",
    interpreter={"version": "3.12.1", "compiler": "GCC"}, libraries={"fastapi": "0.1"},
    factor=1.0, load=(0.1, 1.2), others=(0.01, 0.07), seconds=240.0,
)  # fmt: skip


def kept_group(group: str = "own", python: str = "3.12") -> Kept:
    return Kept(group, python, CIRCUMSTANCES, (FIGURE,), (CURVE,))


# --- the plan ------------------------------------------------------------------------------------


def test_a_full_run_ends_when_it_should() -> None:
    seconds = sum(step.seconds for step, _ in plan.schedule(plan.ASKED))
    assert seconds <= plan.MOST_MINUTES * 60 * 0.95  # processes have to be started as well


def test_what_the_targets_are_judged_by_comes_first() -> None:
    order = [(step.group, version) for step, version in plan.schedule(plan.ASKED)]
    assert order[:4] == [(name, "3.12") for name in ("own", "probes", "everything", "duty-cycle")]
    assert order[4:8] == [(name, v) for v in ("3.13", "3.11") for name in ("own", "everything")]


def test_every_group_is_planned_once_on_each_interpreter_that_it_is_for() -> None:
    order = [(step.group, version) for step, version in plan.schedule(plan.ASKED, long=True)]
    assert len(set(order)) == len(order)
    assert {group for group, version in order if version == "3.12"} == set(plan.GROUPS)
    assert {group for group, version in order if version == "3.13"} == {
        "own", "everything", "installed", "event"
    }  # fmt: skip


def test_long_groups_are_measured_only_when_asked_for() -> None:
    assert "scaling-long" not in {step.group for step, _ in plan.schedule(["3.12"])}
    assert [step.group for step, _ in plan.schedule(["3.12"], ["scaling-long"])] == ["scaling-long"]


def test_without_the_preferred_interpreter_the_newest_is_measured_in_full() -> None:
    assert {v for step, v in plan.schedule(["3.11", "3.13"]) if step.group == "peers"} == {"3.13"}
    assert {v for step, v in plan.schedule(["3.11"])} == {"3.11"}


# --- keeping -------------------------------------------------------------------------------------


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep(kept_group())
    assert store.find("own", "3.12") == kept_group()
    assert store.find("own", "3.11") is None


@pytest.mark.parametrize("cut", [0, 1, 200, -3])
def test_a_file_that_was_cut_short_counts_as_not_measured(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path)
    store.keep(kept_group())
    path = tmp_path / "own-3.12.json"
    path.write_text(path.read_text()[:cut])
    assert store.find("own", "3.12") is None


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of groups that `python -m benchmarks` measures, each of which gives one figure or fails."""
    calls: list[str] = []

    def group(name: str, fails: bool) -> plan.Group:
        def measure(interpreter: Interpreter, effort: Effort) -> Iterator[Figure | Curve]:
            calls.append(f"{name} {interpreter.version} {effort.seconds:.0f}")
            if fails:
                raise RuntimeError("the server has ended")
            yield replace(FIGURE, name=name)

        return plan.Group(measure, plan.SERVICE)

    groups = {name: group(name, name == "everything") for name in ("own", "probes", "everything")}
    monkeypatch.setattr(plan, "GROUPS", {**plan.GROUPS, **groups})
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "bench")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(
        command, "find", lambda _: [Interpreter(f"python{v}", f"{v}.1", "GCC") for v in ("3.12", "3.13")]
    )
    return calls


def test_a_run_goes_on_where_it_stopped(measured: list[str]) -> None:
    assert command.main(["--only", "own"]) == 0
    assert measured == ["own 3.12 240", "own 3.13 190"]
    measured.clear()
    assert command.main(["--only", "own", "probes"]) == 0
    assert measured == ["probes 3.12 360"]
    measured.clear()
    assert command.main(["--only", "own", "--again"]) == 0
    assert measured == ["own 3.12 240", "own 3.13 190"]


def test_a_group_that_fails_is_named_and_leaves_the_others_their_figures(
    measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--only", "own", "everything"]) == 1
    output = capsys.readouterr().out
    assert "NOT MEASURED: everything, Python 3.12.1: RuntimeError: the server has ended" in output
    assert "own" in output
    measured.clear()
    assert command.main(["--only", "own", "everything"]) == 1
    assert [call.split()[0] for call in measured] == ["everything", "everything"]


def test_minutes_shorten_every_share(measured: list[str]) -> None:
    assert command.main(["--only", "own", "--minutes", "4"]) == 0
    assert measured == ["own 3.12 134", "own 3.13 106"]


def test_minutes_never_lengthen_a_share(measured: list[str]) -> None:
    assert command.main(["--only", "own", "--minutes", "100"]) == 0
    assert measured == ["own 3.12 240", "own 3.13 190"]


def test_a_quick_run_is_kept_apart(measured: list[str], tmp_path: Path) -> None:
    assert command.main(["--quick", "--only", "own"]) == 0
    assert (tmp_path / "bench" / "quick" / "own-3.12.json").exists()
    assert not (tmp_path / "docs").exists()
    measured.clear()
    assert command.main(["--only", "own"]) == 0
    assert len(measured) == 2


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--minutes", "0"], ["--minutes", "soon"]])
def test_a_wrong_call_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)


def test_an_interpreter_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--interpreter", str(tmp_path / "python")]) == 2
    assert "cannot be run" in capsys.readouterr().err


# --- the document --------------------------------------------------------------------------------


def test_the_document_holds_what_is_kept_and_names_what_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench")
    store.keep(kept_group("own"))
    store.keep(kept_group("scaling"))
    document.write(store, plan.ASKED, tmp_path)
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert f"| TaskFlow over HTTP: own modules | 3.12 | ≤ 4% | {percent(RATIO)} |" in text
    assert "own (3.11, 3.13)" in text.split("**Not measured yet:**")[1].split("\n")[0]
    assert "probes (3.12)" in text
    assert "| 64 | 94.0 [29.0, 134.0] | 62.5 MiB | 2.10 | 7 of 4,000,007 | 0.40 s | 0.20 GB |" in text
    assert "Other work used 1% to 7% of the machine before and after each group\n" in text
    for name in ("overhead", "scaling-threads"):
        assert f"plots/{name}.svg" in text
        assert (tmp_path / "docs" / "plots" / f"{name}.svg").stat().st_size < 60_000


def test_the_document_keeps_groups_that_were_published_before(tmp_path: Path) -> None:
    """A run elsewhere, or of some groups alone, leaves the others as they were."""
    for name, groups in (("first", ("own", "scaling")), ("second", ("probes",))):
        store = Store(tmp_path / name)
        for group in groups:
            store.keep(kept_group(group))
        document.write(store, plan.ASKED, tmp_path)
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "own (3.11, 3.13)" in text.split("**Not measured yet:**")[1].split("\n")[0]
    assert "own (3.12" not in text
    assert "probes (3.12)" not in text
    assert "| 64 | 94.0 [29.0, 134.0] | 62.5 MiB |" in text


def test_the_document_says_that_the_machine_was_busy(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench")
    store.keep(replace(kept_group(), circumstances=replace(CIRCUMSTANCES, others=(0.02, 0.5))))
    document.write(store, plan.ASKED, tmp_path)
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "it was busy around 1 of 1" in text


def test_the_same_figures_give_the_same_document_and_plots(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        store = Store(tmp_path / name / "bench")
        store.keep(kept_group("own"))
        store.keep(kept_group("scaling"))
        document.write(store, plan.ASKED, tmp_path / name)
        docs = tmp_path / name / "docs"
        written.append({path.relative_to(docs): path.read_bytes() for path in docs.rglob("*.*")})
    assert written[0] == written[1]
    assert len(written[0]) == 5  # the document, two plots, and the figures of two groups


def test_nothing_measured_writes_nothing(tmp_path: Path) -> None:
    document.write(Store(tmp_path / "bench"), plan.ASKED, tmp_path)
    assert not (tmp_path / "docs").exists()


def test_a_curve_is_extended_by_the_points_it_lacks() -> None:
    longer = Curve(
        "threads", "3.12", (replace(CURVE.points[0], size=128), replace(CURVE.points[1], memory=9.0))
    )
    merged = CURVE.extended(longer)
    assert [point.size for point in merged.points] == [1, 8, 64, 128]
    assert merged.points[1].memory == 62.5
    assert curve.as_markdown(merged).count("\n") == 5


def test_the_commit_says_whether_what_is_measured_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(kept, "ROOT", tmp_path)
    assert kept.commit() == ""
    git("init")
    for name in kept.MEASURED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    clean = kept.commit()
    assert len(clean) == 10
    (tmp_path / "README").write_text("no matter")
    assert kept.commit() == clean
    (tmp_path / "native" / "file").write_text("2")
    assert kept.commit() == f"{clean}+"


# --- beside other tools --------------------------------------------------------------------------


def levels(ours: float, theirs: float, *, stopped: float = 0.0, noise: float = 0.001) -> Levels:
    rows = [
        {
            BASELINE: 1.0,
            CONTROL: 1.0 + noise * sign,
            "everything": ours,
            "VizTracer": theirs,
            f"VizTracer: {STOPPED}": stopped,
            "everything: events": 100.0,
            "everything: dropped": 0.0,
        }
        for sign in (-1, 1) * 10
    ]
    return Levels("TaskFlow", "3.12", Samples.of([rows, rows]))


@pytest.mark.parametrize(
    ("ours", "theirs", "stopped", "noise", "verdict"),
    [
        (1.05, 1.45, 0.0, 0.001, Verdict.REACHED),
        (1.20, 1.45, 0.0, 0.001, Verdict.MISSED),
        (1.05, 1.45, 0.0, 0.2, Verdict.NOISY),
        (1.05, 1.45, 1.0, 0.001, Verdict.NOISY),
        (1.05, 0.99, 0.0, 0.001, Verdict.MISSED),
    ],
)
def test_a_third_of_a_peers_loss_is_judged_only_where_the_peer_did_its_work(
    ours: float, theirs: float, stopped: float, noise: float, verdict: Verdict
) -> None:
    found = levels(ours, theirs, stopped=stopped, noise=noise)
    row = found.share_of_peer("everything", "VizTracer", "everything", 1 / 3)
    assert row.verdict is verdict
    assert ("stopped by itself in 40 of 40 blocks" in row.note) == bool(stopped)


def test_lost_events_are_counted_over_all_blocks() -> None:
    assert levels(1.0, 1.0).lost_events(["everything"]).measured == "0 of 4,000"
