"""Conversion between uncompressed transfer syntaxes, with DCMTK's dcmconv as the judge."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import peers, samples
from tests.conftest import require

from hilum.services.convert import convert_bytes
from hilum.services.part10 import encode_head
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

pytestmark = pytest.mark.interop

OPTIONS = {
    EXPLICIT_VR_LITTLE_ENDIAN: "+te",
    IMPLICIT_VR_LITTLE_ENDIAN: "+ti",
    EXPLICIT_VR_BIG_ENDIAN: "+tb",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "+td",
}
# 16-bit words, bytes, overlays, nested sequences, private elements, waveforms, 32-bit pixels.
NAMES = ("CT_small.dcm", "SC_rgb_small_odd.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm",
         "reportsi.dcm", "waveform_ecg.dcm", "rtdose_expb.dcm",
         "emri_small_big_endian.dcm")  # fmt: skip


def dump(file: Path) -> str:
    """What a file holds, file meta left out, as dcmconv and dcmdump read it."""
    plain = file.with_suffix(".plain")
    # Undefined lengths and no group lengths, as we write them.
    done = peers.run(["dcmconv", "+te", "-e", "-g", str(file), str(plain)])
    assert done.returncode == 0, done.output
    lines = peers.run(["dcmdump", "-q", "+L", "-M", str(plain)]).output.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("(0002,", "#")))


@pytest.mark.parametrize("target", OPTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_dcmconv_makes_the_same_of_it(name: str, target: str, tmp_path: Path) -> None:
    require("dcmconv")
    sample = samples.named(name)
    source = sample.transfer_syntax
    assert source is not None
    data = convert_bytes(sample.data, source, target)
    head = encode_head("1.2", "1.3", target)
    (ours := tmp_path / "ours").write_bytes(head + data)
    (before := tmp_path / "before").write_bytes(encode_head("1.2", "1.3", source) + sample.data)
    theirs = tmp_path / "theirs"
    done = peers.run(["dcmconv", OPTIONS[target], str(before), str(theirs)])
    assert done.returncode == 0, done.output
    assert dump(ours) == dump(theirs)
