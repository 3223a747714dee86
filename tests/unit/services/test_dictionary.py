"""The dictionary says what pydicom's does, and brings nothing else along."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib.util import find_spec

import pytest
from pydicom import _uid_dict, datadict
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary

from hilum.services import dictionary
from hilum.services.dictionary import dictionary_vr, tag_for_keyword, uid_dictionary


def test_every_element_has_pydicoms_vr_and_keyword() -> None:
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        assert dictionary_vr(tag) == vr
        if keyword:
            assert tag_for_keyword(keyword) == tag


def test_a_repeating_group() -> None:
    assert dictionary_vr(0x60023000) == datadict.dictionary_VR(0x60023000)


def test_what_is_not_there() -> None:
    assert tag_for_keyword("NoSuchKeyword") is None
    with pytest.raises(KeyError):
        dictionary_vr(0x00090010)


def pydicoms_own_uids() -> dict[str, tuple[str, ...]]:
    """Its file run anew: pynetdicom adds to the table when it is imported."""
    return dict(runpy.run_path(_uid_dict.__file__)["UID_dictionary"])


def test_pydicom_is_not_imported_for_its_tables() -> None:
    program = "import sys; from hilum.services.dictionary import uid_dictionary as uids; uids()"
    program += "; sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_uids_are_pydicoms_and_a_copy() -> None:
    own = pydicoms_own_uids()
    assert len(own) > 400
    found = uid_dictionary()
    assert own.items() <= found.items() <= UID_dictionary.items()
    found.clear()
    assert uid_dictionary()


def test_a_table_is_read_from_its_file_where_pydicom_is_not_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = dictionary._table.__wrapped__
    monkeypatch.delitem(sys.modules, "pydicom._uid_dict", raising=False)
    assert read("_uid_dict").UID_dictionary == pydicoms_own_uids()
    with pytest.raises(FileNotFoundError):
        read("_no_such_table")
    monkeypatch.setattr(dictionary, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pydicom is not installed"):
        read("_no_such_table")
    monkeypatch.setattr(dictionary, "find_spec", find_spec)
    monkeypatch.setattr(dictionary, "spec_from_file_location", lambda *arguments: None)
    with pytest.raises(ImportError, match="Hilum needs pydicom 3"):
        read("_no_such_table")
