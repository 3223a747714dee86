"""Every file of pydicom's, judged by pydicom; the unit tests do the same with a few of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from tests import samples
from tests.unit.services import test_content, test_convert, test_header, test_part10


@pytest.fixture
def unguessed() -> Iterator[None]:
    """See the fixture of `test_convert`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config, "replace_un_with_known_vr", False)
        yield


def named(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", test_convert.files(), ids=named)
def test_conversion(path: Path, unguessed: None) -> None:
    test_convert.check_every_encoding(path)


@pytest.mark.parametrize("path", test_content.whole(), ids=named)
def test_same_content(path: Path) -> None:
    test_content.check_every_encoding(path)
    test_content.check_one_byte_at_the_end(path)


@pytest.mark.parametrize("path", samples.paths(), ids=named)
def test_header_scanner(path: Path) -> None:
    test_header.check_every_value(path)


@pytest.mark.parametrize("path", samples.paths(), ids=named)
def test_file_head(path: Path) -> None:
    test_part10.check_head(path)
