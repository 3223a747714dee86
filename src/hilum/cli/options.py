"""Options that the DICOM tools share: those that users of other toolkits type by habit."""

from __future__ import annotations

import argparse
import math
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hilum import __version__
from hilum.cli.running import reason
from hilum.errors import AssociationRejected
from hilum.net.limits import Limits, Timeouts
from hilum.net.tls import client_context, server_context
from hilum.wire.items import ExtendedNegotiation

__all__ = [
    "PeerAddress",
    "accepted",
    "ae_title",
    "client_tls",
    "connection_of",
    "count",
    "explained",
    "extended_items",
    "extended_options",
    "limits_of",
    "maximum_length",
    "parser",
    "peer_and_rest",
    "port",
    "port_to_listen_on",
    "requestor_options",
    "seconds",
    "server_tls",
    "timeout_options",
    "timeouts_of",
    "transfer_syntax_options",
    "verbosity_options",
]


class PeerAddress(NamedTuple):
    """Whom to call.

    Args:
        host: name or address, without brackets.
        port: TCP port.
        called: its AE title, None where none was written.
    """

    host: str
    port: int
    called: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.called}@{host}:{self.port}" if self.called else f"{host}:{self.port}"


# ── types of arguments ──────────────────────────────────────────────────────────────────────


def ae_title(text: str) -> str:
    """An AE title: 1 to 16 characters of the default repertoire (PS3.5 6.2)."""
    title = text.strip(" ")
    if not title or not title.isascii() or not title.isprintable() or "\\" in title:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no AE title; it has 1 to 16 ASCII characters"
        )
    if len(title) > 16:
        raise argparse.ArgumentTypeError(
            f"AE title '{title}' has {len(title)} characters, at most 16"
        )
    return title


