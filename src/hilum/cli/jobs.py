"""Background work: list it, look at it, hold, release, retry, cancel it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hilum.cli.shown import (
    ACTOR,
    DataOption,
    JsonOption,
    database,
    fail_clearly,
    print_json,
    table,
)
from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.store.jobs import UNFINISHED, Entry, Steering, counts, find, listed
from hilum.gateway.store.states import WorkState

__all__ = ["jobs"]

jobs = typer.Typer(
    help="Background work: what waits, runs, failed.", no_args_is_help=True, add_completion=False
)

Numbers = Annotated[list[int], typer.Argument(help="numbers of jobs, from 'hilum jobs ls'")]


@jobs.command("ls")
def jobs_ls(
    state: Annotated[
        list[WorkState] | None,
        typer.Option(
            help=f"{', '.join(WorkState)}; may be repeated; default: all but done and cancelled ones"
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="of this kind")] = "",
    origin: Annotated[str, typer.Option(help="wanted by this, such as fetch:12")] = "",
    count: Annotated[bool, typer.Option("--count", help="how many of each kind and state")] = False,
    limit: Annotated[int, typer.Option(min=1, help="most rows")] = 100,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with fail_clearly(), database(data) as opened:
        if count:
            found = counts(opened)
            if json:
                print_json(found)
            else:
                lines = [(k, s, n) for k, states in found.items() for s, n in states.items()]
                table(("kind", "state", "jobs"), lines)
            return
        states = state or [*UNFINISHED, WorkState.DEAD]
        entries = listed(opened, states=states, kind=kind, origin=origin, limit=limit)
        if json:
            print_json(entries)
            return
        columns = ("job", "kind", "state", "for", "key", "attempts", "when", "cause")
        table(columns, [_line(entry) for entry in entries])


def _line(entry: Entry) -> tuple[object, ...]:
    attempts = f"{entry.attempts}/{entry.max_attempts}" if entry.max_attempts else ""
    when = {
        WorkState.WAITING: _from_now(entry.ready_at),
        WorkState.RUNNING: _since(entry.began_at),
    }.get(entry.state, _since(entry.finished_at or entry.created_at))
    return (
        *(entry.id, entry.kind, entry.state, entry.origin, entry.key),
        *(attempts, when, entry.cause.partition("\n")[0]),
    )


def _since(moment: int | None) -> str:
    return "" if moment is None else f"{_duration(time.time() - moment / 1e6)} ago"


def _from_now(moment: int) -> str:
    return f"in {_duration(moment / 1e6 - time.time())}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


@jobs.command("show")
def jobs_show(
    number: Annotated[int, typer.Argument(help="number of a job")],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Everything about one job. Its payload may hold patients' data."""
    with fail_clearly(), database(data) as opened:
        entry = find(opened, number)
        if entry is None:
            raise NotFound(f"no job {number}; 'hilum jobs ls' lists them")
        if json:
            print_json(entry)
            return
        moments = ("created_at", "ready_at", "began_at", "finished_at")
        for name in Entry.__dataclass_fields__:
            value = getattr(entry, name)
            if name in moments:
                value = datetime.fromtimestamp(value / 1e6).astimezone() if value else ""
            print(f"{name.replace('_', ' '):<13} {value}")


@jobs.command("retry")
def jobs_retry(
    numbers: Annotated[list[int] | None, typer.Argument(help="numbers of jobs")] = None,
    dead: Annotated[bool, typer.Option("--all-dead", help="all that are dead")] = False,
    kind: Annotated[str, typer.Option(help="with --all-dead: of this kind")] = "",
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Run jobs that are dead, cancelled, held or waiting now, with all their attempts."""
    with fail_clearly(), database(data) as opened:
        if bool(numbers) is dead:
            raise ConfigurationError("name jobs, or say --all-dead")
        chosen = list(numbers or ())
        if dead:
            found = listed(opened, states=[WorkState.DEAD], kind=kind, limit=1_000_000)
            chosen = [entry.id for entry in found]
        changed = Steering(opened, actor=ACTOR).retry(chosen)
        _say(changed, len(chosen), "ready to run again", json=json)


@jobs.command("cancel")
def jobs_cancel(numbers: Numbers, data: DataOption = None, json: JsonOption = False) -> None:
    """End jobs for good; what runs is stopped within seconds."""
    _steer(data, numbers, "cancelled", lambda steering: steering.cancel, json=json)


@jobs.command("hold")
def jobs_hold(numbers: Numbers, data: DataOption = None, json: JsonOption = False) -> None:
    """Keep jobs from running until 'release'; what runs is stopped within seconds."""
    _steer(data, numbers, "held", lambda steering: steering.hold, json=json)


@jobs.command("release")
def jobs_release(numbers: Numbers, data: DataOption = None, json: JsonOption = False) -> None:
    """Let jobs run that were held."""
    _steer(data, numbers, "released", lambda steering: steering.release, json=json)


def _steer(
    data: Path | None,
    numbers: list[int],
    what: str,
    action: Callable[[Steering], Callable[[list[int]], int]],
    *,
    json: bool,
) -> None:
    with fail_clearly(), database(data) as opened:
        changed = action(Steering(opened, actor=ACTOR))(numbers)
        _say(changed, len(numbers), what, json=json)


def _say(changed: int, asked: int, what: str, *, json: bool) -> None:
    if json:
        print_json({"changed": changed, "asked": asked})
    else:
        print(f"{changed} of {asked} {what}")
    if changed < asked:
        raise typer.Exit(1)
