"""Fetching from peers, once or by schedule; the running gateway does it."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperCommand, TyperGroup

from hilum.cli.shown import (
    ACTOR,
    DataOption,
    JsonOption,
    database,
    fail_clearly,
    moment,
    print_json,
    running,
    table,
)
from hilum.errors import ConfigurationError, HilumError, NotFound
from hilum.gateway.flow.criteria import Criteria
from hilum.gateway.flow.request import Request
from hilum.gateway.flow.selection import Group
from hilum.gateway.store.database import Database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.fetches import FETCH, Fetch, Fetches, FetchStudy
from hilum.gateway.store.jobs import Steering
from hilum.gateway.store.schedules import Schedule, Schedules
from hilum.gateway.store.states import FetchState, StudyState, WorkState
from hilum.gateway.work.schedule import checked

__all__ = ["fetches", "schedules"]

LOOK = 0.5


class _FetchGroup(TyperGroup):
    """``hilum fetch PEER …`` is ``hilum fetch run PEER …``, and its options are the group's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["PEER [OPTIONS]", "|", "COMMAND [ARGS]..."]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        own = self.params
        self.params = [each for each in self.commands["run"].params if each.name != "peer"]
        try:
            super().format_help(ctx, formatter)
        finally:
            self.params = own


class _FetchCommand(TyperCommand):
    """Shown as it is typed: without ``run``."""

    def make_context(self, info_name: Any, args: list[str], *more: Any, **extra: Any) -> Any:
        return super().make_context("PEER", args, *more, **extra)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]"]


fetches = typer.Typer(
    cls=_FetchGroup,
    help="Fetch studies from a peer; 'hilum peer add' makes one known, filters say which studies.",
    no_args_is_help=True,
    add_completion=False,
)
schedules = typer.Typer(
    help="Fetches that are repeated.", no_args_is_help=True, add_completion=False
)

PeerArgument = Annotated[str, typer.Argument(help="name of a peer, see 'hilum peer ls'")]
NumberArgument = Annotated[int, typer.Argument(help="number of a fetch")]
ModalityOption = Annotated[
    list[Group] | None,
    typer.Option(
        "--modality",
        "-m",
        case_sensitive=False,
        help="CT, MG, FL (RF, XA), DX (DX, CR, PX), NM (NM, PT), SR (reports only); may be repeated",
    ),
]
SinceOption = Annotated[
    str, typer.Option(help="first moment: 2026-11-21, 2026-11-21T08:30, today, yesterday, -7d")
]
UntilOption = Annotated[str, typer.Option(help="last moment, likewise")]
DescriptionOption = Annotated[
    list[str] | None, typer.Option("--description", help="the study description has this")
]
NotDescriptionOption = Annotated[
    list[str] | None, typer.Option("--not-description", help="it does not have this")
]
StationOption = Annotated[
    list[str] | None, typer.Option("--station", help="the station name has this")
]
NotStationOption = Annotated[
    list[str] | None, typer.Option("--not-station", help="it does not have this")
]
StationLevelOption = Annotated[
    str, typer.Option(help="study: one series decides for all; series: each for itself")
]
PatientOption = Annotated[str, typer.Option(help="Patient ID; * and ? are wildcards")]
AccessionOption = Annotated[str, typer.Option(help="Accession Number; likewise")]
StudiesOption = Annotated[list[str] | None, typer.Option("--study", help="Study Instance UID")]
DoseOption = Annotated[bool, typer.Option("--dose", help="only what radiation dose needs")]
FirstOption = Annotated[
    bool,
    typer.Option(help="with --dose: of CT without any report, the first image of each series"),
]
AgainOption = Annotated[bool, typer.Option(help="fetch what was here and was removed, too")]
TitleOption = Annotated[
    str, typer.Option(help="AE title of ours to keep it under, such as RVU-alice")
]
DestinationOption = Annotated[
    str, typer.Option(help="AE title that the peer knows us by, for C-MOVE")
]


# ── fetch ─────────────────────────────────────────────────────────────────────────────────────