def port(text: str) -> int:
    """A TCP port to connect to."""
    if not _is_number(text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is no TCP port; it is a number from 1 to 65535")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1."""
    if not _is_number(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(text: str) -> int:
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0")
    return int(text)


def port_to_listen_on(text: str) -> int:
    """A TCP port, or 0 for a free one."""
    return 0 if text == "0" else port(text)


def maximum_length(text: str) -> int:
    """The longest PDU that is received, bytes; 0 is no limit (PS3.8 D.1)."""
    # With less, peers exist that cannot send at all.
    value = _number(text)
    if value and not 4096 <= value <= 0xFFFFFFFF:
        raise argparse.ArgumentTypeError(
            f"maximum PDU length {text}; give 0 for none, or 4096 and more"
        )
    return value


def seconds(text: str) -> float:
    """A time in seconds, above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no time; give seconds above 0")
    return value


# ── the peer ────────────────────────────────────────────────────────────────────────────────


def peer_and_rest(
    parser: argparse.ArgumentParser, words: Sequence[str], called: str | None
) -> tuple[PeerAddress, list[str]]:
    """Take ``AET@HOST:PORT``, ``HOST:PORT`` or ``HOST PORT`` off the front of the words.

    Args:
        parser: whose ``error`` ends the program.
        words: what stands on the command line besides options.
        called: from ``-aec``; stands for an AE title that the peer is written without.
    """
    title, host, port_text = _split(words[0])
    rest = list(words[1:])
    if port_text is None:
        if not rest:
            parser.error(f"no port in '{words[0]}'; write HOST:PORT or HOST PORT")
        port_text = rest.pop(0)
    try:
        number = port(port_text)
        if title is not None:
            title = ae_title(title)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    if not host:
        parser.error(f"no host in '{words[0]}'; write HOST:PORT or HOST PORT")
    if title is not None and called is not None and title != called:
        parser.error(f"called AE title '{title}' in the peer, but '{called}' as option; give one")
    return PeerAddress(host, number, called or title), rest


def _split(word: str) -> tuple[str | None, str, str | None]:
    """AE title, host and port as written; None for what is not there."""
    title, at, rest = word.rpartition("@")
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        port_text = after[1:] if after.startswith(":") else None
    elif rest.count(":") == 1:
        host, _, port_text = rest.partition(":")
    else:  # a name, an IPv4 address, or an IPv6 address whose port is the next word
        host, port_text = rest, None
    return title if at else None, host, port_text


def explained(error: Exception, peer: PeerAddress, calling: str) -> str:
    """Why there was no association, with what can be done about it."""
    if isinstance(error, AssociationRejected):
        named = peer.called or "ANY-SCP"
        if (error.source, error.reason) == (1, 7):
            remedy = f"it does not serve '{named}'; name its title: TITLE@HOST:PORT, or -aec TITLE"
            return f"{error} ({remedy})"
        if (error.source, error.reason) == (1, 3):
            return f"{error} (it does not know '{calling}' from here; make it known there, or -aet)"
    return reason(error)


# ── parsers ─────────────────────────────────────────────────────────────────────────────────


def parser(name: str, description: str, usage: str | None = None) -> argparse.ArgumentParser:
    """A parser that also takes options beginning with ``+``."""
    return argparse.ArgumentParser(
        prog=f"hilum {name}",
        description=description,
        usage=usage,
        prefix_chars="-+",
        allow_abbrev=False,
    )


class _Level(argparse.Action):
    """``-ll LEVEL``: one of ``-q``, ``-v``, ``-d`` by the names that other toolkits have."""

    _SAYS = {
        "critical": "quiet", "fatal": "quiet", "error": "quiet", "warn": "", "warning": "",
        "info": "verbose", "debug": "debug", "trace": "debug",
    }  # fmt: skip

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values.lower() not in self._SAYS:
            parser.error(f"log level '{values}' is none of {', '.join(self._SAYS)}")
        if said := self._SAYS[values.lower()]:
            setattr(namespace, said, True)


def verbosity_options(parser: argparse.ArgumentParser) -> None:
    """``-q``, ``-v``, ``-d``, ``-ll``, and ``--version``."""
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("-v", "--verbose", action="store_true", help="say more")
    add("-d", "--debug", action="store_true", help="say everything")
    add("-ll", "--log-level", action=_Level, metavar="LEVEL",
        help="the same by name: error … debug")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"hilum {__version__}",
                        help="print the version")  # fmt: skip


def accepted(parser: argparse.ArgumentParser, *options: str, why: str = "always so") -> None:
    """Options of other toolkits that users type by habit, and that change nothing here."""
    parser.add_argument(*options, action="store_true", help=f"accepted; {why}")


def transfer_syntax_options(parser: argparse.ArgumentParser, why: str) -> None:
    """The usual ``-x`` options of what proposes transfer syntaxes, which chooses here by itself."""
    accepted(
        parser, "-x=", "-xe", "-xb", "-xi", "-xs", "-xy", "-xx", "-xv", "-xw", "-xt", "-xu", "-xr",
        "-xd", "--request-little", "--request-big", "--request-implicit", why=why,
    )  # fmt: skip


_EXTENDED = (
    ("relational", "unique keys above the level may be left out"),
    ("dt_matching", "a date and its time are one moment"),
    ("fuzzy_names", "fuzzy matching of names"),
    ("timezone_adj", "dates and times are moved by the query's time zone"),
    ("enhanced_conversion", "a view of enhanced multi-frame images"),
)
_RETRIEVE_EXTENDED = ("relational", "enhanced_conversion")


def extended_options(parser: argparse.ArgumentParser, *, query: bool) -> None:
    """Options of extended negotiation (PS3.4 C.5)."""
    group = parser.add_argument_group("extended negotiation")
    for name, meaning in _EXTENDED:
        if query or name in _RETRIEVE_EXTENDED:
            words = {"relational": ("--relational-query" if query else "--relational-retrieval",)}
            group.add_argument(
                *words.get(name, ("--" + name.replace("_", "-"),)),
                dest=name, action="store_true", help=meaning,
            )  # fmt: skip


def extended_items(
    options: argparse.Namespace, sop_class_uid: str, *, query: bool
) -> tuple[ExtendedNegotiation, ...]:
    """What is proposed; nothing where nothing was asked for.

    Standard: PS3.4 C.5.1.1 (C-FIND), C.5.2.1 and C.5.3.1 (C-MOVE and C-GET): a byte each.
    """
    names = [name for name, _ in _EXTENDED] if query else _RETRIEVE_EXTENDED
    wanted = bytes(getattr(options, name) for name in names).rstrip(b"\0")
    return (ExtendedNegotiation(sop_class_uid, wanted),) if wanted else ()


def timeout_options(parser: argparse.ArgumentParser, *, connecting: bool) -> None:
    """``-ta``, ``-td``, ``-tn``, and ``-to`` of what opens connections."""
    group = parser.add_argument_group("timeouts in seconds")
    add = group.add_argument
    if connecting:
        add("-to", "-tc", "--timeout", "--connection-timeout", type=seconds, metavar="S",
            help="for the connection (30)")  # fmt: skip
    add("-ta", "--acse-timeout", type=seconds, metavar="S", help="for A-ASSOCIATE, A-RELEASE (30)")
    add("-td", "--dimse-timeout", type=seconds, metavar="S", help="for a response (60)")
    add("-tn", "--network-timeout", type=seconds, metavar="S",
        help="for the peer to take data (60)")  # fmt: skip


def requestor_options(parser: argparse.ArgumentParser) -> None:
    """AE titles, timeouts and TLS of a command that opens associations."""
    add = parser.add_argument
    add("-aet", "--calling", "--calling-aet", type=ae_title, default="HILUM", metavar="TITLE",
        help="our AE title (HILUM)")  # fmt: skip
    add("-aec", "--called", "--called-aet", type=ae_title, metavar="TITLE",
        help="the peer's AE title (ANY-SCP)")  # fmt: skip
    add("-pdu", "--max-pdu", type=maximum_length, metavar="BYTES",
        help="longest PDU that we receive; 0 is no limit")  # fmt: skip
    add("--json", action="store_true", help="print one JSON document and nothing else")
    verbosity_options(parser)
    timeout_options(parser, connecting=True)
    group = parser.add_argument_group("TLS")
    add = group.add_argument
    add("--tls", "+tla", action="store_true", help="use TLS (any of these options does)")
    add("--tls-ca", "+cf", type=Path, metavar="FILE", help="authorities that are trusted (PEM)")
    add("--tls-cert", type=Path, metavar="FILE", help="our certificate, where the peer asks for it")
    add("--tls-key", type=Path, metavar="FILE", help="its private key, if not in the same file")
    add("+tls", dest="tls_pair", nargs=2, type=Path, metavar=("KEY", "CERT"), help="both at once")
    add("--tls-name", metavar="NAME", help="name that the peer's certificate shows (the host)")
    add("--tls-no-verify", "-ic", action="store_true", help="accept any certificate")


def timeouts_of(options: argparse.Namespace) -> Timeouts:
    """The timeouts that were given, over the defaults."""
    given = {
        "connect": getattr(options, "timeout", None),
        "associate": options.acse_timeout,
        "artim": options.acse_timeout,
        "release": options.acse_timeout,
        "dimse": options.dimse_timeout,
        "write": options.network_timeout,
    }
    return Timeouts(**{name: value for name, value in given.items() if value is not None})


def connection_of(peer: PeerAddress, options: argparse.Namespace) -> dict[str, Any]:
    """What ``hilum.net.connect`` takes besides host and port, by the options of a requestor.

    Raises:
        ConfigurationError: a file of TLS cannot be read or does not fit.
    """
    return {
        "called": peer.called or "ANY-SCP",
        "calling": options.calling,
        "timeouts": timeouts_of(options),
        "limits": limits_of(options),
        "tls": client_tls(options),
        "server_hostname": options.tls_name,
    }


def limits_of(options: argparse.Namespace) -> Limits:
    """The maximum length that was given, over the defaults."""
    return Limits() if options.max_pdu is None else Limits(max_length=options.max_pdu)


def client_tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS context that was asked for, None where none was.

    Raises:
        ConfigurationError: a file cannot be read or does not fit.
    """
    key, certificate = options.tls_pair or (options.tls_key, options.tls_cert)
    asked = options.tls or options.tls_no_verify
    if not any((asked, options.tls_ca, certificate, key, options.tls_name)):
        return None
    return client_context(
        ca=options.tls_ca, certificate=certificate, key=key, verify=not options.tls_no_verify
    )


def server_tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """The same for a receiver.

    Raises:
        ConfigurationError: a file cannot be read or does not fit.
    """
    key, certificate = options.tls_pair or (options.tls_key, options.tls_cert)
    if certificate is None:
        return None
    return server_context(certificate, key, client_ca=options.tls_ca)
