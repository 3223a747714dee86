"""What the DICOM tools print: lines and a progress bar for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hilum.net.files import Outcome, SendResult, Summary
from hilum.net.sources import Found

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["StoreReport", "print_json", "shown"]

_GOOD = (Outcome.SENT, Outcome.WARNING)


def print_json(document: object) -> None:
    """Print one document; names that are no valid Unicode are escaped."""
    print(json.dumps(document, indent=2))


def shown(text: str) -> str:
    """Text from a file name or a peer, with what could steer a terminal escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _mega(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


class StoreReport:
    """The report of one ``hilum store``.

    Args:
        options: ``json``, ``quiet``, ``verbose``, ``debug``.
        found: what is sent, and what is not.
    """

    def __init__(self, options: Namespace, found: Found) -> None:
        self._json = options.json
        self._quiet = options.quiet
        self._verbose = options.verbose or options.debug
        self._found = found
        self._results: list[SendResult] = []
        self._not_sent: Counter[str] = Counter()  # by reason
        self._progress: Progress | None = None

    # ── while it goes on ────────────────────────────────────────────────────────────────────

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """A progress bar on standard error, if that is a terminal and may be written to."""
        if self._json or self._quiet or not sys.stderr.isatty():
            yield None
            return
        # Imported here: it takes a tenth of a second, which a script need not spend.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            progress.add_task("", total=self._found.bytes)
            self._progress = progress
            yield progress
        self._progress = None

    def advance(self, count: int) -> None:
        """So many bytes went out."""
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0], count)

    def not_sent(self) -> None:
        """Say what could not be read, and with ``-v`` what is no DICOM file."""
        for name, reason in self._found.failed:
            self._say_failed(name, reason)
        if self._verbose:
            for name, reason in self._found.skipped:
                self._say(f"skipped {shown(name)}: {reason}")

    def result(self, result: SendResult) -> None:
        """One data set has its answer, or will have none."""
        if self._json:
            self._results.append(result)
        elif result.outcome is Outcome.NOT_SENT and not self._verbose:
            # Without an association each of thousands of files has the same reason: said once.
            self._not_sent[result.reason] += 1
        elif result.outcome not in _GOOD:
            self._say_failed(result.source.name, result.reason, str(result.outcome))
        elif self._verbose:
            reason = f": {result.reason}" if result.reason else ""
            self._say(f"{result.outcome} {shown(result.source.name)}{reason}")

    def _say_failed(self, name: str, reason: str, outcome: str = "failed") -> None:
        if not self._json:
            self._say(f"{outcome} {shown(name)}: {shown(reason)}", error=True)

    def _say(self, line: str, *, error: bool = False) -> None:
        if self._json or (self._quiet and not error):
            return
        if self._progress is not None:
            # Around the bar, which is on standard error as well.
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr if error else sys.stdout)

    # ── at the end ──────────────────────────────────────────────────────────────────────────

    def end(self, peer: str, summary: Summary) -> bool:
        """Print the summary line or the JSON document; returns whether everything was sent."""
        ok = summary.ok and not self._found.failed and bool(self._found.sources)
        for reason, count in self._not_sent.items():
            self._say(f"{count} not sent: {shown(reason)}", error=True)
        if not self._found.sources and not self._found.failed:
            self._say("no DICOM file among what was named; -v says what was skipped", error=True)
        if self._json:
            print_json(self._document(peer, summary, ok))
        elif not self._quiet:
            print(self._line(summary))
        return ok

    def _failed(self, summary: Summary) -> int:
        lost = sum(n for outcome, n in summary.counts.items() if outcome not in _GOOD)
        return lost + len(self._found.failed)

    def _line(self, summary: Summary) -> str:
        counts = summary.counts
        failed = f"{self._failed(summary)} failed"
        if counts[Outcome.UNKNOWN]:
            failed += f" ({counts[Outcome.UNKNOWN]} of them unknown)"
        skipped = f", {len(self._found.skipped)} skipped" if self._found.skipped else ""
        rate = summary.bytes / summary.seconds if summary.seconds else 0.0
        return (
            f"{counts[Outcome.SENT]} sent, {counts[Outcome.WARNING]} warnings, {failed}{skipped}; "
            f"{_mega(summary.bytes)} in {summary.seconds:.1f} s, {rate / 1e6:.1f} MB/s"
        )

    def _document(self, peer: str, summary: Summary, ok: bool) -> dict[str, Any]:
        counts = summary.counts
        files = [_file(result) for result in self._results]
        files += [{"file": name, "outcome": "failed", "reason": why} for name, why in
                  self._found.failed]  # fmt: skip
        return {
            "peer": peer,
            "ok": ok,
            "files": files,
            "skipped": [{"file": name, "reason": why} for name, why in self._found.skipped],
            "summary": {
                "sent": counts[Outcome.SENT],
                "warnings": counts[Outcome.WARNING],
                "failed": self._failed(summary),
                "unknown": counts[Outcome.UNKNOWN],
                "not_sent": counts[Outcome.NOT_SENT],
                "skipped": len(self._found.skipped),
                "bytes": summary.bytes,
                "seconds": round(summary.seconds, 6),
                "associations": summary.associations,
                "error": str(summary.error) if summary.error else None,
            },
        }


def _file(result: SendResult) -> dict[str, Any]:
    head = result.source.head
    return {
        "file": result.source.name,
        "sop_class_uid": head.sop_class_uid,
        "sop_instance_uid": head.sop_instance_uid,
        "transfer_syntax_uid": head.transfer_syntax_uid,
        "outcome": str(result.outcome),
        "status": None if result.status is None else f"{result.status:04X}",
        "reason": result.reason or None,
        "bytes": result.source.length,
        "seconds": round(result.seconds, 6),
    }