@fetches.command("run", cls=_FetchCommand, hidden=True)
def fetch_run(
    peer: PeerArgument,
    modality: ModalityOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    description: DescriptionOption = None,
    not_description: NotDescriptionOption = None,
    station: StationOption = None,
    not_station: NotStationOption = None,
    station_level: StationLevelOption = "series",
    patient: PatientOption = "",
    accession: AccessionOption = "",
    study: StudiesOption = None,
    dose: DoseOption = False,
    first_images: FirstOption = False,
    again: AgainOption = False,
    title: TitleOption = "",
    destination: DestinationOption = "",
    wait: Annotated[
        bool,
        typer.Option("--wait", help="show progress until it is over; exit code 1 if not whole"),
    ] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch studies from a peer. 'hilum fetch show' says what became of each."""
    with fail_clearly(), database(data) as opened:
        request = _request(opened, peer, _criteria(locals()), title, destination)
        rows = Fetches(opened)
        number = rows.create(peer, request.write(), ACTOR)
        served = running(data) is not None
        if not served:
            print("hilum: no gateway is running; it begins when one does", file=sys.stderr)
        if wait and served:
            _wait(rows, number, quiet=json)
        found = rows.find(number)
        if json:
            print_json(_plain(found))
        else:
            print(_line(found) if wait else f"fetch {number} begins")
        if wait and (found.state is not FetchState.DONE):
            raise typer.Exit(1)


def _criteria(options: dict[str, Any]) -> Criteria:
    criteria = Criteria(
        groups=tuple(options["modality"] or ()),
        since=options["since"],
        until=options["until"],
        descriptions=tuple(options["description"] or ()),
        not_descriptions=tuple(options["not_description"] or ()),
        stations=tuple(options["station"] or ()),
        not_stations=tuple(options["not_station"] or ()),
        station_level=options["station_level"],
        patient_id=options["patient"],
        accession_number=options["accession"],
        study_uids=tuple(options["study"] or ()),
        dose=options["dose"],
        first_images=options["first_images"],
        again=options["again"],
    )
    criteria.check()
    return criteria


def _request(
    opened: Database, peer: str, criteria: Criteria, title: str, destination: str
) -> Request:
    snapshot = Directory(opened).snapshot()
    found = next((one for one in snapshot.peers if one.name == peer), None)
    if found is None:
        raise NotFound(f"no peer {peer!r}; 'hilum peer ls' lists them")
    if found.port is None:
        raise ConfigurationError(f"peer {peer!r} has no port; it can only call us")
    for name in filter(None, (title, destination)):
        if snapshot.resolve(name) is None:
            raise ConfigurationError(
                f"AE title {name!r} is not served; add it with 'hilum ae add {name}'"
            )
    return Request(peer, criteria, title, destination)


def _wait(rows: Fetches, number: int, *, quiet: bool) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, disable=hidden, transient=True) as progress:
        studies = progress.add_task("studies", total=None)
        images = progress.add_task("images", total=None)
        while not (found := rows.find(number)).is_over:
            total = sum(found.studies.values())
            ended = total - found.studies.get(StudyState.PLANNED, 0)
            progress.update(studies, completed=ended, total=total or None)
            progress.update(
                images, completed=found.n_here + found.n_arrived, total=found.n_wanted or None
            )
            time.sleep(LOOK)


def _line(found: Fetch) -> str:
    counts = found.studies
    parts = [
        f"{counts.get(StudyState.FETCHED, 0)} studies fetched",
        f"{counts.get(StudyState.HERE, 0)} were here",
        f"{counts.get(StudyState.DROPPED, 0)} dropped",
    ]
    if found.failed:
        parts.append(f"{found.failed} failed")
    images = f"{found.n_arrived} of {found.n_wanted - found.n_here} images"
    problem = f": {found.problem}" if found.problem else ""
    return f"fetch {found.id} {_state(found)}: {', '.join(parts)}; {images}{problem}"


def _state(found: Fetch) -> str:
    return "failed" if found.problem else found.state.value


def _plain(found: Fetch) -> dict[str, Any]:
    return dataclasses.asdict(found) | {"over": found.is_over}


@fetches.command("ls")
def fetch_ls(
    limit: Annotated[int, typer.Option(min=1, help="most rows")] = 50,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List fetches, newest first."""
    with fail_clearly(), database(data) as opened:
        found = Fetches(opened).listed(limit=limit)
        if json:
            print_json([_plain(one) for one in found])
            return
        columns = ("fetch", "peer", "for", "begun", "state", "studies", "images", "problem")
        table(
            columns,
            [
                (
                    *(one.id, one.peer, one.origin, moment(one.created_at), _state(one)),
                    sum(one.studies.values()),
                    f"{one.n_here + one.n_arrived}/{one.n_wanted}",
                    one.problem,
                )
                for one in found
            ],
        )


@fetches.command("show")
def fetch_show(
    number: NumberArgument,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """What became of every study of a fetch; everything that was dropped, with its reason."""
    with fail_clearly(), database(data) as opened:
        rows = Fetches(opened)
        found, studies = rows.find(number), rows.studies(number)
        reports = {one.id: rows.report(one.id) for one in studies if one.n_dropped}
        if json:
            shown = []
            for one in studies:
                report = reports.get(one.id)
                dropped = [
                    {"level": level, "uid": uid, "reason": reason}
                    for level, uid, reason in (report.dropped if report else ())
                ]
                shown.append(dataclasses.asdict(one) | {"dropped": dropped})
            print_json(_plain(found) | {"by_study": shown})
            return
        print(_line(found))
        if found.duplicates:
            print(f"{found.duplicates} responses named a study again; they were passed over")
        columns = ("study", "date", "modalities", "state", "wanted", "here", "arrived", "reason")
        lines: list[tuple[object, ...]] = []
        for one in studies:
            lines.append(_study_line(one))
            report = reports.get(one.id)
            lines += [
                (f"  {uid}", "", "", f"{level} dropped", "", "", "", reason)
                for level, uid, reason in (report.dropped if report else ())
            ]
        table(columns, lines)


def _study_line(one: FetchStudy) -> tuple[object, ...]:
    state: str = one.state.value
    if one.state is StudyState.PLANNED and one.work is not None:
        state = "failed" if one.work is WorkState.DEAD else one.work.value
    return (
        *(one.study_uid, one.about.get("date", ""), ",".join(one.about.get("modalities", ()))),
        *(state, one.n_wanted, one.n_here, one.n_arrived, one.reason),
    )


@fetches.command("cancel")
def fetch_cancel(number: NumberArgument, data: DataOption = None) -> None:
    """End a fetch; what has arrived stays."""
    with fail_clearly(), database(data) as opened:
        if not Fetches(opened).cancel(number):
            raise HilumError(f"fetch {number} was over")
        print(f"fetch {number} cancelled")


@fetches.command("retry")
def fetch_retry(number: NumberArgument, data: DataOption = None) -> None:
    """Try again at once what has failed or was cancelled."""
    with fail_clearly(), database(data) as opened:
        changed = Steering(opened, actor=ACTOR).retry(Fetches(opened).retry(number))
        print(f"{changed} jobs of fetch {number} are tried again")


# ── schedules ─────────────────────────────────────────────────────────────────────────────────


@schedules.command("add")
def schedule_add(
    name: Annotated[str, typer.Argument(help="name of the schedule")],
    cron: Annotated[
        str, typer.Argument(help="minute hour day month weekday, in quotes; or @daily")
    ],
    peer: PeerArgument,
    modality: ModalityOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    description: DescriptionOption = None,
    not_description: NotDescriptionOption = None,
    station: StationOption = None,
    not_station: NotStationOption = None,
    station_level: StationLevelOption = "series",
    patient: PatientOption = "",
    accession: AccessionOption = "",
    study: StudiesOption = None,
    dose: DoseOption = False,
    first_images: FirstOption = False,
    again: AgainOption = False,
    title: TitleOption = "",
    destination: DestinationOption = "",
    window: Annotated[
        str, typer.Option(help="part of the day in which it runs, such as 20:00-06:00")
    ] = "",
    zone: Annotated[str, typer.Option(help="time zone, such as Europe/Berlin")] = "",
    catch_up: Annotated[bool, typer.Option(help="make up for runs that were missed, once")] = True,
    disabled: Annotated[bool, typer.Option(help="do not run it")] = False,
    data: DataOption = None,
) -> None:
    """Fetch again and again, or set a schedule anew."""
    with fail_clearly(), database(data) as opened:
        request = _request(opened, peer, _criteria(locals()), title, destination)
        schedule = Schedule(
            0, name, FETCH, request.write(), cron, zone, window, catch_up, not disabled
        )
        ready = checked(schedule, time.time_ns() // 1000)
        Schedules(opened, actor=ACTOR).put(ready)
        print(f"schedule {name}: " + (f"next {moment(ready.next_at)}" if not disabled else "off"))


@schedules.command("ls")
def schedule_ls(data: DataOption = None, json: JsonOption = False) -> None:
    """List schedules."""
    with fail_clearly(), database(data) as opened:
        found = Schedules(opened).all()
        if json:
            print_json(found)
            return
        columns = ("schedule", "when", "window", "peer", "next", "last", "result")
        table(
            columns,
            [
                (
                    *(one.name, one.cron, one.time_window, one.payload.get("peer", "")),
                    moment(one.next_at) if one.enabled else "off",
                    *(moment(one.last_at), one.last_result),
                )
                for one in found
            ],
        )


@schedules.command("rm")
def schedule_rm(
    name: Annotated[str, typer.Argument(help="name of the schedule")], data: DataOption = None
) -> None:
    """Remove a schedule; a run that goes on goes on."""
    with fail_clearly(), database(data) as opened:
        Schedules(opened, actor=ACTOR).remove(name)
        print(f"schedule {name} removed")


@schedules.command("run")
def schedule_run(
    name: Annotated[str, typer.Argument(help="name of the schedule")], data: DataOption = None
) -> None:
    """Run a schedule now, whatever its window."""
    with fail_clearly(), database(data) as opened:
        job = Schedules(opened, actor=ACTOR).run_now(name)
        print(f"schedule {name} begins (job {job})")
