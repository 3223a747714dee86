"""What a retrieve sends where the other side does not take it as it is kept.

Decoding is begun for the next few images of the same kind while one is being sent, so that several
processes decode and the network is not idle.

Standard: PS3.4 C.4.2.2.1, C.4.3.2.1 (storage sub-operations); PS3.5 10.1.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing, suppress
from dataclasses import dataclass

from hilum.errors import InvalidDicom
from hilum.gateway.store.decoding import Decoders, NoRoom, Whole
from hilum.gateway.store.decoding_process import DECODED
from hilum.net.conversion import CONVERTED_TO
from hilum.net.sources import FileSource, Source
from hilum.services.bulk_data import is_bulk_data
from hilum.services.convert import CONVERTIBLE, Encapsulated, convert
from hilum.services.part10 import FileHead
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["HeaderConversion", "HeaderSource", "Transcoding"]

Kind = tuple[str, str]
"""SOP class and transfer syntax: what of one kind is accepted is so of all."""


class Transcoding:
    """The ``Conversion`` of one C-GET or C-MOVE. Close it at its end.

    Args:
        decoders: of the gateway.
        ahead: how many images may be decoded, or be being decoded, before they are asked for.
    """

    def __init__(self, decoders: Decoders, ahead: int | None = None) -> None:
        self._decoders = decoders
        self._ahead = 2 * decoders.limits.processes if ahead is None else ahead
        self._lock = threading.Lock()
        # All below under the lock. Dicts keep the order in which sources are going to be sent.
        self._waiting: dict[Kind, dict[Source, None]] = {}
        self._begun: dict[Source, Future[Whole]] = {}
        self._closed = False

    def expect(self, sources: Iterable[Source]) -> None:
        """These come next, in this order."""
        with self._lock:
            for source in sources:
                if source.head.transfer_syntax_uid in DECODED:
                    self._waiting.setdefault(_kind(source), {})[source] = None

    def targets(self, transfer_syntax: str) -> Sequence[str]:
        """See ``Conversion``."""
        if transfer_syntax in CONVERTIBLE:
            return CONVERTED_TO
        can = transfer_syntax in DECODED and self._decoders.limits.processes > 0
        return CONVERTED_TO if can else ()

    def pieces(self, source: Source, target: str) -> Iterator[bytes]:
        """See ``Conversion``; nothing but the largest is given out before all of it is there."""
        syntax = source.head.transfer_syntax_uid
        if syntax in CONVERTIBLE:
            deflated = syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            if source.length > self._decoders.limits.size and not deflated:
                return convert(source.pieces(), syntax, target)  # it has no room, and no bomb in it
            whole = self._decoders.convert(source.pieces(), source.length, syntax, target)
        else:
            whole = self._decoded(source)
            if target != EXPLICIT_VR_LITTLE_ENDIAN:
                with closing(whole) as decoded:
                    whole = self._decoders.convert(
                        decoded.pieces(), decoded.length, EXPLICIT_VR_LITTLE_ENDIAN, target
                    )
        return whole.pieces()

    def close(self) -> None:
        """Let go of what was decoded and is not wanted any more."""
        with self._lock:
            self._closed = True
            begun = list(self._begun.values())
            self._begun.clear()
            self._waiting.clear()
        for future in begun:
            _forget(future)

    def _decoded(self, source: Source) -> Whole:
        with self._lock:
            if self._closed:
                raise InvalidDicom("the retrieve is over")
            future = self._begun.pop(source, None)
            waiting = self._waiting.get(_kind(source), {})
            waiting.pop(source, None)
            while waiting and len(self._begun) < self._ahead:
                following = next(iter(waiting))
                del waiting[following]
                with suppress(RuntimeError):  # the gateway ends
                    self._begun[following] = self._decoders.threads.submit(
                        self._decoders.decode, following, ahead=True
                    )
        if future is not None:
            with suppress(NoRoom, CancelledError):
                return future.result()
        return self._decoders.decode(source)


@dataclass(slots=True, eq=False)
class HeaderSource:
    """A data set of which only what is no bulk data is sent. See ``Source``.

    Args:
        whole: the data set that it is of.
    """

    whole: Source
    content: bytes | None = None

    @property
    def name(self) -> str:
        """That of the whole."""
        return self.whole.name

    @property
    def head(self) -> FileHead:
        """That of the whole."""
        return self.whole.head

    @property
    def length(self) -> int:
        """Of the whole: what is left is known when it has been read."""
        return self.whole.length

    def pieces(self) -> Iterator[bytes]:
        """What is left, in the same transfer syntax."""
        syntax = self.head.transfer_syntax_uid
        encoded = syntax if syntax in CONVERTIBLE else EXPLICIT_VR_LITTLE_ENDIAN
        return convert(
            self.whole.pieces(),
            encoded,
            encoded,
            leave_out=is_bulk_data,
            keep_encapsulated=syntax not in CONVERTIBLE,
        )


class HeaderConversion:
    """The ``Conversion`` of a C-GET without bulk data: what is left can take any form.

    A data set in a compressed transfer syntax is in explicit VR little endian once its pixel data
    is gone; only an icon may still have to be decoded.

    Standard: PS3.4 Z.1.3; PS3.5 A.4.

    Args:
        decoders: of the gateway.
    """

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders

    def targets(self, transfer_syntax: str) -> Sequence[str]:
        """See ``Conversion``."""
        return CONVERTED_TO

    def pieces(self, source: Source, target: str) -> Iterator[bytes]:
        """See ``Conversion``; nothing is given out before all of it is there."""
        decoders, syntax = self._decoders, source.head.transfer_syntax_uid
        encoded = syntax if syntax in CONVERTIBLE else EXPLICIT_VR_LITTLE_ENDIAN
        with suppress(Encapsulated):
            return decoders.convert(
                source.pieces(), source.length, encoded, target, leave_out=is_bulk_data
            ).pieces()
        kept = b"".join(source.pieces())
        icons = FileSource(source.name, source.head, len(kept), kept)
        with closing(decoders.decode(icons)) as decoded:
            return decoders.convert(decoded.pieces(), decoded.length, encoded, target).pieces()


def _kind(source: Source) -> Kind:
    return source.head.sop_class_uid, source.head.transfer_syntax_uid


def _forget(future: Future[Whole]) -> None:
    if future.cancel():
        return

    def close(done: Future[Whole]) -> None:
        with suppress(Exception):  # then there is nothing to let go of
            done.result().close()

    future.add_done_callback(close)
