"""Accounts, called AE titles, listeners, peers and settings: what a site changes.

Every write raises the change counter in its own transaction and leaves an event, so that a
running gateway notices within a second and a person can see who did it. `Directory.snapshot`
loads everything at once, of one moment, for the receiver to route by.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.store import schema
from hilum.gateway.store.database import Database
from hilum.gateway.store.delivery import Delivery
from hilum.gateway.store.entries import (
    PIPELINE_PREFIX,
    USER_PREFIX,
    Account,
    CalledTitle,
    Listener,
    Peer,
    Snapshot,
    check_ae_title,
    check_charset,
    check_group,
    check_listener,
    check_peer,
    check_uid,
    check_user_name,
)
from hilum.gateway.store.passcodes import hash_passcode
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind

__all__ = [
    "Account",
    "CalledTitle",
    "Directory",
    "Listener",
    "Peer",
    "Snapshot",
]

_DEFAULTS_MADE = "directory.defaults_made"


class Directory:
    """Reads and changes the directory; safe to use from any thread.

    Every changing method raises ConfigurationError when a value is wrong or taken, NotFound when
    what is to be changed is not there, and StorageFailed when the database cannot be written; in
    each case nothing is changed.

    Args:
        database: see `open_database`.
        actor: who makes the changes, for the events.
    """

    def __init__(self, database: Database, *, actor: str = "system") -> None:
        self._database = database
        self._actor = actor

    # ── the whole ─────────────────────────────────────────────────────────────────────────────

    def changes(self) -> int:
        """The change counter: another value means that a snapshot is out of date."""
        with self._database.read() as connection:
            return _counter(connection)

    def snapshot(self) -> Snapshot:
        """Everything, of one moment."""
        with self._database.read() as connection:
            return Snapshot(
                changes=_counter(connection),
                accounts=tuple(
                    _account(row)
                    for row in _rows(connection, schema.account)
                    if row["removed_at"] is None
                ),
                called_titles=tuple(map(_title, _rows(connection, schema.called_title))),
                listeners=tuple(map(_listener, _rows(connection, schema.listener))),
                peers=tuple(map(_peer, _rows(connection, schema.peer))),
                settings={
                    row["key"]: json.loads(row["value"])
                    for row in _rows(connection, schema.setting)
                },
            )

    def create_defaults(self) -> None:
        """On the first start: titles RAIVEN and HILUM, a listener on port 11112.

        Once only: what a site then removes stays removed.
        """
        if self.setting(_DEFAULTS_MADE) is not None:
            return
        with self._change("create defaults", "", {}) as connection:
            for title in (CalledTitle("RAIVEN"), CalledTitle("HILUM")):
                if not _has(connection, schema.called_title, title.title):
                    connection.execute(insert(schema.called_title).values(_title_row(title)))
            if not _has(connection, schema.listener, "dicom"):
                connection.execute(
                    insert(schema.listener).values(_listener_row(Listener("dicom", port=11112)))
                )
            _put(connection, schema.setting, {"key": _DEFAULTS_MADE, "value": "true"})

    # ── accounts ──────────────────────────────────────────────────────────────────────────────

    def add_account(self, name: str, *, alias_title: str | None = None) -> Account:
        """Add a user.

        Args:
            name: 1 to 64 printable ASCII characters without spaces; never used before.
            alias_title: a called AE title beside ``RVU-{name}``; needed for names over 12
                characters, because an AE title has 16.
        """
        check_user_name(name, alias_title)
        with self._change("add account", name, {"alias_title": alias_title}) as connection:
            taken = connection.execute(
                select(schema.account.c.removed_at).where(schema.account.c.name == name)
            ).first()
            if taken is not None:
                was = "was used before" if taken.removed_at else "is taken"
                raise ConfigurationError(f"user name {name!r} {was}; choose another")
            if alias_title is not None:
                _check_title_free(connection, alias_title)
            created = _now()
            found = connection.execute(
                insert(schema.account).values(
                    name=name, alias_title=alias_title, disabled=0, created_at=created
                )
            )
            (account_id,) = found.inserted_primary_key or (0,)
            return Account(account_id, name, alias_title, False, created)

    def set_alias_title(self, name: str, alias_title: str | None) -> None:
        """Give a user another alias title, or none."""
        check_user_name(name, alias_title)
        with self._change("set alias title", name, {"alias_title": alias_title}) as connection:
            account = _account_named(connection, name)
            if alias_title is not None and alias_title != account.alias_title:
                _check_title_free(connection, alias_title)
            _update_account(connection, name, alias_title=alias_title)

    def set_passcode(self, name: str, passcode: str | None) -> None:
        """Give a user a passcode, kept as its argon2 hash, or none."""
        hashed = hash_passcode(passcode) if passcode is not None else ""
        with self._change("set passcode", name, {"set": bool(hashed)}) as connection:
            _account_named(connection, name)
            _update_account(connection, name, passcode=hashed)

    def set_groups(self, name: str, groups: Iterable[str]) -> None:
        """Put a user in these groups, and in no others."""
        wanted = sorted(set(groups))
        for group in wanted:
            check_group(group)
        with self._change("set groups", name, {"groups": wanted}) as connection:
            _account_named(connection, name)
            _update_account(connection, name, groups=" ".join(wanted))

    def disable_account(self, name: str, *, disabled: bool = True) -> None:
        """Refuse what is sent to a user, and the user; or allow it again."""
        with self._change("disable account", name, {"disabled": disabled}) as connection:
            _account_named(connection, name)
            _update_account(connection, name, disabled=int(disabled))

    def remove_account(self, name: str) -> None:
        """Remove a user. The name is never given again; the data stays until it is removed."""
        with self._change("remove account", name, {}) as connection:
            account = _account_named(connection, name)
            titles = connection.scalars(
                select(schema.called_title.c.title).where(
                    schema.called_title.c.account_id == account.id
                )
            ).all()
            if titles:
                raise ConfigurationError(
                    f"called AE title {titles[0]!r} keeps for user {name!r}; remove it first"
                )
            _update_account(connection, name, removed_at=_now(), alias_title=None)

    # ── called AE titles ──────────────────────────────────────────────────────────────────────

    def put_called_title(self, title: CalledTitle) -> None:
        """Add a called AE title, or change the one of that name."""
        _check_called_title(title)
        row = _title_row(title)
        with self._change("put called title", title.title, row) as connection:
            if title.account_id is not None:
                found = connection.execute(
                    select(schema.account.c.id).where(
                        schema.account.c.id == title.account_id,
                        schema.account.c.removed_at.is_(None),
                    )
                ).first()
                if found is None:
                    raise ConfigurationError(f"no user with id {title.account_id}; add one first")
            alias = schema.account.c.alias_title == title.title
            if connection.scalar(select(schema.account.c.id).where(alias)) is not None:
                raise ConfigurationError(
                    f"AE title {title.title!r} is a user's alias; choose another"
                )
            _put(connection, schema.called_title, row)

    def remove_called_title(self, title: str) -> None:
        """Remove a called AE title; what was kept under it stays."""
        with self._change("remove called title", title, {}) as connection:
            _remove(connection, schema.called_title, title, "called AE title")

    # ── listeners and peers ───────────────────────────────────────────────────────────────────

    def put_listener(self, listener: Listener) -> None:
        """Add a listener, or change the one of that name."""
        check_listener(listener)
        row = _listener_row(listener)
        with self._change("put listener", listener.name, row) as connection:
            other = connection.scalar(
                select(schema.listener.c.name).where(
                    schema.listener.c.host == listener.host,
                    schema.listener.c.port == listener.port,
                    schema.listener.c.name != listener.name,
                )
            )
            if other is not None:
                raise ConfigurationError(
                    f"listener {other!r} has {listener.host or '*'}:{listener.port} already; "
                    "choose another port"
                )
            _put(connection, schema.listener, row)

    def remove_listener(self, name: str) -> None:
        """Remove a listener; its associations are finished."""
        with self._change("remove listener", name, {}) as connection:
            _remove(connection, schema.listener, name, "listener")

    def put_peer(self, peer: Peer) -> None:
        """Add a peer, or change the one of that name."""
        check_peer(peer)
        row = _peer_row(peer)
        with self._change("put peer", peer.name, row) as connection:
            if peer.belongs_to and not peer.belongs_to.startswith("@"):
                _account_named(connection, peer.belongs_to)
            _put(connection, schema.peer, row)

    def remove_peer(self, name: str) -> None:
        """Remove a peer."""
        with self._change("remove peer", name, {}) as connection:
            _remove(connection, schema.peer, name, "peer")

    # ── settings ──────────────────────────────────────────────────────────────────────────────

    def setting(self, key: str) -> Any:
        """A setting's value; None when it is not set."""
        with self._database.read() as connection:
            return _setting(connection, key)

    def set_setting(self, key: str, value: Any) -> None:
        """Set a setting; None unsets it.

        Args:
            key: its name.
            value: anything that JSON holds.
        """
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"setting {key!r} cannot be kept as JSON: {error}") from None
        # Only the name: a value may be a secret.
        with self._change("set setting", key, {}) as connection:
            if value is None:
                connection.execute(delete(schema.setting).where(schema.setting.c.key == key))
            else:
                _put(connection, schema.setting, {"key": key, "value": text})

    @contextmanager
    def _change(
        self, action: str, subject: str, detail: Mapping[str, object]
    ) -> Iterator[Connection]:
        with self._database.write() as connection:
            change = schema.change
            connection.execute(update(change).values(value=change.c.value + 1))
            yield connection
            connection.execute(
                insert(schema.event).values(
                    at=_now(),
                    action=action,
                    actor=self._actor,
                    subject=subject,
                    detail=json.dumps(dict(detail), ensure_ascii=False),
                )
            )


