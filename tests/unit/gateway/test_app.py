"""The data directory: made once, never where a volume is missing; opened by one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.errors import StoreUnavailable
from hilum.gateway.app import DATABASE, Storage, initialise
from hilum.gateway.config import Config, Store
from hilum.gateway.store.blobs import MARKER


def config(data: Path) -> Config:
    return Config(data=str(data), store=Store(strategy="fsync", reserve=0))


def test_a_directory_that_does_not_exist_is_made(tmp_path: Path) -> None:
    data = tmp_path / "a" / "b"
    initialise(data)
    marker = (data / MARKER).read_text()
    initialise(data)
    assert (data / MARKER).read_text() == marker
    Storage(config(data)).close()
    assert (data / DATABASE).exists()


def test_an_empty_directory_may_be_a_missing_volume(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(StoreUnavailable, match="--init"):
        initialise(tmp_path)
    initialise(tmp_path, even_if_empty=True)
    Storage(config(tmp_path)).close()


@pytest.mark.parametrize("even_if_empty", [True, False])
def test_a_directory_with_anything_in_it_is_not_touched(
    tmp_path: Path, even_if_empty: bool
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreUnavailable, match="neither empty nor a store"):
        initialise(tmp_path, even_if_empty=even_if_empty)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_first_start_that_was_interrupted_can_be_done_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    initialise(data)
    (data / MARKER).rename(data / (MARKER + ".new"))
    with pytest.raises(StoreUnavailable, match="--init"):
        initialise(data)
    initialise(data, even_if_empty=True)
    assert (data / MARKER).exists()
    (data / MARKER).unlink()
    (data / "objects" / "2026").mkdir()
    with pytest.raises(StoreUnavailable, match="neither empty nor a store"):
        initialise(data, even_if_empty=True)


def test_without_the_marker_nothing_is_opened(tmp_path: Path) -> None:
    initialise(tmp_path / "data")
    Storage(config(tmp_path / "data")).close()
    (tmp_path / "data" / MARKER).unlink()
    with pytest.raises(StoreUnavailable, match="is missing"):
        Storage(config(tmp_path / "data"))
    with pytest.raises(StoreUnavailable, match="mounted"):
        initialise(tmp_path / "data", even_if_empty=True)


def test_one_at_a_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    initialise(data)
    first = Storage(config(data))
    with pytest.raises(StoreUnavailable, match="is locked"):
        Storage(config(data))
    first.close()
    second = Storage(config(data))
    second.close()
    second.close()


def test_a_store_that_cannot_be_opened_is_not_left_locked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    initialise(data)
    Storage(config(data)).close()
    database = (data / DATABASE).read_bytes()
    (data / DATABASE).write_bytes(b"not a database" * 1000)
    with pytest.raises(Exception, match="database"):
        Storage(config(data))
    (data / DATABASE).write_bytes(database)
    Storage(config(data)).close()


def test_defaults_are_there_after_the_first_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    initialise(data)
    storage = Storage(config(data))
    found = storage.directory.snapshot()
    assert {title.title for title in found.called_titles} == {"RAIVEN", "HILUM"}
    assert [(each.name, each.port) for each in found.listeners] == [("dicom", 11112)]
    storage.close()
