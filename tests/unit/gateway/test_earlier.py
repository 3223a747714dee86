"""The settings of earlier systems: read without being run, and what becomes of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.store.archive_world import World

from hilum.errors import ConfigurationError
from hilum.gateway.earlier import IMPORTED, Outcome, read_settings, take_over
from hilum.gateway.store.directory import Directory

PYTHON = """
# local_settings.py
import os
os.system("touch /tmp/never")
SCP_AE_TITLE = "ARCHIVE"   # as the scanners know it
SCP_PORT = 11113
RM_DCM_RDSR = False
RM_DCM_NOMATCH = True
SECRET_KEY = 'hunter2'
"""
SHELL = """
export STORE_AET=STOREOPENREM
STORE_PORT="8104"
USER_AE_PREFIX='RVU-'
PIPELINE_AE_PREFIX=PIPE-
"""
PROPERTIES = """
AETitle = RACCOON_SCP
Port: 6066
dicom.stowRSUrl=http://127.0.0.1:8081/dicom-web/studies
"""
JSON = """{"scp": {"AETitle": "RACCOON_SCP", "Port": 6066},
 "stowRSUrl": "http://127.0.0.1:8081/dicom-web/studies"}"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    world = World(tmp_path / "data")
    yield world.storage.directory
    world.close()


def outcomes(directory: Directory, text: str) -> dict[str, Outcome]:
    return {taken.name: taken.outcome for taken in take_over(directory, read_settings(text))}


def test_a_python_file_is_read_and_not_run(directory: Directory) -> None:
    assert outcomes(directory, PYTHON) == {
        "SCP_AE_TITLE": Outcome.SET,
        "SCP_PORT": Outcome.SET,
        "RM_DCM_RDSR": Outcome.KEPT,
        "RM_DCM_NOMATCH": Outcome.KEPT,
        "SECRET_KEY": Outcome.IGNORED,
    }
    snapshot = directory.snapshot()
    assert snapshot.resolve("ARCHIVE") is not None
    assert {e.name: e.port for e in snapshot.listeners} == {"dicom": 11113}
    assert snapshot.settings[IMPORTED] == {"RM_DCM_RDSR": False, "RM_DCM_NOMATCH": True}
    assert not Path("/tmp/never").exists()
    taken = take_over(directory, read_settings(PYTHON))
    assert [each.outcome for each in taken[:2]] == [Outcome.ALREADY] * 2
    assert not any("hunter2" in each.value for each in taken)


def test_a_shell_file(directory: Directory) -> None:
    assert outcomes(directory, SHELL) == {
        "STORE_AET": Outcome.SET,
        "STORE_PORT": Outcome.SET,
        "USER_AE_PREFIX": Outcome.ALREADY,
        "PIPELINE_AE_PREFIX": Outcome.DIFFERENT,
    }
    (dose,) = (e for e in directory.snapshot().listeners if e.name == "dose")
    assert (dose.port, dose.any_title, dose.default_title) == (8104, True, "STOREOPENREM")


@pytest.mark.parametrize("text", [PROPERTIES, JSON])
def test_properties_and_json(directory: Directory, text: str) -> None:
    assert outcomes(directory, text) == {
        "AETitle": Outcome.SET,
        "Port": Outcome.SET,
        "stowRSUrl": Outcome.KEPT,
    }
    assert {e.name: e.port for e in directory.snapshot().listeners}["bridge"] == 6066
    assert directory.setting(IMPORTED) == {"stowRSUrl": "http://127.0.0.1:8081/dicom-web/studies"}


def test_files_one_after_the_other_add_up(directory: Directory) -> None:
    outcomes(directory, PYTHON)
    outcomes(directory, PROPERTIES)
    assert set(directory.setting(IMPORTED)) == {"RM_DCM_RDSR", "RM_DCM_NOMATCH", "stowRSUrl"}


def test_one_of_a_pair_brings_the_others_default(directory: Directory) -> None:
    outcomes(directory, "STORE_PORT = 8105")
    assert directory.snapshot().resolve("STOREOPENREM") is not None
    outcomes(directory, "AETitle = BRIDGE")
    assert {e.name: e.port for e in directory.snapshot().listeners} == {
        "dicom": 11112, "dose": 8105, "bridge": 6066
    }  # fmt: skip


def test_a_port_that_another_listener_has_is_left_alone(directory: Directory) -> None:
    assert outcomes(directory, "AETitle=X\nPort=11112")["Port"] is Outcome.ALREADY
    assert [e.name for e in directory.snapshot().listeners] == ["dicom"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SCP_PORT = 0", "expected a port"),
        ("STORE_PORT = eighty", "expected a port"),
        ("Port = 99999", "expected a port"),
        ("SCP_AE_TITLE = 'RVU-x'", "prefix"),
        ("RM_DCM_MG = perhaps", "true or false"),
    ],
)
def test_values_that_cannot_be(directory: Directory, text: str, reason: str) -> None:
    before = directory.changes()
    with pytest.raises(ConfigurationError, match=reason):
        take_over(directory, read_settings(text))
    assert directory.changes() == before


@pytest.mark.parametrize("text", ["", "nothing here", "[1, 2]", "{}", "# A = 1"])
def test_no_settings_at_all(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no settings"):
        read_settings(text)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A = 'x # y'  # comment", "x # y"),
        ("A = plain text // comment", "plain text"),
        ("A: true", "true"),
        ("A = [1, 2]", [1, 2]),
        ("A = __import__('os').system('x')", "__import__('os').system('x')"),
        ("A = " + "(" * 5000, "(" * 5000),
    ],
)
def test_values_are_literals(line: str, value: Any) -> None:
    assert read_settings(line) == {"A": value}
