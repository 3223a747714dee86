"""The table with its ratios, and the goals beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.run import Row
from bench.servers import FORK, ORTHANC, PYNETDICOM, SCP, SERVE, STORESCP

HEADER = (
    "scenario        server             n      /s    ±%     MB/s  CPU s/1000  peak MB"
    "   p50 ms   p99 ms  serve x    scp x"
)


def median(row: Row, name: str) -> float:
    """Return the median of one field over the repetitions."""
    return statistics.median(row.values(name))


def spread(row: Row) -> float:
    """Return half the range of the rates as a share of their median."""
    rates = row.values("rate")
    middle = statistics.median(rates)
    return (max(rates) - min(rates)) / 2 / middle if middle else 0.0


def ratios(ours: Row | None, peer: Row) -> list[float]:
    """Return our rate over the peer's for each repetition that both have."""
    if ours is None:
        return []
    pairs = zip(ours.values("rate"), peer.values("rate"), strict=False)
    return [mine / theirs for mine, theirs in pairs if theirs]


def find(rows: Sequence[Row], scenario: str, server: str) -> Row | None:
    """Return the row of a scenario and server when it has samples."""
    for row in rows:
        if row.scenario.name == scenario and row.kind.name == server and row.samples:
            return row
    return None


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table, one row per scenario and server."""
    result = [HEADER, "-" * len(HEADER)]
    previous = ""
    for row in rows:
        name = row.scenario.name
        if previous and name != previous:
            result.append("")
        previous = name
        result.append(_line(rows, row))
    return result


def _line(rows: Sequence[Row], row: Row) -> str:
    start = f"{row.scenario.name:<15} {row.kind.name:<15}"
    if not row.samples:
        return f"{start} {'not measured' if row.absent else 'FAILED'}: {row.failure}"
    idle = row.scenario.what == "idle"
    middle = median(row, "rate")
    rate = f"{middle:.1%}" if idle else f"{middle:,.{1 if middle >= 10 else 3}f}"
    texts = [
        f"{start} {median(row, 'count'):>4.0f}",
        f"{rate:>8}",
        "     " if idle else f"{spread(row):>5.0%}",
        _number(row, "megabytes_per_second", 8, 1),
        f"{'':>11}" if idle else _number(row, "cpu_per_1000", 11, 3),
        f"{median(row, 'memory') / 1e6:>8.1f}",
        _number(row, "p50", 8, 2),
        _number(row, "p99", 8, 2),
    ]
    for ours in (SERVE, SCP):
        mine = None if idle or row.kind.ours else find(rows, row.scenario.name, ours)
        values = ratios(mine, row)
        texts.append(f"{statistics.median(values):>7.2f}" if values else f"{'':>7}")
    failure = f"  {row.failures} FAILED: {row.failure}" if row.failures else ""
    return " ".join(texts) + failure


def _number(row: Row, name: str, width: int, digits: int) -> str:
    value = median(row, name)
    return f"{value:>{width},.{digits}f}" if value else " " * width


@dataclass(frozen=True)
class Goal:
    """A figure to reach by ``hilum serve``; with a peer it is the ratio of our rate to its."""

    scenario: str
    figure: float
    peer: str = ""
    field: str = "rate"
    at_most: bool = False
    unit: str = "x"


GOALS = (
    Goal("10k-16", 3, ORTHANC),
    Goal("512k-16", 2, ORTHANC),
    Goal("512k-1", 2.5, ORTHANC),
    Goal("1g-1", 8, ORTHANC),
    Goal("10k-16", 6, PYNETDICOM),
    Goal("512k-16", 6, PYNETDICOM),
    Goal("10k-1", 3, PYNETDICOM),
    Goal("512k-1", 3, PYNETDICOM),
    Goal("10k-16", 0.5, FORK),
    Goal("512k-16", 0.6, FORK),
    Goal("1g-1", 0.8, FORK),
    Goal("shipped-512k-1", 20, STORESCP),
    Goal("shipped-512k-1", 20, ORTHANC),
    Goal("1g-1", 64e6, field="memory", at_most=True, unit=" MB"),
    Goal("idle", 60e6, field="memory", at_most=True, unit=" MB"),
    Goal("idle", 0.002, field="rate", at_most=True, unit=" % of a core"),
    Goal("echo-16", 3500, unit="/s"),
)
"""Two ticks of the kernel's clock in five seconds count as no measurable CPU."""

_SCALE = {" MB": 1e-6, " % of a core": 100.0}


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured; ``measured`` is None when something is missing."""

    goal: Goal
    measured: float | None
    words: str

    def line(self) -> str:
        """Return the verdict as one line."""
        goal = self.goal
        what = f"{SERVE} / {goal.peer}" if goal.peer else f"{SERVE}, {goal.field}"
        if goal.field == "rate" and not goal.peer:
            what = SERVE
        scale = _SCALE.get(goal.unit, 1.0)
        sign = "≤" if goal.at_most else "≥"
        figure = f"{sign} {goal.figure * scale:g}{goal.unit}"
        measured = "-" if self.measured is None else f"{self.measured * scale:.4g}{goal.unit}"
        return f"{goal.scenario:<15} {what:<28} {figure:<19} {measured:<18} {self.words}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return what became of each goal.

    A ratio at 512 KB and above counts only beyond the spread of the run: every repetition, not
    only the median, has to be on the same side.
    """
    return [_verdict(rows, goal) for goal in GOALS]


def _verdict(rows: Sequence[Row], goal: Goal) -> Verdict:
    ours = find(rows, goal.scenario, SERVE)
    if ours is None:
        return Verdict(goal, None, "not measured")
    if not goal.peer:
        measured = median(ours, goal.field)
        reached = measured <= goal.figure if goal.at_most else measured >= goal.figure
        return Verdict(goal, measured, _words(reached) + _fewer(ours, goal))
    peer = find(rows, goal.scenario, goal.peer)
    values = ratios(ours, peer) if peer else []
    if not values:
        return Verdict(goal, None, "not measured")
    measured = statistics.median(values)
    reached = measured >= goal.figure
    if not goal.scenario.startswith("10k") and min(values) < goal.figure <= max(values):
        side = "above" if reached else "below"
        return Verdict(goal, measured, f"within the spread (median {side})")
    return Verdict(goal, measured, _words(reached))


def _words(reached: bool) -> str:
    return "reached" if reached else "NOT reached"


def _fewer(row: Row, goal: Goal) -> str:
    count = median(row, "count")
    if goal.scenario == "idle" and count < row.kind.idle:
        return f" with only {count:.0f} of {row.kind.idle} associations"
    return ""
