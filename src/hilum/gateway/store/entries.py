"""The directory's entries, their rules, and how a called AE title is resolved.

Standard: PS3.5 6.2 (AE: up to 16 characters of the default repertoire, no backslash, no control
characters, leading and trailing spaces not significant).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hilum.errors import ConfigurationError
from hilum.gateway.store.delivery import Delivery
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind
from hilum.services.text import is_character_set

__all__ = [
    "DEFAULT_SERVICES",
    "PIPELINE_PREFIX",
    "SERVICES",
    "USER_PREFIX",
    "Account",
    "CalledTitle",
    "Listener",
    "Peer",
    "Snapshot",
    "check_ae_title",
    "check_charset",
    "check_group",
    "check_listener",
    "check_peer",
    "check_uid",
    "check_user_name",
]

USER_PREFIX = "RVU-"
"""Called AE titles that keep for one user begin so."""

PIPELINE_PREFIX = "RVP-"
"""Called AE titles that process and do not keep begin so."""

SERVICES = ("echo", "store", "query", "retrieve", "commit")
"""What a peer may be allowed to ask for."""

DEFAULT_SERVICES = ("echo", "store", "commit")
"""What it may ask for where nothing is said: to keep images, and to be told that they are kept."""

AE_TITLE_LENGTH = 16
_SHORT_NAME = AE_TITLE_LENGTH - len(USER_PREFIX)
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Account:
    """A user.

    Args:
        id: the owner id of the user's data; never 0.
        name: unique for ever.
        alias_title: a called AE title of the user's beside ``RVU-{name}``.
        disabled: nothing is accepted for the user.
        created_at: µs since 1970.
        groups: names of groups that the user is in.
        passcode: its argon2 hash; "" for none.
    """

    id: int
    name: str
    alias_title: str | None
    disabled: bool
    created_at: int
    groups: tuple[str, ...] = ()
    passcode: str = field(default="", repr=False)

    @property
    def titles(self) -> tuple[str, ...]:
        """The called AE titles that keep for this user."""
        own = (USER_PREFIX + self.name,) if len(self.name) <= _SHORT_NAME else ()
        return own if self.alias_title is None else (*own, self.alias_title)


@dataclass(frozen=True, slots=True)
class CalledTitle:
    """A called AE title that is served.

    Args:
        title: as it is called; upper and lower case differ.
        kind: for whom it keeps.
        account_id: of kind ACCOUNT, whose.
        duplicates: what happens to other content under a UID that is here.
        missing_uids: what happens to data sets without Study or Series Instance UID.
        transfer_syntaxes: accepted, in order of preference; empty for the default order.
        sop_classes: accepted; empty for every storage class.
        fallback_charset: for text without (0008,0005) that is not ASCII; "" for the default.
        enabled: False: rejected as if it were not there.
        commitment: ways of delivery of results, see `Delivery`; "" for the setting.
        peers: names of the peers that may call it; empty for everyone who is let in.
        max_associations: at once; 0 for `limits.max_per_title`.
    """

    title: str
    kind: TitleKind = TitleKind.GLOBAL
    account_id: int | None = None
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP_BOTH
    missing_uids: MissingUidPolicy = MissingUidPolicy.REFUSE
    transfer_syntaxes: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    fallback_charset: str = ""
    enabled: bool = True
    commitment: str = ""
    peers: tuple[str, ...] = ()
    max_associations: int = 0


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that DICOM is served on.

    Args:
        name: unique.
        host: address to bind; "" for all.
        port: 0 for any free one.
        any_title: called AE titles are not checked; unknown ones go to `default_title`.
        default_title: a called title of the directory; needed with `any_title`.
        enabled: False: not opened.
        tls: settings of TLS; empty for plain TCP.
        allowed: address ranges that may connect (``10.1.0.0/16``); empty for this machine and
            the peers.
    """

    name: str
    port: int
    host: str = ""
    any_title: bool = False
    default_title: str = ""
    enabled: bool = True
    tls: Mapping[str, Any] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """A system that we talk with.

    Args:
        name: unique; how people call it.
        ae_title: its AE title.
        host: its name, address or address range; with a range it can only call us.
        port: where it listens; None when it only calls us.
        calling_ae: our AE title towards it; "" for the default.
        services: what it may ask of us, of `SERVICES`.
        fallback_charset: for its text without (0008,0005) that is not ASCII; "" for the default.
        tls: settings of TLS towards it; empty for plain TCP.
        commitment: ways of delivery of results, see `Delivery`; "" for the called title's.
        belongs_to: the user whose own data it is shown, or ``@`` and a group of them; "" for none.
            It proves who it is by its certificate, or by the passcode of a user who belongs there.
        certificate: SHA-256 of its client certificate, by which it is known for certain; "" for
            none.
        retrieve: how we fetch from it: "get", or "" for C-MOVE to ourselves.
    """

    name: str
    ae_title: str
    host: str
    port: int | None = None
    calling_ae: str = ""
    services: tuple[str, ...] = DEFAULT_SERVICES
    fallback_charset: str = ""
    tls: Mapping[str, Any] = field(default_factory=dict)
    commitment: str = ""
    belongs_to: str = ""
    certificate: str = ""
    retrieve: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The whole directory, of one moment.

    Args:
        changes: the change counter it belongs to.
        accounts: users that were not removed, disabled ones too.
        called_titles: disabled ones too.
        listeners: disabled ones too.
        peers: all.
        settings: value by key.
    """

    changes: int
    accounts: tuple[Account, ...]
    called_titles: tuple[CalledTitle, ...]
    listeners: tuple[Listener, ...]
    peers: tuple[Peer, ...]
    settings: Mapping[str, Any]

    def resolve(self, called_ae: str) -> CalledTitle | None:
        """What a called AE title means; None: not served, reject it.

        A user's titles are answered as titles of kind ACCOUNT with default policies.

        Args:
            called_ae: without trailing spaces and NULs; upper and lower case differ.
        """
        return self._titles.get(called_ae)

    def account_named(self, name: str) -> Account | None:
        """A user by name."""
        return next((account for account in self.accounts if account.name == name), None)

    def account(self, account_id: int) -> Account | None:
        """A user by id."""
        return self._accounts.get(account_id)

    @cached_property
    def _titles(self) -> Mapping[str, CalledTitle]:
        users = {
            title: CalledTitle(title, TitleKind.ACCOUNT, account.id)
            for account in self.accounts
            if not account.disabled
            for title in account.titles
        }
        # A title that keeps for a user is off while the user is.
        disabled = {account.id for account in self.accounts if account.disabled}
        return users | {
            title.title: title
            for title in self.called_titles
            if title.enabled and title.account_id not in disabled
        }

    @cached_property
    def _accounts(self) -> Mapping[int, Account]:
        return {account.id: account for account in self.accounts}


def check_ae_title(title: str) -> None:
    """Check an AE title that someone configures.

    Raises:
        ConfigurationError: it cannot be an AE title.
    """
    _check_repertoire(title, "AE title")
    if title != title.strip(" "):
        raise ConfigurationError(f"AE title {title!r} begins or ends with a space; leave it out")
    if not 1 <= len(title) <= AE_TITLE_LENGTH:
        raise ConfigurationError(
            f"AE title {title!r} has {len(title)} characters; it needs 1 to {AE_TITLE_LENGTH}"
        )


def check_uid(uid: str) -> None:
    """Check a UID that someone configures (PS3.5 9.1).

    Raises:
        ConfigurationError: it cannot be a UID.
    """
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid) or len(uid) > 64:
        raise ConfigurationError(f"{uid!r} is no UID; write it like 1.2.840.10008.1.2.1")


def check_charset(term: str) -> None:
    """Check a character set for text that names none; "" is the default.

    Raises:
        ConfigurationError: nothing is known by this name.
    """
    if term and not is_character_set(term):
        raise ConfigurationError(
            f"character set {term!r} is not known; write a defined term of (0008,0005) such as "
            "'ISO_IR 100', or a name such as cp1252"
        )


def check_user_name(name: str, alias_title: str | None) -> None:
    """Check a user name and the alias title that goes with it.

    Raises:
        ConfigurationError: one is wrong, or the name is too long to do without an alias.
    """
    _check_repertoire(name, "user name")
    if " " in name or "/" in name:
        raise ConfigurationError(f"user name {name!r} has a space or slash; leave it out")
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise ConfigurationError(
            f"user name {name!r} has {len(name)} characters; it needs 1 to {_LONGEST_NAME}"
        )
    if alias_title is None:
        if len(name) > _SHORT_NAME:
            raise ConfigurationError(
                f"user name {name!r} has more than {_SHORT_NAME} characters, so that "
                f"'{USER_PREFIX}{name}' is no AE title; give an alias title too"
            )
        return
    check_ae_title(alias_title)
    if alias_title.startswith((USER_PREFIX, PIPELINE_PREFIX)):
        raise ConfigurationError(
            f"alias title {alias_title!r} begins like another user's or a pipeline's; choose another"
        )


def check_group(name: str) -> None:
    """Check the name of a group of users.

    Raises:
        ConfigurationError: it cannot be one.
    """
    _check_repertoire(name, "group")
    if not 1 <= len(name) <= _LONGEST_NAME or " " in name or name.startswith("@"):
        raise ConfigurationError(
            f"group {name!r} needs 1 to {_LONGEST_NAME} characters, no spaces and no @ before them"
        )


def check_listener(listener: Listener) -> None:
    """Check a listener.

    Raises:
        ConfigurationError: a value is wrong.
    """
    _check_name(listener.name, "listener")
    _check_port(listener.port, 0)
    if listener.any_title and not listener.default_title:
        raise ConfigurationError(
            f"listener {listener.name!r} accepts any title; say with a default title where "
            "unknown ones go"
        )
    if listener.default_title:
        check_ae_title(listener.default_title)
    for span in listener.allowed:
        try:
            ipaddress.ip_network(span)
        except ValueError as error:
            raise ConfigurationError(
                f"address range {span!r} cannot be read ({error}); write it like 10.1.0.0/16"
            ) from None


def check_peer(peer: Peer) -> None:
    """Check a peer.

    Raises:
        ConfigurationError: a value is wrong.
    """
    _check_name(peer.name, "peer")
    check_ae_title(peer.ae_title)
    if peer.calling_ae:
        check_ae_title(peer.calling_ae)
    if not peer.host or not peer.host.isprintable() or " " in peer.host:
        raise ConfigurationError(f"peer {peer.name!r}: host {peer.host!r} is no name or address")
    if "/" in peer.host:
        try:
            ipaddress.ip_network(peer.host)
        except ValueError as error:
            raise ConfigurationError(
                f"peer {peer.name!r}: address range {peer.host!r} cannot be read ({error})"
            ) from None
        if peer.port is not None:
            raise ConfigurationError(
                f"peer {peer.name!r} has an address range and a port; nothing can be sent to a "
                "range, give one address or no port"
            )
    if peer.port is not None:
        _check_port(peer.port, 1)
    check_charset(peer.fallback_charset)
    if peer.commitment:
        Delivery.parse(peer.commitment)
    # Of a group, any member's passcode may prove it.
    if peer.belongs_to and not peer.belongs_to.startswith("@") and not peer.certificate:
        raise ConfigurationError(
            f"peer {peer.name!r}: an address and a title prove nothing; give the certificate by "
            f"which it is known, to show it the data of {peer.belongs_to!r}"
        )
    if peer.certificate and not re.fullmatch(r"[0-9a-f]{64}", peer.certificate):
        raise ConfigurationError(
            f"peer {peer.name!r}: certificate {peer.certificate!r} is not the SHA-256 of one in "
            "64 hexadecimal digits"
        )
    if peer.retrieve not in ("", "get"):
        raise ConfigurationError(
            f"peer {peer.name!r}: retrieve is {peer.retrieve!r}; expected 'get' or nothing"
        )
    for service in peer.services:
        if service not in SERVICES:
            raise ConfigurationError(
                f"peer {peer.name!r}: service {service!r} is not one of {', '.join(SERVICES)}"
            )


def _check_repertoire(value: str, what: str) -> None:
    if "\\" in value or not (value.isascii() and value.isprintable()):
        raise ConfigurationError(
            f"{what} {value!r} may have printable ASCII characters only, and no backslash"
        )


def _check_name(name: str, what: str) -> None:
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise ConfigurationError(
            f"{what} name {name!r} needs 1 to {_LONGEST_NAME} printable characters, "
            "without spaces around them"
        )


def _check_port(port: int, lowest: int) -> None:
    if not lowest <= port <= 65535:
        raise ConfigurationError(f"port {port} is not between {lowest} and 65535")
