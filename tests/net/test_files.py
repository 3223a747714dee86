"""Sending many data sets: every one gets a result, whatever the peer does."""

from __future__ import annotations

import asyncio
import os
import threading
from array import array
from collections import Counter
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from tests.net.conftest import Listen

from hilum.errors import AssociationRejected, ConfigurationError, ConnectFailed
from hilum.net.files import Outcome, SendResult, contexts_for, send_files
from hilum.net.service import Accept, Part, Reject, storage_policy
from hilum.net.service import Outcome as Answer
from hilum.net.sources import PIECE, FileSource, Source, find_sources
from hilum.services.datasets import decode, encode
from hilum.services.part10 import encode_head

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DEFLATED, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"


class Receiver:
    """Keeps data sets in memory; ``answers`` and ``aborts`` say what happens to the n-th."""

    def __init__(
        self,
        answers: dict[int, Answer] | None = None,
        aborts: Sequence[int] = (),
        together: int = 0,
    ) -> None:
        self.kept: dict[str, bytes] = {}
        self.of_association: Counter[int] = Counter()
        self.count = 0
        self.answers = answers or {}
        self.aborts = set(aborts)
        #: Nothing is answered before so many associations have sent something.
        self.together = together
        self.waiting: list[tuple[asyncio.Future[Answer], Answer]] = []

    def authorise(self, rq: object, peer: object) -> Accept:
        return Accept(open_store=self.open_store)

    def open_store(self, command: Any, context: Any, association: Any) -> Any:
        number, self.count = self.count, self.count + 1
        self.of_association[association.number] += 1
        return _Sink(self, number, command, association)

    def answer(self) -> None:
        if len(self.of_association) >= self.together:
            waiting, self.waiting = self.waiting, []
            for done, answer in waiting:
                done.set_result(answer)


class _Sink:
    def __init__(self, receiver: Receiver, number: int, command: Any, association: Any) -> None:
        self.receiver, self.number = receiver, number
        self.uid = command.affected_sop_instance_uid
        self.association = association
        self.data = bytearray()

    def write(self, parts: Sequence[Part]) -> bool:
        for part in parts:
            self.data += part
        return True

    async def drained(self) -> None: ...

    def commit(self) -> Awaitable[Answer]:
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self.number in self.receiver.aborts:
            self.association.abort()
        else:
            self.receiver.kept[self.uid] = bytes(self.data)
            answer = self.receiver.answers.get(self.number, Answer(0))
            self.receiver.waiting.append((done, answer))
            self.receiver.answer()
        return done

    def abort(self, cause: BaseException) -> None: ...


def files(
    folder: Path, count: int, size: int = 1000, syntax: str = EXPLICIT, sop_class: str = CT
) -> dict[str, bytes]:
    """Write files; returns their data sets by SOP Instance UID, in the order of sending."""
    made = {}
    start = len(list(folder.iterdir()))
    for number in range(start, start + count):
        uid, data = f"1.2.{number}", os.urandom(size)
        (folder / f"{number:04}").write_bytes(encode_head(sop_class, uid, syntax) + data)
        made[uid] = data
    return made


async def push(folder: Path, port: int, keep: int = 1 << 20, **options: Any) -> Any:
    found = find_sources([folder], keep=keep)
    results: list[SendResult] = []
    summary = await send_files(
        "127.0.0.1", port, found.sources, on_result=results.append, **options
    )
    assert len(results) == len(found.sources) == sum(summary.counts.values())
    assert {id(result.source) for result in results} == {id(source) for source in found.sources}
    assert Counter(result.outcome for result in results) == +Counter(summary.counts)
    return results, summary


def outcomes(results: list[SendResult]) -> list[Outcome]:
    return [result.outcome for result in results]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    yield
    for thread in threading.enumerate():
        if thread.name == "read ahead":
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("keep", [0, 1 << 20], ids=["from disk", "kept"])
@pytest.mark.parametrize("size", [2, 1000, 100_000])
async def test_everything_arrives_as_it_was(
    listen: Listen, tmp_path: Path, size: int, keep: int
) -> None:
    made = files(tmp_path, 40, size)
    receiver = Receiver()
    server = await listen(receiver.authorise)
    results, summary = await push(tmp_path, server.port, keep)
    assert receiver.kept == made
    assert list(receiver.kept) == list(made)
    assert summary.ok
    assert summary.bytes == 40 * size
    assert summary.associations == 1
    assert all(result.status == 0 and result.seconds > 0 for result in results)


