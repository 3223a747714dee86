"""What is measured: each scenario turns one running server into one sample."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from tests import peers
from tests.peers import Server

from bench import objects, streams
from bench.objects import Identities, Layout
from bench.processes import PeakMemory, ProcessTree
from bench.replay import Association, ReplayError, abort, idle, maximum_length, replay
from bench.servers import CALLED, Kind
from bench.streams import Encoding, Tail

What = Literal["store", "shipped", "echo", "idle"]

REQUEST = streams.associate_rq(CALLED)

QUIET_SECONDS = 1.5
"""A server is done when it takes less than a tenth of a core for so long: ours looks every second
whether there is something to move."""

TRAILING_SECONDS = 30.0
"""Work that a server does after its last answer counts as its CPU, up to so long. Nobody else is
measured meanwhile."""

IDLE_SECONDS = 5.0

RUN_SECONDS = 120.0
"""A replay that is not done by then fails; the slowest takes a tenth of it here."""


@dataclass(frozen=True)
class Scenario:
    """Something to measure on every server.

    Args:
        name: what ``--only`` selects by.
        what: replayed stores, storescu as shipped, associations with one C-ECHO, or idle ones.
        size: of the images, a key of ``objects.SHAPES``.
        lanes: associations at a time.
        count: instances, or associations for echo; idle takes its number from the server.
        layout: how the instances spread over studies.
        most: repetitions at most, where each takes seconds and they hardly differ.
    """

    name: str
    what: What
    size: str = "10k"
    lanes: int = 1
    count: int = 0
    layout: Layout = "series"
    most: int = 1000

    @property
    def large(self) -> bool:
        """Return whether its images are few and large."""
        return self.size in ("64m", "1g")

    @property
    def nodelay(self) -> bool:
        """Return whether TCP_NODELAY is in the servers' environment."""
        return self.what != "shipped"

    def bytes_written(self, kind: Kind) -> int:
        """Return about how much a server keeps in one repetition."""
        if self.what not in ("store", "shipped"):
            return 0
        rows, columns = objects.SHAPES[self.size]
        return self.instances(kind) * (rows * columns * 2 + 4096)

    def instances(self, kind: Kind) -> int:
        """Return how many instances a server gets: a multiple of the lanes."""
        # An association costs pynetdicom as much as several instances, so that few large ones
        # would measure it and not the storing.
        portion = kind.portion if self.size == "10k" else 1.0
        if self.what == "echo":
            portion *= kind.portion
        return max(1, round(self.count * portion / self.lanes)) * self.lanes

    def measures(self, kind: Kind) -> bool:
        """Return whether the scenario makes sense for a server."""
        return kind.parallel or self.what != "idle"

    def quick(self) -> Scenario:
        """Return the same with fewer instances and repetitions."""
        few = self.count // {"10k": 4, "512k": 2}.get(self.size, 1)
        most = 1 if self.large or self.what == "idle" else self.most
        return replace(self, count=max(self.lanes, few), most=most)


ALL = (
    Scenario("10k-1", "store", "10k", 1, 2000),
    Scenario("10k-4", "store", "10k", 4, 4000),
    Scenario("10k-16", "store", "10k", 16, 8000),
    Scenario("10k-16-studies", "store", "10k", 16, 8000, "study"),
    Scenario("512k-1", "store", "512k", 1, 200),
    Scenario("512k-4", "store", "512k", 4, 320),
    Scenario("512k-16", "store", "512k", 16, 480),
    Scenario("shipped-512k-1", "shipped", "512k", 1, 250),
    Scenario("echo-16", "echo", lanes=16, count=3200),
    Scenario("idle", "idle", most=3),
    Scenario("64m-1", "store", "64m", 1, 4),
    Scenario("64m-4", "store", "64m", 4, 8),
    Scenario("1g-1", "store", "1g", 1, 1),
)
"""Large objects last: their folders are removed after each scenario, for they fill the disk."""


@dataclass(frozen=True)
class Sample:
    """One repetition on one server; latencies in ms, memory in bytes, ``sender_cpu`` a share.

    ``rate`` is instances, or associations, per second. Idle: ``count`` associations were open,
    ``rate`` is the share of one core they took, ``memory`` what the server held.
    """

    count: int
    rate: float
    seconds: float
    cpu_per_1000: float
    memory: int
    megabytes_per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    sender_cpu: float = 0.0

    def as_json(self) -> dict[str, float]:
        """Return the sample for ``--json``."""
        return asdict(self)


