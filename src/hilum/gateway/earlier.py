"""The settings of the systems that sites come from, and what they mean here.

A settings file is read, never run: assignments as Python, shell, Java properties and simple YAML
write them, or a JSON object. What has a meaning is set; what will have one is kept in the setting
``imported``, for the services that come later to take up.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, NamedTuple

from hilum.errors import ConfigurationError
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import PIPELINE_PREFIX, USER_PREFIX, CalledTitle, Listener

__all__ = ["IMPORTED", "Outcome", "Taken", "read_settings", "take_over"]

IMPORTED = "imported"
"""The setting that keeps what has no meaning yet."""

_ASSIGNMENT = re.compile(
    r"""^\s*(?:export\s+|-D)?["']?([A-Za-z_][\w.]*)["']?\s*[:=]\s*(.+?)\s*,?\s*;?\s*$"""
)
_DELETION = re.compile(r"RM_DCM_[A-Z]+")
_TRUE = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

# The titles and ports of their installations, where a file gives one of the two.
_DOSE = ("STOREOPENREM", 8104)
_BRIDGE = ("RACCOON_SCP", 6066)


class Outcome(StrEnum):
    """What became of a setting."""

    SET = "set"
    ALREADY = "already so"
    KEPT = "kept for later"
    DIFFERENT = "not possible"
    IGNORED = "not known"


class Taken(NamedTuple):
    """One setting of the file.

    Args:
        name: as it is there.
        value: likewise.
        outcome: what became of it.
        meaning: what it is here.
    """

    name: str
    value: str
    outcome: Outcome
    meaning: str


def read_settings(text: str) -> dict[str, Any]:
    """Name and value of every assignment; the last one of a name counts.

    Raises:
        ConfigurationError: there is none.
    """
    found: dict[str, Any] = {}
    try:
        document = json.loads(text)
    except ValueError:
        for line in text.splitlines():
            match = _ASSIGNMENT.match(line)
            if match is not None:
                found[match.group(1).rpartition(".")[2]] = _literal(match.group(2))
    else:
        _flatten(document, found)
    if not found:
        raise ConfigurationError("it has no settings: no line 'NAME = value', no JSON object")
    return found


def _flatten(node: Any, found: dict[str, Any]) -> None:
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, Mapping):
            _flatten(value, found)
        else:
            found[str(name)] = value


def _literal(text: str) -> Any:
    """A value as written: a Python literal, else the text up to a comment."""
    for candidate in (text, re.split(r"\s#|\s//", text)[0].strip()):
        try:
            return ast.literal_eval(candidate)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return re.split(r"\s#|\s//", text)[0].strip()


def take_over(directory: Directory, settings: Mapping[str, Any]) -> list[Taken]:
    """Set what has a meaning here, keep what will have one.

    Raises:
        ConfigurationError: a port, a title, or a choice that cannot be; after the first and the
            last of these nothing has changed.
    """
    return _Taking(directory, settings).run()


def _choice(name: str, value: Any) -> bool:
    choice = _TRUE.get(str(value).strip().lower())
    if choice is None:
        raise ConfigurationError(f"{name} is {value!r}; expected true or false")
    return choice


class _Taking:
    def __init__(self, directory: Directory, settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.settings = settings
        self.before = directory.snapshot()
        self.taken: list[Taken] = []
        self.kept: dict[str, Any] = {}

    def run(self) -> list[Taken]:
        has = self.settings.__contains__
        choices = {name: _choice(name, value) for name, value in self.settings.items()
                   if _DELETION.fullmatch(name)}  # fmt: skip
        main = self._port("SCP_PORT") if has("SCP_PORT") else None
        dose = self._pair("STORE_AET", "STORE_PORT", *_DOSE)
        bridge = self._pair("AETitle", "Port", *_BRIDGE)
        if has("SCP_AE_TITLE"):
            self._title("SCP_AE_TITLE", str(self.settings["SCP_AE_TITLE"]).strip())
        if main is not None:
            here = next((e for e in self.before.listeners if e.name == "dicom"), None)
            self._listener("SCP_PORT", replace(here or Listener("dicom", main), port=main))
        self._prefix("USER_AE_PREFIX", USER_PREFIX)
        self._prefix("PIPELINE_AE_PREFIX", PIPELINE_PREFIX)
        if dose is not None:
            title, port = dose
            self._title("STORE_AET", title)
            self._listener(
                "STORE_PORT", Listener("dose", port, any_title=True, default_title=title)
            )
        if bridge is not None:
            title, port = bridge
            self._title("AETitle", title)
            self._listener("Port", Listener("bridge", port))
        self._keep(choices)
        return sorted(self.taken, key=lambda taken: list(self.settings).index(taken.name))

    def _pair(self, title: str, port: str, of_title: str, of_port: int) -> tuple[str, int] | None:
        """A title and a port; None where neither is set."""
        if title not in self.settings and port not in self.settings:
            return None
        return (
            str(self.settings.get(title) or of_title).strip(),
            self._port(port) if port in self.settings else of_port,
        )

    def _port(self, name: str) -> int:
        value = str(self.settings[name]).strip()
        if not value.isdecimal() or not 0 < int(value) < 65536:
            raise ConfigurationError(f"{name} is {value!r}; expected a port, 1 to 65535")
        return int(value)

    def _say(self, name: str, outcome: Outcome, meaning: str) -> None:
        if name in self.settings:
            # What we do not know may be a secret.
            shown = "" if outcome is Outcome.IGNORED else str(self.settings[name])
            self.taken.append(Taken(name, shown, outcome, meaning))

    def _title(self, name: str, title: str) -> None:
        meaning = f"called AE title {title}, kept for everyone"
        if self.before.resolve(title) is not None:
            self._say(name, Outcome.ALREADY, meaning)
            return
        self.directory.put_called_title(CalledTitle(title))
        self._say(name, Outcome.SET, meaning)

    def _listener(self, name: str, listener: Listener) -> None:
        any_title = f", any title, kept as {listener.default_title}" if listener.any_title else ""
        meaning = f"listener {listener.name} on port {listener.port}{any_title}"
        if listener in self.before.listeners:
            self._say(name, Outcome.ALREADY, meaning)
            return
        taken = [e.name for e in self.before.listeners if e.port == listener.port]
        if taken and taken != [listener.name]:
            self._say(name, Outcome.ALREADY, f"port {listener.port} is listener {taken[0]}'s")
            return
        self.directory.put_listener(listener)
        self._say(name, Outcome.SET, meaning)

    def _prefix(self, name: str, ours: str) -> None:
        if name not in self.settings:
            return
        if self.settings[name] == ours:
            self._say(name, Outcome.ALREADY, f"titles begin with {ours}")
        else:
            self._say(
                name, Outcome.DIFFERENT, f"titles begin with {ours} here; give users an alias"
            )

    def _keep(self, choices: Mapping[str, bool]) -> None:
        said = {taken.name for taken in self.taken}
        for name, value in self.settings.items():
            if name in choices:
                self.kept[name] = choices[name]
                self._say(name, Outcome.KEPT, "deletion after dose extraction")
            elif name == "stowRSUrl":
                self.kept[name] = str(value)
                self._say(name, Outcome.KEPT, "destination of forwarding by STOW-RS")
            elif name not in said:
                self._say(name, Outcome.IGNORED, "")
        if self.kept:
            merged = {**(self.before.settings.get(IMPORTED) or {}), **self.kept}
            self.directory.set_setting(IMPORTED, merged)
