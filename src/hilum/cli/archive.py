"""What is in the archive: list, verify, rebuild, remove, export."""

from __future__ import annotations

import dataclasses
import getpass
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hilum.cli.shown import (
    DataOption,
    JsonOption,
    database,
    fail_clearly,
    print_json,
    settings,
    size,
    table,
)
from hilum.errors import ConfigurationError, HilumError, NotFound, StoreUnavailable
from hilum.gateway.flow.criteria import resolve_moment
from hilum.gateway.store import queries
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.filters import Filters
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.results import Page, Viewer

__all__ = ["export", "ls", "reindex", "rm", "verify", "viewer_of"]

LEVELS: dict[str, Callable[..., Page[Any]]] = {
    "patient": queries.list_patients,
    "study": queries.list_studies,
    "series": queries.list_series,
    "instance": queries.list_instances,
}

StudyOption = Annotated[str, typer.Option("--study", help="Study Instance UID")]
SeriesOption = Annotated[str, typer.Option("--series", help="Series Instance UID")]
InstanceOption = Annotated[str, typer.Option("--instance", help="SOP Instance UID")]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        disable=not sys.stderr.isatty(),
        console=None,
        transient=True,
    )


def _owners(opened: Database) -> dict[int, str]:
    return {account.id: account.name for account in Directory(opened).snapshot().accounts}


def viewer_of(opened: Database, user: str | None, quarantine: bool = False) -> Viewer:
    """Who looks: everyone's administrator, the quarantine's, or a user.

    Raises:
        NotFound: there is no such user.
    """
    if quarantine:
        return Viewer(quarantine=True)
    if user is None:
        return Viewer(all=True)
    for number, name in _owners(opened).items():
        if name == user:
            return Viewer(account_id=number)
    raise NotFound(f"no user {user!r}; 'hilum user ls' lists them")


