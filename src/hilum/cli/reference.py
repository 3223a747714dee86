"""docs/settings.md and docs/commands.md, made from the settings and commands themselves.

::

    python -m hilum.cli.reference docs
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from hilum.cli import serve
from hilum.cli.gateway import app
from hilum.cli.shown import readable
from hilum.gateway.config import Config, rows

__all__ = ["commands", "settings"]

_SETTINGS = """\
# Settings

Made by `make docs` from `gateway/config.py`. These are what one machine needs; what a site changes
while the gateway runs (titles, users, peers, listeners) is in the database: [commands.md](commands.md).

A setting is read from a TOML file (`hilum serve --config FILE`, `HILUM_CONFIG`, or `hilum.toml` in the
working directory), where the part before the point is a table, and from the environment, which goes
before it: `store.reserve` is `HILUM_STORE_RESERVE`. Lists are texts with commas there.

```toml
data = "/srv/hilum"
[store]
reserve = 10737418240
```

`hilum config show` prints what holds, `hilum config check FILE` says whether a file can work.
"""

_COMMANDS = """\
# The gateway's commands

Made by `make docs` from the commands themselves; the DICOM tools are in [tools.md](tools.md).

All but `serve` work beside a running gateway or without one, and take `--data DIR` (or
`HILUM_DATA`; `hilum-data` otherwise). Where **--json** is marked, the command prints one JSON document
with it. Lists are tables with headings on a terminal; anywhere else they are tab-separated, without
headings. Exit codes are those of [tools.md](tools.md).
"""


def settings() -> str:
    """Every setting with default, unit and meaning, as Markdown."""
    config = Config()
    lines = [_SETTINGS]
    tables = [item for item in dataclasses.fields(config) if _is_table(config, item.name)]
    plain = [row for row in rows(config) if "." not in row[0]]
    lines += ["## At the top\n", *_settings_table(plain)]
    for item in tables:
        about = (type(getattr(config, item.name)).__doc__ or "").split("\n\n")[0]
        inside = [row for row in rows(config) if row[0].startswith(f"{item.name}.")]
        lines += [f"## {item.name}\n", " ".join(about.split()) + "\n", *_settings_table(inside)]
    return "\n".join(lines).rstrip() + "\n"


def _is_table(config: Config, name: str) -> bool:
    return dataclasses.is_dataclass(getattr(config, name))


def _settings_table(found: list[tuple[str, Any, str, str]]) -> list[str]:
    lines = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {_value(value)} | {unit} | {_cell(meaning).removesuffix('.')} |"
        for name, value, unit, meaning in found
    ]
    return [*lines, ""]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in ("", None, ()):
        return {None: "none"}.get(value, "")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`" if isinstance(value, str) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def commands() -> str:
    """Every command of the gateway with arguments and options, as Markdown."""
    lines = [_COMMANDS, "## hilum serve\n", f"{serve.parser().description}\n"]
    lines += _options_table(
        (", ".join(action.option_strings), str(action.metavar or ""), action.help or "")
        for action in serve.parser()._actions
        if not isinstance(action, argparse._HelpAction)
    )
    for path, command in _walk(readable(typer.main.get_command(app)), "hilum"):
        lines += _command(path, command)
    return "\n".join(lines).rstrip() + "\n"


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path, command
    for name, each in (inside or {}).items():
        # 'hilum fetch run PEER' is typed without its word.
        yield from _walk(each, path if name == "run" and each.hidden else f"{path} {name}")


def _command(path: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    words = [_argument(each) for each in arguments]
    json = " **--json**" if any(p.name == "json" for p in options) else ""
    yield f"## {' '.join([path, *words])}\n"
    yield f"{inspect.cleandoc(command.help)}{json}\n"
    for each in arguments:
        if each.help and each.help != "its name":
            yield f"`{each.metavar}`: {each.help}\n"
    yield from _options_table(
        (", ".join(_words(each)), each.metavar or "", _help(each))
        for each in options
        if each.name not in ("data", "json", "help")
    )


def _argument(param: Any) -> str:
    word = f"{param.metavar}{' …' if param.nargs == -1 else ''}"
    return word if param.required else f"[{word}]"


def _words(param: Any) -> list[str]:
    return [*param.opts, *param.secondary_opts]


def _help(param: Any) -> str:
    default = param.default
    said = default is not None and default not in ("", False, True, 0) and not callable(default)
    shown = f" ({getattr(default, 'value', default)})" if said else ""
    return f"{param.help or ''}{shown}"


def _options_table(found: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    lines = [
        f"| `{_cell(f'{words} {value}')}` | {_cell(meaning)} |" for words, value, meaning in found
    ]
    if lines:
        yield "| option | meaning |\n|---|---|"
        yield from lines
        yield ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "settings.md").write_text(settings(), encoding="utf-8")
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
