"""What ``send_c_store`` sends, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from tests.net.sync_world import CT, Provider, within

from hilum.services.part10 import parse_head
from hilum.sync import AE, _config, build_context, evt
from hilum.sync.association import Association
from hilum.sync.sop_class import CTImageStorage, MRImageStorage

BIG_ENDIAN = get_testdata_file("MR_small_bigendian.dcm")


class Receiver:
    """A provider that keeps what comes, and a user of one context of its choice."""

    def __init__(self, provider: Provider) -> None:
        self.got: list[tuple[str, bytes, Dataset]] = []
        self._provider = provider

    def _store(self, event):
        encoded = event.encoded_dataset(include_meta=False)
        self.got.append((event.context.transfer_syntax, encoded, event.dataset))
        return 0x0000

    def associate(self, sop_class: str, *syntaxes: str) -> Association:
        contexts = [build_context(sop_class, list(syntaxes))]
        server = self._provider.ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            contexts=contexts,
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )
        proposed = [build_context(sop_class, syntax) for syntax in syntaxes]
        assoc = AE("USER").associate("127.0.0.1", server.server_address[1], contexts=proposed)
        assert assoc.is_established
        return assoc


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    provider = Provider()
    yield Receiver(provider)
    provider.ae.shutdown()


def data_of(path: str | Path) -> bytes:
    raw = Path(path).read_bytes()
    head = parse_head(raw, final=True)
    assert head is not None
    return raw[head.data_set_offset :]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    dataset = dcmread(CT)
    dataset.Rows = dataset.Columns = 1024
    dataset.PixelData = bytes(range(256)) * (4 << 12)
    dataset.save_as(tmp_path / "large.dcm")
    return tmp_path / "large.dcm"


@pytest.mark.parametrize("chunked", [False, True])
@within(30)
def test_a_file_is_sent_byte_for_byte(receiver, large, chunked):
    before, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, chunked
    try:
        assoc = receiver.associate(CTImageStorage, ImplicitVRLittleEndian, ExplicitVRLittleEndian)
        for path in (CT, large):
            assert assoc.send_c_store(path).Status == 0x0000
        assoc.release()
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = before
    assert [encoded for _, encoded, _ in receiver.got] == [data_of(CT), data_of(large)]


@pytest.mark.parametrize(
    "target",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("read", [False, True])
@within(30)
def test_what_is_not_accepted_as_it_is_is_converted(receiver, target, read):
    assoc = receiver.associate(MRImageStorage, target)
    sent = dcmread(BIG_ENDIAN)
    assert sent.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    assert assoc.send_c_store(sent if read else BIG_ENDIAN).Status == 0x0000
    assoc.release()
    ((syntax, _, dataset),) = receiver.got
    assert syntax == target
    assert dataset.PatientName == sent.PatientName and dataset.Rows == sent.Rows
    little = dcmread(get_testdata_file("MR_small.dcm"))
    assert dataset.PixelData == little.PixelData, "the pixels' bytes are in the other order"


@within(30)
def test_explicit_vr_is_kept_where_a_context_allows_it(receiver):
    assoc = receiver.associate(MRImageStorage, ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    assert assoc.send_c_store(BIG_ENDIAN).Status == 0x0000
    assoc.release()
    assert receiver.got[0][0] == ExplicitVRLittleEndian


def minimal(**elements: object) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, "1.2.3"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for name, value in elements.items():
        setattr(made, name, value)
    return made


@within(30)
def test_what_cannot_be_sent_raises_and_the_association_goes_on(receiver, tmp_path):
    assoc = receiver.associate(CTImageStorage, ImplicitVRLittleEndian)
    nothing = tmp_path / "nothing.dcm"
    nothing.write_bytes(b"this is no DICOM file" * 20)
    bare, unnamed = minimal(), minimal()
    del bare.file_meta
    del unnamed.SOPInstanceUID
    compressed = minimal()
    compressed.file_meta.TransferSyntaxUID = JPEG2000Lossless
    for refused, error in (
        (minimal(SOPClassUID=MRImageStorage), ValueError),
        (compressed, ValueError),
        (minimal(Rows="not a number"), ValueError),
        (bare, AttributeError),
        (unnamed, AttributeError),
        (nothing, InvalidDicomError),
        (tmp_path / "missing.dcm", FileNotFoundError),
    ):
        with pytest.raises(error):
            assoc.send_c_store(refused)
    with pytest.raises(ValueError, match="priority"):
        assoc.send_c_store(minimal(), priority=7)
    with pytest.raises(ValueError, match="Verification"):
        assoc.send_c_echo()
    assert assoc.send_c_store(minimal()).Status == 0x0000
    assoc.release()


@within(30)
def test_a_data_set_that_was_read_otherwise_than_it_says(receiver, caplog):
    dataset = dcmread(get_testdata_file("MR_small_implicit.dcm"))
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assoc = receiver.associate(MRImageStorage, ImplicitVRLittleEndian)
    assert assoc.send_c_store(dataset).Status == 0x0000
    explicit = dcmread(get_testdata_file("MR_small.dcm"))
    explicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    with pytest.raises(AttributeError, match="explicit VR"):
        assoc.send_c_store(explicit)
    assoc.release()
