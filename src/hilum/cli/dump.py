"""``hilum dump``: what is in a DICOM file, for people and as DICOM JSON."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from hilum.cli.dumped import Opened, as_json, lines
from hilum.cli.options import count, parser, verbosity_options
from hilum.cli.report import shown
from hilum.errors import ConfigurationError, InvalidDicom
from hilum.services.tag_path import TagPath

__all__ = ["main"]


def _tag(word: str) -> int:
    try:
        steps = TagPath.parse(word if "," not in word or "(" in word else f"({word})").steps
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from None
    if len(steps) > 1 or steps[0].creator is not None:
        raise ArgumentTypeError(f"'{word}' is a path; name one element")
    return steps[0].group << 16 | steps[0].element


def _parser() -> ArgumentParser:
    result = parser(
        "dump",
        "Show what is in DICOM files, damaged ones as far as they can be read. Nothing is decoded "
        "but the values. Exit code 0 if every file could be read to its end.",
        "hilum dump [options] FILE …",
    )
    add = result.add_argument
    add(
        "files", nargs="+", type=Path, metavar="FILE", help="DICOM files, with or without file meta"
    )
    add("--json", action="store_true",
        help="print an array of data sets in the DICOM JSON model (PS3.18 F)")  # fmt: skip
    add("-k", "--key", "+P", "--search", type=_tag, action="append", metavar="TAG",
        help="only this element, by keyword or gggg,eeee; may be repeated")  # fmt: skip
    add("-m", "--max-value", type=count, default=64, metavar="N",
        help="characters shown of a value (64)")  # fmt: skip
    add("--max-inline", type=count, default=16_384, metavar="BYTES",
        help="JSON: longer binary values are referred to by offset and length (16384)")  # fmt: skip
    add("+L", "-a", "--all", action="store_true", help="show values whole")
    add("-M", "--no-meta", action="store_true", help="leave file meta information out")
    verbosity_options(result)
    return result


def main(argv: Sequence[str]) -> int:
    """Run ``hilum dump``; returns its exit code."""
    options = _parser().parse_args(argv)
    try:
        code = _dump(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough; the interpreter would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _dump(options: Namespace) -> int:
    code = 0
    documents: list[dict[str, object]] = []
    for path in options.files:
        name = shown(str(path))
        try:
            with Opened(path) as opened:
                if options.json:
                    documents.append(as_json(opened, options))
                else:
                    _print(name, opened, options)
                for problem in opened.problems:
                    print(f"{name}: {shown(problem)}", file=sys.stderr)
                code = max(code, 1 if opened.problems else 0)
        except BrokenPipeError:
            raise
        except FileNotFoundError:
            print(f"{name}: no such file", file=sys.stderr)
            code = 2
        except (OSError, InvalidDicom) as error:
            print(f"{name}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            code = max(code, 1)
    if options.json:
        print(json.dumps(documents, indent=2))
    return code


def _print(name: str, opened: Opened, options: Namespace) -> None:
    if not options.quiet:
        print(f"# {name}: {opened.title}")
    for line in lines(opened, options):
        print(line)
