"""Which studies and series are fetched. Pure; now is an argument.

What a peer can match, it is asked to match; everything is looked at again here, because peers
ignore keys that they do not support.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hilum.errors import ConfigurationError
from hilum.gateway.flow.selection import MODALITIES, Dropped, Group, Level, Series, groups_of

__all__ = ["Criteria", "Study", "resolve_moment"]

_ABSOLUTE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:[T ]?(\d{2}):?(\d{2})(?::?(\d{2}))?)?")
_RELATIVE = re.compile(r"-(\d+)\s*([dhm])")
_WORDS = {"today": 0, "yesterday": 1}
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@dataclass(frozen=True, slots=True)
class Study:
    """A study as the peer describes it; "" for what it does not say.

    Args:
        uid: Study Instance UID.
        date: YYYYMMDD.
        time: HHMMSS, or as much of it as the peer says.
        modalities: in the study; None where the peer leaves them out.
        description: Study Description.
        patient_id: Patient ID.
    """

    uid: str
    date: str = ""
    time: str = ""
    modalities: tuple[str, ...] | None = None
    description: str = ""
    patient_id: str = ""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is fetched.

    Args:
        groups: groups of modalities; empty for all.
        since: first moment, YYYYMMDD or YYYYMMDDHHMMSS; or as `resolve_moment` takes it.
        until: last moment, likewise; a day without time is meant to its end.
        descriptions: the Study Description has one of these; upper and lower case are the same.
        not_descriptions: it has none of these.
        stations: the Station Name has one of these. A station that the peer does not name counts
            as one that fits.
        not_stations: it has none of these.
        station_level: "study": one series decides for its study; "series": each for itself.
        patient_id: Patient ID; * and ? are wildcards.
        accession_number: likewise.
        study_uids: these only.
        dose: only what radiation dose needs.
        first_images: see `selection.choose`.
        again: fetch what was here and was removed, too.
    """

    groups: tuple[Group, ...] = ()
    since: str = ""
    until: str = ""
    descriptions: tuple[str, ...] = ()
    not_descriptions: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    not_stations: tuple[str, ...] = ()
    station_level: str = "series"
    patient_id: str = ""
    accession_number: str = ""
    study_uids: tuple[str, ...] = field(default=())
    dose: bool = False
    first_images: bool = False
    again: bool = False

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Criteria:
        """From JSON.

        Raises:
            ConfigurationError: a value that cannot be.
        """
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        try:
            criteria = cls(**plain)
            criteria = replace(criteria, groups=tuple(map(Group, criteria.groups)))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"what is to be fetched cannot be read: {error}") from None
        criteria.check()
        return criteria

    def write(self) -> dict[str, Any]:
        """For JSON; what is not set is left out."""
        return {name: value for name, value in asdict(self).items() if value}

    def check(self) -> None:
        """What types cannot say.

        Raises:
            ConfigurationError: a value that cannot be.
        """
        if self.station_level not in ("study", "series"):
            raise ConfigurationError(
                f"station level {self.station_level!r} is neither study nor series"
            )
        noon = datetime(2000, 1, 1, 12)
        for moment in (self.since, self.until):
            resolve_moment(moment, noon)

    def resolved(self, now: datetime) -> Criteria:
        """With absolute moments: what "yesterday" means is settled when a fetch begins."""
        return replace(
            self, since=resolve_moment(self.since, now), until=resolve_moment(self.until, now)
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that a study must have one of; empty for any."""
        return tuple(sorted({name for group in self.groups for name in MODALITIES[group]}))

    @property
    def dates(self) -> str:
        """The range of Study Date for a query (PS3.4 C.2.2.2.5); "" for any."""
        first, last = self.since[:8], self.until[:8]
        if not first and not last:
            return ""
        return first if first == last else f"{first}-{last}"

    # ── looking again ─────────────────────────────────────────────────────────────────────────

    def why_not_study(self, study: Study) -> str:
        """Why a study is dropped; "" when it is not, or that cannot be said yet."""
        moment = study.date + study.time.partition(".")[0].replace(":", "")
        if self.since and study.date and moment < self.since[: len(moment)]:
            return f"before {self.since}"
        if self.until and study.date and moment[: len(self.until)] > self.until:
            return f"after {self.until}"
        if self.study_uids and study.uid not in self.study_uids:
            return "none of the studies asked for"
        if self.descriptions and not _has(study.description, self.descriptions):
            return f"its description has none of: {', '.join(self.descriptions)}"
        if self.not_descriptions and _has(study.description, self.not_descriptions):
            return f"its description has one of: {', '.join(self.not_descriptions)}"
        if study.modalities is not None:
            return self.why_not_modalities(study.modalities)
        return ""

    def why_not_modalities(self, modalities: Iterable[str]) -> str:
        """Why a study with these modalities is dropped; "" when it is not."""
        there = sorted({name for name in modalities if name})
        if self.groups and not groups_of(there) & set(self.groups):
            return f"its modalities ({', '.join(there) or 'none'}) are not asked for"
        return ""

    def sift_series(self, series: Iterable[Series]) -> tuple[list[Series], list[Dropped], str]:
        """Apply the filters of station names.

        Returns:
            The series that stay, those that do not, and why the whole study does not; "".
        """
        kept, dropped = [], []
        series = list(series)
        for one in series:
            reason = self._why_not_station(one.station)
            if not reason:
                kept.append(one)
            else:
                dropped.append(Dropped(Level.SERIES, one.uid, reason))
        if self.station_level == "series" or not dropped:
            return kept, dropped, ""
        if any(_has(one.station, self.not_stations) for one in series):
            return [], dropped, "a series is of a station that is not wanted"
        if not kept:
            return [], dropped, "no series is of a station that is wanted"
        return series, [], ""

    def _why_not_station(self, station: str) -> str:
        if not station:
            return ""
        if self.stations and not _has(station, self.stations):
            return f"its station {station!r} is not wanted"
        if self.not_stations and _has(station, self.not_stations):
            return f"its station {station!r} is excluded"
        return ""


def _has(text: str, parts: Iterable[str]) -> bool:
    folded = text.casefold()
    return any(part.casefold() in folded for part in parts)


def resolve_moment(text: str, now: datetime) -> str:
    """A moment as YYYYMMDD or YYYYMMDDHHMMSS; "" stays "".

    Args:
        text: such as ``2026-11-21``, ``2026-11-21T08:30``, ``today``, ``yesterday``, ``-7d``,
            ``-90m``.
        now: local time.

    Raises:
        ConfigurationError: anything else.
    """
    if not text:
        return ""
    if text in _WORDS:
        return f"{now - timedelta(days=_WORDS[text]):%Y%m%d}"
    if relative := _RELATIVE.fullmatch(text):
        then = now - timedelta(**{_UNITS[relative[2]]: int(relative[1])})
        return f"{then:%Y%m%d}" if relative[2] == "d" else f"{then:%Y%m%d%H%M%S}"
    absolute = _ABSOLUTE.fullmatch(text)
    try:
        if absolute is None:
            raise ValueError(text)
        year, month, day, hour, minute, second = (int(n or 0) for n in absolute.groups())
        then = datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no date or time; write 2026-11-21, 2026-11-21T08:30, today, yesterday "
            "or -7d"
        ) from None
    return f"{then:%Y%m%d}" if absolute[4] is None else f"{then:%Y%m%d%H%M%S}"
