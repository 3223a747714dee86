"""What of a study is fetched: everything, or what radiation dose needs.

Pure. A peer is asked no deeper than the answer needs: `choose` is a generator that yields the
series whose images it has to know, is sent them, and returns the selection. Which reports there are
decides whether images are needed, so it asks for their SOP classes first, which a peer need not say
(PS3.4 Table C.6-4): such reports are got, and then known, before anything else is chosen.

========  ==========================================================================================
group     with the dose option
========  ==========================================================================================
MG, DX    radiation dose SR if there is one, else the images
FL        radiation dose SR, else enhanced SR, else nothing
CT        radiation dose SR, else enhanced SR, else Philips' "Dose Info" series, else, by option, the
          first image of each series
NM        radiopharmaceutical dose SR and the first image of each PT series, else the first image of
          each NM and PT series
SR        dose reports only, whatever the modality
========  ==========================================================================================

A study of several groups (PET/CT) gets what each of them needs. Without the dose option it is
fetched whole; of SR alone, its structured reports.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "Choosing",
    "Dropped",
    "Group",
    "Image",
    "Images",
    "Level",
    "Question",
    "Selection",
    "Series",
    "choose",
    "groups_of",
]

RADIATION_DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.67"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
RADIOPHARMACEUTICAL_DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.68"

DOSE_INFO = "dose info"
"""Description of the series with Philips' picture of the dose, compared without case."""


class Group(StrEnum):
    """Modalities that are fetched alike."""

    CT = "CT"
    MG = "MG"
    FL = "FL"
    DX = "DX"
    NM = "NM"
    SR = "SR"


MODALITIES: Mapping[Group, frozenset[str]] = {
    Group.CT: frozenset({"CT"}),
    Group.MG: frozenset({"MG"}),
    Group.FL: frozenset({"RF", "XA"}),
    Group.DX: frozenset({"DX", "CR", "PX"}),
    Group.NM: frozenset({"NM", "PT"}),
    Group.SR: frozenset({"SR"}),
}
"""The modalities of each group; of SR, what a study has to have."""


class Level(StrEnum):
    """What was dropped."""

    STUDY = "study"
    SERIES = "series"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Series:
    """A series as the peer describes it; "" and None for what it does not say."""

    uid: str
    modality: str = ""
    description: str = ""
    number: int | None = None
    station: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An instance as the peer describes it."""

    uid: str
    sop_class: str = ""
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is not fetched, and why."""

    level: Level
    uid: str
    reason: str


