"""Fetching from a peer: which studies there are, what of each is needed, and getting it.

Two kinds of work: `FETCH` asks the peer for studies and writes a row for each; `STUDY` fetches one.
Both can be killed at any moment and run again: what is here is looked up, not remembered. A study
is done when every instance that was wanted is in the index, whatever counters a peer reports.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from hilum.errors import ConfigurationError, HilumError, NotFound
from hilum.gateway.config import Config
from hilum.gateway.flow.address import Router
from hilum.gateway.flow.archive import Archive, ArchiveFailed, Retrieved
from hilum.gateway.flow.criteria import Criteria, Study
from hilum.gateway.flow.getting import Getter, OneStudy, Progress, move_destination, requests_for
from hilum.gateway.flow.moves import Moves
from hilum.gateway.flow.request import Request
from hilum.gateway.flow.selection import Choosing, Dropped, Images, Selection, choose
from hilum.gateway.store.claims import Job, Outcome, dead, done, later, retry
from hilum.gateway.store.commit import Committer, Destination
from hilum.gateway.store.entries import Peer
from hilum.gateway.store.fetches import FETCH, STUDY, Fetch, Fetches, Named, Report
from hilum.gateway.store.states import FetchState, StudyState
from hilum.gateway.threads import in_thread
from hilum.gateway.work.calendar import Window, zone
from hilum.gateway.work.kinds import Backoff, Kind
from hilum.services.sop_classes import STORAGE_SOP_CLASSES

__all__ = ["Fetcher"]

# Studies that are written together while the peer names more.
_NAMED_AT_ONCE = 200
# UIDs in one request: 50 of 64 characters are a value of 3 KB, which every peer takes that takes
# lists at all.
_INSTANCES_AT_ONCE = 50
# Pieces of 50 studies: more than a fetch adds on average, so that reports do not pile up.
_FORGOTTEN_AT_ONCE = 50
# What may come of a series of modality SR.
_REPORTS = frozenset(
    uid for uid in STORAGE_SOP_CLASSES if uid.startswith("1.2.840.10008.5.1.4.1.1.88.")
)


class Fetcher:
    """The handlers of fetches.

    Args:
        fetches: their rows.
        config: ``fetch``, ``tls``, ``timeouts``.
        router: the present one, with directory and titles.
        committer: takes what C-GET brings.
        moves: told of the C-MOVEs that go on.
    """

    def __init__(
        self,
        fetches: Fetches,
        config: Config,
        router: Callable[[], Router],
        committer: Committer,
        moves: Moves,
    ) -> None:
        self._fetches = fetches
        self._config = config
        self._router = router
        self._getter = Getter(fetches, config, committer, moves)

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """The kinds of work that are run here."""
        setting = self._config.fetch
        backoff = Backoff(setting.retry_least, cap=setting.retry_most)
        common: dict[str, Any] = {
            "max_attempts": setting.attempts,
            "backoff": backoff,
            "time_limit": setting.attempt_within,
        }
        return (
            Kind(name=FETCH, run=self.plan, concurrency=2, per_key=1, **common),
            Kind(
                name=STUDY,
                run=self.study,
                concurrency=setting.studies_at_once,
                per_key=setting.studies_per_peer,
                **common,
            ),
        )

    # ── which studies ─────────────────────────────────────────────────────────────────────────

    async def plan(self, job: Job) -> Outcome:
        """Ask the peer which studies there are."""
        if closed := _closed_for(job):
            return closed
        try:
            request = Request.read(job.payload.get("request", job.payload))
        except ConfigurationError as error:
            return dead(str(error))
        fetch = await in_thread(
            self._fetches.of_work, job.id, request.peer, request.write(), job.origin
        )
        if fetch.state is not FetchState.PLANNING:
            return done()
        peer = self._peer(request.peer)
        self._destination(request, peer)
        # What "yesterday" means is settled when the fetch begins.
        began = datetime.fromtimestamp(fetch.created_at / 1e6)
        criteria = request.criteria.resolved(began)
        async with self._getter.querying(peer) as archive:
            await archive.echo()
            duplicates = await self._name_studies(archive, criteria, fetch, _window_of(job))
        await self._forget_old()
        also = partial(self._fetches.planned, fetch_id=fetch.id, duplicates=duplicates)
        return done(also=also)

    async def _forget_old(self) -> None:
        """Reports of fetches that were over long ago go, a little with each new fetch."""
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not await in_thread(self._fetches.forget, keep=self._config.fetch.keep):
                return

    async def _name_studies(
        self, archive: Archive, criteria: Criteria, fetch: Fetch, window: Mapping[str, str]
    ) -> int:
        """Write a row for each study; returns how many responses named one again."""
        seen: set[str] = set()
        waiting: list[Named] = []
        duplicates = 0
        for modality in criteria.modalities or ("",):
            of_this: set[str] = set()
            is_ignored = False
            async for study in archive.studies(criteria, modality):
                # The same study may well answer to two modalities; twice to one is a duplicate.
                duplicates += study.uid in of_this
                of_this.add(study.uid)
                is_ignored |= bool(
                    modality and study.modalities and modality not in study.modalities
                )
                if study.uid in seen:
                    continue
                seen.add(study.uid)
                if len(seen) > self._config.fetch.max_studies:
                    raise HilumError(
                        f"the peer names more than fetch.max_studies = "
                        f"{self._config.fetch.max_studies} studies; narrow the filters"
                    )
                waiting.append(_named(study, criteria))
                if len(waiting) >= _NAMED_AT_ONCE:
                    await in_thread(self._fetches.add_studies, fetch, waiting, window=window)
                    waiting = []
            if is_ignored:  # it does not match by modality: it has named everything
                break
        await in_thread(self._fetches.add_studies, fetch, waiting, window=window)
        return duplicates

    # ── one study ─────────────────────────────────────────────────────────────────────────────

    async def study(self, job: Job) -> Outcome:
        """Fetch one study."""
        if closed := _closed_for(job):
            return closed
        try:
            fetch = await in_thread(self._fetches.find, job.payload["fetch"])
        except NotFound:
            return dead("its fetch was forgotten")
        number: int = job.payload["study"]
        rows = await in_thread(self._fetches.studies, fetch.id, study_id=number)
        if fetch.state is FetchState.CANCELLED or not rows:
            return done()
        row = rows[0]
        if row.state is not StudyState.PLANNED:
            return done()
        request = Request.read(fetch.request)
        peer = self._peer(request.peer)
        destination = self._destination(request, peer)
        # Peers that take no list of instances get what is missing one by one the next time.
        batch = _INSTANCES_AT_ONCE if job.attempt == 1 else 1
        patient_id = str(row.about.get("patient_id", ""))
        one = OneStudy(
            number,
            row.study_uid,
            request,
            peer,
            destination,
            batch,
            row.n_here,
            patient_id,
            # What a peer could not send in the first context of its class comes the next time.
            compressed_first=job.attempt % 2 == 0,
        )
        report = await in_thread(self._fetches.report, number) if job.attempt > 1 else None
        if report is None:
            # A second failure may be for good: a peer that cannot send some report is not asked
            # for ever.
            patient = job.attempt == 1 < self._config.fetch.attempts
            report, here, why_not = await self._what_of(one, patient=patient)
            if why_not:
                return self._over(one, StudyState.DROPPED, reason=why_not)
            if here == len(report.uids):
                return self._over(
                    one, StudyState.HERE, reason=await self._why_here(one, report.uids)
                )
            one = replace(one, here=here)
        return await self._get(one, report)

    async def _what_of(self, one: OneStudy, *, patient: bool) -> tuple[Report, int, str]:
        """What of a study is needed, how much of it was here, and why nothing is needed.

        Args:
            one: the study.
            patient: reports that decide and do not come make it fail, to be tried again; else the
                choice is made without them.
        """
        criteria = one.request.criteria
        learned: set[str] = set()
        opening = (
            self._getter.getting(one, _REPORTS)
            if criteria.dose
            else self._getter.querying(one.peer)
        )
        async with opening as archive:
            series = await archive.series(one.uid, one.patient_id)
            modalities = sorted({each.modality for each in series if each.modality})
            kept, dropped, why_not = criteria.sift_series(series)
            why_not = why_not or criteria.why_not_modalities(modalities)
            if not series:
                why_not = "the peer names no series of it"
            report = Report(dropped=_plain(dropped), modalities=modalities)
            if not why_not:
                choosing = choose(
                    kept,
                    groups=criteria.groups,
                    dose=criteria.dose,
                    first_images=criteria.first_images,
                )
                learn = partial(self._learn, archive, one, learned, patient=patient)
                report = await _choose(archive, one, choosing, report, learn)
                why_not = "" if report.uids else "nothing of it is needed"
        known = await in_thread(
            self._fetches.known, one.owner_id, report.uids, removed=not criteria.again
        )
        here = len(known - learned)
        await in_thread(self._fetches.keep_report, one.number, report, here=here)
        return report, here, why_not

    async def _why_here(self, one: OneStudy, uids: Sequence[str]) -> str:
        held = await in_thread(self._fetches.known, one.owner_id, uids, removed=False)
        removed = len(uids) - len(held)
        return f"{removed} were here and were removed; --again fetches them" if removed else ""

    async def _learn(
        self, archive: Archive, one: OneStudy, learned: set[str], seen: Images, *, patient: bool
    ) -> Images:
        """Tell the SOP classes that the peer does not say, by getting the reports.

        Args:
            archive: from `Getter.getting`.
            one: the study.
            learned: gets the UIDs of what has come.
            seen: what the peer says of the images, by series.
            patient: see `_what_of`.
        """
        untold = {
            series: uids
            for series, images in seen.items()
            if (uids := [image.uid for image in images if not image.sop_class])
        }
        uids = [uid for uids in untold.values() for uid in uids]
        told = await in_thread(self._fetches.sop_classes, one.owner_id, uids)
        if left := [uid for uid in uids if uid not in told]:
            whole = [series for series in untold if len(untold[series]) == len(seen[series])]
            requests = requests_for(one, Report(wanted=untold, whole=whole), left)
            progress = Progress(self._fetches, one, 0)
            answers = await self._getter.get(archive, one, requests, left, progress)
            told |= await in_thread(self._fetches.sop_classes, one.owner_id, left)
            learned.update(uid for uid in left if uid in told)
            if patient and (count := len(uids) - len(told)):
                raise ArchiveFailed(
                    f"{count} of {len(uids)} reports are missing, of which the peer does not say "
                    f"what they are; {_said(one, answers)}"
                )
        return {
            series: [
                replace(image, sop_class=image.sop_class or told.get(image.uid, ""))
                for image in images
            ]
            for series, images in seen.items()
        }

    def _over(self, one: OneStudy, state: StudyState, **more: Any) -> Outcome:
        return done(also=partial(self._fetches.ended, study_id=one.number, state=state, **more))

    async def _get(self, one: OneStudy, report: Report) -> Outcome:
        missing = await self._getter.missing(one, report.uids)
        answers: list[Retrieved] = []
        if missing:
            progress = Progress(self._fetches, one, len(report.uids) - len(missing) - one.here)
            writing = asyncio.create_task(progress.keep_writing())
            try:
                async with self._getter.getting(one, report.sop_classes) as archive:
                    requests = requests_for(one, report, missing)
                    answers = await self._getter.get(archive, one, requests, missing, progress)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            missing = await self._getter.missing(one, report.uids)
        arrived = len(report.uids) - len(missing) - one.here
        if not missing:
            return self._over(one, StudyState.FETCHED, arrived=arrived)
        await in_thread(self._fetches.arrived, one.number, arrived)
        return retry(
            f"{len(missing)} of {len(report.uids)} instances are missing; {_said(one, answers)}"
        )

    # ── the directory ─────────────────────────────────────────────────────────────────────────

    def _peer(self, name: str) -> Peer:
        for peer in self._router().snapshot.peers:
            if peer.name == name:
                return peer
        raise NotFound(f"no peer {name!r}; 'hilum peer ls' lists them")

    def _destination(self, request: Request, peer: Peer) -> Destination:
        """Whose the instances will be; checks that a C-MOVE can reach us."""
        router = self._router()
        if peer.retrieve != "get":
            to = move_destination(request, peer)
            if router.snapshot.resolve(to) is None:
                raise ConfigurationError(
                    f"{peer.name!r} is to send to our AE title {to!r}, which is not served; "
                    f"add it with 'hilum ae add {to}'"
                )
            if not any(listener.enabled for listener in router.snapshot.listeners):
                raise ConfigurationError("no listener is open that a C-MOVE could send to")
        name = request.title or move_destination(request, peer)
        title = router.snapshot.resolve(name)
        if title is None:
            raise ConfigurationError(
                f"AE title {name!r}, under which the images are to be kept, is not served; add it "
                f"with 'hilum ae add {name}', or name another with --title"
            )
        return router.destination(title, peer)


def _said(one: OneStudy, answers: Sequence[Retrieved]) -> str:
    return f"{one.peer.ae_title} said {'; '.join(dict.fromkeys(map(str, answers)))}"


async def _choose(
    archive: Archive,
    one: OneStudy,
    choosing: Choosing,
    report: Report,
    learn: Callable[[Images], Awaitable[Images]],
) -> Report:
    """Answer a choice's questions; returns the report with what was chosen."""
    sop_classes: dict[str, str] = {}
    seen: Images | None = None
    while True:
        try:
            ask = choosing.send(seen) if seen is not None else next(choosing)
        except StopIteration as stop:
            selection: Selection = stop.value
            break
        seen = {
            each.uid: await archive.images(one.uid, each.uid, one.patient_id) for each in ask.series
        }
        if ask.sop_classes:
            seen = await learn(seen)
        sop_classes |= {image.uid: image.sop_class for images in seen.values() for image in images}
    dropped = (*report.dropped, *_plain(selection.dropped))
    return Report(
        wanted=selection.wanted,
        whole=sorted(selection.whole),
        only=not dropped,
        dropped=dropped,
        sop_classes=sorted(
            {sop_classes.get(uid, "") for uids in selection.wanted.values() for uid in uids}
        ),
        modalities=report.modalities,
    )


def _named(study: Study, criteria: Criteria) -> Named:
    about = {
        "date": study.date,
        "time": study.time,
        "modalities": list(study.modalities or ()),
        "description": study.description,
        "patient_id": study.patient_id,
    }
    return Named(study.uid, about, criteria.why_not_study(study))


def _plain(dropped: Sequence[Dropped]) -> list[tuple[str, str, str]]:
    return [(each.level.value, each.uid, each.reason) for each in dropped]


def _window_of(job: Job) -> dict[str, str]:
    """The part of the payload that says when the job may run."""
    return {name: job.payload[name] for name in ("time_window", "time_zone") if name in job.payload}


def _closed_for(job: Job) -> Outcome | None:
    """What to answer when it is not the time of day for a job."""
    span = _window_of(job)
    if not span.get("time_window"):
        return None
    window = Window(span["time_window"], zone(span.get("time_zone", "")))
    now = time.time_ns() // 1000
    if window.is_open(now):
        return None
    return later((window.opens(now) - now) / 1e6, "waits for its time window")