def ls(
    level: Annotated[str, typer.Option(help="patient, study, series or instance")] = "study",
    user: Annotated[str | None, typer.Option(help="what this user sees")] = None,
    quarantine: Annotated[bool, typer.Option(help="what is in quarantine")] = False,
    patient: Annotated[str, typer.Option(help="Patient ID; * and ? are wildcards")] = "",
    name: Annotated[str, typer.Option(help="patient's name; * and ? are wildcards")] = "",
    accession: Annotated[str, typer.Option(help="Accession Number")] = "",
    modality: Annotated[str, typer.Option(help="such as CT")] = "",
    since: Annotated[
        str, typer.Option(help="first Study Date: 20261121, 2026-11-21, today, yesterday, -7d")
    ] = "",
    until: Annotated[str, typer.Option(help="last Study Date, likewise")] = "",
    study: StudyOption = "",
    series: SeriesOption = "",
    instance: InstanceOption = "",
    limit: Annotated[int, typer.Option(min=0, help="most rows; 0 for all")] = 0,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List what is in the archive, newest study first."""
    with fail_clearly(), database(data) as opened:
        if level not in LEVELS:
            raise ConfigurationError(f"level {level!r} is none of {', '.join(LEVELS)}")
        filters = Filters(
            patient_name=name,
            patient_id=patient,
            study_uid=study,
            series_uid=series,
            sop_uid=instance,
            accession_number=accession,
            modality=modality,
            date_from=_day(since),
            date_to=_day(until),
        )
        more = {"every_owner": user is None} if level == "instance" else {}
        viewer = viewer_of(opened, user, quarantine)
        found = _all(level, opened, viewer, filters, limit, **more)
        if json:
            print_json(list(found))
            return
        owners = _owners(opened)
        table(*_lines(level, list(found), owners))


def _day(text: str) -> str:
    """YYYYMMDD of what 'hilum fetch' takes for a moment too."""
    return resolve_moment(text, datetime.now().astimezone())[:8]


def _all(
    level: str, opened: Database, viewer: Viewer, filters: Filters, limit: int, **more: bool
) -> Iterator[Any]:
    after, left, listed = None, limit or sys.maxsize, LEVELS[level]
    while left > 0:
        page: Page[Any] = listed(opened, viewer, filters, limit=min(left, 500), after=after, **more)
        yield from page.rows
        left -= len(page.rows)
        after = page.next
        if after is None:
            return


def _lines(
    level: str, found: list[Any], owners: dict[int, str]
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    def owner(row: Any) -> str:
        number = row.owner_id if row.owner_id >= 0 else ~row.owner_id
        return owners.get(number, "") if number else "everyone"

    if level == "patient":
        return ("patient ID", "name", "studies", "owner"), [
            (r.patient_id, r.name, r.n_studies, owner(r)) for r in found
        ]
    if level == "study":
        columns = ("date", "patient ID", "name", "modality", "series", "images", "size")
        return (*columns, "description", "study UID", "owner", "note"), [
            (
                r.attributes.get("StudyDate") or "",
                r.patient_id,
                r.patient_name,
                ",".join(r.modalities),
                r.n_series,
                r.n_instances,
                size(r.total_bytes),
                r.attributes.get("StudyDescription") or "",
                r.study_uid,
                owner(r),
                "two patients" if r.conflict else "",
            )
            for r in found
        ]
    if level == "series":
        return ("modality", "number", "description", "images", "size", "series UID", "owner"), [
            (
                r.attributes.get("Modality") or "",
                "" if r.attributes.get("SeriesNumber") is None else r.attributes["SeriesNumber"],
                r.attributes.get("SeriesDescription") or "",
                r.n_instances,
                size(r.total_bytes),
                r.series_uid,
                owner(r),
            )
            for r in found
        ]
    return ("SOP Instance UID", "SOP class", "transfer syntax", "size", "from", "to", "owner"), [
        (
            r.sop_uid,
            r.sop_class,
            r.transfer_syntax,
            size(r.size),
            r.sending_ae,
            r.receiving_ae,
            owner(r),
        )
        for r in found
    ]


def verify(
    quick: Annotated[bool, typer.Option("--quick", help="do not read the files' content")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check that every row has its file, intact, and every file its row; exit code 1 if not."""
    from hilum.gateway.store.verify import Verification
    from hilum.gateway.store.verify import verify as check

    with fail_clearly(), database(data) as opened, _progress() as progress:
        blobs = BlobStore.open(Path(settings(data).data))
        total = queries.statistics(opened, Viewer(all=True)).instances
        task = progress.add_task("verifying", total=total)

        def show(state: Verification) -> None:
            progress.update(task, completed=state.instances)

        try:
            result = check(opened, blobs, digests=not quick, progress=show)
        finally:
            blobs.close()
    if json:
        print_json(result)
    else:
        for finding in result.findings:
            print(f"{finding.path}: {finding.problem}")
        print(
            f"{result.instances} instances ({size(result.bytes)}), {result.files} files: "
            f"{len(result.findings)} problems"
        )
    if result.findings:
        raise typer.Exit(1)


def reindex(
    data: DataOption = None,
    json: JsonOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Make the database anew from the files alone, owners included. The gateway must be stopped.

    The old database is set aside when the new one is whole; accounts, titles, listeners, peers
    and settings are taken over from it as far as it can be read.
    """
    from hilum.gateway.app import reindex as rebuild
    from hilum.gateway.store.recover import Report

    with fail_clearly():
        config = settings(data)
        if not yes and sys.stdin.isatty():
            typer.confirm(f"make the index of {config.data} anew?", abort=True)
        with _progress() as progress:
            task = progress.add_task("indexing", total=None)

            def show(state: Report) -> None:
                progress.update(task, completed=state.files)

            report, old = rebuild(config, show)
    if json:
        print_json(dataclasses.asdict(report) | {"set_aside": str(old) if old else None})
    else:
        print(
            f"{report.indexed} instances indexed from {report.files} files; "
            f"{report.incomplete} incomplete ones removed, {report.duplicates} duplicates, "
            f"{report.damaged} damaged"
        )
        if old is not None:
            print(f"the old database is {old}")
    if report.damaged:
        raise typer.Exit(1)


def rm(
    study: StudyOption = "",
    series: SeriesOption = "",
    instance: InstanceOption = "",
    patient: Annotated[str, typer.Option(help="Patient ID")] = "",
    issuer: Annotated[str, typer.Option(help="Issuer of Patient ID")] = "",
    user: Annotated[str | None, typer.Option(help="only what is this user's")] = None,
    reason: Annotated[str, typer.Option(help="for the log")] = "command line",
    even_committed: Annotated[
        bool,
        typer.Option("--even-committed", help="also what storage commitment was given for"),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Remove instances for good: files, rows, pending work. Leaves tombstones and a log entry.

    Instances that somebody was given storage commitment for stay, and the exit code is 1.
    """
    from hilum.gateway.app import Storage

    with fail_clearly():
        if not (study or series or instance or patient):
            raise ConfigurationError("say what to remove: --study, --series, --instance, --patient")
        with database(data) as opened:
            owner = None
            if user is not None:
                owner = viewer_of(opened, user, False).account_id
            scope = Scope(owner, patient, issuer, study, series, instance)
            if not yes:
                typer.confirm("remove them for good?", abort=True)
            removal = remove(opened, scope, by=_who(), reason=reason, even_committed=even_committed)
        # A running gateway deletes the files within a second; without one we do.
        try:
            storage = Storage(settings(data))
        except StoreUnavailable:
            pass
        else:
            try:
                storage.delete_files()
            finally:
                storage.close()
        if json:
            print_json({"instances": removal.instances, "kept": removal.kept})
        else:
            print(f"{removal.instances} instances removed")
        if removal.kept:
            raise HilumError(
                f"{removal.kept} instances stay: somebody relies on them by a storage commitment; "
                "remove them with --even-committed"
            )
        if not removal.instances:
            raise NotFound("nothing there that fits")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "command line"


def export(
    target: Annotated[Path, typer.Option("--output", "-o", help="directory, or file.zip")],
    study: StudyOption = "",
    series: SeriesOption = "",
    instance: InstanceOption = "",
    patient: Annotated[str, typer.Option(help="Patient ID")] = "",
    user: Annotated[str | None, typer.Option(help="as this user sees it")] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Copy instances out as DICOM files, data sets byte for byte as they came."""
    from hilum.gateway.store.export import export as copy

    with fail_clearly():
        if not (study or series or instance or patient):
            raise ConfigurationError("say what to export: --study, --series, --instance, --patient")
        with database(data) as opened, _progress() as progress:
            blobs = BlobStore.open(Path(settings(data).data))
            filters = Filters(
                patient_id=patient, study_uid=study, series_uid=series, sop_uid=instance
            )
            found = list(_all("instance", opened, viewer_of(opened, user, False), filters, 0))
            task = progress.add_task("exporting", total=len(found))
            try:
                names = []
                for name in copy(blobs, found, target):
                    names.append(name)
                    progress.advance(task)
            except OSError as error:
                raise NotFound(f"export stopped after {len(names)} files: {error}") from error
            finally:
                blobs.close()
        if json:
            print_json({"target": str(target), "files": names})
        else:
            print(f"{len(names)} files in {target}")
        if not names:
            raise NotFound("nothing there that fits")
