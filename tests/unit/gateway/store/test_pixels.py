"""Digests of pixel data from a process that may end, hang or refuse."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless
from tests import samples
from tests.unit.gateway.store.archive_world import EXPLICIT, World, arrival, encode, submit

from hilum.gateway.store import pixels
from hilum.gateway.store.pixels import PixelDigests
from hilum.gateway.store.pixels_process import digest
from hilum.net.service import Outcome

RLE = "1.2.840.10008.1.2.5"
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def digests() -> Iterator[PixelDigests]:
    digests = PixelDigests()
    yield digests
    digests.close()


def of(digests: PixelDigests, name: str) -> bytes | None:
    found = samples.named(name)
    assert found.transfer_syntax is not None
    return digests.of(found.data, found.transfer_syntax)


@pytest.mark.parametrize(
    ("native", "other", "needs"),
    [
        ("MR_small.dcm", "MR_small_RLE.dcm", ""),
        ("MR_small.dcm", "MR_small_implicit.dcm", ""),
        ("emri_small.dcm", "emri_small_RLE.dcm", ""),
        ("SC_rgb.dcm", "SC_rgb_rle.dcm", ""),
        ("SC_rgb_2frame.dcm", "SC_rgb_rle_2frame.dcm", ""),
        ("SC_rgb_16bit.dcm", "SC_rgb_rle_16bit.dcm", ""),
        ("SC_rgb_32bit_2frame.dcm", "SC_rgb_rle_32bit_2frame.dcm", ""),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm", "openjpeg"),
        ("emri_small.dcm", "emri_small_jpeg_2k_lossless.dcm", "openjpeg"),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "jpeg_ls"),
        ("emri_small.dcm", "emri_small_jpeg_ls_lossless.dcm", "jpeg_ls"),
    ],
)
def test_a_lossless_copy_has_the_same_digest(
    digests: PixelDigests, native: str, other: str, needs: str
) -> None:
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip('pip install "hilum[codecs]"')
    found = of(digests, native)
    assert found is not None
    assert of(digests, other) == found


def test_a_changed_pixel_changes_the_digest(digests: PixelDigests) -> None:
    data = samples.named("MR_small.dcm").data
    # The last bytes are trailing padding, which is no pixel.
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    assert digests.of(data, EXPLICIT) != digests.of(changed, EXPLICIT) is not None


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_jpeg_dcmtk.dcm", "JPEG2000.dcm", "rtplan.dcm", "liver_1frame.dcm"],
    ids=["lossy", "may be lossy", "no image", "one bit a pixel"],
)
def test_what_has_no_digest(digests: PixelDigests, name: str) -> None:
    assert of(digests, name) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 100, samples.named("MR_small_RLE.dcm").data[:3000]])
def test_bytes_that_are_no_image(digests: PixelDigests, data: bytes) -> None:
    assert digests.of(data, RLE) is None
    assert of(digests, "MR_small.dcm") is not None, "the process goes on"


def test_more_frames_than_there_are() -> None:
    data_set = dcmread(next(p for p in samples.paths() if p.name == "MR_small.dcm"))
    assert digest(encode(data_set), EXPLICIT) is not None
    data_set.NumberOfFrames = 2
    assert digest(encode(data_set), EXPLICIT) is None
    data_set.Rows, data_set.Columns = 65535, 65535
    assert digest(encode(data_set), EXPLICIT) is None


def test_a_process_that_ended_is_started_again(digests: PixelDigests) -> None:
    found = of(digests, "MR_small.dcm")
    process = digests._process
    assert process is not None
    process.kill()
    assert of(digests, "MR_small.dcm") == found is not None


def test_a_process_that_hangs_is_killed_and_nothing_is_asked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging = (sys.executable, "-c", "import time; time.sleep(60)")
    monkeypatch.setattr(pixels, "COMMAND", hanging)
    digests = PixelDigests(patience=0.1, pause=60)
    assert digests.of(bytes(1000), EXPLICIT) is None
    assert digests.of(bytes(1_000_000), EXPLICIT) is None
    assert digests._process is None
    digests._not_before = 0
    # More than a pipe holds: writing is what hangs.
    assert digests.of(bytes(1_000_000), EXPLICIT) is None
    assert digests._process is None
    monkeypatch.setattr(digests, "_start", lambda: pytest.fail("asked within the pause"))
    assert digests.of(bytes(1000), EXPLICIT) is None


async def test_a_lossless_copy_of_what_is_here_is_one_copy(world: World) -> None:
    """The whole way: native, then RLE, then native with one pixel changed."""
    data_set = dcmread(next(p for p in samples.paths() if p.name == "MR_small.dcm"))
    uid = data_set.SOPInstanceUID
    native = encode(data_set)
    data_set.compress(RLELossless, generate_instance_uid=False)
    recoded = encode(data_set)
    changed = bytearray(native)
    changed[len(native) // 2] ^= 1
    committer = world.committer()

    async def keep(data: bytes, syntax: str) -> Outcome:
        return await submit(committer, arrival(data, uid, sop_class=MR, transfer_syntax=syntax))

    assert (await keep(native, EXPLICIT)).status == 0
    assert (await keep(recoded, RLE)).status == 0
    assert committer.counters.duplicates == 1
    assert [row.transfer_syntax for row in world.listed()] == [EXPLICIT]
    assert (await keep(bytes(changed), EXPLICIT)).status == 0
    assert committer.counters.duplicates == 1
    assert len(world.files()) == 2
    await committer.stop()
    assert committer._pixels._process is None
