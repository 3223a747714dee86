"""The status page. It says nothing about patients or users: there is no login in front of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

import hilum
from hilum.gateway.store.states import TitleKind, WorkState
from hilum.gateway.web.status import Report

__all__ = ["bytes_text", "duration_text", "render"]

_KEEPS_FOR = {
    TitleKind.GLOBAL: "everyone",
    TitleKind.ACCOUNT: "one user",
    TitleKind.QUARANTINE: "the quarantine",
}


def bytes_text(count: float) -> str:
    """A number of bytes for people: ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


def duration_text(seconds: float) -> str:
    """A duration for people, in its two largest units: ``2 d 3 h``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _when(microseconds: int) -> str:
    return _moment(microseconds / 1_000_000)


_environment = Environment(
    loader=PackageLoader("hilum.gateway.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
_environment.filters["when"] = _when


def render(report: Report, *, reload: bool = True) -> str:
    """The page of a report, as HTML; with ``reload`` it comes anew every few seconds."""
    directory = report.directory
    titles = [title for title in directory.called_titles if title.enabled] if directory else []
    return _environment.get_template("status.html").render(
        version=hilum.__version__,
        report=report,
        receiver=_receiver(report),
        archive=_archive(report),
        titles=titles,
        keeps_for=_KEEPS_FOR,
        work_states=list(WorkState),
        users=sum(not account.disabled for account in directory.accounts) if directory else 0,
        looked=_moment(report.looked),
        reload=reload,
        not_open=lambda name: name in _not_open(report),
        listener_state=lambda name: _listener_state(report, name),
    )


def _not_open(report: Report) -> Mapping[str, str]:
    return report.beat.not_open if report.beat is not None and report.receiving else {}


def _listener_state(report: Report, name: str) -> str:
    """Why a listener is not open is in the log: it may name files."""
    if report.beat is None or not report.receiving:
        return "unknown"
    if name in report.beat.opened:
        return "open on " + ", ".join(report.beat.opened[name])
    return "not open" if name in report.beat.not_open else "opening"


def _receiver(report: Report) -> list[tuple[str, str]]:
    beat = report.beat
    if beat is None:
        return [("State", "has never reported")]
    counts = [
        ("Associations since the start", f"{beat.associations_accepted:,} accepted, "
         f"{beat.associations_rejected:,} rejected; "
         f"{beat.connections_refused:,} connections refused"),
        ("Instances since the start", f"{beat.stored:,} stored ({bytes_text(beat.stored_bytes)}), "
         f"{beat.duplicates:,} here already, {beat.refused:,} refused, {beat.failed:,} failed"),
    ]  # fmt: skip
    if not report.receiving:
        silent = duration_text(report.looked - beat.written)
        return [("State", f"silent for {silent}; what follows is its last report"), *counts]
    free = bytes_text(beat.free_bytes)
    if report.reserve:
        under = "; nothing more is taken" if beat.free_bytes <= report.reserve else ""
        free += f", {bytes_text(report.reserve)} of it reserved{under}"
    return [
        ("Version", beat.version),
        ("Running for", duration_text(report.looked - beat.started)),
        ("Listening on", ", ".join(beat.listeners) or "nothing"),
        ("Associations now", f"{beat.associations:,}"),
        ("Received, not yet durable", f"{beat.waiting:,}"),
        *counts,
        ("Free space", free),
    ]


def _archive(report: Report) -> list[tuple[str, str]]:
    totals = report.totals
    if totals is None:
        return []
    return [
        ("Patients", f"{totals.patients:,}"),
        ("Studies", f"{totals.studies:,}"),
        ("Series", f"{totals.series:,}"),
        ("Instances", f"{totals.instances:,}"),
        ("Size", bytes_text(totals.total_bytes)),
        ("Counted", f"{duration_text(report.totals_age)} ago"),
    ]
