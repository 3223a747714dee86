"""Every compressed file of pydicom's, made native: its pixels as pydicom sees them, all else alike."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import pydicom
import pytest
from tests import samples

from hilum.errors import InvalidDicom
from hilum.gateway.store.decoding_process import DECODED, decode, decoded_by_what_is_installed
from hilum.services.decompress import decompress

# Why these are refused; pydicom's own decoders refuse the same, but for the first.
REFUSED = {
    "SC_rgb_jpeg.dcm": "not in explicit VR",  # nor encapsulated: a JPEG file is the native value
    "emri_small_jpeg_2k_lossless_too_short.dcm": "ends in the middle",
    "JPEG2000-embedded-sequence-delimiter.dcm": "cannot be decoded",
    "JPEG-lossy.dcm": "cannot be decoded",  # 12 bits, of which hilum[codecs] has no codec
    "JPGExtended.dcm": "cannot be decoded",
}


def compressed() -> list[Path]:
    return [path for path in samples.paths() if samples.sample(path).transfer_syntax in DECODED]


def pixels(ds: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ds.pixel_array


def test_a_codec_of_every_syntax_is_installed() -> None:
    assert decoded_by_what_is_installed() == DECODED


@pytest.mark.parametrize("path", compressed(), ids=lambda path: path.name)
def test_made_native(path: Path) -> None:
    sample = samples.sample(path)
    syntax = sample.transfer_syntax
    assert syntax is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = pydicom.dcmread(path)
        made = decompress(sample.data, lambda part: decode(part, syntax))
        if path.name in REFUSED:
            with pytest.raises(InvalidDicom, match=REFUSED[path.name]):
                b"".join(map(bytes, made))
            return
        data = b"".join(map(bytes, made))
    native = pydicom.filereader.read_dataset(BytesIO(data), False, True)
    for element in original:
        if element.keyword in ("PixelData", "PhotometricInterpretation", "PlanarConfiguration"):
            assert element.tag in native
        elif element.tag.element:  # but a group length
            assert native[element.tag] == element
    assert {e.tag for e in native} <= {e.tag for e in original}
    if "PixelData" in original:
        native.file_meta = pydicom.dataset.FileMetaDataset()
        native.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        assert numpy.array_equal(pixels(native), pixels(original))
