"""Peers and the tap as fixtures.

A missing peer fails the run where it must be present (``CI`` in the environment), and elsewhere
skips the test with the line that installs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from tests import peers
from tests.tap import Fault, Tap

# A property test of a unit looks at so few examples that thousands of them take seconds; those in
# tests/fuzz say how many themselves. HYPOTHESIS_EXAMPLES=1000 makes all others thorough.
settings.register_profile(
    "unit", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "25")), deadline=None
)
settings.load_profile("unit")


def require(program: str) -> None:
    """Skip the test when a program is missing, or fail it where ``CI`` is set."""
    line = peers.missing(program)
    if line is None:
        return
    message = f"{program} is not installed; install it with: {line}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture
def dcmtk() -> None:
    """DCMTK's programs are here."""
    for program in ("storescp", "storescu", "dcmsend", "echoscu"):
        require(program)


@pytest.fixture
def pynetdicom_apps() -> None:
    """pynetdicom's applications are here."""
    require("pynetdicom")


@pytest.fixture
def storescp(dcmtk: None, tmp_path: Path) -> Iterator[peers.Server]:
    """DCMTK's storescp, bit preserving, accepting every transfer syntax and SOP class."""
    with peers.storescp(tmp_path / "storescp", "+B", "+xa", "-pm") as server:
        yield server


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[peers.Server]:
    """Orthanc with its defaults."""
    require("Orthanc")
    with peers.orthanc(tmp_path / "orthanc") as server:
        yield server


@pytest.fixture
def pynetdicom_storescp(pynetdicom_apps: None, tmp_path: Path) -> Iterator[peers.Server]:
    """pynetdicom's storescp application."""
    with peers.pynetdicom_storescp(tmp_path / "pynetdicom") as server:
        yield server


@pytest.fixture
def tap() -> Iterator[Callable[..., Tap]]:
    """Return a function that starts a tap in front of a port: ``tap(port, fault=Fault(split=7))``."""
    with ExitStack() as stack:

        def start(port: int, *, fault: Fault | None = None) -> Tap:
            return stack.enter_context(Tap(port, fault=fault))

        yield start
