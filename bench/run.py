"""Runs scenarios: all servers of one side by side, one measured at a time, in turn."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers import PeerError, Server

from bench.replay import ReplayError
from bench.scenarios import Bench, Sample, Scenario
from bench.servers import Kind, running

SPARE_BYTES = 4 << 30
"""What a run leaves free on the disk."""

FAILURES = 2
"""After so many a server is left out for the rest of a scenario. One is not enough: Orthanc now and
then answers A700H when two associations create the same folder at the same moment."""


@dataclass
class Row:
    """All samples of one server in one scenario, or why there are none.

    A failed repetition gives no sample; ``failures`` counts them and ``failure`` is the last.
    """

    scenario: Scenario
    kind: Kind
    samples: list[Sample] = field(default_factory=list)
    failures: int = 0
    failure: str = ""
    absent: bool = False

    @property
    def given_up(self) -> bool:
        """Return whether the server is not measured any more in this scenario."""
        return self.absent or self.failures >= FAILURES

    @property
    def broken(self) -> bool:
        """Return whether the whole run counts as failed: ours at once, a peer without a sample."""
        return bool(self.failures) and (self.kind.ours or not self.samples) and not self.absent

    def values(self, name: str) -> list[float]:
        """Return one field of all samples, in order of the repetitions."""
        return [getattr(sample, name) for sample in self.samples]

    def fail(self, error: Exception, absent: bool) -> None:
        """Keep why the server was not measured, or not to the end."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        self.failure = f"{lines[0]} {lines[-1]}" if len(lines) > 1 else "".join(lines)
        self.absent = absent
        self.failures += 1
        say(f"  {self.kind.name}: {self.failure}")


class NoSpace(Exception):
    """The run would fill the disk."""


def say(text: str) -> None:
    """Print progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


def needed_bytes(scenarios: Iterable[Scenario], kinds: Sequence[Kind], repeat: int) -> int:
    """Return how much is on the disk at the worst moment of a run."""
    kept = largest = 0
    for scenario in scenarios:
        size = sum(scenario.bytes_written(kind) for kind in kinds) * repeat
        if scenario.large:
            largest = max(largest, size)
        else:
            kept += size
    return kept + largest


def run(
    scenarios: Sequence[Scenario], kinds: Sequence[Kind], repeat: int, parent: Path
) -> list[Row]:
    """Return a row for each scenario and server.

    Output goes to fresh folders below ``parent``; they are removed at the very end, for deleting
    many files makes ext4 create new ones several times slower for a while. Only the folders of
    large objects, few files each, are removed after their scenario.

    Raises:
        NoSpace: the disk has too little room.
    """
    needed = needed_bytes(scenarios, kinds, repeat) + SPARE_BYTES
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise NoSpace(
            f"{needed >> 30} GiB are needed and {free >> 30} GiB free in {parent}; "
            "give another folder with --work, or fewer --repeat, --servers or --only"
        )
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        bench = Bench(folder)
        return [row for each in scenarios for row in _scenario(bench, each, kinds, repeat, folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scenario(
    bench: Bench, scenario: Scenario, kinds: Sequence[Kind], repeat: int, folder: Path
) -> list[Row]:
    rows = [Row(scenario, kind) for kind in kinds if scenario.measures(kind)]
    place = folder / scenario.name
    began = time.monotonic()
    say(f"{scenario.name} …")
    with ExitStack() as stack:
        servers = [_start(bench, row, place / str(index), stack) for index, row in enumerate(rows)]
        for repetition in range(min(repeat, scenario.most)):
            for row, server in zip(rows, servers, strict=True):
                if server is not None and not row.given_up:
                    _measure(bench, row, server, repetition)
    bench.forget()
    if scenario.large:
        shutil.rmtree(place, ignore_errors=True)
    say(f"  {time.monotonic() - began:.0f} s")
    return rows


def _start(bench: Bench, row: Row, folder: Path, stack: ExitStack) -> Server | None:
    try:
        server = stack.enter_context(running(row.kind, folder, row.scenario.nodelay))
    except PeerError as error:
        row.fail(error, absent=True)
        return None
    try:
        bench.warm_up(row.scenario, row.kind, server)
    except (ReplayError, OSError) as error:
        row.fail(error, absent=False)
        say(server.output(1000))
        return None
    return server


def _measure(bench: Bench, row: Row, server: Server, repetition: int) -> None:
    try:
        row.samples.append(bench.sample(row.scenario, row.kind, server, repetition))
    except (ReplayError, PeerError, OSError) as error:
        row.fail(error, absent=False)
        say(server.output(1000))
