"""Retrieves by those who take no compressed images: decoded in a process of its own, and sent.

What arrives is compared with what pydicom and DCMTK's own decoders make of the same file.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import psutil
import pydicom
import pytest
from pydicom import Dataset
from tests import peers, samples
from tests.conftest import require
from tests.e2e.gateway import Gateway, prepare
from tests.interop.test_query_retrieve import configure, push

from hilum.gateway.store.entries import Peer
from hilum.services import sop_classes

pytestmark = pytest.mark.interop

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, DEFLATED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"
STUDY = "1.2.826.0.1.3680043.8.498.77"
GET = sop_classes.STUDY_ROOT_GET

# Each a SOP instance of its own; DCMTK's program that decodes it, and by how much of a value its
# lossy decoder may differ (it interpolates subsampled colours otherwise).
FILES: dict[str, tuple[str, int]] = {
    "SC_rgb_jpeg_dcmtk.dcm": ("dcmdjpeg", 3),  # baseline, YBR_FULL
    "examples_ybr_color.dcm": ("dcmdjpeg", 60),  # 30 frames, YBR_FULL_422
    "JPEG-LL.dcm": ("dcmdjpeg", 0),
    "emri_small_jpeg_ls_lossless.dcm": ("dcmdjpls", 0),
    "JPEGLSNearLossless_16.dcm": ("dcmdjpls", 0),
    "JPEG2000.dcm": ("", 0),
    "examples_jpeg2k.dcm": ("", 0),  # YBR_RCT
    "MR_small_RLE.dcm": ("dcmdrle", 0),
    "OBXXXX1A_rle_2frame.dcm": ("dcmdrle", 0),  # palette
}


def path_of(name: str) -> Path:
    return next(path for path in samples.paths() if path.name == name)


def read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def gateway(data: Path) -> Iterator[Gateway]:
    with Gateway(data) as running:
        yield running


def got(folder: Path) -> dict[str, Dataset]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(ds.SOPInstanceUID): ds for ds in map(read, files)}


def pixels(ds: Dataset) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ds.pixel_array


def check(ds: Dataset, original: Dataset, *, implicit: bool = False) -> None:
    """Everything is as it was, but for the pixels, which pydicom decodes to the same."""
    assert not ds.file_meta.TransferSyntaxUID.is_compressed
    assert numpy.array_equal(pixels(ds), pixels(original))
    may_change = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration"}
    for element in original:
        if element.keyword in may_change or element.tag.element == 0:
            continue
        assert element.tag in ds, element
        if not (implicit and element.tag.is_private):  # their VRs are lost there
            swapped = element.VR == "OW" and not ds.original_encoding[1]
            assert swapped or ds[element.tag] == element
    assert {e.tag for e in ds if e.tag.element} <= {e.tag for e in original}


def check_with_dcmtk(ds: Dataset, path: Path, folder: Path) -> None:
    program, most = FILES[path.name]
    if not program:
        return
    decoded = folder / f"{path.name}.native"
    subprocess.run([peers.native(program), path, decoded], check=True, timeout=60)
    theirs = read(decoded)
    assert theirs.PhotometricInterpretation == ds.PhotometricInterpretation
    ours, theirs = pixels(ds).astype(int), pixels(theirs).astype(int)
    assert numpy.abs(ours - theirs).max() <= most, path


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Path]:
    """The files as images of one study, by SOP Instance UID."""
    found = {}
    (tmp_path / "study").mkdir()
    for name in FILES:
        ds = read(path_of(name))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{STUDY}.1"
        ds.PatientID, ds.PatientName = "1", "Image^Compressed"
        found[str(ds.SOPInstanceUID)] = tmp_path / "study" / name
        ds.save_as(found[ds.SOPInstanceUID])
    assert len(found) == len(FILES)
    return found


# ── real peers ────────────────────────────────────────────────────────────────────────────────


KEYS = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}")


def check_all(folder: Path, study: dict[str, Path], **options: bool) -> None:
    came = got(folder)
    assert came.keys() == study.keys()
    for uid, path in study.items():
        check(came[uid], read(path), **options)


def test_getscu_gets_every_image_decoded(
    gateway: Gateway, dcmtk: None, tmp_path: Path, study: dict[str, Path]
) -> None:
    require("getscu")
    push(gateway, list(study.values()))
    peers.getscu("RAIVEN", gateway.port, tmp_path / "got", "+B", *KEYS).check()
    check_all(tmp_path / "got", study)
    for uid, ds in got(tmp_path / "got").items():
        check_with_dcmtk(ds, study[uid], tmp_path)
    assert not list((gateway.data / "decoded").iterdir())


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG, DEFLATED])
def test_pynetdicom_gets_every_image_in_the_one_syntax_that_it_takes(
    gateway: Gateway, pynetdicom_apps: None, study: dict[str, Path], syntax: str
) -> None:
    push(gateway, list(study.values()))
    came, status, _ = pynetdicom_get(gateway.port, [syntax])
    assert status.Status == 0
    assert came.keys() == study.keys()
    for uid, path in study.items():
        assert came[uid].file_meta.TransferSyntaxUID == syntax
        check(came[uid], read(path), implicit=syntax == IMPLICIT)


@pytest.mark.parametrize(("accepted", "parallel"), [("+xe", 1), ("+xi", 1), ("+xe", 3)])
def test_movescu_moves_every_image_decoded_to_storescp(
    data: Path, dcmtk: None, tmp_path: Path, study: dict[str, Path], accepted: str, parallel: int
) -> None:
    require("movescu")
    with peers.storescp(tmp_path / "got", "--fork", "+B", accepted) as receiver:
        configure(data, peers_=[Peer("to", "STORESCP", "127.0.0.1", receiver.port)])
        with Gateway(data, settings={"HILUM_RETRIEVE_PARALLEL": str(parallel)}) as gateway:
            push(gateway, list(study.values()))
            peers.movescu("RAIVEN", gateway.port, "-aem", "STORESCP", *KEYS).check()
        check_all(tmp_path / "got", study, implicit=accepted == "+xi")


# ── what cannot be decoded ────────────────────────────────────────────────────────────────────


def image(uid: str, *, rows: int = 64, columns: int = 64, frames: int = 1) -> Dataset:
    """An image in RLE, of which its own and its data set's sizes can differ."""
    ds = read(path_of("MR_small_RLE.dcm"))
    assert (ds.Rows, ds.Columns) == (64, 64)
    ds.SOPInstanceUID = uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    ds.Rows, ds.Columns = rows, columns
    if frames != 1:
        ds.NumberOfFrames = frames
    return ds


