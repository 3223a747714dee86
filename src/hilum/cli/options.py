"""Options that the DICOM tools share: those that users of other toolkits type by habit."""

from __future__ import annotations

import argparse
import math
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hilum.net.limits import Limits, Timeouts
from hilum.net.tls import client_context, server_context

__all__ = [
    "PeerAddress",
    "ae_title",
    "client_tls",
    "count",
    "limits_of",
    "maximum_length",
    "parser",
    "peer_and_rest",
    "port",
    "port_to_listen_on",
    "requestor_options",
    "seconds",
    "server_tls",
    "timeouts_of",
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


def verbosity_options(parser: argparse.ArgumentParser) -> None:
    """``-q``, ``-v``, ``-d``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    group.add_argument("-v", "--verbose", action="store_true", help="say more")
    group.add_argument("-d", "--debug", action="store_true", help="say everything")


def requestor_options(parser: argparse.ArgumentParser) -> None:
    """AE titles, timeouts and TLS of a command that opens associations."""
    add = parser.add_argument
    add("-aet", "--calling", type=ae_title, default="HILUM", metavar="TITLE",
        help="our AE title (HILUM)")  # fmt: skip
    add("-aec", "--called", type=ae_title, metavar="TITLE", help="the peer's AE title (ANY-SCP)")
    add("-pdu", "--max-pdu", type=maximum_length, metavar="BYTES",
        help="longest PDU that we receive; 0 is no limit")  # fmt: skip
    add("--json", action="store_true", help="print one JSON document and nothing else")
    verbosity_options(parser)
    group = parser.add_argument_group("timeouts in seconds")
    add = group.add_argument
    add("-to", "--timeout", type=seconds, metavar="S", help="for the connection (30)")
    add("-ta", "--acse-timeout", type=seconds, metavar="S", help="for A-ASSOCIATE, A-RELEASE (30)")
    add("-td", "--dimse-timeout", type=seconds, metavar="S", help="for a response (60)")
    add(
        "-tn",
        "--network-timeout",
        type=seconds,
        metavar="S",
        help="for the peer to take data (60)",
    )
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
        "connect": options.timeout,
        "associate": options.acse_timeout,
        "release": options.acse_timeout,
        "dimse": options.dimse_timeout,
        "write": options.network_timeout,
    }
    return Timeouts(**{name: value for name, value in given.items() if value is not None})


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
