"""A DICOM file as lines and as DICOM JSON, whatever state it is in."""

from __future__ import annotations

import base64
import struct
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Protocol

from hilum.cli.report import shown
from hilum.errors import InvalidDicom
from hilum.services.dictionary import keyword_for_tag, private_entry, uid_dictionary
from hilum.services.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
    guess_encoding,
    read_element,
)
from hilum.services.inflate import Inflation, inflate
from hilum.services.json_model import BINARY_VRS, json_values, values_of
from hilum.services.outline import Kind, Node, outline
from hilum.services.part10 import is_part10
from hilum.services.transfer_syntaxes import properties

__all__ = ["Bytes", "Opened", "Shown", "as_json", "lines", "node_lines"]

MAX_INFLATED = 256 << 20
"""Bytes that a deflated data set is inflated to; the rest is not shown."""

_TRANSFER_SYNTAX = 0x00020010
_SOP_CLASS = 0x00080016
_SYNTAX_MAXIMUM = 128


class Shown(Protocol):
    """What lines and JSON are made of."""

    @property
    def uri(self) -> str | None:
        """Where values can be found that are not shown; None where everything is shown."""

    def data_set(self) -> Iterator[Node]:
        """Everything in it."""

    def value(self, node: Node, most: int | None = None) -> bytes:
        """The bytes of an element's value, or the first ones."""


class Bytes:
    """A data set in memory.

    Args:
        data: without file meta information.
        transfer_syntax: an uncompressed one.
    """

    uri = None

    def __init__(self, data: bytes, transfer_syntax: str) -> None:
        syntax = properties(transfer_syntax)
        self._data = inflate(data, 0, MAX_INFLATED)[0] if syntax.deflated else data
        self._encoding = IMPLICIT_LITTLE
        if syntax.explicit:
            self._encoding = EXPLICIT_LITTLE if syntax.little_endian else EXPLICIT_BIG

    def data_set(self) -> Iterator[Node]:
        """See `Shown`."""
        return outline(self._data, self._encoding)

    def value(self, node: Node, most: int | None = None) -> bytes:
        """See `Shown`."""
        end = node.start + (node.length if most is None else min(node.length, most))
        return self._data[node.start : end]


class Opened:
    """A file: its file meta information and its data set.

    Attributes:
        problems: what was found wrong so far.

    Raises:
        OSError: it cannot be read.
        InvalidDicom: nothing in it can be read as a data element.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._stack = ExitStack()
        try:
            file = self._stack.enter_context(path.open("rb"))
            size = path.stat().st_size
            if not size:
                raise InvalidDicom("the file is empty")
            # A map takes no memory for what is not looked at.
            self.data: Buffer = self._stack.enter_context(
                mmap(file.fileno(), 0, access=ACCESS_READ)
            )
            self._start = _start(self.data)
            self.offset = self._end_of_meta()
            self._find_data_set()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _end_of_meta(self) -> int:
        """Where the data set begins."""
        data, pos, declared = self.data, self._start, 0
        self._meta = EXPLICIT_LITTLE
        if data[pos : pos + 2] == b"\2\0" and not bytes(data[pos + 4 : pos + 6]).isalpha():
            self._meta = IMPLICIT_LITTLE
        while data[pos : pos + 2] == b"\2\0":
            if pos == declared and not bytes(data[pos + 4 : pos + 6]).isupper():
                break  # a deflated data set may begin with any two bytes
            try:
                key, _, start, length = read_element(data, pos, len(data), self._meta, final=True)
            except (struct.error, Malformed):
                break
            if length > len(data) - start:
                break
            pos = start + length
            if key == 0x00000002 and length == 4:
                declared = pos + int.from_bytes(bytes(data[start:pos]), "little")
        return pos

    @property
    def uri(self) -> str:
        """See `Shown`."""
        return self.path.absolute().as_uri()

    def meta(self) -> Iterator[Node]:
        """File meta information."""
        return outline(self.data, self._meta, start=self._start, end=self.offset)

    def _find_data_set(self) -> None:
        self.syntax = ""
        for node in self.meta():
            if node.tag == _TRANSFER_SYNTAX and node.length <= _SYNTAX_MAXIMUM:
                self.syntax = _text(self, node)
        declared = properties(self.syntax)
        self.encoding: Encoding = IMPLICIT_LITTLE
        if self.syntax and declared.explicit:
            self.encoding = EXPLICIT_LITTLE if declared.little_endian else EXPLICIT_BIG
        self.set_data, self.set_start = self.data, self.offset
        if declared.deflated:
            found, _, why = inflate(self.data, self.offset, MAX_INFLATED)
            if why is not Inflation.ENDED:
                self.problems.append(
                    f"the deflated data set is damaged, or over {MAX_INFLATED:,} bytes"
                )
            if found:
                self.set_data, self.set_start = found, 0
        self._check_encoding()

    def _check_encoding(self) -> None:
        if self.set_start >= len(self.set_data):
            self.problems.append("the file has no data set")
            return
        try:
            found, _ = guess_encoding(self.set_data, self.set_start, self.encoding, final=True)
        except (Malformed, struct.error):
            found = None
        if found is None:
            if not self.syntax:
                raise InvalidDicom("no DICOM file: neither file meta information nor a data set")
            return
        if found is not self.encoding and self.syntax:
            self.problems.append(
                f"the data set is {found.name} endian, its file meta says otherwise"
            )
        self.encoding = found

    def data_set(self) -> Iterator[Node]:
        """The data set; problems in it are kept."""
        for node in outline(self.set_data, self.encoding, start=self.set_start):
            if node.kind is Kind.PROBLEM:
                self.problems.append(node.text)
            yield node

    def value(self, node: Node, most: int | None = None) -> bytes:
        """The bytes of an element's value, or the first ones."""
        end = node.start + (node.length if most is None else min(node.length, most))
        source = self.data if node.tag >> 16 == 2 else self.set_data
        return bytes(source[node.start : end])

    @property
    def title(self) -> str:
        """What the file is, for people."""
        parts = [f"{len(self.data):,} bytes"]
        if self.syntax:
            parts.insert(0, _uid_name(self.syntax) or self.syntax)
        else:
            parts.insert(0, f"no file meta information, {self.encoding.name} endian")
        for node in outline(self.set_data, self.encoding, start=self.set_start):
            if node.tag == _SOP_CLASS and node.kind is Kind.ELEMENT:
                uid = _text(self, node)
                parts.insert(0, _uid_name(uid) or uid)
            if node.tag >= _SOP_CLASS or node.kind is Kind.PROBLEM:
                break
        return shown(", ".join(parts))


