"""Stored instances as what can be sent or copied: see ``net.sources.Source``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from hilum.errors import InvalidDicom, NotFound
from hilum.gateway.store.blobs import BlobStore
from hilum.net.sources import PIECE
from hilum.services.part10 import FileHead

__all__ = ["StoredSource"]


@dataclass(slots=True, eq=False)
class StoredSource:
    """The data set of a stored instance, read in pieces.

    Args:
        blobs: the store.
        path: of its file, relative to the data directory.
        head: its UIDs; the offset is the store's business.
        length: bytes of the data set.
        content: never kept.
    """

    blobs: BlobStore
    path: str
    head: FileHead
    length: int
    content: bytes | None = None

    @property
    def name(self) -> str:
        """Its path below the data directory."""
        return self.path

    def pieces(self) -> Iterator[bytes]:
        """The data set in pieces of ``PIECE`` bytes, the last shorter.

        Raises:
            OSError: it cannot be opened or read, or has been removed.
            InvalidDicom: it is not whole, or no longer the one that was looked up.
        """
        try:
            file, meta = self.blobs.open_read(self.path)
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, "it has been removed") from error
        left = self.length
        with file:
            # It may have been removed since, and another version of it come to lie there.
            if meta.length != left:
                raise InvalidDicom(f"the stored file has {meta.length} bytes, expected {left}")
            while left:
                piece = file.read(min(PIECE, left))
                if not piece:
                    raise InvalidDicom(f"the stored file is shorter by {left} bytes")
                left -= len(piece)
                yield piece
