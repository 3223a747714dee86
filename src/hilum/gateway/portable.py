"""The directory as a TOML document, to be kept, compared, and brought to another gateway.

Users, called titles, listeners, peers, schedules and settings; what a file leaves out keeps its
default. What belongs to one store alone is not in it: ids, times, and what the gateway remembers of
itself.
"""

from __future__ import annotations

import dataclasses
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any

from hilum.errors import ConfigurationError
from hilum.gateway.flow.request import Request
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import Account, CalledTitle, Listener, Peer, Snapshot
from hilum.gateway.store.fetches import FETCH
from hilum.gateway.store.schedules import Schedule, Schedules
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind
from hilum.gateway.work.schedule import checked

__all__ = ["bring_in", "export"]

# Of the gateway itself, not of the site.
_OWN_SETTINGS = {"store.id", "directory.defaults_made"}
_SECTIONS = ("user", "title", "listener", "peer", "schedule", "settings")
_HEAD = "# Users, called AE titles, listeners, peers, schedules and settings of a Hilum gateway.\n"
_NO_SCHEDULE = Schedule(0, "", FETCH)


# ── out ───────────────────────────────────────────────────────────────────────────────────────


def export(snapshot: Snapshot, schedules: Sequence[Schedule]) -> str:
    """The directory as TOML; entries in order of their names, so that two can be compared."""
    names = {account.id: account.name for account in snapshot.accounts}
    parts = [_HEAD]
    for account in sorted(snapshot.accounts, key=lambda account: account.name):
        parts.append(_entry("user", _of_account(account)))
    for title in sorted(snapshot.called_titles, key=lambda title: title.title):
        fields = _changed(title, CalledTitle(""))
        account_id = fields.pop("account_id", None)
        if account_id is not None:  # a user with titles cannot be removed
            fields["user"] = names[account_id]
        parts.append(_entry("title", fields))
    for listener in sorted(snapshot.listeners, key=lambda listener: listener.name):
        parts.append(_entry("listener", _changed(listener, Listener("", -1))))
    for peer in sorted(snapshot.peers, key=lambda peer: peer.name):
        parts.append(_entry("peer", _changed(peer, Peer("", "", ""))))
    for schedule in sorted(schedules, key=lambda schedule: schedule.name):
        parts.append(_entry("schedule", _changed(_timeless(schedule), _NO_SCHEDULE)))
    kept = {key: value for key, value in snapshot.settings.items() if key not in _OWN_SETTINGS}
    if kept:
        parts.append("[settings]\n" + _lines(dict(sorted(kept.items()))))
    return "\n".join(parts)


def _of_account(account: Account) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": account.name}
    if account.alias_title is not None:
        fields["alias_title"] = account.alias_title
    if account.disabled:
        fields["disabled"] = True
    if account.groups:  # a passcode, or its hash, is in no file
        fields["groups"] = list(account.groups)
    return fields


def _changed(entry: Any, default: Any) -> dict[str, Any]:
    """The fields of an entry that are not their default."""
    found = {}
    for item in dataclasses.fields(entry):
        value = getattr(entry, item.name)
        if value != getattr(default, item.name):
            found[item.name] = value
    return found


def _entry(section: str, fields: Mapping[str, Any]) -> str:
    return f"[[{section}]]\n" + _lines(fields)


def _lines(fields: Mapping[str, Any]) -> str:
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in fields.items())


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "").isalnum() and name.isascii()
    return name if plain else _text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case StrEnum():
            return _text(value.value)
        case str():
            return _text(value)
        case int() | float():
            return repr(value)
        case Mapping():
            inside = ", ".join(
                f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None
            )
            return f"{{ {inside} }}" if inside else "{}"
        case Sequence():
            return f"[{', '.join(_value(each) for each in value if each is not None)}]"
    raise ConfigurationError(f"a {type(value).__name__} cannot be written as TOML")


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


# ── in ────────────────────────────────────────────────────────────────────────────────────────


