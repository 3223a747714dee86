"""Users, called AE titles, listeners, peers; a running gateway has followed when one is over."""

from __future__ import annotations

import asyncio
import dataclasses
import getpass
import json as json_module
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.shown import (
    DataOption,
    JsonOption,
    changing,
    database,
    fail_clearly,
    print_json,
    running,
    table,
)
from hilum.errors import ConfigurationError, HilumError, NotFound
from hilum.gateway.config import Tls, load, parse_address
from hilum.gateway.flow.names import HostNames
from hilum.gateway.flow.peers import client_tls, server_name
from hilum.gateway.heartbeat import Heartbeat
from hilum.gateway.permission import fingerprint
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import (
    DEFAULT_SERVICES,
    SERVICES,
    Account,
    CalledTitle,
    Listener,
    Peer,
)
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind

__all__ = ["listeners", "peers", "titles", "users"]

users = typer.Typer(help="Users: 'RVU-NAME' keeps images for one of them.", no_args_is_help=True)
titles = typer.Typer(help="Called AE titles, and who keeps what by them.", no_args_is_help=True)
listeners = typer.Typer(help="Ports that DICOM is served on.", no_args_is_help=True)
peers = typer.Typer(help="Systems that we talk with.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="its name")]
# The gateway opens a listener after it has followed the change.
OPENED_WITHIN = 5.0

CommitmentOption = Annotated[
    str,
    typer.Option(help="how results of storage commitment are delivered, such as same:10,new,next"),
]


# ── users ─────────────────────────────────────────────────────────────────────────────────────


@users.command("add")
def user_add(
    name: Name,
    alias: Annotated[
        str | None,
        typer.Option(help="a called AE title beside RVU-NAME; needed for names over 12 characters"),
    ] = None,
    data: DataOption = None,
) -> None:
    """Add a user; what is sent to RVU-NAME is kept for NAME alone."""
    with fail_clearly(), changing(data) as directory:
        account = directory.add_account(name, alias_title=alias)
        print(f"user {account.name}: {', '.join(account.titles)}")


@users.command("ls")
def user_ls(data: DataOption = None, json: JsonOption = False) -> None:
    """List users and their called AE titles."""
    with fail_clearly(), database(data) as opened:
        accounts = Directory(opened).snapshot().accounts
        if json:
            print_json([_shown_account(account) for account in accounts])
            return
        table(
            ("user", "called AE titles", "state", "groups"),
            [
                (
                    a.name,
                    ", ".join(a.titles),
                    "disabled" if a.disabled else "",
                    ", ".join(a.groups),
                )
                for a in accounts
            ],
        )


def _shown_account(account: Account) -> dict[str, object]:
    """Everything but the passcode's hash."""
    shown: dict[str, object] = dataclasses.asdict(account) | {"titles": account.titles}
    return shown | {"passcode": bool(account.passcode)}


@users.command("passwd")
def user_passwd(
    name: Name,
    stdin: Annotated[bool, typer.Option(help="read it from standard input, one line")] = False,
    remove: Annotated[bool, typer.Option(help="take it away")] = False,
    data: DataOption = None,
) -> None:
    """Give a user a passcode, with which a peer is shown the user's data (user identity)."""
    with fail_clearly():
        passcode = None
        if stdin:
            passcode = sys.stdin.readline().rstrip("\r\n")
        elif not remove:
            if not sys.stdin.isatty():
                raise ConfigurationError("no terminal to ask on; give the passcode with --stdin")
            passcode = getpass.getpass(f"passcode of {name}: ")
            if getpass.getpass("once more: ") != passcode:
                raise ConfigurationError("the two differ; nothing was changed")
        with changing(data) as directory:
            directory.set_passcode(name, passcode)
            print(f"user {name}: passcode {'set' if passcode is not None else 'removed'}")


@users.command("groups")
def user_groups(
    name: Name,
    groups: Annotated[list[str] | None, typer.Argument(help="names; none: out of all")] = None,
    data: DataOption = None,
) -> None:
    """Put a user in groups, and in no others; a peer may be shown the data of a group."""
    with fail_clearly(), changing(data) as directory:
        directory.set_groups(name, groups or ())
        print(f"user {name}: {', '.join(groups or ()) or 'in no group'}")


@users.command("rm")
def user_rm(name: Name, data: DataOption = None) -> None:
    """Remove a user. The images stay, for administrators; the name is never given again."""
    with fail_clearly(), changing(data) as directory:
        directory.remove_account(name)
        print(f"user {name} removed")


@users.command("disable")
def user_disable(name: Name, data: DataOption = None) -> None:
    """Refuse what is sent to a user, until 'enable'."""
    with fail_clearly(), changing(data) as directory:
        directory.disable_account(name)


@users.command("enable")
def user_enable(name: Name, data: DataOption = None) -> None:
    """Accept again what is sent to a user."""
    with fail_clearly(), changing(data) as directory:
        directory.disable_account(name, disabled=False)


# ── called AE titles ──────────────────────────────────────────────────────────────────────────


@titles.command("add")
def ae_add(
    title: Annotated[str, typer.Argument(help="called AE title; capitals matter")],
    user: Annotated[str | None, typer.Option(help="keep for this user alone")] = None,
    quarantine: Annotated[bool, typer.Option(help="keep out of everyone's sight")] = False,
    duplicates: Annotated[
        DuplicatePolicy, typer.Option(help="other content under a UID that is here")
    ] = DuplicatePolicy.KEEP_BOTH,
    missing_uids: Annotated[
        MissingUidPolicy, typer.Option(help="no Study or Series Instance UID")
    ] = MissingUidPolicy.REFUSE,
    transfer_syntax: Annotated[
        list[str] | None, typer.Option(help="accept these only, in this order (UIDs)")
    ] = None,
    sop_class: Annotated[
        list[str] | None, typer.Option(help="accept these only (UIDs); default: all storage")
    ] = None,
    charset: Annotated[
        str, typer.Option(help="(0008,0005) for text without one, such as 'ISO_IR 100'")
    ] = "",
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="only this peer may call it; may be repeated"),
    ] = None,
    max_associations: Annotated[
        int, typer.Option(metavar="N", help="associations at once; 0: limits.max_per_title")
    ] = 0,
    disabled: Annotated[bool, typer.Option(help="reject it for now")] = False,
    commitment: CommitmentOption = "",
    data: DataOption = None,
) -> None:
    """Serve a called AE title, or set anew how it is served."""
    with fail_clearly(), changing(data) as directory:
        known = {each.name for each in directory.snapshot().peers}
        for name in peer or ():
            if name not in known:
                raise NotFound(f"no peer {name!r}; 'hilum peer ls' lists them")
        kind = TitleKind.QUARANTINE if quarantine else TitleKind.GLOBAL
        account_id = None
        if user is not None:
            if quarantine:
                raise ConfigurationError("give either --user or --quarantine")
            kind, account_id = TitleKind.ACCOUNT, _account_id(directory, user)
        directory.put_called_title(
            CalledTitle(
                title,
                kind,
                account_id,
                duplicates,
                missing_uids,
                tuple(transfer_syntax or ()),
                tuple(sop_class or ()),
                charset,
                not disabled,
                commitment,
                tuple(peer or ()),
                max_associations,
            )
        )
        print(f"called AE title {title}: {kind}")


