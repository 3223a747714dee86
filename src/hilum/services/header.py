"""The header scanner: wanted values out of a data set's raw bytes, without building a data set.

A scanner is compiled once from tag paths and then reads any number of data sets, in every
transfer syntax. It stops as soon as a tag passes the last wanted one, so pixel data is never
touched, and skips what is not wanted by arithmetic.

What it does not do: look behind a tag that is out of ascending order for wanted elements
(PS3.5 7.1 forbids such data sets), or change a value.

Standard: PS3.5 6.2.2 (UN), 7.5 (sequences), 7.8 (private elements), A.5 (deflated).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from mmap import mmap
from types import MappingProxyType
from typing import Any

from hilum.services.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LONG_VR_CODES,
    SHORT_VR_CODES,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
    MoreNeeded,
    guess_encoding,
    is_plausible_start,
    read_element,
)
from hilum.services.header_walk import HeaderWalk, Level
from hilum.services.inflate import Inflation, inflate
from hilum.services.tag_path import TagPath
from hilum.services.transfer_syntaxes import TRANSFER_SYNTAXES

__all__ = ["HeaderScan", "HeaderScanner", "ScanLimits"]

_KNOWN = TRANSFER_SYNTAXES.values()
_IMPLICIT = {syntax.uid for syntax in _KNOWN if not syntax.explicit} | {
    "1.2.840.10008.1.20",  # Papyrus 3 (retired)
    "1.2.840.113619.5.2",  # GE: big-endian pixels in an implicit little-endian data set
}
_BIG_ENDIAN = {syntax.uid for syntax in _KNOWN if not syntax.little_endian}
_DEFLATED = {syntax.uid for syntax in _KNOWN if syntax.deflated}

_TAG_VR_LENGTH = struct.Struct("<IHH").unpack_from
_TAG_LENGTH = struct.Struct("<II").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
_NO_DATA_SET = "the bytes are not a data set in any encoding"
# A header is seldom longer, so one step is nearly always enough.
_INFLATE_FIRST = 64 * 1024


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How far a scanner follows what a peer declares.

    Args:
        max_depth: sequences inside sequences.
        max_value_length: bytes of one value that is kept; a longer one is reported and left out.
        max_elements: elements and items read in one scan; counted apart at the top of the data
            set and inside sequences of undefined length or with wanted elements.
        max_inflated: bytes taken out of a deflated data set to find its header.
        max_inflate_ratio: bytes out per byte in, looked at from 64 KiB of output.
    """

    max_depth: int = 64
    max_value_length: int = 64 * 1024
    max_elements: int = 100_000
    max_inflated: int = 1024 * 1024
    max_inflate_ratio: int = 250


@dataclass(slots=True)
class HeaderScan:
    """What a scan found.

    Args:
        values: raw value by path, for paths of one step. An element that is not there has no
            entry; one that is there without value has ``b""``.
        nested: for longer paths, one entry for each innermost item in the order of the bytes:
            the raw value, or None in an item that lacks the element. No entry when the sequence
            itself is not there.
        vrs: VR by path, as encoded, or the data dictionary's for implicit VR and UN; may hold
            paths that were not found, and lacks those whose VR is not known.
        encoding: ``"explicit little"``, ``"implicit little"`` or ``"explicit big"``, as found.
        deflated: the bytes were deflated.
        mislabelled: the bytes contradict the declared transfer syntax; they were read as found.
        group2: file meta elements (group 0002) stood before the data set; they were skipped.
        complete: False when more bytes are needed; scan again from the start with them.
        needed: when not complete, fewer bytes than these cannot bring the scan further.
        problem: what is wrong with the data set; what could be read is there all the same.
    """

    values: dict[str, bytes]
    nested: dict[str, list[bytes | None]]
    vrs: Mapping[str, str]
    encoding: str
    deflated: bool = False
    mislabelled: bool = False
    group2: bool = False
    complete: bool = True
    needed: int = 0
    problem: str | None = None