# ── checks that need the database ─────────────────────────────────────────────────────────────


def _check_called_title(title: CalledTitle) -> None:
    check_ae_title(title.title)
    for prefix, what in ((USER_PREFIX, "a user"), (PIPELINE_PREFIX, "a pipeline")):
        if title.title.startswith(prefix):
            raise ConfigurationError(
                f"called AE title {title.title!r} names {what} by its prefix; choose another"
            )
    if title.commitment:
        Delivery.parse(title.commitment)
    for uid in (*title.transfer_syntaxes, *title.sop_classes):
        check_uid(uid)
    check_charset(title.fallback_charset)
    if title.max_associations < 0:
        raise ConfigurationError(
            f"called AE title {title.title!r}: {title.max_associations} associations at once are "
            "less than none; 0 is the limit of all titles"
        )
    if (title.kind is TitleKind.ACCOUNT) != (title.account_id is not None):
        raise ConfigurationError(
            f"called AE title {title.title!r}: a title of kind 'account' needs a user, "
            "the other kinds have none"
        )


def _check_title_free(connection: Connection, title: str) -> None:
    account = schema.account
    if _has(connection, schema.called_title, title):
        raise ConfigurationError(f"AE title {title!r} is a called title; choose another")
    if connection.scalar(select(account.c.id).where(account.c.alias_title == title)) is not None:
        raise ConfigurationError(f"AE title {title!r} is another user's alias; choose another")