def _account_id(directory: Directory, name: str) -> int:
    for account in directory.snapshot().accounts:
        if account.name == name:
            return account.id
    raise NotFound(f"no user {name!r}; add one with 'hilum user add {name}'")


def _narrowed(title: CalledTitle) -> str:
    notes = [f"only {', '.join(title.peers)}"] if title.peers else []
    notes += [f"{title.max_associations} associations"] if title.max_associations else []
    return "; ".join(notes)


@titles.command("ls")
def ae_ls(data: DataOption = None, json: JsonOption = False) -> None:
    """List called AE titles and listeners, users' titles included."""
    with fail_clearly(), database(data) as opened:
        snapshot = Directory(opened).snapshot()
        if json:
            print_json({"titles": snapshot.called_titles, "listeners": snapshot.listeners})
            return
        lines: list[tuple[object, ...]] = []
        for title in snapshot.called_titles:
            account = snapshot.account(title.account_id) if title.account_id else None
            state = "" if title.enabled else "disabled"
            state = "; ".join(filter(None, (state, _narrowed(title))))
            for_whom = f"user {account.name}" if account else str(title.kind)
            lines.append((title.title, for_whom, title.duplicates, title.missing_uids, state))
        lines += [
            (name, f"user {account.name}", "", "", "disabled" if account.disabled else "")
            for account in snapshot.accounts
            for name in account.titles
        ]
        table(("title", "keeps for", "duplicates", "missing UIDs", "state"), lines)
        for listener in snapshot.listeners:
            print(f"listener {listener.name}: {_where(listener)}")


@titles.command("rm")
def ae_rm(
    title: Annotated[str, typer.Argument(help="called AE title")], data: DataOption = None
) -> None:
    """Serve a called AE title no longer; what was kept by it stays."""
    with fail_clearly(), changing(data) as directory:
        directory.remove_called_title(title)
        print(f"called AE title {title} removed")


# ── listeners ─────────────────────────────────────────────────────────────────────────────────


def _where(listener: Listener) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host or "*"
    notes = [f"any title → {listener.default_title}"] if listener.any_title else []
    notes += ["TLS"] if listener.tls else []
    notes += [f"from {', '.join(listener.allowed)}"] if listener.allowed else []
    notes += [] if listener.enabled else ["disabled"]
    return f"{host}:{listener.port}" + (f" ({'; '.join(notes)})" if notes else "")