async def test_data_sets_larger_than_what_is_read_ahead(listen: Listen, tmp_path: Path) -> None:
    made = files(tmp_path, 2, 20 * PIECE + 6) | files(tmp_path, 3, 10)
    receiver = Receiver()
    server = await listen(receiver.authorise)
    sent: list[int] = []
    _, summary = await push(tmp_path, server.port, on_bytes=sent.append)
    assert receiver.kept == made
    assert sum(sent) == summary.bytes == sum(map(len, made.values()))
    assert max(sent) == PIECE


async def test_an_odd_data_set_is_padded_at_its_end(listen: Listen, tmp_path: Path) -> None:
    made = files(tmp_path, 1, 999, DEFLATED) | files(tmp_path, 1, 2 * PIECE + 1, DEFLATED)
    receiver = Receiver()
    server = await listen(receiver.authorise)
    await push(tmp_path, server.port)
    assert receiver.kept == {uid: data + b"\0" for uid, data in made.items()}


async def test_more_contexts_than_an_association_can_have(listen: Listen, tmp_path: Path) -> None:
    for number in range(300):
        files(tmp_path, 1, sop_class=f"1.2.3.{number}")
    receiver = Receiver()
    server = await listen(receiver.authorise)
    _, summary = await push(tmp_path, server.port)
    assert summary.ok
    assert summary.associations == 3
    assert sorted(receiver.of_association.values()) == [44, 128, 128]


async def test_each_pair_has_a_context_of_its_own(tmp_path: Path) -> None:
    files(tmp_path, 2, syntax=EXPLICIT)
    files(tmp_path, 2, syntax=IMPLICIT)
    files(tmp_path, 1, sop_class="1.2.3")
    sources = find_sources([tmp_path]).sources
    assert contexts_for(sources) == (
        (CT, (EXPLICIT,)),
        (CT, (IMPLICIT,)),
        ("1.2.3", (EXPLICIT,)),
        ("1.2.3", (IMPLICIT,)),
    )
    files(tmp_path, 1, sop_class="1.2.4", syntax=JPEG)
    files(tmp_path, 1, sop_class="1.2.5", syntax=DEFLATED)
    assert contexts_for(find_sources([tmp_path]).sources)[3:] == (
        ("1.2.4", (JPEG,)),
        ("1.2.5", (DEFLATED,)),
        ("1.2.3", (IMPLICIT,)),
        ("1.2.5", (EXPLICIT, IMPLICIT)),
    )


async def test_what_the_peer_has_no_context_for_fails_alone(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 2)
    files(tmp_path, 2, syntax=JPEG)
    files(tmp_path, 2)
    receiver = Receiver()
    policy = storage_policy([EXPLICIT])
    server = await listen(lambda rq, peer: Accept(policy, receiver.open_store))
    results, summary = await push(tmp_path, server.port)
    sent, failed = Outcome.SENT, Outcome.FAILED
    assert outcomes(results) == [sent, sent, failed, failed, sent, sent]
    assert JPEG in results[2].reason
    assert summary.associations == 1
    assert not summary.ok


def image(number: int, size: int = 1000) -> Dataset:
    dataset = Dataset()
    dataset.SOPInstanceUID = f"1.2.{number}"
    dataset.PatientName = "Private^Values"
    dataset.add_new(0x00091001, "US", 0x0102)
    dataset.BitsAllocated = 16
    dataset.add_new(0x7FE00010, "OW", os.urandom(size))
    return dataset


