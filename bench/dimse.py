"""Sending, querying and retrieving, beside DCMTK, Orthanc and pynetdicom: ``python -m bench.dimse``.

Everything happens over one association at a time. Senders send the same files to the same sink,
which keeps nothing, and to a storescp and an Orthanc as shipped, without TCP_NODELAY. Providers
hold the same images and are asked by the same client, ours, which decodes nothing.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import peers

from bench import objects
from bench.dimse_programs import CLASSES, CT, Discarding, run
from bench.processes import ProcessTree
from hilum.net import Association, connect
from hilum.net.service import UNCOMPRESSED
from hilum.services.datasets import encode
from hilum.services.sop_classes import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from hilum.wire.items import RoleSelection

HILUM, DCMTK, ORTHANC, PYNETDICOM = "hilum", "DCMTK", "Orthanc", "pynetdicom"
EXPLICIT = UNCOMPRESSED[0]
IMAGES = 1000
"""What each provider holds and is asked for."""
FEW = 200
"""What pynetdicom sends of it: now and then it loses a fast response and waits 30 s for it."""
IDLE = 1000
"""Associations that are opened to see what one takes."""

Rates = dict[str, dict[str, list[float]]]


def _program(role: str, *words: object) -> list[str]:
    return [sys.executable, "-m", "bench.dimse_programs", role, *map(str, words)]


def files(folder: Path, size: str, count: int) -> Path:
    """Write images of one series, and return their folder."""
    folder.mkdir(parents=True)
    source = objects.image(size)
    for number, identity in enumerate(objects.Identities().take(count, "series")):
        objects.write_file(str(folder / f"{number:05}.dcm"), source, identity)
    return folder


@contextmanager
def sink(work: Path) -> Iterator[peers.Server]:
    """The receiver that every sender and every C-MOVE sends to."""
    port = peers.free_port()
    command = _program("sink", peers.HOST, port)
    with peers.serve(
        "sink", command, port=port, directory=work / "sink", ae_title="SINK"
    ) as server:
        yield server


# ── sending ─────────────────────────────────────────────────────────────────────────────────


def send(name: str, server: peers.Server, folder: Path, nodelay: bool) -> float:
    """Seconds that a sender takes for a folder; of storescu, its whole run."""
    words = (peers.HOST, server.port, server.ae_title, folder)
    if name == DCMTK:
        done = peers.storescu(server.ae_title, server.port, [folder], "+sd", nodelay=nodelay)
        return done.check().seconds
    role = "sender" if name == HILUM else "pynetdicom_sender"
    return float(peers.run(_program(role, *words), nodelay=nodelay).check().output.split()[-1])


def sending(work: Path, name: str, size: str, count: int, repeat: int) -> Rates:
    """Instances per second of each sender to the same sink."""
    folder = files(work / name, size, count)
    few = files(work / f"{name}-few", size, FEW)
    rates: Rates = {HILUM: {}, DCMTK: {}, PYNETDICOM: {}}
    with sink(work) as server:
        for _ in range(repeat):
            for sender, found in rates.items():
                sent, number = (few, FEW) if sender == PYNETDICOM else (folder, count)
                try:
                    seconds = send(sender, server, sent, nodelay=True)
                except peers.PeerError:
                    if sender != PYNETDICOM:
                        raise
                    print(f"  {sender}: a response was lost", file=sys.stderr)
                    continue
                found.setdefault("instances/s", []).append(number / seconds)
    return rates


def shipped(work: Path, kind: str, repeat: int) -> Rates:
    """To a server as shipped: its responses come in two pieces with Nagle's algorithm on."""
    rates: Rates = {HILUM: {}, DCMTK: {}, PYNETDICOM: {}}
    for repetition in range(repeat):
        for sender, found in rates.items():
            place = work / f"{kind}-{sender}-{repetition}"
            folder = files(place / "files", "512k", 63)
            start = peers.storescp if kind == "storescp" else peers.orthanc
            with start(place / "server", nodelay=False) as server:
                seconds = send(sender, server, folder, nodelay=False)
            found.setdefault("instances/s", []).append(63 / seconds)
    return rates


# ── querying and retrieving ─────────────────────────────────────────────────────────────────


@contextmanager
def provider(name: str, work: Path, folder: Path, moves: int) -> Iterator[peers.Server]:
    """A server that holds the images and moves them to ``SINK`` on this port."""
    port = peers.free_port()
    if name in (HILUM, PYNETDICOM):
        role = "provider" if name == HILUM else "pynetdicom_provider"
        command = _program(role, peers.HOST, port, folder, moves)
        with peers.serve(
            name, command, port=port, directory=work / name, ae_title="PROVIDER"
        ) as server:
            yield server
        return
    if name == DCMTK:
        context = peers.dcmqrscp(work / name, moves={"SINK": moves})
    else:
        known = {"SINK": peers.Modality("SINK", moves)}
        settings = {"LimitFindResults": 0, "LimitFindInstances": 0}
        context = peers.orthanc(work / name, modalities=known, settings=settings)
    with context as server:
        peers.storescu(server.ae_title, server.port, [folder], "+sd", "-xe").check()
        yield server


def study_of(folder: Path) -> str:
    """The Study Instance UID of the images in a folder."""
    from pydicom import dcmread

    return str(dcmread(next(folder.iterdir()), stop_before_pixels=True).StudyInstanceUID)


