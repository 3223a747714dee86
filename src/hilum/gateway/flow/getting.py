"""Getting instances of one study from its peer: by C-MOVE to ourselves, or by C-GET.

Standard: PS3.4 C.4.2, C.4.3.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hilum.gateway.config import Config
from hilum.gateway.flow.archive import (
    MOVE_CONTEXTS,
    OUR_TITLE,
    Archive,
    Retrieved,
    Wanted,
    get_contexts,
    opened,
)
from hilum.gateway.flow.moves import Moves
from hilum.gateway.flow.peers import client_tls
from hilum.gateway.flow.receive import opener
from hilum.gateway.flow.request import Request
from hilum.gateway.store.commit import Committer, Destination
from hilum.gateway.store.entries import Peer
from hilum.gateway.store.fetches import Fetches, Report
from hilum.gateway.threads import in_thread
from hilum.net.service import while_retrieving

__all__ = ["Getter", "OneStudy", "Progress", "move_destination", "requests_for"]

# How often what has arrived is written down, at most.
_PROGRESS = 2.0
# After the peer's last word instances are looked for this often.
_LOOK = 0.25


@dataclass(frozen=True, slots=True)
class OneStudy:
    """A study that is being fetched.

    Args:
        number: of its row.
        uid: Study Instance UID.
        request: what is wanted, and how.
        peer: who has it.
        destination: whose the instances will be.
        batch: UIDs in one request.
        here: instances that were here before.
        patient_id: Patient ID, as far as the peer says it.
        compressed_first: whether a C-GET proposes compressed transfer syntaxes first.
    """

    number: int
    uid: str
    request: Request
    peer: Peer
    destination: Destination
    batch: int
    here: int
    patient_id: str
    compressed_first: bool

    @property
    def owner_id(self) -> int:
        """Whose the instances will be."""
        return self.destination.owner_id


class Progress:
    """Writes down now and then how many instances have arrived.

    Args:
        fetches: where.
        one: of which study.
        before: so many had.
    """

    def __init__(self, fetches: Fetches, one: OneStudy, before: int) -> None:
        self._fetches = fetches
        self._number = one.number
        self._before = before
        self._count = before

    def told(self, completed: int) -> None:
        """The peer says so many sub-operations of the present request are completed."""
        self._count = self._before + completed

    def next(self, completed: int) -> None:
        """The present request is over."""
        self._before += completed
        self._count = self._before

    async def keep_writing(self) -> None:
        """Until it is cancelled."""
        written = self._count
        while True:
            await asyncio.sleep(_PROGRESS)
            if self._count != written:
                written = self._count
                await in_thread(self._fetches.arrived, self._number, written)


class Getter:
    """Opens associations with peers, and gets instances on them.

    Args:
        fetches: their rows.
        config: ``fetch``, ``tls``, ``timeouts``.
        committer: takes what C-GET brings.
        moves: told of the C-MOVEs that go on.
    """

    def __init__(
        self, fetches: Fetches, config: Config, committer: Committer, moves: Moves
    ) -> None:
        self._fetches = fetches
        self._config = config
        self._committer = committer
        self._moves = moves

    @asynccontextmanager
    async def querying(self, peer: Peer) -> AsyncIterator[Archive]:
        """An association for queries; raises as `archive.opened` does."""
        tls = await in_thread(client_tls, peer, self._config.tls)
        async with opened(
            peer,
            tls=tls,
            timeouts=self._config.timeouts,
            max_instances=self._config.fetch.max_instances,
        ) as archive:
            yield archive

    @asynccontextmanager
    async def getting(self, one: OneStudy, sop_classes: Iterable[str]) -> AsyncIterator[Archive]:
        """An association for queries and `get`; raises as `archive.opened` does.

        Args:
            one: the study.
            sop_classes: of what may come by C-GET; see `get_contexts`.
        """
        peer = one.peer
        tls = await in_thread(client_tls, peer, self._config.tls)
        by_get = peer.retrieve == "get"
        contexts, roles = (
            get_contexts(sop_classes, compressed_first=one.compressed_first)
            if by_get
            else (MOVE_CONTEXTS, ())
        )
        async with opened(
            peer,
            contexts=contexts,
            roles=roles,
            open_store=while_retrieving(opener(self._committer, one.destination))
            if by_get
            else None,
            tls=tls,
            timeouts=self._config.timeouts,
            max_instances=self._config.fetch.max_instances,
        ) as archive:
            yield archive

    async def get(
        self,
        archive: Archive,
        one: OneStudy,
        requests: Sequence[Wanted],
        missing: Sequence[str],
        progress: Progress,
    ) -> list[Retrieved]:
        """Get what is missing, as far as the peer sends it.

        Args:
            archive: from `getting`.
            one: the study.
            requests: see `requests_for`.
            missing: SOP Instance UIDs, to know when everything has come.
            progress: told what the peer says.

        Returns:
            What the peer says of each request; of none after one that it refused.
        """
        if one.peer.retrieve == "get":
            return await self._by_get(archive, requests, progress)
        return await self._by_move(archive, one, requests, missing, progress)

    async def _by_move(
        self,
        archive: Archive,
        one: OneStudy,
        requests: Sequence[Wanted],
        missing: Sequence[str],
        progress: Progress,
    ) -> list[Retrieved]:
        peer = one.peer
        calling, to = peer.calling_ae or OUR_TITLE, move_destination(one.request, peer)
        within = self._config.fetch.response_within
        answers = []
        with self._moves.going_on(
            calling, archive.address, peer.ae_title, one.destination
        ) as message_id:
            for wanted in requests:
                answer = await archive.move(
                    wanted, to, message_id, progress=progress.told, timeout=within
                )
                answers.append(answer)
                progress.next(answer.completed)
                if answer.was_refused:
                    return answers
            await self._settle(one, missing)
        return answers

    async def _by_get(
        self, archive: Archive, requests: Sequence[Wanted], progress: Progress
    ) -> list[Retrieved]:
        within = self._config.fetch.response_within
        answers = []
        for wanted in requests:
            answer = await archive.get(wanted, progress=progress.told, timeout=within)
            answers.append(answer)
            progress.next(answer.completed)
            if answer.was_refused:
                break
        return answers

    async def _settle(self, one: OneStudy, missing: Sequence[str]) -> None:
        """Wait for what a peer that answers early still sends, as long as something comes."""
        left = len(missing)
        until = time.monotonic() + self._config.fetch.settle
        while missing := await self.missing(one, missing):
            if len(missing) < left:
                left, until = len(missing), time.monotonic() + self._config.fetch.settle
            if time.monotonic() >= until:
                return
            await asyncio.sleep(_LOOK)

    async def missing(self, one: OneStudy, uids: Sequence[str]) -> list[str]:
        """Which of these instances are neither here nor were removed."""
        removed = not one.request.criteria.again
        known = await in_thread(self._fetches.known, one.owner_id, uids, removed=removed)
        return [uid for uid in uids if uid not in known]


def requests_for(one: OneStudy, report: Report, missing: Sequence[str]) -> list[Wanted]:
    """The fewest requests for what is missing: a study, series, lists of instances."""
    left = set(missing)
    if report.only and len(left) == len(report.uids):
        return [Wanted(one.uid, patient_id=one.patient_id)]
    requests = []
    for series_uid, uids in report.wanted.items():
        of_series = [uid for uid in uids if uid in left]
        if of_series and len(of_series) == len(uids) and series_uid in report.whole:
            requests.append(Wanted(one.uid, series_uid, patient_id=one.patient_id))
            continue
        for start in range(0, len(of_series), one.batch):
            some = of_series[start : start + one.batch]
            requests.append(Wanted(one.uid, series_uid, some, one.patient_id))
    return requests


def move_destination(request: Request, peer: Peer) -> str:
    """The AE title of ours that the peer is to send to."""
    return request.destination or peer.calling_ae or OUR_TITLE
