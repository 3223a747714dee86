"""wire and services are covered, branch by branch, by their own unit tests alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("PYTEST_", "COV_", "COVERAGE_")  # what the run that this test belongs to was told


@pytest.mark.slow
def test_no_branch_is_left_out(tmp_path: Path) -> None:
    """Without the property tests, which find another way through with every seed."""
    command = [sys.executable, "-m", "pytest", "tests/unit/wire", "tests/unit/services"]
    command += ["--cov", "-m", "not hypothesis", "-p", "no:xdist"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"COVERAGE_FILE": str(tmp_path / "coverage")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