class Bench:
    """Holds what is prepared before the clock starts: encodings, identities, files for storescu."""

    def __init__(self, folder: Path, identities: Identities | None = None) -> None:
        self._folder = folder
        self._identities = identities or Identities()
        self._encodings: dict[tuple[str, int], Encoding] = {}
        self._maxima: dict[int, int] = {}
        self._files: dict[tuple[str, int], list[str]] = {}

    def forget(self) -> None:
        """Free the encodings of the last scenario; a gigabyte each, for the largest images."""
        for encoding in self._encodings.values():
            encoding.close()
        self._encodings.clear()

    def warm_up(self, scenario: Scenario, kind: Kind, server: Server) -> None:
        """Ask for the maximum PDU length and store a few small instances that are not measured."""
        self._maxima[server.port] = maximum_length(server.port, REQUEST)
        if scenario.what == "store":
            lanes = scenario.lanes
            few = replace(scenario, size="10k", count=4 * lanes, layout="series")
            self._store(few, replace(kind, portion=1.0), server)

    def sample(self, scenario: Scenario, kind: Kind, server: Server, repetition: int) -> Sample:
        """Return one measurement.

        Raises:
            ReplayError: the server did not do what it was asked.
            tests.peers.PeerError: storescu failed.
        """
        # What the server measured before has not written back yet must not be flushed by this one.
        os.sync()
        if scenario.what == "store":
            return self._store(scenario, kind, server)
        if scenario.what == "shipped":
            return self._shipped(scenario, kind, server, repetition)
        if scenario.what == "echo":
            return self._echo(scenario, kind, server)
        return self._idle(kind, server)

    def _store(self, scenario: Scenario, kind: Kind, server: Server) -> Sample:
        encoding = self._encoding(scenario.size, self._maxima[server.port])
        count = scenario.instances(kind)
        each = count // scenario.lanes
        lanes: list[Iterator[Association]] = [
            iter([encoding.heads(self._identities.take(each, scenario.layout))])
            for _ in range(scenario.lanes)
        ]
        with _watched(server) as watched:
            outcome = replay(server.port, REQUEST, lanes, encoding.tail, RUN_SECONDS)
        rows, columns = objects.SHAPES[scenario.size]
        latencies = sorted(outcome.latencies)
        return Sample(
            count=count,
            rate=count / outcome.responded,
            seconds=outcome.responded,
            cpu_per_1000=watched.cpu / count * 1000,
            memory=watched.memory,
            megabytes_per_second=count * rows * columns * 2 / outcome.responded / 1e6,
            p50=statistics.median(latencies) * 1e3,
            p99=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1e3,
            sender_cpu=outcome.sender_cpu / outcome.finished,
        )

    def _echo(self, scenario: Scenario, kind: Kind, server: Server) -> Sample:
        count = scenario.instances(kind)
        echo = [streams.echo_pdu()]
        lanes = [iter([echo] * (count // scenario.lanes)) for _ in range(scenario.lanes)]
        with _watched(server) as watched:
            outcome = replay(server.port, REQUEST, lanes, Tail(), RUN_SECONDS)
        latencies = sorted(outcome.latencies)
        return Sample(
            count=count,
            rate=count / outcome.finished,
            seconds=outcome.finished,
            cpu_per_1000=watched.cpu / count * 1000,
            memory=watched.memory,
            p50=statistics.median(latencies) * 1e3,
            p99=latencies[int(len(latencies) * 0.99)] * 1e3,
            sender_cpu=outcome.sender_cpu / outcome.finished,
        )

    def _shipped(self, scenario: Scenario, kind: Kind, server: Server, repetition: int) -> Sample:
        files = self._written(scenario.size, scenario.count, repetition)
        with _watched(server) as watched:
            done = peers.storescu(CALLED, server.port, files, nodelay=False).check()
        count = len(files)
        rows, columns = objects.SHAPES[scenario.size]
        return Sample(
            count=count,
            rate=count / done.seconds,
            seconds=done.seconds,
            cpu_per_1000=watched.cpu / count * 1000,
            memory=watched.memory,
            megabytes_per_second=count * rows * columns * 2 / done.seconds / 1e6,
        )

    def _idle(self, kind: Kind, server: Server) -> Sample:
        opened = idle(server.port, REQUEST, kind.idle, seconds=30.0)
        if not opened:
            raise ReplayError("no association was accepted")
        try:
            time.sleep(1.0)
            tree = ProcessTree(server.pid)
            cpu, began = tree.cpu(), time.perf_counter()
            time.sleep(IDLE_SECONDS)
            seconds = time.perf_counter() - began
            share = (tree.cpu() - cpu) / seconds
            memory = tree.memory()
        finally:
            abort(opened)
        count = len(opened)
        return Sample(count, share, seconds, share * seconds / count * 1000, memory)

    def _encoding(self, size: str, maximum: int) -> Encoding:
        key = (size, maximum)
        if key not in self._encodings:
            self._encodings[key] = Encoding(objects.image(size), maximum)
        return self._encodings[key]

    def _written(self, size: str, count: int, repetition: int) -> list[str]:
        """Return files with new identities, the same ones for all servers of a repetition."""
        key = (size, repetition)
        if key not in self._files:
            folder = self._folder / f"files-{size}-{repetition}"
            folder.mkdir()
            source = objects.image(size)
            paths = [str(folder / f"{index:04d}.dcm") for index in range(count)]
            for path, identity in zip(paths, self._identities.take(count, "series"), strict=True):
                objects.write_file(path, source, identity)
            os.sync()
            self._files[key] = paths
        return self._files[key]


@dataclass
class _Watched:
    cpu: float = 0.0
    memory: int = 0


@contextmanager
def _watched(server: Server) -> Iterator[_Watched]:
    """Yield what will hold the CPU seconds and the peak memory of the block, afterwards."""
    tree = ProcessTree(server.pid)
    result = _Watched()
    with PeakMemory(tree) as peak:
        before = tree.cpu()
        yield result
        _settle(tree)
        result.cpu = tree.cpu() - before
    result.memory = peak.bytes


def _settle(tree: ProcessTree) -> None:
    """Wait until a server has nothing more to do."""
    until = time.monotonic() + TRAILING_SECONDS
    quiet_since, before = time.monotonic(), tree.cpu()
    while (now := time.monotonic()) - quiet_since < QUIET_SECONDS and now < until:
        time.sleep(0.25)
        cpu = tree.cpu()
        if cpu - before > 0.025:
            quiet_since = time.monotonic()
        before = cpu
