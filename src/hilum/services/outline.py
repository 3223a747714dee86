"""Everything that a data set holds, in order, as far as it can be read.

Unlike the readers that serve a purpose this one is for people who want to see what is there,
damaged data sets above all: what cannot be read becomes a node that says so, and reading goes on
where something says how.

Standard: PS3.5 6.2.2 (UN), 7.1 (data elements), 7.5 (sequences), A.4 (encapsulated values).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from hilum.services.dictionary import dictionary_vr, private_entry
from hilum.services.elements import (
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
    encoding_of_item,
    key_of,
    read_element,
    tag_text,
)

__all__ = ["Kind", "Node", "OutlineLimits", "outline"]

_CHARACTER_SET = key_of(0x0008, 0x0005)
_PIXEL_REPRESENTATION = key_of(0x0028, 0x0103)
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})


class Kind(Enum):
    """What a node is."""

    ELEMENT = 1  # with a value of its own
    SEQUENCE = 2  # items follow, one level deeper
    FRAGMENTS = 3  # an encapsulated value: fragments follow, one level deeper
    ITEM = 4  # its elements follow, one level deeper
    FRAGMENT = 5  # with bytes
    PROBLEM = 6  # what cannot be read


@dataclass(slots=True)
class Node:
    """One thing in a data set.

    Args:
        kind: what it is.
        depth: how many sequences and items it is in.
        tag: as a 32-bit number; 0 for problems.
        vr: as written, or what the dictionaries say; ``UN`` where nothing says it.
        start: where its value, or what it holds, begins.
        length: bytes of its value; `UNDEFINED` where a delimitation item ends it.
        encoding: of its value.
        character_set: raw (0008,0005) in force.
        creator: of a private element, empty where none has reserved its block.
        text: what is wrong, for problems.
    """

    kind: Kind
    depth: int
    tag: int = 0
    vr: str = ""
    start: int = 0
    length: int = 0
    encoding: Encoding = IMPLICIT_LITTLE
    character_set: bytes = b""
    creator: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class OutlineLimits:
    """What is read at most.

    Args:
        max_depth: sequences inside sequences.
        max_nodes: elements, items and fragments.
    """

    max_depth: int = 64
    max_nodes: int = 2_000_000


@dataclass(slots=True)
class _Frame:
    """An open data set, item or sequence.

    Args:
        encoding: of its elements, or expected of its items.
        end: where it ends; None when a delimitation item, or the end of the data, says.
        kind: ITEM (the data set itself too), SEQUENCE or FRAGMENTS.
        character_set: raw (0008,0005) in force.
        signed: what Pixel Representation says.
        creators: (group, block) → private creator.
    """

    encoding: Encoding
    end: int | None
    kind: Kind = Kind.ITEM
    character_set: bytes = b""
    signed: bool = False
    creators: dict[tuple[int, int], str] = field(default_factory=dict)


def outline(
    data: Buffer,
    encoding: Encoding,
    *,
    start: int = 0,
    end: int | None = None,
    limits: OutlineLimits | None = None,
) -> Iterator[Node]:
    """Go through a data set; never raises.

    Args:
        data: its bytes, or the file that holds it.
        encoding: of its elements; items in other encodings are recognised.
        start: where it begins.
        end: where it ends; None is the end of the data.
        limits: None for the defaults.
    """
    yield from _Outline(data, len(data) if end is None else end, limits or OutlineLimits()).read(
        start, encoding
    )


class _Outline:
    def __init__(self, data: Buffer, end: int, limits: OutlineLimits) -> None:
        self._data = data
        self._end = end
        self._limits = limits
        self._stack: list[_Frame] = []

    def read(self, pos: int, encoding: Encoding) -> Iterator[Node]:
        """The nodes from `pos` on."""
        stack = self._stack = [_Frame(encoding, self._end)]
        left = self._limits.max_nodes
        while stack:
            frame = stack[-1]
            if frame.end is not None and pos >= frame.end:
                pos = frame.end
                stack.pop()
                continue
            depth = len(stack) - 1
            try:
                node, pos = self._node(frame, pos, depth)
            except (Malformed, struct.error) as error:
                text = str(error) if isinstance(error, Malformed) else "the data set ends here"
                yield Node(Kind.PROBLEM, depth, start=pos, text=text)
                pos = self._recovered()
                continue
            if node is None:
                continue
            left -= 1
            if left < 0:
                yield Node(Kind.PROBLEM, 0, text=f"more than {self._limits.max_nodes:,} elements")
                return
            yield node

    def _recovered(self) -> int:
        """Go on behind the innermost item or sequence whose end is known."""
        stack = self._stack
        while stack and (stack[-1].end is None or len(stack) == 1):
            stack.pop()
        return (stack[-1].end or 0) if stack else self._end

    def _node(self, frame: _Frame, pos: int, depth: int) -> tuple[Node | None, int]:
        """The node at `pos`, and where to go on."""
        if pos >= self._end:
            raise Malformed("the data set ends within a sequence")
        if frame.kind is Kind.ITEM:
            return self._element(frame, pos, depth)
        return self._item(frame, pos, depth)

    # ── elements ────────────────────────────────────────────────────────────────────────────

    def _element(self, frame: _Frame, pos: int, depth: int) -> tuple[Node | None, int]:
        key, vr, start, length = read_element(
            self._data, pos, self._end, frame.encoding, final=True
        )
        group, number = key & 0xFFFF, key >> 16
        if group == 0xFFFE:
            return None, self._delimitation(frame, key, pos, start)
        tag = group << 16 | number
        creator = self._creator(frame, tag)
        node = Node(
            Kind.ELEMENT,
            depth,
            tag,
            vr or _vr(tag, creator, frame, length),
            start,
            length,
            frame.encoding,
            frame.character_set,
            creator,
        )
        if node.vr == "SQ" or length == UNDEFINED:
            return self._opened(frame, node)
        limit = self._end if frame.end is None else frame.end
        if start + length > limit:
            what = "what holds it" if limit < self._end else "what is left of the data set"
            raise Malformed(f"{tag_text(key)} has {length:,} bytes, which is more than {what}")
        self._remember(frame, key, start, length)
        return node, start + length

    def _remember(self, frame: _Frame, key: int, start: int, length: int) -> None:
        """What later elements depend on."""
        group, number = key & 0xFFFF, key >> 16
        if key == _CHARACTER_SET:
            frame.character_set = bytes(self._data[start : start + min(length, 1024)])
        elif key == _PIXEL_REPRESENTATION:
            frame.signed = bytes(self._data[start : start + min(length, 2)]).strip(b"\0") != b""
        elif group & 1 and 0x10 <= number <= 0xFF:
            value = bytes(self._data[start : start + min(length, 64)])
            frame.creators[group, number] = value.decode("latin-1").strip(" \0")

    @staticmethod
    def _creator(frame: _Frame, tag: int) -> str:
        if not tag >> 16 & 1:
            return ""
        return frame.creators.get((tag >> 16, (tag & 0xFFFF) >> 8), "")

    def _opened(self, frame: _Frame, node: Node) -> tuple[Node, int]:
        if len(self._stack) > 2 * self._limits.max_depth:
            raise Malformed(f"sequences nested deeper than {self._limits.max_depth}")
        end = None if node.length == UNDEFINED else node.start + node.length
        limit = self._end if frame.end is None else frame.end
        if end is not None and end > limit:
            raise Malformed(f"{node.tag:08X} is a sequence longer than what holds it")
        encapsulated = node.vr in _BINARY
        node.kind = Kind.FRAGMENTS if encapsulated else Kind.SEQUENCE
        inner = _Frame(
            IMPLICIT_LITTLE if node.vr == "UN" else frame.encoding,  # PS3.5 6.2.2
            end,
            node.kind,
            frame.character_set,
            frame.signed,
        )
        self._stack.append(inner)
        return node, node.start

    def _delimitation(self, frame: _Frame, key: int, pos: int, start: int) -> int:
        """An item or delimitation item where an element was expected; returns where to go on."""
        if frame.end is None and len(self._stack) > 1:
            self._stack.pop()
            # An item or the sequence's end: the item's own delimitation was forgotten.
            return start if key == ITEM_DELIMITATION else pos
        if key == ITEM:
            raise Malformed(f"{tag_text(key)} stands where a data element was expected")
        return start  # superfluous

    # ── items ───────────────────────────────────────────────────────────────────────────────

    def _item(self, frame: _Frame, pos: int, depth: int) -> tuple[Node | None, int]:
        group, element = frame.encoding.tag(self._data, pos)
        key, start = key_of(group, element), pos + 8
        length = int(frame.encoding.u32(self._data, pos + 4)[0])
        if key == SEQUENCE_DELIMITATION and frame.end is None:
            self._stack.pop()
            return None, start
        if key in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION):
            return None, start  # superfluous
        if key != ITEM:
            raise Malformed(f"{tag_text(key)} stands where an item was expected")
        limit = self._end if frame.end is None else frame.end
        end = None if length == UNDEFINED else start + length
        if end is not None and end > limit:
            raise Malformed(f"an item has {length:,} bytes, which is more than what holds it")
        node = Node(Kind.ITEM, depth, 0xFFFEE000, "", start, length, frame.encoding)
        if frame.kind is Kind.FRAGMENTS:
            if end is None:
                raise Malformed("a fragment of an encapsulated value has no length")
            node.kind = Kind.FRAGMENT
            return node, end
        encoding = encoding_of_item(self._data, start, length, frame.encoding) if length else None
        node.encoding = encoding or frame.encoding
        self._stack.append(_Frame(node.encoding, end, Kind.ITEM, frame.character_set, frame.signed))
        return node, start


def _vr(tag: int, creator: str, frame: _Frame, length: int) -> str:
    """The VR of an element that was written without one."""
    group, number = tag >> 16, tag & 0xFFFF
    found = "UN"
    if number == 0:
        return "UL"
    if group & 1:
        if 0x10 <= number <= 0xFF:
            return "LO"
        entry = private_entry(creator, tag)
        found = entry[0] if entry is not None else "UN"
    else:
        with suppress(KeyError):
            found = dictionary_vr(tag)
    if found == "UN" and length == UNDEFINED:
        return "SQ"
    if len(found) == 2:
        return found
    if "OW" in found and (length > 2 or "US" not in found):
        return "OW"
    return "SS" if "SS" in found and frame.signed else "US"