def bring_in(
    directory: Directory, schedules: Schedules, text: str, *, prune: bool = False
) -> list[str]:
    """Make a directory say what a document says.

    Everything is read before the first change; a document with a mistake changes nothing.

    Args:
        directory: what is changed.
        schedules: likewise.
        text: from `export`, or written by hand.
        prune: remove titles, listeners, peers and schedules that the document does not have; users
            and settings stay, for images and secrets hang on them.

    Returns:
        What was done, a line each; empty when the directory said so already.

    Raises:
        ConfigurationError: the document is wrong, or a value contradicts what is there; then the
            changes before it were made, and the same document can be brought in again.
    """
    document = _parsed(text)
    changes: list[tuple[str, Callable[[], object]]] = []
    before = directory.snapshot()
    _users(directory, before, document["user"], changes)
    known = {account.name for account in before.accounts} | {u["name"] for u in document["user"]}
    titles = [_title(entry, known) for entry in document["title"]]
    listeners = [_built(Listener, entry, "listener", {}) for entry in document["listener"]]
    peers = [_built(Peer, entry, "peer", {}) for entry in document["peer"]]
    all_peers = {peer.name for peer in (*peers, *(() if prune else before.peers))}
    for title, _ in titles:
        for name in title.peers:
            if name not in all_peers:
                raise ConfigurationError(f"title {title.title!r} is for {name!r}, who is no peer")
    planned = [_planned(entry, all_peers) for entry in document["schedule"]]
    done = [_made(change) for change in changes]
    # Users may be new: their ids are known only now.
    ids = {account.name: account.id for account in directory.snapshot().accounts}
    changes = []
    put = directory.put_called_title
    have_titles = {title.title: title for title in before.called_titles}
    wanted = [dataclasses.replace(t, account_id=ids[user]) if user else t for t, user in titles]
    _differing("title", have_titles, {t.title: t for t in wanted}, put, changes)
    have_listeners = {each.name: each for each in before.listeners}
    _differing("listener", have_listeners, {e.name: e for e in listeners},
               directory.put_listener, changes)  # fmt: skip
    have_peers = {each.name: each for each in before.peers}
    _differing("peer", have_peers, {e.name: e for e in peers}, directory.put_peer, changes)
    have_schedules = {each.name: _timeless(each) for each in schedules.all()}
    _differing("schedule", have_schedules, {e.name: e for e in planned},
               lambda each: schedules.put(checked(each, time.time_ns() // 1000)),
               changes)  # fmt: skip
    for key, value in document["settings"].items():
        if before.settings.get(key) != value:
            changes.append((f"setting {key}", _call(directory.set_setting, key, value)))
    if prune:
        _superfluous("listener", have_listeners, {e.name for e in listeners},
                     directory.remove_listener, changes)  # fmt: skip
        _superfluous("title", have_titles, {t.title for t in wanted},
                     directory.remove_called_title, changes)  # fmt: skip
        _superfluous("schedule", have_schedules, {e.name for e in planned},
                     schedules.remove, changes)  # fmt: skip
        _superfluous("peer", have_peers, {e.name for e in peers}, directory.remove_peer, changes)
    return done + [_made(change) for change in changes]


def _made(change: tuple[str, Callable[[], object]]) -> str:
    line, make = change
    try:
        make()
    except ConfigurationError as error:
        raise ConfigurationError(f"{line}: {error}") from error
    return line


def _call(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"it is no TOML document: {error}") from error
    for name, value in document.items():
        if name not in _SECTIONS:
            raise ConfigurationError(f"section {name!r} is none of {', '.join(_SECTIONS)}")
        if name == "settings":
            if not isinstance(value, dict) or _OWN_SETTINGS & set(value):
                raise ConfigurationError("[settings] is a table, without what one store owns")
        elif not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise ConfigurationError(f"{name!r} is a list of tables: [[{name}]]")
    return {name: document.get(name, {} if name == "settings" else []) for name in _SECTIONS}


def _users(
    directory: Directory,
    before: Snapshot,
    entries: Sequence[Mapping[str, Any]],
    changes: list[tuple[str, Callable[[], object]]],
) -> None:
    here = {account.name: account for account in before.accounts}
    for entry in entries:
        if set(entry) - {"name", "alias_title", "disabled", "groups"} or not isinstance(
            entry.get("name"), str
        ):
            raise ConfigurationError("a [[user]] has name, alias_title, disabled and groups")
        name, alias = entry["name"], entry.get("alias_title")
        disabled = bool(entry.get("disabled", False))
        account = here.get(name)
        if account is None:
            add = _call(lambda n, a: directory.add_account(n, alias_title=a), name, alias)
            changes.append((f"user {name}", add))
        elif account.alias_title != alias:
            changes.append((f"user {name}", _call(directory.set_alias_title, name, alias)))
        if disabled != (account.disabled if account else False):
            off = _call(lambda n, d: directory.disable_account(n, disabled=d), name, disabled)
            changes.append((f"user {name}: {'disabled' if disabled else 'enabled'}", off))
        groups = sorted(map(str, entry.get("groups", ())))
        if groups != sorted(account.groups if account else ()):
            changes.append((f"user {name}: groups", _call(directory.set_groups, name, groups)))


def _title(entry: Mapping[str, Any], users: set[str]) -> tuple[CalledTitle, str]:
    """A title, and whose it is; account ids are of one store only."""
    fields = dict(entry)
    user = str(fields.pop("user", ""))
    if user and user not in users:
        raise ConfigurationError(f"title {fields.get('title')!r} is for {user!r}, who is no user")
    if user:
        fields["kind"] = TitleKind.ACCOUNT
    enums = {"kind": TitleKind, "duplicates": DuplicatePolicy, "missing_uids": MissingUidPolicy}
    return _built(CalledTitle, fields, "title", enums), user


def _planned(entry: Mapping[str, Any], peers: set[str]) -> Schedule:
    """A schedule of fetches; everything about it is looked at before the first change."""
    if set(entry) & {"id", "next_at", "last_at", "last_result"}:
        raise ConfigurationError("number and times of a [[schedule]] belong to one store")
    schedule: Schedule = _built(Schedule, {"id": 0, "kind": FETCH, **entry}, "schedule", {})
    if schedule.kind != FETCH:
        raise ConfigurationError(f"[[schedule]] kind is {schedule.kind!r}, not {FETCH!r}")
    try:
        request = Request.read(schedule.payload)
        checked(schedule, time.time_ns() // 1000)
    except ConfigurationError as error:
        raise ConfigurationError(f"schedule {schedule.name!r}: {error}") from error
    if request.peer not in peers:
        raise ConfigurationError(
            f"schedule {schedule.name!r} fetches from {request.peer!r}, which is no peer"
        )
    return _timeless(schedule)


def _timeless(schedule: Schedule) -> Schedule:
    """A schedule without what one store alone knows."""
    payload = schedule.payload
    with suppress(ConfigurationError):  # one of a later version stays as it is
        payload = {key: value for key, value in Request.read(payload).write().items() if value}
    return dataclasses.replace(
        schedule, id=0, payload=payload, next_at=None, last_at=None, last_result=""
    )


def _built(
    kind: type[Any], entry: Mapping[str, Any], section: str, enums: Mapping[str, type[StrEnum]]
) -> Any:
    fields = {item.name: item for item in dataclasses.fields(kind)}
    values = {}
    for name, value in entry.items():
        if name not in fields or name == "account_id":
            raise ConfigurationError(f"a [[{section}]] has no {name!r}")
        try:
            values[name] = enums[name](value) if name in enums else _frozen(value)
        except ValueError as error:
            raise ConfigurationError(f"[[{section}]] {name}: {error}") from error
        expected = int if name in ("port", "id") else type(_example(fields[name]))
        if type(values[name]) is not expected:
            raise ConfigurationError(f"[[{section}]] {name} is {value!r}, of another type")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigurationError(f"a [[{section}]] is not whole: {error}") from error


def _example(item: dataclasses.Field[Any]) -> Any:
    """A value of the field's type: its default; what has none is a text."""
    if item.default is not dataclasses.MISSING:
        return item.default
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return ""


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _differing(
    section: str,
    here: Mapping[str, Any],
    wanted: Mapping[str, Any],
    put: Callable[[Any], object],
    changes: list[tuple[str, Callable[[], object]]],
) -> None:
    for name, entry in wanted.items():
        if here.get(name) != entry:
            changes.append((f"{section} {name}", _call(put, entry)))


def _superfluous(
    section: str,
    here: Mapping[str, Any],
    wanted: set[str],
    remove: Callable[[str], object],
    changes: list[tuple[str, Callable[[], object]]],
) -> None:
    for name in here:
        if name not in wanted:
            changes.append((f"{section} {name}: removed", _call(remove, name)))
