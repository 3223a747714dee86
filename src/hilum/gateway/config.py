"""Infrastructure settings: one frozen tree, read from a TOML file and the environment.

What a site changes while the gateway runs (AE titles, users, peers, listeners) is in the database
instead. Every field says its unit, default and meaning here and nowhere else; ``hilum config show``
prints them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.errors import ConfigurationError
from hilum.gateway.store.delivery import DEFAULT_DELIVERY, Delivery, Level
from hilum.net.limits import Limits, Timeouts
from hilum.net.server import Network

__all__ = [
    "Access",
    "Commitment",
    "Config",
    "Fetch",
    "QuerySettings",
    "RetrieveSettings",
    "Store",
    "Tls",
    "Work",
    "load",
    "parse_address",
    "rows",
]


# Nothing kept free, nothing awaited at the end, no pace, no buffer for reuse: all that can work.
_MAY_BE_ZERO = {
    "store.reserve",
    "store.reserve_inodes",
    "store.spool",
    "query.max_headers",
    "retrieve.decoders",
    "stop_within",
    "work.grace",
    "work.keep",
    "fetch.settle",
    "limits.min_receive_rate",
    "limits.max_free_buffers",
}


def _setting(default: Any, meaning: str, unit: str = "") -> Any:
    return field(default=default, metadata={"meaning": meaning, "unit": unit})


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect before any peer is configured."""

    allow: tuple[str, ...] = _setting(
        (), "address ranges whose callers are served without being configured peers", "CIDR"
    )
    allow_local: bool = _setting(
        True, "serve callers on this machine (loopback) at once; never applies behind a balancer"
    )
    proxies: tuple[str, ...] = _setting(
        (), "address ranges of load balancers that send a PROXY v2 header", "CIDR"
    )

    @property
    def allowed_networks(self) -> tuple[Network, ...]:
        """``allow`` as networks."""
        return _networks("access.allow", self.allow)

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """``proxies`` as networks."""
        return _networks("access.proxies", self.proxies)


@dataclass(frozen=True, slots=True)
class Store:
    """Storage: how and how much."""

    strategy: str = _setting(
        "auto", "how files are flushed: 'fsync' each, 'syncfs' per batch, or 'auto' by measurement"
    )
    reserve: int = _setting(
        1 << 30,
        "free space below which nothing more is taken (A700H), so that no disk fills up",
        "bytes",
    )
    reserve_inodes: int = _setting(
        1000, "files that must still be possible to create, likewise", "files"
    )
    spool: int = _setting(
        20_000,
        "small objects that may wait for files of their own, which are made when there is time",
        "objects",
    )
    io_threads: int = _setting(4, "threads that write large objects", "threads")
    max_batch: int = _setting(
        256, "instances committed together at most; more wait for the next batch", "instances"
    )
    answer_within: float = _setting(
        45.0,
        "an instance that no batch has taken by then is refused with A700H; below the 60 s after "
        "which most senders give up",
        "s",
    )
    wal_limit: int = _setting(
        64 << 20, "size of SQLite's write-ahead log above which it is truncated", "bytes"
    )