@listeners.command("add")
def listener_add(
    name: Name,
    address: Annotated[str, typer.Argument(help="HOST:PORT or PORT")],
    any_title: Annotated[
        str | None,
        typer.Option(help="do not check the called AE title; keep what is unknown by this title"),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="address range whose callers need not be peers")
    ] = None,
    tls: Annotated[bool, typer.Option(help="TLS with the certificate of tls.certificate")] = False,
    disabled: Annotated[bool, typer.Option(help="do not open it")] = False,
    data: DataOption = None,
) -> None:
    """Serve DICOM on another port, or set a listener anew."""
    with fail_clearly():
        host, port = parse_address(address)
        listener = Listener(
            name,
            port,
            host or "",
            any_title is not None,
            any_title or "",
            not disabled,
            {"enabled": True} if tls else {},
            tuple(allow or ()),
        )
        with changing(data) as directory:
            if any_title is not None and directory.snapshot().resolve(any_title) is None:
                raise ConfigurationError(
                    f"AE title {any_title!r} is not served; add it with 'hilum ae add {any_title}'"
                )
            directory.put_listener(listener)
        why = "" if disabled else _why_not_open(data, name)
        if why:
            raise HilumError(f"listener {name} is set, but not open; it is tried again: {why}")
        print(f"listener {name}: {_where(listener)}")


def _why_not_open(data: Path | None, name: str) -> str:
    """Of a running gateway's listener; empty where it is open, or no gateway runs."""
    until = time.monotonic() + OPENED_WITHIN
    while (beat := running(data)) is not None and beat.accepting and time.monotonic() < until:
        if name in beat.not_open:
            return beat.not_open[name]
        if name in beat.opened:
            break
        time.sleep(0.1)
    return ""


@listeners.command("ls")
def listener_ls(data: DataOption = None, json: JsonOption = False) -> None:
    """List listeners."""
    with fail_clearly(), database(data) as opened:
        found = Directory(opened).snapshot().listeners
        if json:
            print_json(found)
            return
        beat = running(data)
        table(
            ("listener", "where", "state"),
            [(each.name, _where(each), _open_state(each, beat)) for each in found],
        )


def _open_state(listener: Listener, beat: Heartbeat | None) -> str:
    """What a running gateway says of a listener; ``--dicom`` may have placed it elsewhere."""
    if beat is None or not beat.accepting:
        return "no gateway runs"
    if listener.name in beat.not_open:
        return f"not open: {beat.not_open[listener.name]}"
    return ", ".join(f"open on {address}" for address in beat.opened.get(listener.name, ()))


@listeners.command("rm")
def listener_rm(name: Name, data: DataOption = None) -> None:
    """Close a listener; associations on it are finished."""
    with fail_clearly(), changing(data) as directory:
        directory.remove_listener(name)
        print(f"listener {name} removed")


# ── peers ─────────────────────────────────────────────────────────────────────────────────────

_PEER = re.compile(
    r"(?P<title>[^@]+)@(?P<host>\[[^\]]+\](?:/\d+)?|[^:]+|[^@]*::[^@]*?)(?::(?P<port>\d+))?"
)


