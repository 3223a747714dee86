"""Identifiers of responses, many of one shape: compiled once, then about a microsecond an element.

Standard: PS3.4 C.4.1.1.3.2 (response identifier), PS3.5 7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from struct import pack
from typing import Any

from hilum.services.identifier import (
    SPECIFIC_CHARACTER_SET,
    Items,
    Writer,
    choose_character_set,
    deflated,
    is_text,
    padding,
    texts_of,
)
from hilum.services.transfer_syntaxes import properties

__all__ = ["AnswerWriter"]

Row = Sequence["str | int | Items | None"]

# Texts of the index are shorter than this; what is longer takes a slower way.
_SHORT = 1024


@cache
def _lengths(order: str, size: int) -> Sequence[bytes]:
    """How short lengths are written; odd ones are those of the value that is padded."""
    form = order + ("H" if size == 2 else "I")
    return [pack(form, length + (length & 1)) for length in range(_SHORT)]


class AnswerWriter:
    """Encodes rows of values as data sets.

    Args:
        columns: tag and VR of each value of a row, in any order.
        constants: values that are the same in all; ASCII.
        transfer_syntax: an uncompressed one.
        preferred: raw (0008,0005) of the query, whose character set is used where it can be.
    """

    def __init__(
        self,
        columns: Sequence[tuple[int, str]],
        constants: Mapping[int, tuple[str, str]],
        transfer_syntax: str,
        preferred: bytes | None = None,
    ) -> None:
        syntax = properties(transfer_syntax)
        self._transfer_syntax = transfer_syntax
        self._deflated = syntax.deflated
        self._preferred = preferred
        self._writer = writer = Writer(explicit=syntax.explicit, little_endian=syntax.little_endian)
        slots: list[tuple[int, int, str]] = [
            (tag, index, vr) for index, (tag, vr) in enumerate(columns)
        ]
        slots += [(tag, -1, vr) for tag, (vr, _) in constants.items()]
        # What stands before each value: whole constant elements, then the element's own head.
        self._plan: list[tuple[bytes, int, Sequence[bytes], bytes]] = []
        self._slow: list[tuple[int, int, str]] = []
        self._text_columns = [i for i, (_, vr) in enumerate(columns) if is_text(vr)]
        before = b""
        for tag, index, vr in sorted(slots):
            if index < 0:
                before += writer.element(tag, vr, constants[tag][1].encode("ascii"))
                continue
            lengths = _lengths(writer.order, len(writer.length(vr, 0)))
            self._plan.append((before + writer.head(tag, vr), index, lengths, padding(vr)))
            self._slow.append((tag, index, vr))
            before = b""
        self._end = before
        self._binary = {i: vr for i, (_, vr) in enumerate(columns) if not is_text(vr)}

    def encode(self, row: Row) -> bytes:
        """One data set."""
        values: list[Any] = [str(value) if type(value) is int else value for value in row]
        for index, vr in self._binary.items():
            value = values[index]
            if not isinstance(value, tuple):
                values[index] = self._writer.binary(vr, value or "").decode("latin-1")
        joined = "".join([values[i] or "" for i in self._text_columns])
        nested = [value for value in values if isinstance(value, tuple)]
        for items in nested:
            joined += "".join(texts_of(items))
        if joined.isascii() and not nested:
            found = self._encode(values, None, None)
        elif joined.isascii():
            found = self._encode(values, None, str.encode)
        else:
            term, encoder = choose_character_set(joined, self._preferred)
            charset = self._writer.element(SPECIFIC_CHARACTER_SET, "CS", term)
            found = charset + self._encode(values, encoder, encoder)
        return deflated(found, self._transfer_syntax) if self._deflated else found

    def _encode(
        self,
        values: Sequence[object],
        encoder: Callable[[str], bytes] | None,
        nested: Callable[[str], bytes] | None,
    ) -> bytes:
        parts: list[bytes] = []
        add = parts.append
        for (head, index, lengths, pad), (tag, _, vr) in zip(self._plan, self._slow, strict=True):
            value = values[index]
            if not value:
                add(head + lengths[0])
                continue
            if type(value) is not str:
                assert isinstance(value, tuple)
                raw = self._writer.sequence(value, nested or str.encode)
            elif index in self._binary:
                raw = value.encode("latin-1")
            else:
                raw = value.encode("ascii") if encoder is None else encoder(value)
            size = len(raw)
            if size >= _SHORT:
                constant = head[: len(head) - len(self._writer.head(tag, vr))]
                add(constant + self._writer.element(tag, vr, raw))
            elif size & 1:
                add(head + lengths[size] + raw + pad)
            else:
                add(head + lengths[size] + raw)
        add(self._end)
        return b"".join(parts)