def _account_named(connection: Connection, name: str) -> Account:
    account = schema.account
    row = connection.execute(
        select(account).where(account.c.name == name, account.c.removed_at.is_(None))
    ).first()
    if row is None:
        raise NotFound(f"no user {name!r}; 'hilum user ls' lists them")
    return _account(dict(row._mapping))


def _update_account(connection: Connection, name: str, **values: object) -> None:
    connection.execute(update(schema.account).where(schema.account.c.name == name).values(**values))


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


def _counter(connection: Connection) -> int:
    counter: int = connection.execute(select(schema.change.c.value)).scalar_one()
    return counter


def _rows(connection: Connection, table: Table) -> list[Mapping[str, Any]]:
    key = next(iter(table.primary_key.columns))
    return [dict(row._mapping) for row in connection.execute(select(table).order_by(key))]


def _has(connection: Connection, table: Table, key: str) -> bool:
    column = next(iter(table.primary_key.columns))
    return connection.execute(select(column).where(column == key)).first() is not None


def _put(connection: Connection, table: Table, row: Mapping[str, object]) -> None:
    column = next(iter(table.primary_key.columns))
    done = connection.execute(update(table).where(column == row[column.name]).values(row))
    if not done.rowcount:
        connection.execute(insert(table).values(row))


_COMMANDS = {"called AE title": "ae", "listener": "listener", "peer": "peer"}