def encoded(ds: Dataset, syntax: str = RLE) -> bytes:
    from io import BytesIO

    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def broken(folder: Path) -> dict[str, Path]:
    """What cannot be decoded, by SOP Instance UID; a good image before, between and behind."""
    cut = image(f"{STUDY}.2.3")
    cut.PixelData = pydicom.encaps.encapsulate([bytes(range(64)) * 4])
    no_codec = read(path_of("JPEG-lossy.dcm"))  # 12 bits, of which pydicom has no free codec
    no_codec.SOPInstanceUID = f"{STUDY}.2.5"
    no_codec.StudyInstanceUID, no_codec.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    deflated = image(f"{STUDY}.2.7")
    deflated.decompress(generate_instance_uid=False)
    deflated.add_new(0x70011001, "OB", bytes(300_000_000))
    deflated.add_new(0x70010010, "LO", "BOMB")
    made = [
        encoded(image(f"{STUDY}.2.1")),
        encoded(image(f"{STUDY}.2.2", rows=60_000, columns=60_000)),
        encoded(cut),
        encoded(image(f"{STUDY}.2.4")),
        encoded(no_codec, "1.2.840.10008.1.2.4.51"),
        encoded(image(f"{STUDY}.2.6", frames=3)),
        encoded(deflated, DEFLATED),
        encoded(image(f"{STUDY}.2.8")),
    ]
    folder.mkdir()
    for number, data in enumerate(made, 1):
        (folder / f"{number}.dcm").write_bytes(data)
    return {f"{STUDY}.2.{n}": folder / f"{n}.dcm" for n in range(1, len(made) + 1)}


GOOD = {f"{STUDY}.2.{n}" for n in (1, 4, 8)}
# A small gateway: the bombs are many times larger than what it takes.
SMALL = {
    "HILUM_RETRIEVE_MAX_DECODED": str(64 << 20),
    "HILUM_RETRIEVE_DECODED_SPACE": str(128 << 20),
}


