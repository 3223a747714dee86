"""``hilum dump``: files as they are, damaged ones as far as they can be read."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest
from tests import samples

from hilum.cli.dump import main

# What pydicom says otherwise: an empty value among others is null (PS3.18 F.2.5), what is UN stays
# UN, and a padded value in the middle is without padding.
OTHERWISE = {"bad_sequence.dcm", "explicit_VR-UN.dcm", "badVR.dcm", "J2K_pixelrep_mismatch.dcm",
             "emri_small_jpeg_2k_lossless_too_short.dcm", "MR_truncated.dcm", "SC_rgb_jpeg.dcm",
             "DICOMDIR-nooffset"}  # fmt: skip
COMPARED = [
    path
    for path in samples.paths()
    if path.stat().st_size < 60_000
    and path.name not in OTHERWISE
    and samples.sample(path).transfer_syntax is not None
][::3]


def named(name: str) -> str:
    return str(samples.named(name).path)


def dumped(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def normal(item: dict[str, Any]) -> dict[str, Any]:
    """A data set of the JSON model without what the two may say differently."""
    found = {}
    for tag, element in item.items():
        values = element.get("Value") or []
        if element["vr"] == "SQ":
            values = [normal(inner) for inner in values]
        values = [value.rstrip() if isinstance(value, str) else value for value in values]
        bytes_ = None if tag == "7FE00010" else element.get("InlineBinary")
        if not tag.endswith("0000"):
            found[tag] = (element["vr"], [value or None for value in values], bytes_)
    return found


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.name)
def test_json_is_what_pydicom_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = dumped(capsys, "--json", "--all", str(path))
    assert (code, err) == (0, "")
    (ours,) = json.loads("\n".join(out))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pydicom.config, "replace_un_with_known_vr", False)
            theirs = ds.to_json_dict()
    assert normal(ours) == normal(json.loads(json.dumps(theirs)))


def test_every_file_is_dumped(capsys: pytest.CaptureFixture[str]) -> None:
    for path in samples.paths():
        code, out, err = dumped(capsys, str(path))
        assert code in (0, 1)
        assert (code == 1) == bool(err), path.name
        assert len(out) > 3 or code == 1


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dumped(capsys, named("CT_small.dcm"))
    assert code == 0
    assert out[0].endswith(
        "CT_small.dcm: CT Image Storage, Explicit VR Little Endian, 39,206 bytes"
    )
    text = "\n".join(out)
    for line in (
        "(0002,0010) UI [1.2.840.10008.1.2.1] = Explicit VR Little Endian # 20 TransferSyntaxUID",
        "(0008,0008) CS [ORIGINAL\\PRIMARY\\AXIAL]                      # 22 ImageType",
        "(0009,1004) SH [HiSpeed CT/i]                                # 12 GEMS_IDEN_01: Product id",
        "(0010,1002) SQ sequence                                      # 72 OtherPatientIDsSequence",
        "  item 2\n    (0010,0020) LO [1234ABCD]",
        "(0010,0030) DA (no value)",
        "(0028,0010) US 128",
        "(7FE0,0010) OW af 00 b4 00",
    ):
        assert line in text
    assert all(len(line) < 180 for line in out)


def test_values_whole_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    file = named("CT_small.dcm")
    _, out, _ = dumped(capsys, "-q", "-M", "-m", "9", "-k", "ImageType", "+P", "7fe0,0010", file)
    assert [line.split("#")[0].rstrip() for line in out] == [
        "(0008,0008) CS [ORIGINAL\\…]",
        "(7FE0,0010) OW af 00 b4…",
    ]
    _, out, _ = dumped(capsys, "+L", "-k", "PixelData", file)
    assert len(out[1]) > 3 * 32_768


def test_a_wanted_sequence_is_shown_with_its_items(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = dumped(capsys, "-q", "-k", "OtherPatientIDsSequence", named("CT_small.dcm"))
    assert [line.split()[0] for line in out] == [
        "(0010,1002)", "item", "(0010,0020)", "(0010,0022)", "item", "(0010,0020)", "(0010,0022)"
    ]  # fmt: skip


def test_json_of_several_files(capsys: pytest.CaptureFixture[str]) -> None:
    files = named("CT_small.dcm"), named("JPEG2000.dcm")
    _, out, _ = dumped(capsys, "--json", "--max-inline", "100", "-k", "7FE00010", *files)
    ct, jpeg = json.loads("\n".join(out))
    assert ct["7FE00010"]["BulkDataURI"].endswith("CT_small.dcm?offset=6300&length=32768")
    assert "length=-1" in jpeg["7FE00010"]["BulkDataURI"]
    _, out, _ = dumped(capsys, "--json", "-k", "PixelData", "--all", files[0])
    raw = base64.b64decode(json.loads("\n".join(out))[0]["7FE00010"]["InlineBinary"])
    assert raw == pydicom.dcmread(files[0]).PixelData


def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(named("image_dfl.dcm")).read_bytes()
    (cut := tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    code, out, err = dumped(capsys, str(cut))
    assert code == 1
    assert "(0008,0060)" in "\n".join(out)
    assert "the deflated data set is damaged" in err
    code, out, err = dumped(capsys, named("MR_truncated.dcm"))
    assert code == 1
    assert out[-1].startswith("!! (7FE0,0010) has 8,192 bytes")
    ct = Path(named("CT_small.dcm")).read_bytes()
    (headless := tmp_path / "headless").write_bytes(ct[128:])
    assert dumped(capsys, str(headless))[0] == 0
    (meta := tmp_path / "meta").write_bytes(ct[:336])
    assert "the file has no data set" in dumped(capsys, str(meta))[2]
    (half := tmp_path / "half").write_bytes(ct[:200])
    assert dumped(capsys, str(half))[0] == 1
    wrong = ct.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    (lying := tmp_path / "lying").write_bytes(wrong)
    assert "its file meta says otherwise" in dumped(capsys, str(lying))[2]


def test_what_is_no_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text := tmp_path / "notes\x1b[31m.txt").write_text("not an image " * 100)
    (empty := tmp_path / "empty").touch()
    code, out, err = dumped(capsys, str(text), str(empty), str(tmp_path))
    assert (code, out) == (1, [])
    assert "notes\\x1b[31m.txt: no DICOM file" in err
    assert "empty: the file is empty" in err
    assert "\x1b" not in err
    code, _, err = dumped(capsys, str(tmp_path / "none"), named("CT_small.dcm"))
    assert code == 2
    assert "none: no such file" in err


def test_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(named("CT_small.dcm")).read_bytes().replace(b"JFK IMAGING", b"JFK\x1b[31mGING")
    (file := tmp_path / "file").write_bytes(data)
    _, out, _ = dumped(capsys, str(file))
    assert "\x1b" not in "".join(out)
    assert "JFK\\x1b[31mGING" in "".join(out)


@pytest.mark.parametrize("word", ["Modality.CodeValue", "Nonsense", "0008", '(0009,"X",01)'])
def test_a_wrong_key_is_a_usage_error(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["-k", word, named("CT_small.dcm")])
    assert word.split(".")[0] in capsys.readouterr().err