def _start(data: Buffer) -> int:
    if is_part10(bytes(data[:132])):
        return 132
    return 4 if data[:4] == b"DICM" else 0


def _text(opened: Opened, node: Node) -> str:
    return opened.value(node, _SYNTAX_MAXIMUM).decode("latin-1").strip("\0 ")


def _uid_name(uid: str) -> str:
    return uid_dictionary().get(uid, ("",))[0]


# ── lines ───────────────────────────────────────────────────────────────────────────────────────


def lines(opened: Opened, options: Namespace) -> Iterator[str]:
    """A line for each element, item and fragment."""
    if not options.no_meta and opened.offset > opened._start:
        yield from node_lines(opened, opened.meta(), options)
    yield from node_lines(opened, opened.data_set(), options)


def node_lines(opened: Shown, nodes: Iterator[Node], options: Namespace) -> Iterator[str]:
    """A line for each node; ``options`` are ``key``, ``all`` and ``max_value``."""
    wanted = frozenset(options.key or ())
    inside = -1  # depth of the wanted sequence that is being shown
    counts: dict[int, int] = {}
    for node in nodes:
        if node.depth <= inside:
            inside = -1
        if wanted and inside < 0:
            if node.kind is not Kind.PROBLEM and node.tag not in wanted:
                continue
            if node.kind in (Kind.SEQUENCE, Kind.FRAGMENTS):
                inside = node.depth
        if node.kind in (Kind.SEQUENCE, Kind.FRAGMENTS):
            counts[node.depth + 1] = 0
        elif node.kind in (Kind.ITEM, Kind.FRAGMENT):
            counts[node.depth] = counts.get(node.depth, 0) + 1
        yield "  " * node.depth + _line(opened, node, options, counts.get(node.depth, 0))


def _line(opened: Shown, node: Node, options: Namespace, number: int) -> str:
    if node.kind is Kind.PROBLEM:
        return f"!! {shown(node.text)}"
    if node.kind is Kind.ITEM:
        return f"item {number}"
    if node.kind is Kind.FRAGMENT:
        what = "offset table" if number == 1 else f"fragment {number - 1}"
        return f"{what}  # {node.length:,}"
    length = "undefined" if node.length == UNDEFINED else f"{node.length:,}"
    said = _said(opened, node, options)
    head = f"({node.tag >> 16:04X},{node.tag & 0xFFFF:04X}) {node.vr} {said}"
    return f"{head:<60} # {length} {_name(node)}".rstrip()


