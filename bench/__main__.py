"""The command line: ``python -m bench [--quick] [--json FILE] [--only …] [--servers …]``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from bench.run import NoSpace, Row, run, say
from bench.scenarios import ALL
from bench.servers import KINDS, versions
from bench.table import lines, median, spread, verdicts
from bench.warm import warm_memory

REPEAT, QUICK_REPEAT = 5, 2


def main() -> int:
    """Run what the command line asks for; the result is 1 when a server broke, else 0."""
    arguments = _arguments()
    scenarios = [each for each in ALL if _selected(each.name, arguments.only)]
    kinds = [
        each
        for each in KINDS
        if _selected(each.name, arguments.servers) and (arguments.servers or not each.extra)
    ]
    if not scenarios or not kinds:
        say("nothing is selected; --list shows the names")
        return 2
    if arguments.list:
        print("scenarios:", *(each.name for each in scenarios))
        print("servers:  ", *(f"'{each.name}'" for each in KINDS))
        return 0
    if arguments.quick:
        scenarios = [each.quick() for each in scenarios]
    repeat = arguments.repeat or (QUICK_REPEAT if arguments.quick else REPEAT)
    _many_descriptors()
    # Without this SIGTERM would leave servers and their folders behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        with nullcontext("cold memory") if arguments.cold else warm_memory() as memory:
            say(memory)
            rows = run(scenarios, kinds, repeat, arguments.work)
    except NoSpace as error:
        say(str(error))
        return 2
    machine = _machine() | {"repeat": repeat, "seconds": round(time.monotonic() - began)}
    machine["memory"] = memory
    _print(rows, machine)
    if arguments.json:
        arguments.json.write_text(json.dumps(_as_json(rows, machine), indent=1))
    return int(any(row.broken for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller counts, two repetitions")
    parser.add_argument("--repeat", type=int, help=f"repetitions, default {REPEAT}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="glob, may be repeated")
    parser.add_argument(
        "--servers", action="append", metavar="SERVER", help="glob, may be repeated"
    )
    parser.add_argument("--cold", action="store_true", help="do not touch free memory first")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where the servers write, default %(default)s",
    )
    return parser.parse_args()


def _selected(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _many_descriptors() -> None:
    """Raise the limit of open files, which servers inherit, for a thousand associations."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _machine() -> dict[str, object]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": os.cpu_count(),
        "memory_gb": round(pages * size / 1e9),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
    }


def _print(rows: Sequence[Row], machine: dict[str, object]) -> None:
    print(
        f"{machine['processors']} processors, {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}; {machine['repeat']} repetitions, medians; "
        f"{machine['seconds']} s; {machine['memory']}"
    )
    print(*(f"{name}: {text}" for name, text in versions().items()), sep="; ")
    print()
    print(*lines(rows), sep="\n")
    print()
    print("n: instances (idle: open associations) per repetition. /s: per second (idle: share of a")
    print("core). ±%: half the range. serve x, scp x: our rate over that of the row.")
    shares = [median(row, "sender_cpu") for row in rows if row.samples]
    if any(shares):
        print(f"The replaying sender took {max(shares):.0%} of a core at most.")
    print()
    print("Goals, not gates:")
    print(*(verdict.line() for verdict in verdicts(rows)), sep="\n")


def _as_json(rows: Sequence[Row], machine: dict[str, object]) -> dict[str, object]:
    return {
        "machine": machine,
        "rows": [_row_as_json(row) for row in rows],
        "goals": [asdict(each.goal) | {"measured": each.measured, "verdict": each.words}
                  for each in verdicts(rows)],
    }  # fmt: skip


def _row_as_json(row: Row) -> dict[str, object]:
    result: dict[str, object] = {
        "scenario": row.scenario.name,
        "server": row.kind.name,
        "samples": [sample.as_json() for sample in row.samples],
    }
    if row.samples:
        names = row.samples[0].as_json()
        result |= {"median": {name: median(row, name) for name in names}, "spread": spread(row)}
    if row.failure:
        result |= {"failures": row.failures, "failure": row.failure, "absent": row.absent}
    return result


if __name__ == "__main__":
    sys.exit(main())
