"""The header scanner's general way through a data set: sequences, private blocks, odd elements.

`Level` is the compiled form of the tag paths: what is wanted among the elements of one data set
or item. `HeaderWalk` is one scan's state. Open sequences and items are frames on a list, so what
a peer nests costs a bounded amount of memory and no recursion.

Standard: PS3.5 7.5 (sequences and items), 7.8.1 (private blocks), A.4 (encapsulated values).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from hilum.services.elements import (
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
    MoreNeeded,
    encoding_of_item,
    key_of,
    read_element,
    tag_text,
)
from hilum.services.tag_path import TagPath, TagStep

__all__ = ["HeaderWalk", "Level", "WalkLimits", "Want"]

_PIXEL_DATA = key_of(0x7FE0, 0x0010)


class WalkLimits(Protocol):
    """The limits a walk obeys; see `hilum.services.header.ScanLimits`."""

    @property
    def max_depth(self) -> int:
        """Sequences inside sequences."""

    @property
    def max_value_length(self) -> int:
        """Bytes of one value that is kept."""

    @property
    def max_elements(self) -> int:
        """Elements and items inside sequences."""


@dataclass(slots=True)
class Want:
    """What is wanted of one element.

    Args:
        vr: the data dictionary's VR.
        paths: where its raw value is filed; more than one when a tag was written in two ways.
        below: what is wanted in its items; None when it is not wanted as a sequence.
        creators: for a private creator element, what is wanted of its block, by creator and low
            byte.
    """

    vr: str | None = None
    paths: tuple[str, ...] = ()
    below: Level | None = None
    creators: dict[bytes, dict[int, Want]] | None = None


@dataclass(slots=True)
class Level:
    """What is wanted among the elements of one data set or item.

    Args:
        wants: by `key_of` the tag.
        wanted: the path of an element of which only the value is wanted; ``""`` where `wants`
            has to be asked. Kept apart because one look-up decides for ordinary elements.
        leaves: the paths that end at this level.
        stop: group and element of the last wanted tag.
    """

    wants: dict[int, Want] = field(default_factory=dict)
    wanted: dict[int, str] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()
    stop: tuple[int, int] = (0, 0)

    @classmethod
    def compile(cls, paths: Iterable[TagPath]) -> Level:
        """Make the tree of levels from tag paths."""
        return cls._compile([(path, path.steps) for path in paths])

    @classmethod
    def _compile(cls, rest: list[tuple[TagPath, tuple[TagStep, ...]]]) -> Level:
        level = cls()
        by_step: dict[TagStep, list[tuple[TagPath, tuple[TagStep, ...]]]] = {}
        for path, steps in rest:
            by_step.setdefault(steps[0], []).append((path, steps[1:]))
        for step, followers in by_step.items():
            deeper = [follower for follower in followers if follower[1]]
            want = Want(
                step.vr,
                tuple(dict.fromkeys(path.text for path, steps in followers if not steps)),
                cls._compile(deeper) if deeper else None,
            )
            level.leaves += want.paths
            level._add(step, want)
        for key, want in level.wants.items():
            level._file(key, want)
        return level

    def _add(self, step: TagStep, want: Want) -> None:
        if step.creator is None:
            key = key_of(step.group, step.element)
            if key in self.wants:  # a creator element that is looked at anyway
                want.creators = self.wants[key].creators
            self.wants[key] = want
            self.stop = max(self.stop, (step.group, step.element))
            return
        # Any of the 240 blocks of the group may be the creator's (PS3.5 7.8.1).
        for block in range(0x10, 0x100):
            holder = self.wants.setdefault(key_of(step.group, block), Want(creators={}))
            if holder.creators is None:  # the creator element is wanted for itself too
                holder.creators = {}
            holder.creators.setdefault(step.creator.encode(), {})[step.element] = want
        self.stop = max(self.stop, (step.group, 0xFF00 | step.element))

    def _file(self, key: int, want: Want) -> None:
        plain = len(want.paths) == 1 and want.below is None and want.creators is None
        self.wanted[key] = want.paths[0] if plain else ""

    def with_block(self, key: int, want: Want, creator: bytes) -> Level:
        """This level with the elements of the block that the creator element `key` reserves."""
        found = (want.creators or {}).get(creator.strip(b" \0"))
        if found is None:
            return self
        level = replace(self, wants=dict(self.wants), wanted=dict(self.wanted))
        group, block = key & 0xFFFF, key >> 16
        for low, wanted in found.items():
            element = key_of(group, block << 8 | low)
            if element in level.wants:  # wanted by its number as well
                before = level.wants[element]
                wanted = replace(
                    wanted,
                    paths=before.paths + wanted.paths,
                    below=wanted.below or before.below,
                )
            level.wants[element] = wanted
            level._file(element, wanted)
        return level


@dataclass(slots=True)
class _Frame:
    """An open data set, item or sequence."""

    level: Level | None
    encoding: Encoding
    end: int | None = None
    is_sequence: bool = False
    fragments: bool = False
    # A sequence whose raw value is wanted: by whom, and where that begins.
    want: Want | None = None
    vr: str | None = None
    start: int = 0


_CLOSED = _Frame(None, IMPLICIT_LITTLE)
"""In the place of a frame to open: the present one ends here."""


class HeaderWalk:
    """One scan's state, and the way through one top-level element of any kind.

    Args:
        data: the data set or its beginning.
        pos: where its next top-level element begins.
        level: what is wanted at the top.
        encoding: of the top level.
        limits: depth, value length and count.
        final: the data will not grow.
    """

    __slots__ = (
        "_final", "_left", "_limits", "_size", "_top", "data", "nested", "pos", "problem",
        "values", "vrs",
    )  # fmt: skip

    def __init__(
        self,
        data: Buffer,
        pos: int,
        level: Level,
        encoding: Encoding,
        limits: WalkLimits,
        *,
        final: bool,
    ) -> None:
        self.data, self.pos = data, pos
        self.problem: str | None = None
        self.values: dict[str, bytes] = {}
        self.nested: dict[str, list[bytes | None]] = {}
        self.vrs: dict[str, str] = {}
        self._top = _Frame(level, encoding)
        self._limits, self._final = limits, final
        self._size, self._left = len(data), limits.max_elements

    @property
    def level(self) -> Level:
        """What is wanted at the top, private blocks found so far included."""
        level = self._top.level
        assert level is not None
        return level

    def element(self) -> bool:
        """Read the element at `pos` with all it holds and go on behind it.

        Returns:
            True when it is behind the last wanted one; it was not read then.

        Raises:
            struct.error: the bytes end inside it.
            Malformed: it cannot be read, and nothing says where the next one is.
        """
        after, opened = self._element(self._top, self.pos)
        if after < 0:
            return True
        self.pos = after if opened is None else self._through(opened, after)
        return False

    def ended(self) -> bool:
        """Take note that the bytes ended at (or before) `pos`; True when none will follow."""
        rest = self._size - self.pos
        # Up to seven NULs are padding: an element has eight bytes.
        if self._final and not (0 <= rest < 8 and not any(self.data[self.pos :])):
            self.note(f"the data set ends after {self._size} bytes, in the middle of an element")
        return self._final

    def note(self, problem: str) -> None:
        """Keep the first problem."""
        self.problem = self.problem or problem

    def too_many(self) -> None:
        """Take note that the count of elements is used up."""
        self.note(f"more elements than max_elements {self._limits.max_elements}")

    def _through(self, opened: _Frame, pos: int) -> int:
        """Go through an open sequence; returns where it ends."""
        stack = [opened]
        while stack:
            frame = stack[-1]
            if frame.end is not None and pos >= frame.end:
                self._close(stack, frame.end)
                continue
            self._left -= 1
            if self._left < 0:
                raise Malformed(f"more elements than max_elements {self._limits.max_elements}")
            try:
                step = self._item if frame.is_sequence else self._element
                after, entered = step(frame, pos)
                if entered is _CLOSED:
                    self._close(stack, pos)
                elif entered is not None:
                    if len(stack) >= 2 * self._limits.max_depth:
                        raise Malformed(
                            f"sequences nested deeper than max_depth {self._limits.max_depth}"
                        )
                    stack.append(entered)
                pos = after
            except Malformed as malformed:
                self.note(str(malformed))
                while stack and stack[-1].end is None:
                    stack.pop()
                if not stack:
                    raise
                # The length of what encloses it says where to go on.
                pos = stack.pop().end or 0
        return pos

    def _close(self, stack: list[_Frame], pos: int) -> None:
        frame = stack.pop()
        if frame.want is not None:
            self._keep(frame.want, frame.vr, frame.start, pos, top=not stack)

    def _element(self, frame: _Frame, pos: int) -> tuple[int, _Frame | None]:
        """Read one element; returns where to go on and the sequence to open there.

        At the top, -1 stands for "behind the last wanted one".
        """
        key, vr, start, length = read_element(
            self.data, pos, frame.end or self._size, frame.encoding, final=self._final
        )
        top, level, want = frame is self._top, frame.level, None
        if key & 0xFFFF == 0xFFFE:
            return self._delimitation(frame, key, pos, start)
        if level is not None:
            if top and (key & 0xFFFF, key >> 16) > level.stop:
                return -1, None
            want = level.wants.get(key)
        if length == UNDEFINED:
            return start, self._opened(frame, want, key, vr, start, None)
        end = start + length
        if frame.end is not None and end > frame.end:
            raise Malformed(f"{tag_text(key)} is longer than the item it is in")
        if want is not None:
            if want.below is not None and vr in (None, "SQ", "UN"):
                return start, self._opened(frame, want, key, vr, start, end)
            self._keep(want, vr, start, end, top=top)
            if level is not None and want.creators is not None:
                frame.level = level.with_block(key, want, bytes(self.data[start:end][:80]))
        return end, None

    def _delimitation(
        self, frame: _Frame, key: int, pos: int, start: int
    ) -> tuple[int, _Frame | None]:
        """An item or delimitation item where an element was expected."""
        if key == ITEM_DELIMITATION and frame.end is None and frame is not self._top:
            return start, _CLOSED
        if key in (ITEM, SEQUENCE_DELIMITATION) and frame.end is None and frame is not self._top:
            return pos, _CLOSED  # the item's own delimitation was forgotten
        if key in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION):
            return start, None  # superfluous
        raise Malformed(f"{tag_text(key)} stands where a data element was expected")

    def _opened(
        self,
        frame: _Frame,
        want: Want | None,
        key: int,
        vr: str | None,
        start: int,
        end: int | None,
    ) -> _Frame:
        below = want.below if want is not None else None
        for path in below.leaves if below is not None else ():
            self.nested.setdefault(path, [])
        return _Frame(
            below,
            IMPLICIT_LITTLE if vr == "UN" else frame.encoding,  # PS3.5 6.2.2
            end,
            is_sequence=True,
            fragments=key == _PIXEL_DATA or vr not in (None, "SQ", "UN"),
            want=want if want is not None and want.paths else None,
            vr=vr,
            start=start,
        )

    def _item(self, frame: _Frame, pos: int) -> tuple[int, _Frame | None]:
        """Read an item's header; returns where to go on and the item to open there."""
        group, element = frame.encoding.tag(self.data, pos)
        key, start = key_of(group, element), pos + 8
        if key == SEQUENCE_DELIMITATION and frame.end is None:
            return start, _CLOSED
        if key in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION):
            return start, None  # superfluous
        if key != ITEM:
            raise Malformed(f"{tag_text(key)} stands where an item was expected")
        length = frame.encoding.u32(self.data, pos + 4)[0]
        end = None
        if length != UNDEFINED:
            end = start + length
            if frame.end is not None and end > frame.end:
                raise Malformed("an item is longer than the sequence it is in")
            if frame.level is None:
                return end, None
        elif frame.fragments:
            raise Malformed("a fragment of an encapsulated value has no length")
        for path in frame.level.leaves if frame.level is not None else ():
            self.nested[path].append(None)
        encoding = encoding_of_item(self.data, start, length, frame.encoding)
        return start, _Frame(frame.level, encoding, end)

    def _keep(self, want: Want, vr: str | None, start: int, end: int, *, top: bool) -> None:
        """File a value under the paths that want it."""
        if end > self._size:
            raise MoreNeeded
        length, longest = end - start, self._limits.max_value_length
        if length > longest:
            self.note(f"a value of {length} bytes is over max_value_length {longest}")
            return
        raw = bytes(self.data[start:end])
        if vr in (None, "UN"):
            vr = want.vr or vr
        for path in want.paths:
            if vr is not None:
                self.vrs[path] = vr
            if top:
                self.values[path] = raw
            else:
                self.nested[path][-1] = raw