@pytest.mark.parametrize("keep", [0, 1 << 20], ids=["from disk", "kept"])
@pytest.mark.parametrize("accepted", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
async def test_what_the_peer_does_not_take_as_it_is_is_converted(
    listen: Listen, tmp_path: Path, syntax: str, accepted: str, keep: int
) -> None:
    images = [image(number, size) for number, size in enumerate((1000, 3 * PIECE, 50))]
    for number, dataset in enumerate(images):
        head = encode_head(CT, dataset.SOPInstanceUID, syntax)
        (tmp_path / f"{number}").write_bytes(head + encode(dataset, syntax))
    receiver = Receiver()
    policy = storage_policy([accepted])
    server = await listen(lambda rq, peer: Accept(policy, receiver.open_store))
    results, summary = await push(tmp_path, server.port, keep)
    assert summary.ok, results
    for dataset in images:
        kept = decode(receiver.kept[dataset.SOPInstanceUID], accepted)
        if accepted == IMPLICIT or syntax == IMPLICIT:
            del kept[0x00091001], dataset[0x00091001]  # its VR cannot be known
        if syntax == BIG:  # pydicom writes words as they are in memory
            words = array("H", kept[0x7FE00010].value)
            words.byteswap()
            kept[0x7FE00010].value = words.tobytes()
        assert kept == dataset


async def test_an_exact_context_goes_before_a_conversion(listen: Listen, tmp_path: Path) -> None:
    """Field notes A 29."""
    made = files(tmp_path, 2)
    receiver = Receiver()
    policy = storage_policy([IMPLICIT, EXPLICIT])
    server = await listen(lambda rq, peer: Accept(policy, receiver.open_store))
    _, summary = await push(tmp_path, server.port)
    assert summary.ok
    assert receiver.kept == made


async def test_what_cannot_be_converted_fails_alone(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 1, syntax=BIG)
    files(tmp_path, 2)
    receiver = Receiver()
    policy = storage_policy([EXPLICIT])
    server = await listen(lambda rq, peer: Accept(policy, receiver.open_store))
    results, summary = await push(tmp_path, server.port)
    assert outcomes(results) == [Outcome.FAILED, Outcome.SENT, Outcome.SENT]
    assert summary.associations == 1


async def test_stores_are_outstanding_up_to_the_window(listen: Listen, tmp_path: Path) -> None:
    made = files(tmp_path, 40)
    receiver = Receiver()
    most = 0
    busy = 0

    class Slow(_Sink):
        def commit(self) -> Awaitable[Answer]:
            nonlocal most, busy
            busy += 1
            most = max(most, busy)
            return self.later()

        async def later(self) -> Answer:
            nonlocal busy
            await asyncio.sleep(0.005)
            busy -= 1
            return await super().commit()

    def open_store(command: Any, context: Any, association: Any) -> Any:
        receiver.count += 1
        return Slow(receiver, receiver.count, command, association)

    server = await listen(lambda rq, peer: Accept(open_store=open_store, window=(8, 1)))
    results, _ = await push(tmp_path, server.port, window=(0, 1))
    assert outcomes(results) == [Outcome.SENT] * 40
    assert receiver.kept == made
    assert most == 8


async def test_answers_are_told_apart(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 3)
    receiver = Receiver({1: Answer(0xB000), 2: Answer(0xA700, "disk full")})
    server = await listen(receiver.authorise)
    results, summary = await push(tmp_path, server.port)
    assert outcomes(results) == [Outcome.SENT, Outcome.WARNING, Outcome.FAILED]
    assert [result.status for result in results] == [0, 0xB000, 0xA700]
    assert results[2].reason == "A700H failure: refused: out of resources (disk full)"
    assert summary.bytes == 2000


@pytest.mark.parametrize("size", [1000, 3 * PIECE])
async def test_a_broken_association_costs_one_data_set(
    listen: Listen, tmp_path: Path, size: int
) -> None:
    made = files(tmp_path, 6, size)
    receiver = Receiver(aborts=[2])
    server = await listen(receiver.authorise)
    results, summary = await push(tmp_path, server.port)
    sent = Outcome.SENT
    assert outcomes(results) == [sent, sent, Outcome.UNKNOWN, sent, sent, sent]
    assert receiver.kept == {uid: data for uid, data in made.items() if uid != "1.2.2"}
    assert summary.associations == 2


async def test_a_peer_that_always_breaks_is_given_up(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 8)
    receiver = Receiver(aborts=range(100))
    server = await listen(receiver.authorise)
    results, summary = await push(tmp_path, server.port, retries=1)
    assert outcomes(results) == [Outcome.UNKNOWN] * 2 + [Outcome.NOT_SENT] * 6
    assert summary.associations == 2
    assert summary.error is not None
    assert results[-1].reason == str(summary.error)


async def test_a_peer_that_releases_after_each_data_set(listen: Listen, tmp_path: Path) -> None:
    made = files(tmp_path, 5)
    receiver = Receiver()

    class Once(_Sink):
        def commit(self) -> Awaitable[Answer]:
            # After the response has gone.
            asyncio.get_running_loop().call_soon(
                lambda: asyncio.ensure_future(self.association.release())
            )
            return super().commit()

    receiver.open_store = lambda command, context, association: Once(  # type: ignore[method-assign]
        receiver, 0, command, association
    )
    server = await listen(receiver.authorise)
    results, summary = await push(tmp_path, server.port)
    # What crossed the peer's release is unknown; all others arrived, each over its association.
    assert Outcome.NOT_SENT not in outcomes(results)
    assert receiver.kept.items() <= made.items()
    assert summary.counts[Outcome.SENT] >= 3
    assert summary.associations >= 3


async def test_a_lasting_rejection_is_final(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 3)
    server = await listen(lambda rq, peer: Reject.unknown_called_title())
    results, summary = await push(tmp_path, server.port)
    assert outcomes(results) == [Outcome.NOT_SENT] * 3
    assert isinstance(summary.error, AssociationRejected)
    assert server.rejected == 1


async def test_a_rejection_for_now_is_tried_again(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 3)
    receiver = Receiver()
    decisions = [Reject.limit()]
    server = await listen(
        lambda rq, peer: decisions.pop() if decisions else receiver.authorise(rq, peer)
    )
    _, summary = await push(tmp_path, server.port)
    assert summary.ok
    assert server.rejected == 1


async def test_nobody_is_there(tmp_path: Path, unused_tcp_port: int) -> None:
    files(tmp_path, 3)
    results, summary = await push(tmp_path, unused_tcp_port)
    assert outcomes(results) == [Outcome.NOT_SENT] * 3
    assert isinstance(summary.error, ConnectFailed)


@pytest.mark.parametrize("size", [100_000, 12 * PIECE])
async def test_a_file_that_shrinks_fails_alone(listen: Listen, tmp_path: Path, size: int) -> None:
    files(tmp_path, 3, size)
    found = find_sources([tmp_path], keep=0)
    os.truncate(found.sources[1].name, size - 50_000)
    receiver = Receiver()
    server = await listen(receiver.authorise)
    results: list[SendResult] = []
    summary = await send_files(
        "127.0.0.1", server.port, found.sources, on_result=results.append, retries=0
    )
    assert outcomes(results) == [Outcome.SENT, Outcome.FAILED, Outcome.SENT]
    assert results[1].reason.startswith("cannot be read: the file became shorter")
    assert set(receiver.kept) == {"1.2.0", "1.2.2"}
    assert summary.error is None


async def test_a_file_that_is_gone_fails_alone(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 3)
    found = find_sources([tmp_path], keep=0)
    os.unlink(found.sources[0].name)
    server = await listen(Receiver().authorise)
    summary = await send_files("127.0.0.1", server.port, found.sources)
    assert summary.counts[Outcome.SENT] == 2
    assert summary.counts[Outcome.FAILED] == 1
    assert summary.associations == 1


async def test_several_associations_share_the_work(listen: Listen, tmp_path: Path) -> None:
    made = files(tmp_path, 60, 5000)
    receiver = Receiver(together=4)
    server = await listen(receiver.authorise)
    _, summary = await push(tmp_path, server.port, parallel=4)
    assert receiver.kept == made
    assert summary.associations == 4
    assert len(receiver.of_association) == 4


async def test_a_peer_that_grants_fewer_associations(listen: Listen, tmp_path: Path) -> None:
    made = files(tmp_path, 40)
    receiver = Receiver()
    granted = 0

    def authorise(rq: object, peer: object) -> Accept | Reject:
        nonlocal granted
        granted += 1
        return receiver.authorise(rq, peer) if granted <= 2 else Reject(1, 1, 1)

    server = await listen(authorise)
    _, summary = await push(tmp_path, server.port, parallel=4)
    assert summary.ok
    assert receiver.kept == made
    assert summary.associations == 2


async def test_no_more_associations_than_data_sets(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 2)
    server = await listen(Receiver().authorise)
    _, summary = await push(tmp_path, server.port, parallel=9)
    assert summary.associations <= 2


async def test_nothing_to_send_opens_nothing(listen: Listen) -> None:
    server = await listen(Receiver().authorise)
    summary = await send_files("127.0.0.1", server.port, [])
    assert summary.ok
    assert (summary.associations, server.accepted) == (0, 0)


async def test_no_associations_are_no_plan() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        await send_files("127.0.0.1", 104, [], parallel=0)


async def test_cancelling_aborts(listen: Listen, tmp_path: Path) -> None:
    files(tmp_path, 50, 100_000)
    seen = asyncio.Event()

    class Waits(_Sink):
        async def commit(self) -> Answer:  # type: ignore[override]
            seen.set()
            await asyncio.Event().wait()
            raise AssertionError

    receiver = Receiver()
    ended: list[object] = []
    receiver.open_store = lambda command, context, association: Waits(  # type: ignore[method-assign]
        receiver, 0, command, association
    )
    server = await listen(
        lambda rq, peer: Accept(
            open_store=receiver.open_store, ended=lambda association, error: ended.append(error)
        )
    )
    sources: list[Source] = find_sources([tmp_path]).sources
    task = asyncio.ensure_future(send_files("127.0.0.1", server.port, sources))
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while not ended:
            await asyncio.sleep(0.01)
    assert ended[0] is not None
    for waiting in asyncio.all_tasks():
        if "commit" in repr(waiting.get_coro()):
            waiting.cancel()


def test_the_name_of_a_file_is_its_path(tmp_path: Path) -> None:
    files(tmp_path, 1)
    assert FileSource.open(tmp_path / "0000").name == str(tmp_path / "0000")
