"""Retrieves by SOP Instance UID alone, whole and without bulk data, by pynetdicom and our own user."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from tests import peers
from tests.e2e.gateway import Gateway
from tests.interop.test_query_retrieve import configure, push
from tests.interop.test_transcoding import (
    EXPLICIT,
    IMPLICIT,
    RLE,
    STUDY,
    data,
    encoded,
    gateway,
    got,
    path_of,
    read,
)
from tests.net.sinks import Sink

from hilum.gateway.store.entries import Peer
from hilum.net import connect
from hilum.services.sop_classes import (
    COMPOSITE_INSTANCE_ROOT_GET,
    COMPOSITE_INSTANCE_ROOT_MOVE,
    COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
)
from hilum.wire.command import Command
from hilum.wire.items import RoleSelection

pytestmark = pytest.mark.interop

__all__ = ["data", "gateway"]

BULK = {0x7FE00010, 0x60003000}  # pixel data, overlay data


def with_icon() -> bytes:
    """A compressed image, and in it an icon that is compressed too."""
    ds = read(path_of("MR_small_RLE.dcm"))
    ds.SOPInstanceUID, ds.StudyInstanceUID = f"{STUDY}.9.1", STUDY
    icon = Dataset()
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
                    "PixelRepresentation", "PhotometricInterpretation"):  # fmt: skip
        icon[keyword] = ds[keyword]
    icon.add_new(
        0x7FE00010, "OB", encapsulate([next(pydicom.encaps.generate_frames(ds.PixelData))])
    )
    icon["PixelData"].is_undefined_length = True
    ds.IconImageSequence = Items([icon])
    return encoded(ds, RLE)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One of each kind of bulk data, by SOP Instance UID."""
    (tmp_path / "icon.dcm").write_bytes(with_icon())
    names = ("CT_small.dcm", "MR_small_RLE.dcm", "examples_overlay.dcm", "waveform_ecg.dcm",
             "image_dfl.dcm", "test-SR.dcm")  # fmt: skip
    paths = [path_of(name) for name in names]
    paths.append(tmp_path / "icon.dcm")
    return {str(read(path).SOPInstanceUID): path for path in paths}


def identifier(uids: Sequence[str]) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.SOPInstanceUID = "IMAGE", list(uids)
    return ds


def get_with_pynetdicom(
    port: int, sop_class: str, files: dict[str, Path], syntaxes: Sequence[str]
) -> tuple[int, dict[str, Dataset]]:
    from pynetdicom import AE, build_role, evt

    came: dict[str, Dataset] = {}

    def store(event: Any) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        came[str(ds.SOPInstanceUID)] = ds
        return 0

    classes = {str(read(path).SOPClassUID) for path in files.values()}
    ae = AE("WS")
    ae.add_requested_context(sop_class)
    for uid in classes:
        ae.add_requested_context(uid, list(syntaxes))
    association = ae.associate(
        "127.0.0.1", port, ae_title="RAIVEN",
        ext_neg=[build_role(uid, scp_role=True) for uid in classes],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )  # fmt: skip
    assert association.is_established
    *_, (status, _) = association.send_c_get(identifier(list(files)), sop_class)
    association.release()
    return status.Status, came


def check_header(ds: Dataset, original: Dataset) -> None:
    """Everything is there but bulk data: none at the top, waveforms in their sequence neither."""
    here = {int(element.tag) for element in ds}
    assert not here & BULK
    # Group lengths go too, and pynetdicom drops trailing padding.
    missing = {int(e.tag) for e in original if e.tag.element} - here - BULK
    assert missing <= {0xFFFCFFFC}
    for item, whole in zip(
        ds.get("WaveformSequence", ()), original.get("WaveformSequence", ()), strict=True
    ):
        assert "WaveformData" not in item
        assert {element.tag for element in whole} - {element.tag for element in item} == {
            0x54001010
        }
    for element in ds:
        without_vr = element.tag.is_private and element.VR == "UN"
        if element.keyword not in ("WaveformSequence", "IconImageSequence") and not without_vr:
            assert original[element.tag] == element


@pytest.mark.parametrize("syntaxes", [[EXPLICIT], [IMPLICIT], [EXPLICIT, RLE]])
def test_headers_without_bulk_data(
    gateway: Gateway, pynetdicom_apps: None, files: dict[str, Path], syntaxes: list[str]
) -> None:
    push(gateway, list(files.values()))
    status, came = get_with_pynetdicom(
        gateway.port, COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, files, syntaxes
    )
    assert status == 0
    assert came.keys() == files.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for uid, path in files.items():
            check_header(came[uid], read(path))
        icon = came[f"{STUDY}.9.1"].IconImageSequence[0]
        icon.file_meta = came[f"{STUDY}.9.1"].file_meta
        assert (icon.pixel_array == read(path_of("MR_small_RLE.dcm")).pixel_array).all()


def test_whole_instances_by_their_uids_alone(
    data: Path, dcmtk: None, pynetdicom_apps: None, files: dict[str, Path], tmp_path: Path
) -> None:
    from pynetdicom import AE

    with peers.storescp(tmp_path / "got", "+B", "+xa") as receiver:
        configure(data, peers_=[Peer("to", "STORESCP", "127.0.0.1", receiver.port)])
        with Gateway(data) as gateway:
            push(gateway, list(files.values()))
            status, came = get_with_pynetdicom(
                gateway.port, COMPOSITE_INSTANCE_ROOT_GET, files, [EXPLICIT]
            )
            assert status == 0
            assert came.keys() == files.keys()
            assert all("PixelData" in came[uid] for uid in files if "PixelData" in read(files[uid]))

            ae = AE("WS")
            ae.add_requested_context(COMPOSITE_INSTANCE_ROOT_MOVE)
            association = ae.associate("127.0.0.1", gateway.port, ae_title="RAIVEN")
            *_, (status, _) = association.send_c_move(
                identifier(list(files)), "STORESCP", COMPOSITE_INSTANCE_ROOT_MOVE
            )
            association.release()
            assert (status.Status, status.NumberOfCompletedSuboperations) == (0, len(files))
        assert got(tmp_path / "got").keys() == files.keys()


async def test_our_own_user_gets_headers(gateway: Gateway, files: dict[str, Path]) -> None:
    await asyncio.to_thread(push, gateway, list(files.values()))
    came: dict[str, Sink] = {}
    classes = {str(read(path).SOPClassUID) for path in files.values()}

    def store(command: Command, *_: object) -> Sink:
        assert command.affected_sop_instance_uid is not None
        return came.setdefault(command.affected_sop_instance_uid, Sink())

    contexts = [(COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, (EXPLICIT,))]
    async with await connect(
        "127.0.0.1",
        gateway.port,
        called="RAIVEN",
        contexts=[*contexts, *((uid, (EXPLICIT,)) for uid in classes)],
        roles=[RoleSelection(uid, False, True) for uid in classes],
        open_store=store,
    ) as association:
        responses = association.c_get(
            identifier(list(files)), sop_class_uid=COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
        )
        counts = [response.status async for response in responses]
        assert counts[-1] == 0
    assert came.keys() == files.keys()
    for uid, path in files.items():
        ds = pydicom.filereader.read_dataset(BytesIO(came[uid].content), False, True)
        check_header(ds, read(path))