@peers.command("add")
def peer_add(
    name: Name,
    address: Annotated[
        str,
        typer.Argument(
            help="AET@HOST[:PORT]; AET * is every caller, HOST may be a range (10.1.0.0/16), "
            "PORT is where it listens"
        ),
    ],
    calling: Annotated[str, typer.Option(help="our AE title towards it")] = "",
    service: Annotated[
        list[str] | None, typer.Option(help=f"what it may ask: {', '.join(SERVICES)}")
    ] = None,
    charset: Annotated[str, typer.Option(help="(0008,0005) for its text without one")] = "",
    commitment: CommitmentOption = "",
    user: Annotated[str, typer.Option(help="show it this user's data; needs --certificate")] = "",
    group: Annotated[
        str,
        typer.Option(
            help="show it the data of this group's users; --certificate or one's passcode proves it"
        ),
    ] = "",
    certificate: Annotated[
        str, typer.Option(help="its client certificate: a PEM file, or SHA-256 in hexadecimal")
    ] = "",
    get: Annotated[
        bool, typer.Option("--get", help="fetch from it with C-GET, not with C-MOVE to ourselves")
    ] = False,
    tls: Annotated[
        bool, typer.Option("--tls", help="call it over TLS (any of these options does)")
    ] = False,
    tls_ca: Annotated[str, typer.Option(help="PEM file: authorities that are trusted")] = "",
    tls_cert: Annotated[
        str, typer.Option(help="PEM file: our certificate for it; else tls.certificate")
    ] = "",
    tls_key: Annotated[
        str, typer.Option(help="PEM file: its private key, if not in the same file")
    ] = "",
    tls_name: Annotated[
        str, typer.Option(help="name that its certificate shows; else its host")
    ] = "",
    tls_no_verify: Annotated[
        bool, typer.Option("--tls-no-verify", help="take any certificate: encrypted, to whomever")
    ] = False,
    data: DataOption = None,
) -> None:
    """Let a system in, and know where it listens."""
    files = {"ca": tls_ca, "certificate": tls_cert, "key": tls_key}
    said = {name: str(Path(file).absolute()) for name, file in files.items() if file}
    with fail_clearly(), changing(data) as directory:
        found = _PEER.fullmatch(address)
        if found is None:
            raise ConfigurationError(f"{address!r} is not AET@HOST or AET@HOST:PORT")
        peer = Peer(
            name,
            found["title"],
            found["host"].replace("[", "").replace("]", ""),
            int(found["port"]) if found["port"] else None,
            calling,
            tuple(service or DEFAULT_SERVICES),
            charset,
            commitment=commitment,
            belongs_to=_one_of(user, group),
            certificate=_fingerprint(certificate),
            retrieve="get" if get else "",
            tls=_tls(said, tls_name, asked=tls, verify=not tls_no_verify),
        )
        client_tls(peer, Tls())  # files that cannot be read are told now
        directory.put_peer(peer)
        print(f"peer {name}: {_peer(peer)}")
        if not HostNames.is_known(peer):
            print(
                f"hilum: the name of host {peer.host!r} is not known now; it is looked up again",
                file=sys.stderr,
            )


def _tls(files: dict[str, str], name: str, *, asked: bool, verify: bool) -> dict[str, Any]:
    """Of a peer; empty for plain TCP."""
    if not (asked or files or name or not verify):
        return {}
    return {**files, **({"name": name} if name else {}), "verify": verify}


def _one_of(user: str, group: str) -> str:
    if user and group:
        raise ConfigurationError("give either --user or --group")
    return f"@{group}" if group else user


def _fingerprint(text: str) -> str:
    """Of a PEM file, or as it was given, with colons or without."""
    digits = text.replace(":", "").lower()
    if not text or re.fullmatch(r"[0-9a-f]{64}", digits):
        return digits
    try:
        pem = Path(text).read_text("ascii")
        begin = pem.index("-----BEGIN CERTIFICATE-----")
        return fingerprint(
            ssl.PEM_cert_to_DER_cert(
                pem[begin : pem.index("-----END", begin)] + "-----END CERTIFICATE-----\n"
            )
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{text!r} is no certificate in PEM: {error}") from None


def _peer(peer: Peer) -> str:
    port = f":{peer.port}" if peer.port else ""
    return f"{peer.ae_title}@{peer.host}{port}" + (" (TLS)" if peer.tls else "")


@peers.command("ls")
def peer_ls(data: DataOption = None, json: JsonOption = False) -> None:
    """List peers."""
    with fail_clearly(), database(data) as opened:
        found = Directory(opened).snapshot().peers
        if json:
            print_json(found)
            return
        lines = [
            (p.name, _peer(p), ", ".join(p.services), p.calling_ae, p.belongs_to) for p in found
        ]
        table(("peer", "address", "may", "we call as", "sees data of"), lines)


@peers.command("rm")
def peer_rm(name: Name, data: DataOption = None) -> None:
    """Know a system no longer."""
    with fail_clearly(), changing(data) as directory:
        directory.remove_peer(name)
        print(f"peer {name} removed")


@peers.command("echo")
def peer_echo(name: Name, data: DataOption = None, json: JsonOption = False) -> None:
    """Ask a peer whether it answers (C-ECHO); exit code 1 if not."""
    from hilum.net import connect

    async def ask(peer: Peer) -> float:
        if peer.port is None:
            raise ConfigurationError(f"peer {peer.name!r} has no port; it can only call us")
        began = time.perf_counter()
        async with await connect(
            peer.host,
            peer.port,
            called=peer.ae_title,
            calling=peer.calling_ae or "HILUM",
            tls=client_tls(peer, load().tls),
            server_hostname=server_name(peer),
        ) as association:
            response = await association.c_echo()
        if response.status:
            raise HilumError(f"{_peer(peer)} answered {response.status:04X}H")
        return time.perf_counter() - began

    with fail_clearly(), database(data) as opened:
        for peer in Directory(opened).snapshot().peers:
            if peer.name == name:
                seconds = asyncio.run(ask(peer))
                if json:
                    print(json_module.dumps({"peer": name, "seconds": seconds}))
                else:
                    print(f"{_peer(peer)} answers in {seconds * 1000:.0f} ms")
                return
        raise NotFound(f"no peer {name!r}; 'hilum peer ls' lists them")
