"""A stored data set as a view of its file, for whoever reads a little of it or all of it once."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from hilum.gateway.store.file_meta import HEADER_MAXIMUM, parse_header
from hilum.gateway.store.scan import open_place

__all__ = ["mapped", "mapped_with_syntax"]


@contextmanager
def mapped(root: str, path: str) -> Iterator[memoryview]:
    """The data set of one of our objects; memory is taken only for the pages that are read.

    Args:
        root: absolute path of the data directory.
        path: of the object; checked by the caller.

    Raises:
        OSError: the file cannot be opened.
        InvalidDicom: its header is not ours, or damaged.
    """
    with mapped_with_syntax(root, path) as (data, _):
        yield data


@contextmanager
def mapped_with_syntax(root: str, path: str) -> Iterator[tuple[memoryview, str]]:
    """The same, and the transfer syntax that its file meta says."""
    file, start = open_place(root, path)
    with file:
        meta, offset = parse_header(file.read(HEADER_MAXIMUM))
        begin = (start or 0) + offset
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
            memoryview(whole) as view,
            view[begin : None if start is None else begin + meta.length] as data,
        ):
            yield data, meta.transfer_syntax_uid