class HeaderScanner:
    """Reads the values of a fixed set of elements out of raw data sets.

    Immutable after construction; may be shared by threads.

    Args:
        paths: what to read, as `TagPath` or in its grammar.
        limits: see `ScanLimits`.

    Raises:
        ConfigurationError: a path that cannot be read.
    """

    def __init__(
        self,
        paths: Iterable[str | TagPath],
        limits: ScanLimits = ScanLimits(),
    ) -> None:
        parsed = [path if isinstance(path, TagPath) else TagPath.parse(path) for path in paths]
        self.paths = tuple(dict.fromkeys(path.text for path in parsed))
        self.limits = limits
        self._level = Level.compile(parsed)
        known = ((path.text, path.steps[-1].vr) for path in parsed)
        self._dictionary_vrs = MappingProxyType({text: vr for text, vr in known if vr})

    def scan(self, data: Buffer, transfer_syntax: str, *, final: bool) -> HeaderScan:
        """Read the wanted values of the data set (without file meta) that `data` begins with.

        Never fails on what a peer sent: malformed bytes make a `HeaderScan.problem`.

        Args:
            data: the data set or its beginning; not kept.
            transfer_syntax: as declared for it.
            final: `data` is the whole data set.
        """
        if isinstance(data, memoryview) and data.format != "B":
            data = data.cast("B")
        uid = transfer_syntax.rstrip("\0 ")
        declared = EXPLICIT_LITTLE
        if uid in _IMPLICIT:
            declared = IMPLICIT_LITTLE
        elif uid in _BIG_ENDIAN:
            declared = EXPLICIT_BIG
        pos = 0
        try:
            if len(data) > 1 and data[0] == 2 and data[1] == 0:
                pos = self._after_group2(data, final=final)
            if uid in _DEFLATED:
                result = self._scan_deflated(data, pos, final=final)
            else:
                result = self._scan_as(data, pos, declared, final=final)
        except struct.error:
            result = HeaderScan({}, {}, {}, declared.name, complete=final, needed=len(data) + 1)
            if final:
                result.problem = f"the data set ends after {len(data)} bytes, in its first element"
        except Malformed as malformed:
            result = HeaderScan({}, {}, {}, declared.name, problem=str(malformed))
        result.group2 = pos > 0
        return result

    def _after_group2(self, data: Buffer, *, final: bool) -> int:
        """Where the data set begins behind file meta elements, which are always little endian."""
        encoding = EXPLICIT_LITTLE
        if not is_plausible_start(data, 0, encoding):
            encoding = IMPLICIT_LITTLE
            if not is_plausible_start(data, 0, encoding):
                return 0
        pos = 0
        for _ in range(self.limits.max_elements):
            if (pos == len(data) and final) or encoding.tag(data, pos)[0] != 2:
                return pos
            _, _, start, length = read_element(data, pos, len(data), encoding, final=final)
            pos = start + length
        raise Malformed("more file meta elements than max_elements before the data set")

    def _scan_as(
        self, data: Buffer, pos: int, declared: Encoding, *, final: bool, inflated: bool = False
    ) -> HeaderScan:
        """Scan what should be in `declared`, but may be in another encoding or deflated.

        Args:
            inflated: it was deflated, or should have been and is not.
        """
        if pos == len(data) and final:
            return HeaderScan({}, {}, {}, declared.name)
        if is_plausible_start(data, pos, declared):
            return self._scan_elements(data, pos, declared, final=final)
        found, certain = guess_encoding(data, pos, declared, final=final)
        if not inflated and (found is None or not certain):
            inflates = _begins_deflated(data, pos)
            if inflates:
                result = self._scan_deflated(data, pos, final=final)
                result.mislabelled = True
                return result
            certain = certain and inflates is not None
        if not final and not certain:
            raise MoreNeeded
        if found is None:
            return HeaderScan({}, {}, {}, declared.name, problem=_NO_DATA_SET)
        result = self._scan_elements(data, pos, found, final=final)
        result.mislabelled = found is not declared
        return result

    def _scan_deflated(self, data: Buffer, pos: int, *, final: bool) -> HeaderScan:
        """Inflate step by step until everything wanted is found."""
        room = min(_INFLATE_FIRST, self.limits.max_inflated)
        while True:
            out, used, state = inflate(data, pos, room)
            if state is Inflation.FAILED and not _is_beginning(out):
                result = self._scan_as(data, pos, EXPLICIT_LITTLE, final=final, inflated=True)
                result.mislabelled = result.problem != _NO_DATA_SET
                return result
            result = self._scan_prefix(out, final=state is Inflation.ENDED)
            result.deflated = True
            if result.complete:
                return result
            result.complete = True
            if state is Inflation.FAILED:
                problem = "the deflated data set cannot be inflated to the end of its header"
            elif len(out) > self.limits.max_inflate_ratio * used + _INFLATE_FIRST:
                problem = f"inflated over max_inflate_ratio {self.limits.max_inflate_ratio}"
            elif state is Inflation.STARVED:
                problem = "the deflated data set ends in the middle of its header"
                if not final:
                    result.complete, result.needed = False, len(data) + 1
                    return result
            elif room < self.limits.max_inflated:
                room = min(4 * room, self.limits.max_inflated)
                continue
            else:
                problem = f"the header is longer than max_inflated {self.limits.max_inflated}"
            result.problem = result.problem or problem
            return result

    def _scan_prefix(self, out: bytes, *, final: bool) -> HeaderScan:
        """Scan what was inflated so far."""
        try:
            return self._scan_as(out, 0, EXPLICIT_LITTLE, final=final, inflated=True)
        except struct.error:
            problem = "the deflated data set ends in its first element" if final else None
            return HeaderScan({}, {}, {}, EXPLICIT_LITTLE.name, complete=final, problem=problem)

    def _scan_elements(
        self, data: Buffer, pos: int, encoding: Encoding, *, final: bool
    ) -> HeaderScan:
        """Scan elements of a known encoding."""
        walk = HeaderWalk(data, pos, self._level, encoding, self.limits, final=final)
        complete, needed = True, 0
        try:
            if encoding is EXPLICIT_LITTLE and self.limits.max_value_length >= 0xFFFF:
                self._explicit_little(walk)
            elif encoding is IMPLICIT_LITTLE:
                self._implicit_little(walk)
            else:
                for _ in range(self.limits.max_elements):
                    if walk.element():
                        break
                else:
                    walk.too_many()
        except struct.error:
            complete = walk.ended()
            needed = 0 if complete else max(len(data) + 1, walk.pos + 8)
        except Malformed as malformed:
            walk.note(str(malformed))
        values: dict[str, bytes] = walk.values
        if not isinstance(data, (bytes, mmap)):
            values = {path: bytes(value) for path, value in values.items()}
        vrs: Mapping[str, str] = self._dictionary_vrs
        if encoding.explicit:
            vrs = walk.vrs
        return HeaderScan(
            values, walk.nested, vrs, encoding.name, False, False, False, complete, needed,
            walk.problem,
        )  # fmt: skip

    def _explicit_little(self, walk: HeaderWalk) -> None:
        """The way through ordinary elements; everything else is `HeaderWalk.element`'s."""
        data, pos, level = walk.data, walk.pos, walk.level
        values: dict[str, Any] = walk.values  # slices of a memoryview become bytes at the end
        vrs = walk.vrs
        short, long = SHORT_VR_CODES, LONG_VR_CODES
        wanted, stop_group = level.wanted.get, level.stop[0]
        unpack, unpack_length = _TAG_VR_LENGTH, _LENGTH
        path: str | None = None
        try:
            for _ in range(self.limits.max_elements):
                tag, vr, length = unpack(data, pos)
                path = wanted(tag)
                if path:
                    if vr in short:
                        start = pos + 8
                        pos = start + length
                        values[path] = data[start:pos]
                        vrs[path] = short[vr]
                        continue
                elif path is None and tag & 0xFFFF < stop_group:
                    if vr in short:
                        pos += 8 + length
                        continue
                    if vr in long:
                        length = unpack_length(data, pos + 8)[0]
                        if length != UNDEFINED:
                            pos += 12 + length
                            continue
                path = None
                walk.pos = pos
                if walk.element():
                    return
                pos = walk.pos
                if walk.level is not level:
                    level = walk.level
                    wanted = level.wanted.get
            walk.too_many()
        except struct.error:
            if pos > len(data) and path:
                values.pop(path, None)
            raise
        finally:
            walk.pos = pos

    def _implicit_little(self, walk: HeaderWalk) -> None:
        """As `_explicit_little`, for implicit VR."""
        data, pos, level = walk.data, walk.pos, walk.level
        values: dict[str, Any] = walk.values
        wanted, stop_group = level.wanted.get, level.stop[0]
        unpack, longest = _TAG_LENGTH, self.limits.max_value_length
        path: str | None = None
        try:
            for _ in range(self.limits.max_elements):
                tag, length = unpack(data, pos)
                path = wanted(tag)
                if path:
                    if length <= longest:
                        start = pos + 8
                        pos = start + length
                        values[path] = data[start:pos]
                        continue
                elif path is None and tag & 0xFFFF < stop_group and length != UNDEFINED:
                    pos += 8 + length
                    continue
                path = None
                walk.pos = pos
                if walk.element():
                    return
                pos = walk.pos
                if walk.level is not level:
                    level = walk.level
                    wanted = level.wanted.get
            walk.too_many()
        except struct.error:
            if pos > len(data) and path:
                values.pop(path, None)
            raise
        finally:
            walk.pos = pos


def _begins_deflated(data: Buffer, pos: int) -> bool | None:
    """Whether the bytes, which do not look like a data set, do when inflated; None: too few."""
    out, _, state = inflate(data, pos, 8)
    return None if state is Inflation.STARVED and len(out) < 8 else _is_beginning(out)


def _is_beginning(out: bytes) -> bool:
    """Whether what was inflated looks like the beginning of a data set."""
    return len(out) >= 8 and any(
        is_plausible_start(out, 0, encoding) for encoding in (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    )