@dataclass(frozen=True, slots=True)
class Work:
    """Background work: the executor of the work table."""

    processes: int = _setting(
        2, "processes for work that needs the CPU; started when needed", "processes"
    )
    grace: float = _setting(
        2.0, "when stopping, how long jobs may take to end; then others take them over", "s"
    )
    keep: float = _setting(
        7 * 86400.0, "how long finished and cancelled jobs stay listed; dead ones stay", "s"
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of the listeners that ask for it."""

    certificate: str = _setting("", "PEM file with certificate and chain", "path")
    key: str = _setting("", "PEM file with the private key; empty: in the certificate's", "path")
    client_ca: str = _setting("", "PEM file with authorities of client certificates", "path")


@dataclass(frozen=True, slots=True)
class Commitment:
    """Storage commitment: what we promise, and how persistently we say so."""

    verify: str = _setting(
        "checksum",
        "what is looked at before an instance is committed: 'row' in the index, 'file' is there and "
        "as long as it says, 'checksum' of every byte",
    )
    delivery: str = _setting(
        DEFAULT_DELIVERY,
        "how results are delivered where neither peer nor called title says: on the association of "
        "the request for so many seconds, on a new one, on the peer's next one",
    )
    retry_for: float = _setting(7 * 86400.0, "how long the delivery of a result is tried", "s")
    retry_least: float = _setting(5.0, "before the second attempt; doubled with each", "s")
    retry_most: float = _setting(3600.0, "between two attempts at most", "s")
    keep: float = _setting(
        90 * 86400.0, "how long a request is known after its result was delivered", "s"
    )
    max_references: int = _setting(
        100_000, "instances in one request; of more, all fail with 0213H", "instances"
    )
    max_open: int = _setting(
        10_000,
        "requests of one caller without a delivered result; more are refused with 0213H",
        "requests",
    )


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetching from peers (C-FIND, C-MOVE to ourselves, C-GET)."""

    studies_at_once: int = _setting(4, "studies fetched at once, of all peers", "studies")
    studies_per_peer: int = _setting(1, "of them, from one peer", "studies")
    attempts: int = _setting(10, "attempts at a study before it counts as failed", "attempts")
    retry_least: float = _setting(30.0, "before the second attempt; doubled with each", "s")
    retry_most: float = _setting(3600.0, "between two attempts at most", "s")
    response_within: float = _setting(
        3600.0,
        "a peer that says nothing for so long has failed; some answer a C-MOVE only at its end",
        "s",
    )
    settle: float = _setting(
        10.0, "how long instances are waited for after the peer says that all are sent", "s"
    )
    max_studies: int = _setting(
        100_000, "studies that a peer may name for one fetch; at more it is given up", "studies"
    )
    max_instances: int = _setting(
        100_000,
        "series and instances that a peer may name of one study; at more the attempt has failed",
        "instances",
    )
    attempt_within: float = _setting(
        86400.0,
        "how long one attempt may take, whatever the peer goes on saying; what has arrived stays",
        "s",
    )
    keep: float = _setting(
        90 * 86400.0, "how long a fetch that is over is listed with its report", "s"
    )


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """Answers to C-FIND."""

    max_matches: int = _setting(
        500_000, "responses to one query; with more it ends with A700H after so many", "responses"
    )
    max_headers: int = _setting(
        500,
        "matches up to which keys that the index does not hold are looked up in the files; with "
        "more they are answered as not supported (FF01H). 0: never",
        "files",
    )
    strict: bool = _setting(
        False,
        "refuse (A900H) hierarchical queries without the unique keys above their level, instead of "
        "answering them",
    )
    threads: int = _setting(3, "queries that read from the index at the same moment", "threads")


@dataclass(frozen=True, slots=True)
class RetrieveSettings:
    """C-GET and C-MOVE."""

    parallel: int = _setting(
        1, "associations to a move destination at once, for each C-MOVE", "associations"
    )
    decoders: int = _setting(
        2,
        "processes that decode compressed images for those who take them uncompressed only; started "
        "when needed. 0: such images are failed sub-operations",
        "processes",
    )
    decode_within: float = _setting(120.0, "how long the decoding of one image may take", "s")
    max_decoded: int = _setting(
        1 << 30, "size of a decoded image above which it is a failed sub-operation", "bytes"
    )
    decoded_space: int = _setting(
        4 << 30,
        "of all images that are decoded and not yet sent, in temporary files of the data directory; "
        "at least twice 'retrieve.max_decoded'",
        "bytes",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole tree."""

    data: str = _setting("hilum-data", "directory of objects, index and settings", "path")
    dicom: str = _setting(
        "",
        "where the first listener listens; empty: as set with 'hilum listener', at first 0.0.0.0:11112",
        "HOST:PORT",
    )
    web: str = _setting(
        "127.0.0.1:8484", "status page, /healthz, /readyz, /metrics; 'off' for none", "HOST:PORT"
    )
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR; DEBUG may show patient data")
    log_json: bool = _setting(False, "one JSON document per log line")
    stop_within: float = _setting(
        20.0, "when stopping, how long messages in progress may take to finish", "s"
    )
    access: Access = field(default_factory=Access)
    store: Store = field(default_factory=Store)
    work: Work = field(default_factory=Work)
    commitment: Commitment = field(default_factory=Commitment)
    fetch: Fetch = field(default_factory=Fetch)
    query: QuerySettings = field(default_factory=QuerySettings)
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    tls: Tls = field(default_factory=Tls)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)

    def with_options(self, **options: Any) -> Config:
        """A copy with the options that are not None; dots in names are written ``__``."""
        given = {name.replace("__", "."): v for name, v in options.items() if v is not None}
        built: Config = _build(Config, _nested(given), self, "option")
        built.check()
        return built

    def check(self) -> None:
        """What types cannot say.

        Raises:
            ConfigurationError: a value that cannot work, with the setting's name.
        """
        _ = self.access.allowed_networks, self.access.proxy_networks
        if not self.data:
            raise ConfigurationError("data is empty; name the data directory")
        if self.store.strategy not in ("auto", "fsync", "syncfs"):
            raise ConfigurationError(
                f"store.strategy is {self.store.strategy!r}; expected auto, fsync or syncfs"
            )
        if self.commitment.verify not in tuple(Level):
            raise ConfigurationError(
                f"commitment.verify is {self.commitment.verify!r}; expected {', '.join(Level)}"
            )
        Delivery.parse(self.commitment.delivery)
        if self.retrieve.decoded_space < 2 * self.retrieve.max_decoded:
            raise ConfigurationError(
                f"retrieve.decoded_space is {self.retrieve.decoded_space}; expected at least twice "
                f"retrieve.max_decoded, {2 * self.retrieve.max_decoded} bytes"
            )
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ConfigurationError(
                f"log_level is {self.log_level!r}; expected DEBUG, INFO, WARNING or ERROR"
            )
        for name, value, unit, _ in rows(self):
            if isinstance(value, int | float) and not isinstance(value, bool):
                least = 0 if name in _MAY_BE_ZERO else 1 if isinstance(value, int) else 0.1
                # NaN is not at least anything.
                if not least <= value < math.inf:
                    raise ConfigurationError(
                        f"{name} is {value}; expected at least {least} {unit}".rstrip()
                    )
        if self.web != "off":
            parse_address(self.web, "web")
        if self.dicom:
            parse_address(self.dicom, "dicom")


def _networks(name: str, values: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(value, strict=False) for value in values)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def parse_address(text: str, name: str = "address") -> tuple[str | None, int]:
    """``HOST:PORT``, ``[IPv6]:PORT``, ``:PORT`` or ``PORT``; no host means every address.

    Raises:
        ConfigurationError: anything else.
    """
    host, separator, port = text.rpartition(":")
    if not separator:
        host = ""
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"{name}: {text!r} is not HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    return host or None, int(port)


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Defaults, then the TOML file, then the environment.

    A setting ``store.reserve`` is read from ``HILUM_STORE_RESERVE``. Without ``path``, the file
    named by ``HILUM_CONFIG`` is read, or ``hilum.toml`` in the working directory if there is one.

    Raises:
        ConfigurationError: an unreadable file, an unknown setting, or a value that cannot be.
    """
    config = Config()
    if path is None and "HILUM_CONFIG" in environ:
        path = Path(environ["HILUM_CONFIG"])
    if path is None and Path("hilum.toml").is_file():
        path = Path("hilum.toml")
    if path is not None:
        try:
            with open(path, "rb") as file:
                tree = tomllib.load(file)
        except OSError as error:
            raise ConfigurationError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path} is no TOML: {error}") from error
        config = _build(Config, tree, config, str(path))
    given = {}
    for name, _, _, _ in rows(config):
        variable = "HILUM_" + name.replace(".", "_").upper()
        if variable in environ:
            given[name] = environ[variable]
    built: Config = _build(Config, _nested(given), config, "environment")
    built.check()
    return built


def rows(config: Config) -> list[tuple[str, Any, str, str]]:
    """(name, value, unit, meaning) of every setting."""
    found: list[tuple[str, Any, str, str]] = []

    def walk(node: Any, prefix: str) -> None:
        for item in dataclasses.fields(node):
            value = getattr(node, item.name)
            if dataclasses.is_dataclass(value):
                walk(value, f"{prefix}{item.name}.")
            else:
                meaning = item.metadata.get("meaning") or _documented(type(node), item.name)
                unit = item.metadata.get("unit", "s" if isinstance(node, Timeouts) else "")
                found.append((prefix + item.name, value, unit, meaning.replace("`", "")))

    walk(config, "")
    return found


def _documented(kind: type, name: str) -> str:
    """The meaning from the ``Args`` of a class that documents its fields there."""
    lines = (kind.__doc__ or "").splitlines()
    meaning: list[str] = []
    for line in lines:
        if line.strip().startswith(f"{name}:"):
            meaning.append(line.strip().partition(":")[2].strip())
        elif meaning and line.startswith(" " * 12):
            meaning.append(line.strip())
        elif meaning:
            break
    return " ".join(meaning)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _build(kind: Any, tree: Mapping[str, Any], base: Any, source: str, prefix: str = "") -> Any:
    hints = typing.get_type_hints(kind)
    known = {item.name for item in dataclasses.fields(kind)}
    changes = {}
    for name, value in tree.items():
        full = prefix + name
        if name not in known:
            raise ConfigurationError(f"{source}: unknown setting {full!r}; see 'hilum config show'")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"{source}: {full!r} is a table of settings")
            changes[name] = _build(hints[name], value, getattr(base, name), source, full + ".")
        else:
            changes[name] = _convert(value, hints[name], f"{source}: {full}")
    return dataclasses.replace(base, **changes)


def _convert(value: Any, hint: Any, name: str) -> Any:
    if isinstance(hint, types.UnionType):
        if isinstance(value, str) and value.lower() in ("none", ""):
            return None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    try:
        if typing.get_origin(hint) is tuple:
            return _texts(value)
        return _parse(value, hint) if isinstance(value, str) else _same_kind(value, hint)
    except (KeyError, ValueError):
        expected = "texts" if typing.get_origin(hint) is tuple else _EXPECTED[hint]
        raise ConfigurationError(f"{name} is {value!r}; expected {expected}") from None


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts, or one text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(value)
    return tuple(part.strip() for part in parts if part.strip())


def _parse(text: str, hint: Any) -> Any:
    """A value from the environment."""
    if hint is bool:
        return _BOOLEANS[text.lower()]
    return int(text, 0) if hint is int else hint(text)


def _same_kind(value: Any, hint: Any) -> Any:
    """A value that has a type already, from TOML or the command line."""
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(value)
    return value