async def ask(server: peers.Server, study: str) -> dict[str, float]:
    """Responses and instances per second of one provider."""
    from pydicom import Dataset

    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", study
    below = Dataset()
    below.QueryRetrieveLevel, below.StudyInstanceUID = "IMAGE", study
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "PatientName", "PatientID"):
        setattr(below, keyword, "")
    below.InstanceNumber = None
    found: dict[str, float] = {}
    async with await connect(
        peers.HOST,
        server.port,
        called=server.ae_title,
        contexts=[(uid, (EXPLICIT,)) for uid in CLASSES] + [(CT, (EXPLICIT,))],
        roles=[RoleSelection(CT, False, True)],
        open_store=lambda command, context, association: Discarding(),
    ) as association:
        found["C-FIND/s"] = await _timed(_find, association, encode(below, EXPLICIT))
        found["C-GET/s"] = await _timed(_get, association, encode(keys, EXPLICIT))
        found["C-MOVE/s"] = await _timed(_move, association, encode(keys, EXPLICIT))
    return found


async def _timed(
    work: Callable[[Association, bytes], Awaitable[int]], association: Association, keys: bytes
) -> float:
    began = time.perf_counter()
    count = await work(association, keys)
    return count / (time.perf_counter() - began)


async def _find(association: Association, keys: bytes) -> int:
    count = 0
    async for response in association.c_find(keys, sop_class_uid=STUDY_ROOT_FIND):
        count += response.is_pending
    assert count == IMAGES, count
    return count


async def _get(association: Association, keys: bytes) -> int:
    final = await association.c_get(keys, sop_class_uid=STUDY_ROOT_GET).last()
    assert final.status == 0, final
    return IMAGES


async def _move(association: Association, keys: bytes) -> int:
    final = await association.c_move(keys, sop_class_uid=STUDY_ROOT_MOVE, destination="SINK").last()
    assert final.status == 0, final
    return IMAGES


def retrieving(work: Path, size: str, repeat: int) -> Rates:
    """C-FIND, C-GET and C-MOVE of the same images from each provider."""
    folder = files(work / "images", size, IMAGES)
    study = study_of(folder)
    rates: Rates = {name: {} for name in (HILUM, DCMTK, ORTHANC, PYNETDICOM)}
    with sink(work) as server:
        for name, found in rates.items():
            with provider(name, work, folder, server.port) as asked:
                for _ in range(repeat):
                    try:
                        measured = _run(ask(asked, study))
                    except Exception as error:
                        print(f"  {name}: {error}", file=sys.stderr)
                        break
                    for what, rate in measured.items():
                        found.setdefault(what, []).append(rate)
    return rates


def _run(coroutine: Awaitable[dict[str, float]]) -> dict[str, float]:
    result: dict[str, float] = {}

    async def main() -> None:
        result.update(await coroutine)

    run(main())
    return result


# ── memory ──────────────────────────────────────────────────────────────────────────────────


def memory(work: Path) -> Rates:
    """KiB that an idle association takes in a server of the library."""

    async def open_all(server: peers.Server) -> float:
        before = ProcessTree(server.pid).memory()
        opened = [await connect(peers.HOST, server.port) for _ in range(IDLE)]
        after = ProcessTree(server.pid).memory()
        for association in opened:
            association.abort()
        return (after - before) / IDLE / 1024

    async def measured(server: peers.Server) -> dict[str, float]:
        return {"KiB/association": await open_all(server)}

    with sink(work) as server:
        return {HILUM: {what: [value] for what, value in _run(measured(server)).items()}}


SCENARIOS: dict[str, Callable[[Path, int], Rates]] = {
    "send-10k": lambda work, repeat: sending(work, "send-10k", "10k", 5000, repeat),
    "send-512k": lambda work, repeat: sending(work, "send-512k", "512k", 1000, repeat),
    "shipped-storescp": lambda work, repeat: shipped(work, "storescp", repeat),
    "shipped-orthanc": lambda work, repeat: shipped(work, "orthanc", repeat),
    "retrieve-10k": lambda work, repeat: retrieving(work, "10k", repeat),
    "retrieve-512k": lambda work, repeat: retrieving(work, "512k", repeat),
    "memory": lambda work, repeat: memory(work),
}


def lines(scenario: str, rates: Rates) -> Iterator[str]:
    """A table: the median of each, and how much ours is ahead of it."""
    ours = rates[HILUM]
    for name, found in rates.items():
        for what, values in found.items():
            middle = statistics.median(values)
            ahead = f"{statistics.median(ours[what]) / middle:6.1f}x" if name != HILUM else ""
            yield f"{scenario:18} {name:12} {what:16} {middle:10.0f} {ahead}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.dimse", description=__doc__)
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="glob; may be repeated")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    arguments = parser.parse_args(argv)
    if arguments.list:
        print(*SCENARIOS)
        return 0
    results: dict[str, Rates] = {}
    for scenario, measure in SCENARIOS.items():
        if arguments.only and not any(fnmatch.fnmatch(scenario, glob) for glob in arguments.only):
            continue
        with tempfile.TemporaryDirectory(prefix="bench-") as work:
            results[scenario] = measure(Path(work), arguments.repeat)
        print(*lines(scenario, results[scenario]), sep="\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