def _name(node: Node) -> str:
    if node.creator:
        entry = private_entry(node.creator, node.tag)
        name = entry[1] if entry is not None else ""
        return shown(f"{node.creator}: {name}" if name else node.creator)
    if node.tag & 0xFFFF == 0:
        return "GroupLength"
    if node.tag >> 16 & 1 and 0x10 <= node.tag & 0xFFFF <= 0xFF:
        return "PrivateCreator"
    return keyword_for_tag(node.tag)


def _said(opened: Shown, node: Node, options: Namespace) -> str:
    if node.kind is Kind.SEQUENCE:
        return "sequence"
    if node.kind is Kind.FRAGMENTS:
        return "encapsulated"
    if not node.length:
        return "(no value)"
    most = None if options.all else options.max_value
    if node.vr in BINARY_VRS:
        return _cut(opened.value(node, most and max(most // 3, 1)).hex(" "), most, node.length * 3)
    # Characters may have several bytes; more than enough of them are read.
    raw = opened.value(node, most and most * 8)
    values = values_of(node.vr, raw, little=node.encoding.little, character_set=node.character_set)
    joined = "\\".join(map(str, values))
    said = _cut(shown(joined), most, len(joined) if len(raw) == node.length else node.length)
    if not isinstance(values[0] if values else "", str) or node.vr == "AT":
        return said
    name = _uid_name(joined) if node.vr == "UI" else ""
    return f"[{said}] = {name}" if name else f"[{said}]"


def _cut(text: str, most: int | None, length: int) -> str:
    if most is None or (len(text) <= most and length <= len(text) + 1):
        return text
    return text[:most] + "…"


# ── DICOM JSON ──────────────────────────────────────────────────────────────────────────────────


def as_json(opened: Shown, options: Namespace) -> dict[str, object]:
    """The data set in the DICOM JSON model; without file meta, which the model has none of.

    Standard: PS3.18 F.2.
    """
    top: dict[str, Any] = {}
    wanted = frozenset(options.key or ())
    stack: list[Any] = [top]  # by depth: an item's object, a sequence's list, or None inside others
    for node in opened.data_set():
        del stack[node.depth + 1 :]
        holder = stack[node.depth]
        if node.kind is Kind.ITEM:
            item: dict[str, Any] = {}
            if holder is not None:
                holder.append(item)
            stack.append(item)
        elif node.kind in (Kind.ELEMENT, Kind.SEQUENCE, Kind.FRAGMENTS):
            left_out = (wanted and not node.depth and node.tag not in wanted) or (
                node.tag & 0xFFFF == 0
            )
            inner: list[Any] | None = None
            if not left_out:
                element = _json_element(opened, node, options)
                holder[f"{node.tag:08X}"] = element
                if node.kind is Kind.SEQUENCE:
                    inner = element.setdefault("Value", [])
            if node.kind is not Kind.ELEMENT:
                stack.append(inner)
    return _without_empty(top)


def _json_element(opened: Shown, node: Node, options: Namespace) -> dict[str, Any]:
    vr = "SQ" if node.kind is Kind.SEQUENCE else node.vr
    element: dict[str, Any] = {"vr": vr}
    if node.kind is Kind.SEQUENCE or (not node.length and node.kind is Kind.ELEMENT):
        return element
    if node.kind is Kind.FRAGMENTS:
        if opened.uri is not None:
            element["BulkDataURI"] = f"{opened.uri}?offset={node.start}&length=-1"
        return element
    if vr in BINARY_VRS:
        if opened.uri is None or options.all or node.length <= options.max_inline:
            element["InlineBinary"] = base64.b64encode(opened.value(node)).decode("ascii")
        else:
            uri = f"{opened.uri}?offset={node.start}&length={node.length}"
            element["BulkDataURI"] = uri
        return element
    values = json_values(
        vr, opened.value(node), little=node.encoding.little, character_set=node.character_set
    )
    if values:
        element["Value"] = values
    return element


def _without_empty(item: dict[str, Any]) -> dict[str, Any]:
    """A sequence without items has no Value."""
    for element in item.values():
        if element["vr"] == "SQ":
            if not element["Value"]:
                del element["Value"]
            else:
                for inner in element["Value"]:
                    _without_empty(inner)
    return item
