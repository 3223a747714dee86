"""Every command of docs/tutorial.md, in its order, on a fresh data directory.

Ports are replaced by free ones. ``&`` starts in the background, ``# exit code 1`` means so, and
lines after a command are what it has to print.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests import samples
from tests.e2e.pages import DOCS, Shell, steps

PAGE = DOCS / "tutorial.md"


@pytest.fixture
def shell(tmp_path: Path, dcmtk: None) -> Iterator[Shell]:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm", "image_dfl.dcm"):
        shutil.copy(samples.named(name).path, images)
    (images / "readme.txt").write_text("not DICOM")
    shutil.make_archive(str(tmp_path / "more"), "zip", images)
    shutil.move(tmp_path / "more.zip", images / "more.zip")
    made = Shell(tmp_path)
    yield made
    made.end()


def test_the_page_has_commands() -> None:
    lines = [step.line for step in steps(PAGE)]
    assert len(lines) > 15
    assert lines[0].startswith("hilum serve")
    assert any(step.output for step in steps(PAGE))
    assert any(step.exit_code for step in steps(PAGE))


def test_every_command_does_what_the_page_says(shell: Shell) -> None:
    printed: dict[str, str] = {}
    for step in steps(PAGE):
        if step.in_background:
            shell.start(step)
            continue
        code, output = shell.run(step)
        printed[step.line] = output
        assert code == step.exit_code, (
            f"$ {step.line}\n{output}\n{(shell.folder / 'log').read_text()}"
        )
        for expected in step.output:
            for ours, free in shell.ports.items():
                expected = expected.replace(ours, free)
            assert expected.strip() in output, f"$ {step.line}\n{output}"
    with urlopen(f"http://127.0.0.1:{shell.ports['8484']}/readyz", timeout=10) as answer:
        assert answer.status == 200
    assert "CompressedSamples^MR1" in printed["hilum ls --user alice"]
    assert "NOWHERE" in (shell.folder / "log").read_text()
    assert len(list((shell.folder / "out").rglob("*.dcm"))) == 1
    assert shell.end() == [0], (shell.folder / "log").read_text()