def pynetdicom_get(
    port: int, syntaxes: Sequence[str]
) -> tuple[dict[str, Dataset], Dataset, Dataset]:
    """What came, the final response, and its identifier."""
    from pynetdicom import AE, build_role, evt

    came = {}

    def store(event: Any) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        came[str(ds.SOPInstanceUID)] = ds
        return 0

    ae = AE("WS")
    ae.add_requested_context(GET)
    classes = {str(read(path_of(name)).SOPClassUID) for name in (*FILES, "JPEG-lossy.dcm")}
    for uid in classes:
        ae.add_requested_context(uid, list(syntaxes))
    roles = [build_role(uid, scp_role=True) for uid in classes]
    association = ae.associate(
        "127.0.0.1", port, ae_title="RAIVEN", ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert association.is_established
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", STUDY
    *_, (status, identifier) = association.send_c_get(asked, GET)
    association.release()
    return came, status, identifier


def test_what_cannot_be_decoded_fails_alone(
    data: Path, pynetdicom_apps: None, tmp_path: Path
) -> None:
    files = broken(tmp_path / "broken")
    with Gateway(data, settings=SMALL) as gateway:
        push(gateway, list(files.values()))
        came, status, identifier = pynetdicom_get(gateway.port, [EXPLICIT])
        assert came.keys() == GOOD
        assert status.Status == 0xB000
        assert (status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations) == (3, 5)
        assert set(identifier.FailedSOPInstanceUIDList) == files.keys() - GOOD
        assert "decoded" in status.ErrorComment
        for uid in GOOD:
            check(came[uid], read(files[uid]))
        children = psutil.Process(gateway.process.pid).children()
        assert max((child.memory_info().rss for child in children), default=0) < 500 << 20
        assert psutil.Process(gateway.process.pid).memory_info().rss < 500 << 20
        assert not list((data / "decoded").iterdir())
        assert "bytes decoded; at most" in gateway.log
        assert "frames were decoded of 3" in gateway.log or "expected" in gateway.log


@pytest.mark.parametrize("syntaxes", [[EXPLICIT], ["1.2.840.10008.1.2.4.50", EXPLICIT]])
def test_a_file_that_is_gone_fails_alone(
    gateway: Gateway, pynetdicom_apps: None, study: dict[str, Path], syntaxes: list[str]
) -> None:
    """To be decoded, and to be sent as it is."""
    push(gateway, list(study.values()))
    gone = str(read(path_of("examples_ybr_color.dcm")).SOPInstanceUID)
    (file,) = (gateway.data / "objects").rglob(f"{gone}.dcm")
    file.unlink()
    came, status, identifier = pynetdicom_get(gateway.port, syntaxes)
    assert came.keys() == study.keys() - {gone}
    assert status.Status == 0xB000
    assert status.ErrorComment == "cannot be read: it has been removed"
    assert identifier.FailedSOPInstanceUIDList == gone


def test_nothing_is_decoded_where_that_is_switched_off(
    data: Path, pynetdicom_apps: None, tmp_path: Path, study: dict[str, Path]
) -> None:
    with Gateway(data, settings={"HILUM_RETRIEVE_DECODERS": "0"}) as gateway:
        push(gateway, list(study.values()))
        came, status, identifier = pynetdicom_get(gateway.port, [EXPLICIT])
        assert not came
        assert status.Status == 0xA702
        assert set(identifier.FailedSOPInstanceUIDList) == study.keys()


# ── what is killed ────────────────────────────────────────────────────────────────────────────


def many(folder: Path, count: int) -> dict[str, Path]:
    """Images that take a while to decode: 120 frames in JPEG each."""
    folder.mkdir()
    found = {}
    for number in range(count):
        ds = read(path_of("color3d_jpeg_baseline.dcm"))
        ds.SOPInstanceUID = f"{STUDY}.3.{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{STUDY}.1"
        found[ds.SOPInstanceUID] = folder / f"{number}.dcm"
        found[ds.SOPInstanceUID].write_bytes(encoded(ds, str(ds.file_meta.TransferSyntaxUID)))
    return found


def decoding_children(gateway: Gateway) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(gateway.process.pid).children()
        if "hilum.gateway.store.decoding_process" in child.cmdline()
    ]


def until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.01)
    raise AssertionError("it did not come about in time")


def test_a_process_that_is_killed_is_replaced_and_nothing_is_missing(
    data: Path, dcmtk: None, tmp_path: Path
) -> None:
    require("movescu")
    files = many(tmp_path / "many", 3)
    with peers.storescp(tmp_path / "got", "+B") as receiver:
        configure(data, peers_=[Peer("to", "STORESCP", "127.0.0.1", receiver.port)])
        with Gateway(data) as gateway:
            push(gateway, list(files.values()))
            move = peers.native("movescu")
            command = [move, "-aec", "RAIVEN", "-aem", "STORESCP", *KEYS, "127.0.0.1"]
            asking = subprocess.Popen([*command, str(gateway.port)])
            try:
                busy = until(
                    lambda: [c for c in decoding_children(gateway) if c.cpu_times().user > 1]
                )
                busy[0].kill()
                assert asking.wait(100) == 0
            finally:
                asking.kill()
                asking.wait()
        came = got(tmp_path / "got")
        assert came.keys() == files.keys()
        (uid, path), *_ = files.items()
        check(came[uid], read(path))
        assert {bytes(ds.PixelData) for ds in came.values()} == {bytes(came[uid].PixelData)}


def test_a_gateway_that_is_killed_leaves_nothing_decoded(
    data: Path, dcmtk: None, tmp_path: Path
) -> None:
    require("movescu")
    files = many(tmp_path / "many", 2)
    with peers.storescp(tmp_path / "got", "+B") as receiver:
        configure(data, peers_=[Peer("to", "STORESCP", "127.0.0.1", receiver.port)])
        with Gateway(data) as gateway:
            push(gateway, list(files.values()))
            command = [peers.native("movescu"), "-aec", "RAIVEN", "-aem", "STORESCP", *KEYS]
            asking = subprocess.Popen([*command, "127.0.0.1", str(gateway.port)])
            try:
                until(lambda: open_in(gateway.process.pid, data / "decoded"))
                children = decoding_children(gateway)
                gateway.kill()
                until(lambda: not any(child.is_running() for child in children))
            finally:
                asking.kill()
                asking.wait()
    assert not list((data / "decoded").iterdir())
    (data / "decoded" / "of another system").write_bytes(b"left behind")
    with Gateway(data) as gateway:
        assert not list((data / "decoded").iterdir())


def open_in(pid: int, folder: Path) -> list[str]:
    """Files in a folder that a process has open, those without a name too."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(descriptor))
    return [link for link in links if link.startswith(f"{folder}/")]