@dataclass(slots=True)
class Selection:
    """What to fetch of a study.

    Args:
        wanted: SOP Instance UIDs by series, in order.
        whole: series of which every image is wanted.
        dropped: everything else.
    """

    wanted: dict[str, list[str]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    dropped: list[Dropped] = field(default_factory=list)


Images = Mapping[str, Sequence[Image]]
"""Images by Series Instance UID."""


class Question(NamedTuple):
    """What a choice has to know next.

    Args:
        series: whose images.
        sop_classes: whether the SOP classes of these decide; those that the peer does not say are
            to be found out.
    """

    series: Sequence[Series]
    sop_classes: bool = False


Choosing = Generator[Question, Images, Selection]


def groups_of(modalities: Iterable[str]) -> frozenset[Group]:
    """The groups that modalities belong to."""
    there = set(modalities)
    return frozenset(group for group, members in MODALITIES.items() if members & there)


def choose(
    series: Sequence[Series],
    *,
    groups: Iterable[Group] = (),
    dose: bool = False,
    first_images: bool = False,
) -> Choosing:
    """Choose from a study.

    Args:
        series: all series that the filters left.
        groups: the groups asked for; empty for all.
        dose: only what radiation dose needs.
        first_images: of a CT study without any report, the first image of each series.

    Yields:
        Which series' images are needed; send them.
    """
    asked = frozenset(groups)
    if not dose:
        return (yield from _whole(series, asked))
    return (yield from _for_dose(series, asked, first_images=first_images))


def _whole(series: Sequence[Series], asked: frozenset[Group]) -> Choosing:
    chosen = list(series)
    if asked == {Group.SR}:
        chosen = [one for one in series if one.modality == "SR"]
    images = (yield Question(chosen)) if chosen else {}
    selection = Selection()
    for one in series:
        if one in chosen:
            selection.wanted[one.uid] = [image.uid for image in images[one.uid]]
            selection.whole.add(one.uid)
        else:
            reason = "no structured report; only those are asked for"
            selection.dropped.append(Dropped(Level.SERIES, one.uid, reason))
    return selection


# ── for dose ──────────────────────────────────────────────────────────────────────────────────


class _Reports:
    """The structured reports of a study, by what they are."""

    def __init__(self, series: Iterable[Series], images: Images) -> None:
        self.images = images
        self.dose: list[str] = []
        self.enhanced: list[str] = []
        self.radiopharmaceutical: list[str] = []
        # Neither did the peer say what these are nor could they be got to see it: they stay
        # wanted, but nothing is left out for their sake.
        self.untold: list[str] = []
        for one in series:
            named_dose = "dose" in one.description.casefold()
            for image in images[one.uid]:
                kind = {
                    RADIATION_DOSE_SR: self.dose,
                    ENHANCED_SR: self.enhanced,
                    RADIOPHARMACEUTICAL_DOSE_SR: self.radiopharmaceutical,
                    "": self.dose if named_dose else self.untold,
                }.get(image.sop_class)
                if kind is not None:
                    kind.append(image.uid)


@dataclass(slots=True)
class _Needs:
    """What a group needs of a study."""

    reports: Sequence[str] = ()
    whole: Sequence[Series] = ()
    first: Sequence[Series] = ()
    why_not: str = ""  # of the group's other series


def _needs(
    group: Group, series: Sequence[Series], reports: _Reports, *, first_images: bool
) -> _Needs:
    mine = [one for one in series if one.modality in MODALITIES[group]]
    either = reports.dose or reports.enhanced
    instead = "a dose report is taken instead"
    match group:
        case Group.MG | Group.DX if reports.dose:
            return _Needs(reports.dose, why_not=instead)
        case Group.MG | Group.DX:
            return _Needs(whole=mine)
        case Group.FL:
            reason = instead if either else "the study has no dose report"
            return _Needs(either, why_not=reason)
        case Group.CT if either:
            return _Needs(either, why_not=instead)
        case Group.CT:
            pictures = [one for one in series if one.description.strip().casefold() == DOSE_INFO]
            if pictures:
                return _Needs(whole=pictures, why_not="the Dose Info series is taken instead")
            if first_images:
                return _Needs(first=mine)
            if not any(one.description for one in series):
                return _Needs(
                    why_not="the study has no dose report, and its series no descriptions"
                )
            return _Needs(why_not="the study has neither dose report nor Dose Info series")
        case Group.NM if reports.radiopharmaceutical:
            positron = [one for one in mine if one.modality == "PT"]
            return _Needs(reports.radiopharmaceutical, first=positron, why_not=instead)
        case Group.NM:
            return _Needs(first=mine)
        case Group.SR:
            return _Needs(reports.dose + reports.enhanced + reports.radiopharmaceutical)


def _for_dose(series: Sequence[Series], asked: frozenset[Group], *, first_images: bool) -> Choosing:
    present = groups_of(one.modality for one in series)
    groups = (asked & present if asked else present - {Group.SR}) or present & {Group.SR}
    looked_into = [one for one in series if one.modality in ("SR", "")]
    reports = _Reports(
        looked_into, (yield Question(looked_into, sop_classes=True)) if looked_into else {}
    )
    wanted_reports = set(reports.untold)
    whole: dict[str, Series] = {}
    first: dict[str, Series] = {}
    why_not: dict[str, str] = {}
    for group in sorted(groups):
        needs = _needs(group, series, reports, first_images=first_images)
        wanted_reports.update(needs.reports)
        whole |= {one.uid: one for one in needs.whole}
        first |= {one.uid: one for one in needs.first}
        why_not |= dict.fromkeys(MODALITIES[group], needs.why_not)
    images = dict(reports.images)
    unseen = [one for uid, one in (first | whole).items() if uid not in images]
    if unseen:
        images |= yield Question(unseen)
    selection = Selection()
    for one in series:
        there = images.get(one.uid, ())
        if one.uid in whole:
            selection.wanted[one.uid] = [image.uid for image in there]
            selection.whole.add(one.uid)
        elif one.uid in first:
            _pick(selection, one, there, _first(there), "not the first image of its series")
        elif one.uid in reports.images:
            _pick(selection, one, there, wanted_reports, "no report that is needed for dose")
        else:
            reason = why_not.get(one.modality) or "its modality is not asked for"
            selection.dropped.append(Dropped(Level.SERIES, one.uid, reason))
    return selection


def _pick(
    selection: Selection, series: Series, images: Sequence[Image], wanted: set[str], why_not: str
) -> None:
    chosen = [image.uid for image in images if image.uid in wanted]
    if chosen:
        selection.wanted[series.uid] = chosen
        if len(chosen) == len(images):
            selection.whole.add(series.uid)
    selection.dropped += [
        Dropped(Level.IMAGE, image.uid, why_not) for image in images if image.uid not in wanted
    ]


def _first(images: Sequence[Image]) -> set[str]:
    """The image with the smallest number; of those without one, the first that the peer named."""
    if not images:
        return set()
    numbered = [image for image in images if image.number is not None]
    chosen = min(numbered, key=lambda image: image.number or 0) if numbered else images[0]
    return {chosen.uid}
