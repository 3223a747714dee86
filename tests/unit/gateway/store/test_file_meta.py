"""The header of our files: round trip, damage, and what other software reads in it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import InvalidDicom
from hilum.gateway.store.file_meta import (
    HEADER_MAXIMUM,
    PRIVATE_INFORMATION_CREATOR_UID,
    ObjectMeta,
    encode_header,
    parse_header,
)
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
META = ObjectMeta(CT, "1.2.3.4", EXPLICIT, "RAIVEN", "CT_ROOM_1", owner="älice")
# (0008,0018) UI 1.2.3.4, in Explicit VR Little Endian
DATA_SET = bytes.fromhex("0800180055490800") + b"1.2.3.4\0"

latin = st.characters(min_codepoint=1, max_codepoint=255)
uids = st.text(latin, max_size=512).map(lambda text: text.rstrip("\0 "))
titles = st.text(latin, max_size=16).map(lambda text: text.strip("\0 "))
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
metas = st.builds(
    ObjectMeta,
    uids,
    uids,
    uids,
    titles,
    titles,
    titles,
    st.one_of(st.none(), names.filter(lambda name: len(name.encode()) <= 64)),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
)


@given(metas, st.binary(max_size=20))
def test_what_is_written_is_read(meta: ObjectMeta, data_set: bytes) -> None:
    header = encode_header(meta)
    assert len(header) <= HEADER_MAXIMUM
    assert parse_header(header + data_set) == (meta, len(header))


@given(metas, metas)
def test_completing_a_header_keeps_its_length(one: ObjectMeta, other: ObjectMeta) -> None:
    facts = {
        name: getattr(other, name)
        for name in ("owner", "arrived_us", "quarantined", "mislabelled", "complete", "length")
    }
    later = replace(one, **facts, digest=other.digest)
    assert len(encode_header(later)) == len(encode_header(one))


@given(st.integers(0, len(encode_header(META)) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    header = bytearray(encode_header(META))
    header[at] ^= change
    with pytest.raises(InvalidDicom):
        parse_header(bytes(header))


@given(st.integers(0, len(encode_header(META)) - 1))
def test_a_cut_header_is_noticed(length: int) -> None:
    with pytest.raises(InvalidDicom):
        parse_header(encode_header(META)[:length])


@given(st.binary(max_size=600))
def test_anything_behind_our_preamble_is_read_or_refused(tail: bytes) -> None:
    with pytest.raises(InvalidDicom):
        parse_header(encode_header(META)[:140] + tail)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": ""},
        {"owner": "a\0b"},
        {"owner": "é" * 33},
        {"owner": "\ud800"},
        {"sop_instance_uid": "1" * 513},
        {"sop_instance_uid": "\u0661"},
        {"sending_ae_title": "A" * 65},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidDicom):
        encode_header(replace(META, **change))  # type: ignore[arg-type]


def test_a_part_10_file_of_others_is_not_ours(tmp_path: Path) -> None:
    data_set = pydicom.Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = CT, "1.2.3.4"
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = EXPLICIT
    path = tmp_path / "other.dcm"
    data_set.save_as(path, enforce_file_format=True)
    with pytest.raises(InvalidDicom, match="not ours"):
        parse_header(path.read_bytes())


def test_pydicom_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    path.write_bytes(encode_header(META) + DATA_SET)
    read = pydicom.dcmread(path)
    assert read.SOPInstanceUID == "1.2.3.4"
    meta = read.file_meta
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SendingApplicationEntityTitle == "CT_ROOM_1"
    assert meta.ReceivingApplicationEntityTitle == "RAIVEN"
    assert meta.PrivateInformationCreatorUID == PRIVATE_INFORMATION_CREATOR_UID
    assert "SourceApplicationEntityTitle" not in meta
    end = len(encode_header(META))
    assert meta.FileMetaInformationGroupLength == end - 144
    assert read.preamble == bytes(128)


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="DCMTK is not installed")
def test_dcmtk_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    path.write_bytes(encode_header(replace(META, source_ae_title="SRC")) + DATA_SET)
    test = subprocess.run(["dcmftest", path], capture_output=True, text=True)
    assert test.stdout.startswith("yes:")
    dump = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=True)
    assert not dump.stderr
    assert "(0002,0016) AE [SRC]" in dump.stdout
    assert "(0002,0102) OB 48\\49\\4c\\55\\01" in dump.stdout
    assert "(0008,0018) UI [1.2.3.4]" in dump.stdout
