"""``hilum dicomdir``: write a medium, a file-set with its DICOMDIR."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.cli.options import parser, verbosity_options
from hilum.cli.report import print_json, shown
from hilum.cli.running import reason, set_up_logging
from hilum.errors import HilumError, NotFound
from hilum.net.fileset import Medium, write_medium
from hilum.net.media import find_on_media
from hilum.net.sources import PassedOver, Source

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["main"]

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+", re.ASCII)


def _parser() -> ArgumentParser:
    result = parser(
        "dicomdir",
        "Write a medium (PS3.10, PS3.11): images, a DICOMDIR, a README. Data sets are copied byte "
        "for byte; uncompressed ones that no profile knows are converted to Explicit VR Little "
        "Endian. Exit code 0 if everything is on it.",
        "hilum dicomdir [options] FILE|FOLDER|ZIP|STUDY … -o FOLDER|FILE.zip|FILE.iso",
    )
    add = result.add_argument
    add("words", nargs="+", metavar="FILE",
        help="what goes onto it; a Study Instance UID takes the study from the archive")  # fmt: skip
    add("-o", "--output", type=Path, required=True, metavar="TARGET",
        help="a new or empty folder, FILE.zip or FILE.iso")  # fmt: skip
    add("--label", default="HILUM", metavar="LABEL", help="File-set ID and volume label (HILUM)")
    add("--any-syntax", action="store_true",
        help="write compressed images that no general purpose profile knows, too")  # fmt: skip
    add("--data", type=Path, metavar="DIR", help="data directory that studies are taken from")
    add("--user", metavar="NAME", help="take studies as this user sees them")
    add("--json", action="store_true", help="for programs: one JSON document on standard output")
    verbosity_options(result)
    return result


def main(argv: Sequence[str]) -> int:
    """Run ``hilum dicomdir``; returns its exit code."""
    arguments = _parser()
    options = arguments.parse_intermixed_args(argv)
    set_up_logging(options)
    studies = [w for w in options.words if _UID.fullmatch(w) and not Path(w).exists()]
    paths = [word for word in options.words if word not in studies]
    try:
        with ExitStack() as stack:
            found = stack.enter_context(find_on_media(paths))
            sources: list[Source] = [*found.sources]
            if studies:
                sources += stack.enter_context(_stored(options, studies))
            progress = stack.enter_context(_progress(options, len(sources)))
            medium = write_medium(
                sources,
                options.output,
                label=options.label,
                any_syntax=options.any_syntax,
                on_object=(lambda: progress.advance(progress.task_ids[0])) if progress else _silent,
            )
            medium.left_out += found.failed
            return _report(options, medium, found.skipped)
    except FileNotFoundError as error:
        if not error.filename and error.args:
            arguments.error(f"no file or folder '{shown(str(error))}'; nothing was written")
        print(f"hilum: {reason(error)}", file=sys.stderr)
    except (HilumError, OSError) as error:
        print(f"hilum: {reason(error)}", file=sys.stderr)
    return 1


def _silent() -> None:
    """Nobody watches."""


@contextmanager
def _stored(options: Namespace, studies: Sequence[str]) -> Iterator[list[Source]]:
    """The instances of studies in the archive."""
    try:
        from hilum.cli.archive import viewer_of
        from hilum.cli.shown import database, settings
        from hilum.gateway.store.blobs import BlobStore
        from hilum.gateway.store.queries import find_instances
        from hilum.gateway.store.sources import StoredSource
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "hilum":
            raise
        raise NotFound('studies are in the gateway: pip install "hilum[gateway]"') from missing
    from hilum.services.part10 import FileHead

    with database(options.data) as opened:
        viewer = viewer_of(opened, options.user)
        blobs = BlobStore.open(Path(settings(options.data).data))
        try:
            sources: list[Source] = []
            for study in studies:
                instances = find_instances(opened, viewer, study_uids=[study])
                if not instances:
                    raise NotFound(f"no study {study} here; 'hilum ls' lists those that are")
                sources += [
                    StoredSource(
                        blobs,
                        i.path,
                        FileHead(0, i.sop_class, i.sop_uid, i.transfer_syntax),
                        i.size,
                    )
                    for i in instances
                ]
            yield sources
        finally:
            blobs.close()


@contextmanager
def _progress(options: Namespace, total: int) -> Iterator[Progress | None]:
    if options.json or options.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task("", total=total)
        yield progress


def _report(options: Namespace, medium: Medium, skipped: Sequence[PassedOver]) -> int:
    ok = bool(medium.written) and not medium.left_out
    if options.json:
        print_json(
            {
                "target": str(medium.target),
                "ok": ok,
                "files": [
                    {
                        "file": each.source.name,
                        "file_id": "/".join(each.file_id),
                        "sop_instance_uid": each.sop_instance_uid,
                        "transfer_syntax_uid": each.transfer_syntax,
                        "converted": each.converted,
                        "invented": list(each.invented),
                    }
                    for each in medium.written
                ],
                "left_out": [{"file": name, "reason": why} for name, why in medium.left_out],
                "skipped": [{"file": name, "reason": why} for name, why in skipped],
            }
        )
        return 0 if ok else 1
    for name, why in medium.left_out:
        print(f"left out {shown(name)}: {shown(why)}", file=sys.stderr)
    if options.quiet:
        return 0 if ok else 1
    converted = sum(each.converted for each in medium.written)
    invented = sorted({keyword for each in medium.written for keyword in each.invented})
    if options.verbose or options.debug:
        for each in medium.written:
            print(f"{'/'.join(each.file_id)} {shown(each.source.name)}")
    line = f"{len(medium.written)} on {medium.target}" if medium.written else "nothing written"
    line += f", {converted} of them converted to Explicit VR Little Endian" if converted else ""
    line += f", {len(medium.left_out)} left out" if medium.left_out else ""
    print(line + (f", {len(skipped)} skipped" if skipped else ""))
    if invented:
        print(f"the DICOMDIR gives a value to what images lack: {', '.join(invented)}")
    return 0 if ok else 1
