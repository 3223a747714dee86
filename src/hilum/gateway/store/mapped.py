"""A stored data set as a view of its file, for whoever reads a little of it or all of it once."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from hilum.gateway.store.file_meta import HEADER_MAXIMUM, parse_header

__all__ = ["mapped"]


@contextmanager
def mapped(full_path: str) -> Iterator[memoryview]:
    """The data set of one of our files; memory is taken only for the pages that are read.

    Raises:
        OSError: the file cannot be opened.
        InvalidDicom: its header is not ours, or damaged.
    """
    with open(full_path, "rb") as file:
        _, offset = parse_header(file.read(HEADER_MAXIMUM))
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
            memoryview(whole) as view,
            view[offset:] as data,
        ):
            yield data