def _remove(connection: Connection, table: Table, key: str, what: str) -> None:
    column = next(iter(table.primary_key.columns))
    if not connection.execute(delete(table).where(column == key)).rowcount:
        raise NotFound(f"no {what} {key!r}; 'hilum {_COMMANDS[what]} ls' lists them")


def _setting(connection: Connection, key: str) -> Any:
    table = schema.setting
    text = connection.scalar(select(table.c.value).where(table.c.key == key))
    return None if text is None else json.loads(text)


def _account(row: Mapping[str, Any]) -> Account:
    return Account(
        row["id"],
        row["name"],
        row["alias_title"],
        bool(row["disabled"]),
        row["created_at"],
        tuple(row["groups"].split()),
        row["passcode"],
    )


def _title(row: Mapping[str, Any]) -> CalledTitle:
    return CalledTitle(
        title=row["title"],
        kind=TitleKind(row["kind"]),
        account_id=row["account_id"],
        duplicates=DuplicatePolicy(row["duplicates"]),
        missing_uids=MissingUidPolicy(row["missing_uids"]),
        transfer_syntaxes=tuple(json.loads(row["transfer_syntaxes"])),
        sop_classes=tuple(json.loads(row["sop_classes"])),
        fallback_charset=row["fallback_charset"],
        enabled=bool(row["enabled"]),
        commitment=row["commitment"],
        peers=tuple(json.loads(row["peers"] or "[]")),
        max_associations=row["max_associations"],
    )


def _title_row(title: CalledTitle) -> dict[str, object]:
    return {
        "title": title.title,
        "kind": title.kind.value,
        "account_id": title.account_id,
        "duplicates": title.duplicates.value,
        "missing_uids": title.missing_uids.value,
        "transfer_syntaxes": json.dumps(title.transfer_syntaxes),
        "sop_classes": json.dumps(title.sop_classes),
        "fallback_charset": title.fallback_charset,
        "enabled": int(title.enabled),
        "commitment": title.commitment,
        "peers": json.dumps(title.peers) if title.peers else "",
        "max_associations": title.max_associations,
    }


def _listener(row: Mapping[str, Any]) -> Listener:
    return Listener(
        name=row["name"],
        host=row["host"],
        port=row["port"],
        any_title=bool(row["any_title"]),
        default_title=row["default_title"],
        enabled=bool(row["enabled"]),
        tls=json.loads(row["tls"]),
        allowed=tuple(json.loads(row["allowed"])),
    )


def _listener_row(listener: Listener) -> dict[str, object]:
    return {
        "name": listener.name,
        "host": listener.host,
        "port": listener.port,
        "any_title": int(listener.any_title),
        "default_title": listener.default_title,
        "enabled": int(listener.enabled),
        "tls": json.dumps(dict(listener.tls)),
        "allowed": json.dumps(listener.allowed),
    }


def _peer(row: Mapping[str, Any]) -> Peer:
    return Peer(
        name=row["name"],
        ae_title=row["ae_title"],
        host=row["host"],
        port=row["port"],
        calling_ae=row["calling_ae"],
        services=tuple(json.loads(row["services"])),
        fallback_charset=row["fallback_charset"],
        tls=json.loads(row["tls"]),
        commitment=row["commitment"],
        belongs_to=row["belongs_to"],
        certificate=row["certificate"],
        retrieve=row["retrieve"],
    )


def _peer_row(peer: Peer) -> dict[str, object]:
    return {
        "name": peer.name,
        "ae_title": peer.ae_title,
        "host": peer.host,
        "port": peer.port,
        "calling_ae": peer.calling_ae,
        "services": json.dumps(peer.services),
        "fallback_charset": peer.fallback_charset,
        "tls": json.dumps(dict(peer.tls)),
        "commitment": peer.commitment,
        "belongs_to": peer.belongs_to,
        "certificate": peer.certificate,
        "retrieve": peer.retrieve,
    }


def _now() -> int:
    return time.time_ns() // 1000
