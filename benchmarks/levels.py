"""Rows of one set of samples of TaskFlow, each beside the control that was measured with it."""

from __future__ import annotations

from typing import Final

from benchmarks import estimator
from benchmarks.estimator import CONTROL, Interval, Samples, Verdict
from benchmarks.figure import Figure, percent, points

STOPPED: Final = "stopped by itself"


class Levels:
    """Variants of one work over the untraced work; `title` names the work."""

    def __init__(self, title: str, version: str, samples: Samples) -> None:
        self._title = title
        self._version = version
        self._samples = samples
        control = estimator.ratio(samples, CONTROL)
        self._control = percent(control)
        self._noise = control.farthest_from(1.0)

    def has(self, name: str) -> bool:
        """Whether the variant could be run."""
        return all(name in row for rows in self._samples.processes for row in rows)

    def cheapest(self, names: list[str]) -> str:
        """Of several variants the one with the smallest ratio."""
        return min(names, key=lambda name: estimator.ratio(self._samples, name).median)

    def rows(self, names: list[str]) -> list[Figure]:
        """A row for information for each variant that could be run."""
        return [self.row(name) for name in names if self.has(name)]

    def row(self, name: str, label: str = "", at_most: float | None = None) -> Figure:
        """The ratio of a variant to the untraced work."""
        found = estimator.ratio(self._samples, name)
        asked, verdict = "", Verdict.INFORMATION
        if at_most is not None:
            asked = f"≤ {at_most:.0%}"
            verdict = estimator.at_most(found, 1 + at_most, noise=self._noise, room=at_most)
        return self._figure(label or name, asked, percent(found), verdict, found, self._stops(name))

    def share(self, name: str, base: str) -> Figure:
        """What a probe adds to recording without it."""
        found = estimator.ratio_difference(self._samples, name, base)
        return self._figure(f"{name}, its share", "", points(found), Verdict.INFORMATION, found)

    def above(self, name: str, floor: str, label: str, at_most: float) -> Figure:
        """How much more a variant adds than another."""
        found = estimator.ratio_difference(self._samples, name, floor)
        verdict = estimator.at_most(found, at_most, noise=self._noise, room=at_most)
        asked = f"≤ {at_most * 100:g} points, or the row above"
        return self._figure(f"{label}, above the {floor} hook", asked, points(found), verdict, found)

    def share_of_peer(self, name: str, peer: str, label: str, share: float) -> Figure:
        """Whether a variant adds at most `share` of what a peer adds.

        There is no verdict where the noise is as wide as that share of the peer's, or the peer stopped early.
        """
        excess = estimator.excess_share(self._samples, name, peer, share)
        theirs = estimator.ratio(self._samples, peer).median - 1
        ours = estimator.ratio(self._samples, name).median - 1
        verdict = estimator.at_most(excess, 0.0, noise=self._noise, room=max(0.0, share * theirs))
        if self._stops(peer):
            verdict = Verdict.NOISY
        return self._figure(
            f"{label}, beyond a third of the loss under {peer}",
            "≤ 0 points",
            f"{points(excess)}: {ours:+.1%} of {theirs:+.1%}",
            verdict,
            excess,
            self._stops(peer),
        )

    def lost_events(self, names: list[str]) -> Figure:
        """How many events the recorder dropped in all blocks of the variants; each is counted by the recorder."""
        total, dropped = (
            sum(
                row.get(f"{name}: {what}", 0.0)
                for rows in self._samples.processes
                for row in rows
                for name in names
            )
            for what in ("events", "dropped")
        )
        title = f"{self._title}: events lost, {' and '.join(names)}"
        return count_row(title, self._version, dropped, total, "events recorded")

    def _stops(self, name: str) -> str:
        flags = [
            row[f"{name}: {STOPPED}"]
            for rows in self._samples.processes
            for row in rows
            if f"{name}: {STOPPED}" in row
        ]
        if not any(flags):
            return ""
        return f"stopped by itself in {sum(flags):.0f} of {len(flags)} blocks: too low"

    def _figure(
        self, label: str, asked: str, measured: str, verdict: Verdict, found: Interval, note: str = ""
    ) -> Figure:
        title = f"{self._title}: {label}"
        return Figure(title, self._version, asked, measured, self._control, verdict, found, note)


def count_row(name: str, version: str, count: float, total: float, of: str) -> Figure:
    """A count that has to be none."""
    verdict = Verdict.MISSED if count else Verdict.REACHED
    measured = f"{count:,.0f} of {total:,.0f}"
    return Figure(name, version, "0", measured, "", verdict, Interval(count, count, count), f"of {of}")
