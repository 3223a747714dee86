"""The programs that ``bench.dimse`` starts: sinks, providers and senders, ours and pynetdicom's.

``python -m bench.dimse_programs ROLE …``; a sender prints how many seconds its data sets took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

from hilum.net import Accept, Limits, Outcome, Reply, Request, serve, service_policy
from hilum.net.files import send_files
from hilum.net.retrieve import Destination, move_to, retrieve_on
from hilum.net.sources import find_sources
from hilum.services.datasets import encode
from hilum.services.sop_classes import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from hilum.wire.command import CommandField

CT = "1.2.840.10008.5.1.4.1.1.2"
ATTRIBUTES = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientName",
              "PatientID", "InstanceNumber")  # fmt: skip
CLASSES = (STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE)


def run(main: Any) -> None:
    """With uvloop where it is, as ``hilum`` does."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


class Discarding:
    """A sink that keeps nothing."""

    def write(self, parts: Sequence[Any]) -> bool:
        return True

    async def drained(self) -> None: ...

    def commit(self) -> Awaitable[Outcome]:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        done.set_result(Outcome(0))
        return done

    def abort(self, cause: BaseException) -> None: ...


async def sink(host: str, port: str) -> None:
    """Answers success to every C-STORE, of any sender alike."""
    accept = Accept(open_store=lambda command, context, association: Discarding())
    # The associations of the memory scenario all have one address.
    limits = Limits(max_associations=5000, max_per_address=5000, max_per_title=5000)
    async with await serve(host, int(port), lambda rq, peer: accept, limits=limits):
        await asyncio.Event().wait()


async def provider(host: str, port: str, folder: str, moves: str) -> None:
    """Serves a folder by C-FIND, C-GET and C-MOVE, to ``SINK`` on port ``moves``."""
    from pydicom import Dataset, dcmread

    found = find_sources([folder], keep=0)
    matches = []
    for source in found.sources:
        image = dcmread(source.name, stop_before_pixels=True)
        match = Dataset()
        match.QueryRetrieveLevel = "IMAGE"
        for name in ATTRIBUTES:
            setattr(match, name, getattr(image, name, ""))
        matches.append(Reply(0xFF00, encode(match, "1.2.840.10008.1.2.1")))

    async def find(request: Request) -> AsyncIterator[Sequence[Reply]]:
        for start in range(0, len(matches), 100):
            yield matches[start : start + 100]

    destination = Destination(host, int(moves), "SINK", "BENCH")
    accept = Accept(
        policy=service_policy(CLASSES, transfer_syntaxes=("1.2.840.10008.1.2.1",)),
        roles={CT: (True, True)},
        handlers={
            CommandField.C_FIND_RQ: find,
            CommandField.C_GET_RQ: lambda request: retrieve_on(request, found.sources),
            CommandField.C_MOVE_RQ: lambda request: move_to(request, found.sources, destination),
        },
    )
    async with await serve(host, int(port), lambda rq, peer: accept):
        await asyncio.Event().wait()


async def sender(host: str, port: str, called: str, folder: str) -> None:
    """Sends a folder with ``send_files``."""
    began = time.perf_counter()
    with find_sources([folder]) as found:
        summary = await send_files(host, int(port), found.sources, called=called)
    assert summary.ok, summary
    print(time.perf_counter() - began)


def pynetdicom_sender(host: str, port: str, called: str, folder: str) -> None:
    """Sends a folder with pynetdicom, file by file as its documentation shows."""
    import pynetdicom

    ae = pynetdicom.AE()
    ae.add_requested_context(CT, "1.2.840.10008.1.2.1")
    began = time.perf_counter()
    assoc = ae.associate(host, int(port), ae_title=called)
    for path in sorted(Path(folder).iterdir()):
        assert assoc.send_c_store(path).Status == 0
    assoc.release()
    print(time.perf_counter() - began)


def pynetdicom_provider(host: str, port: str, folder: str, moves: str) -> None:
    """Serves a folder by C-FIND, C-GET and C-MOVE with pynetdicom."""
    import pynetdicom
    from pydicom import Dataset, dcmread
    from pynetdicom import evt

    images = [dcmread(path) for path in sorted(Path(folder).iterdir())]

    def find(event: Any) -> Any:
        for image in images:
            match = Dataset()
            match.QueryRetrieveLevel = "IMAGE"
            for name in ATTRIBUTES:
                setattr(match, name, getattr(image, name, ""))
            yield 0xFF00, match

    def get(event: Any) -> Any:
        yield len(images)
        for image in images:
            yield 0xFF00, image

    def move(event: Any) -> Any:
        yield host, int(moves)
        yield from get(event)

    ae = pynetdicom.AE("PROVIDER")
    ae.maximum_pdu_size = 0
    for uid in CLASSES:
        ae.add_supported_context(uid)
    ae.add_supported_context(CT, "1.2.840.10008.1.2.1", scu_role=True, scp_role=True)
    ae.add_requested_context(CT, "1.2.840.10008.1.2.1")
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get), (evt.EVT_C_MOVE, move)]
    ae.start_server((host, int(port)), evt_handlers=handlers)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    if role.startswith("pynetdicom"):
        globals()[role](*words)
    else:
        run(globals()[role](*words))
