"""Keys as they are typed, and the identifiers that they make."""

from __future__ import annotations

import argparse
from pathlib import Path

import pydicom
import pytest
from tests import samples

from hilum.cli.keys import identifier_of, key, key_options, level_option, model_options
from hilum.errors import ConfigurationError
from hilum.services.datasets import decode
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prefix_chars="-+", allow_abbrev=False)
    model_options(parser, worklist=True, composite=True)
    key_options(parser)
    level_option(parser)
    return parser.parse_args(words)


def asked(*words: str, returned: bool = False) -> pydicom.Dataset:
    """What an identifier says, in every transfer syntax the same."""
    identifier = identifier_of(options(*words), returned=returned)
    first, *others = (decode(identifier.encode(syntax), syntax) for syntax in SYNTAXES)
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize(
    "word",
    [
        "PatientName=Doe*",
        "0010,0010=Doe*",
        "(0010,0010)=Doe*",
        "00100010=Doe*",
        "( 0010 , 0010 )=Doe*",
    ],
)
def test_ways_to_write_a_key(word: str) -> None:
    assert asked("-k", word).PatientName == "Doe*"


@pytest.mark.parametrize(
    "word",
    [
        "0040,0100[0].Modality=CT",
        "(0040,0100)[0].0008,0060=CT",
        "ScheduledProcedureStepSequence[0].Modality=CT",
        "ScheduledProcedureStepSequence.Modality=CT",
        "00400100.00080060=CT",
    ],
)
def test_keys_in_sequences(word: str) -> None:
    ds = asked("-W", "-k", word, "-k", "0040,0100[0].0040,0001")
    (item,) = ds.ScheduledProcedureStepSequence
    assert item.Modality == "CT"
    assert item.ScheduledStationAETitle is None or item.ScheduledStationAETitle == ""


def test_values_keep_what_they_are() -> None:
    ds = asked(
        "-k", "StudyInstanceUID=1.2\\1.3", "-k", "PatientComments=a=b", "-k", "Rows=512", "-k",
        "PatientName=", "-k", "ProcedureCodeSequence",
    )  # fmt: skip
    assert ds.StudyInstanceUID == ["1.2", "1.3"]
    assert (ds.PatientComments, ds.Rows, ds.PatientName) == ("a=b", 512, "")
    assert ds.ProcedureCodeSequence == []


def test_a_value_is_not_lost_to_a_key_without_one() -> None:
    assert asked("-k", "PatientID=1", "-k", "PatientID").PatientID == "1"
    assert asked("-k", "PatientID=1", "-k", "PatientID=2").PatientID == "2"


def test_character_sets() -> None:
    assert asked("-k", "PatientName=Doe").SpecificCharacterSet == ""
    ds = asked("-k", "PatientName=Müller")
    assert (ds.SpecificCharacterSet, ds.PatientName) == ("ISO_IR 100", "Müller")
    ds = asked("-k", "PatientName=Müller", "-k", "0008,0005=ISO_IR 192")
    assert (ds.SpecificCharacterSet, ds.PatientName) == ("ISO_IR 192", "Müller")
    assert asked("-k", "PatientName=王").SpecificCharacterSet == "ISO_IR 192"


def test_levels() -> None:
    assert asked("-k", "PatientID=1").QueryRetrieveLevel == "STUDY"
    assert asked("--level", "series", "-k", "PatientID=1").QueryRetrieveLevel == "SERIES"
    assert asked("-P", "-k", "0008,0052=PATIENT").QueryRetrieveLevel == "PATIENT"
    assert asked("--composite", "-k", "SOPInstanceUID=1.2").QueryRetrieveLevel == "IMAGE"
    assert "QueryRetrieveLevel" not in asked("-W", "-k", "PatientID=1")


def test_what_is_returned_when_nothing_is_asked_for() -> None:
    ds = asked("-k", "PatientID=1", returned=True)
    assert ds.PatientID == "1"
    assert "StudyDescription" in ds
    assert "StudyDescription" not in asked("-k", "PatientName", returned=True)
    (step,) = asked("-W", returned=True).ScheduledProcedureStepSequence
    assert "ScheduledProcedureStepStartDate" in step
    assert "SOPInstanceUID" in asked("--level", "IMAGE", returned=True)


def test_private_and_unknown_keys() -> None:
    ds = asked("-k", "0009,0010=MAKER", "-k", "0009,1001=x")
    assert ds[0x00091001].value == b"x\0"


def test_query_files(tmp_path: Path) -> None:
    ct = samples.named("CT_small.dcm")
    ds = asked("-f", str(ct.path), "-k", "PatientName=Doe")
    assert (ds.PatientName, ds.PatientID, len(ds.OtherPatientIDsSequence)) == ("Doe", "1CT1", 2)
    plain = identifier_of(options("-k", "PatientID=7"), returned=False)
    (file := tmp_path / "query").write_bytes(plain.encode(IMPLICIT_VR_LITTLE_ENDIAN))
    assert asked("-f", str(file)).PatientID == "7"
    (broken := tmp_path / "broken").write_bytes(b"\x08\0\5\0\xff\0\0\0")
    (cut := tmp_path / "cut").write_bytes(ct.path.read_bytes()[:200])
    for path in (broken, cut, tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match="query file"):
            asked("-f", str(path))


def test_columns() -> None:
    identifier = identifier_of(
        options("-W", "-k", "PatientID", "-k", "0040,0100[0].Modality", "-k", "0008,0005"),
        returned=False,
    )
    assert identifier.columns == (((0x00100020, 0),), ((0x00400100, 0), (0x00080060, 0)))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("", "cannot be read at character 1"),
        ("PatientName[", "'=' was expected"),
        ("PatientName Doe", "'=' was expected"),
        ("Nonsense=1", "no keyword of PS3.6"),
        ("0002,0010=1", "group 0002"),
        ("fffe,e000", "group FFFE"),
        ("PatientName[0].Modality=CT", "no sequence"),
        ("0040,0100[64].Modality=CT", "more items"),
        ("0040,0100.", "character 11"),
    ],
)
def test_wrong_keys(word: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        key(word)
    assert says in str(error.value)
