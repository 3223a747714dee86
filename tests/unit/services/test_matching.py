from __future__ import annotations

import pytest
from pydicom import Dataset
from tests.unit.services.test_identifier import BIG, EXPLICIT, IMPLICIT, encode

from hilum.services import sop_classes
from hilum.services.identifier import Attribute, read_attributes
from hilum.services.matching import InvalidIdentifier, Key, Level, Matching, Query
from hilum.services.predicates import Range, Texts, Universal
from hilum.services.query_model import (
    FIND_MODELS,
    RETRIEVE_MODELS,
    uids_to_retrieve,
)

PATIENT_ROOT = FIND_MODELS[sop_classes.PATIENT_ROOT_FIND]
STUDY_ROOT = FIND_MODELS[sop_classes.STUDY_ROOT_FIND]


def identifier(level="STUDY", **values):
    ds = Dataset()
    if level:
        ds.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


BASELINE = Matching()


def parse(level="STUDY", matching=BASELINE, **values):
    return Query.parse(identifier(level, **values), matching=matching)


def entity(**values):
    return {one.tag: one.value for one in read_attributes(encode(identifier("", **values)))}


# ── reading ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_bytes_and_data_sets_say_the_same(syntax):
    ds = identifier(
        SpecificCharacterSet="ISO_IR 100", PatientName="Jäger*", StudyDate="20240101-",
        StudyInstanceUID=["1.2", "1.3"], Rows=512, AccessionNumber="",
    )  # fmt: skip
    query = Query.parse(encode(ds, syntax), syntax)
    assert query == Query.parse(ds)
    assert query.level is Level.STUDY
    assert query.charset == b"ISO_IR 100"
    assert [key.tag for key in query.keys] == [
        0x00080020, 0x00080050, 0x00100010, 0x0020000D, 0x00280010,
    ]  # fmt: skip
    date, accession, name, uid, _ = query.keys
    assert date.predicate == Range("DA", "20240101", "")
    assert accession.is_universal
    assert isinstance(name.predicate, Texts) and name.predicate.wild[0].text == "jager*"
    assert isinstance(uid.predicate, Texts) and uid.predicate.literals == {"1.2", "1.3"}


def test_text_without_a_character_set_is_read_by_the_fallback():
    ds = identifier(PatientName="Jäger", SpecificCharacterSet="ISO_IR 100")
    data = encode(ds)
    data = data[data.index(b"\x08\0\x52\0") :]  # (0008,0005) is cut off
    query = Query.parse(data, fallback="latin1")
    assert query.matches(entity(PatientName="Jäger", SpecificCharacterSet="ISO_IR 100"))


@pytest.mark.parametrize("named", ["study", "STUDY ", "Study"])
def test_levels_are_read_leniently(named):
    ds = Dataset()
    ds.add_new(0x00080052, "LO", named)
    assert Query.parse(ds).level is Level.STUDY


def test_instances_are_of_level_image():
    assert parse("INSTANCE").level is Level.IMAGE


@pytest.mark.parametrize(
    ("values", "status", "offending"),
    [
        ({"level": "NOWHERE"}, 0xA900, (0x00080052,)),
        ({"StudyDate": "2024-2025-2026"}, 0xC000, (0x00080020,)),
        ({"StudyTime": "99"}, 0xC000, (0x00080030,)),
        ({"ProcedureCodeSequence": [Dataset(), Dataset()]}, 0xA900, (0x00081032,)),
    ],
)
def test_identifiers_that_cannot_be_answered(values, status, offending):
    ds = Dataset()
    ds.QueryRetrieveLevel = values.pop("level", "STUDY")
    for keyword, value in values.items():
        vr = {"StudyDate": "LO", "StudyTime": "LO"}.get(keyword)
        if vr:
            ds.add_new(keyword, vr, value)
        else:
            setattr(ds, keyword, value)
    with pytest.raises(InvalidIdentifier) as refused:
        Query.parse(ds)
    assert (refused.value.status, refused.value.offending) == (status, offending)
    assert "2025" not in str(refused.value)


def test_bytes_that_are_no_data_set():
    with pytest.raises(InvalidIdentifier) as refused:
        Query.parse(b"x" * 99)
    assert refused.value.status == 0xC000


def test_too_many_keys(monkeypatch):
    monkeypatch.setattr("hilum.services.matching.MAX_KEYS", 3)
    values = {"PatientID": "1", "AccessionNumber": "A"}
    assert len(parse(ProcedureCodeSequence=[sequence()], **values).keys) == 3
    with pytest.raises(InvalidIdentifier, match="more than 3 keys"):
        parse(ProcedureCodeSequence=[sequence(CodeValue="")], **values)


def test_what_is_no_key():
    ds = identifier(SpecificCharacterSet="ISO_IR 100")
    ds.add_new(0x00080000, "UL", 12)
    ds.add_new(0x00080001, "UL", 12)
    assert Query.parse(ds).keys == ()


def test_private_keys_are_kept_with_their_own_vr():
    ds = identifier()
    ds.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "x*")
    query = Query.parse(encode(ds))
    assert query.key(0x00091001).predicate.matches("xy")
    assert Query.parse(encode(ds, IMPLICIT), IMPLICIT).key(0x00091001).is_universal


# ── matching ──────────────────────────────────────────────────────────────────────────────────


def test_every_key_has_to_match_and_a_missing_value_matches_no_value():
    query = parse(PatientID="1", AccessionNumber="A*", StudyID="")
    assert query.matches({0x00100020: "1", 0x00080050: "AB"})
    assert not query.matches({0x00100020: "1", 0x00080050: "B"})
    assert not query.matches({0x00100020: "1"})
    assert not query.matches({0x00100020: None, 0x00080050: "A"})


def test_numbers_may_be_numbers():
    assert parse(InstanceNumber="3").matches({0x00200013: 3})
    assert not parse(InstanceNumber="3").matches({0x00200013: b"3"})


def sequence(**values):
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def test_sequences_match_by_one_item():
    query = parse(ProcedureCodeSequence=[sequence(CodeValue="A", CodingSchemeDesignator="L")])
    one = sequence(CodeValue="A", CodingSchemeDesignator="L")
    halves = [sequence(CodeValue="A"), sequence(CodingSchemeDesignator="L")]
    assert query.matches(entity(ProcedureCodeSequence=[sequence(CodeValue="X"), one]))
    assert not query.matches(entity(ProcedureCodeSequence=halves))
    assert not query.matches(entity())
    assert not query.matches({0x00081032: "junk"})


def test_a_sequence_written_as_a_text_asks_for_nothing():
    ds = identifier()
    ds.add_new(0x00081032, "LO", "not a sequence")
    query = Query.parse(encode(ds))
    assert query.key(0x00081032) == Key(0x00081032, "SQ")
    assert query.matches(entity())


def test_bytes_ask_for_nothing():
    ds = identifier()
    ds.add_new(0x00091001, "UN", b"\1\2")
    assert Query.parse(ds) == Query.parse(encode(ds))
    assert Query.parse(ds).key(0x00091001).is_universal


def test_sequences_without_keys_are_universal():
    for key in ([], [Dataset()], [sequence(CodeValue="")]):
        query = parse(ProcedureCodeSequence=key)
        assert query.key(0x00081032).is_universal
        assert query.matches(entity())
        assert query.key(0x00081032).matches(None) and query.key(0x00081032).matches("junk")


def test_the_query_without_some_keys():
    query = parse(PatientID="1", AccessionNumber="A").without([0x00080050])
    assert query.matches({0x00100020: "1"})
    assert Key(0x00081032, "SQ", Texts(())).matches(None)  # nothing inside a sequence is absent


MOMENT = {"StudyDate": "20240101-20240103", "StudyTime": "1000-1100"}


@pytest.mark.parametrize(
    ("date", "time", "apart", "together"),
    [
        ("20240102", "1200", False, True),
        ("20240101", "0959", False, False),
        ("20240101", "1000", True, True),
        ("20240103", "1100", True, True),
        ("20240103", "110059.9", True, True),
        ("20240103", "1101", False, False),
        ("20240104", "1030", False, False),
        ("20231231", "1030", False, False),
        ("20240102", "", False, False),
    ],
)
def test_dates_and_times_match_apart_or_together(date, time, apart, together):
    found = {0x00080020: date, 0x00080030: time}
    assert parse(**MOMENT).matches(found) is apart
    assert parse(matching=Matching(combined=True), **MOMENT).matches(found) is together


def test_open_moments():
    query = parse(matching=Matching(combined=True), StudyDate="20240101-", StudyTime="1000-")
    assert query.matches({0x00080020: "20240102", 0x00080030: "0900"})
    assert not query.matches({0x00080020: "20240101", 0x00080030: "0900"})
    query = parse(matching=Matching(combined=True), StudyDate="-20240101", StudyTime="-1000")
    assert query.matches({0x00080020: "20231231", 0x00080030: "2300"})
    assert not query.matches({0x00080020: "20240101", 0x00080030: "1100"})
    assert query.without([0x00080030]).combined == ()


def test_time_zones_move_dates_and_times_when_negotiated():
    matching = Matching(timezone=True)
    values = {"StudyDate": "20240102", "TimezoneOffsetFromUTC": "+0900"}
    late = {0x00080020: "20240101", 0x00080030: "180030.5", 0x00080201: "+0100"}
    assert parse(matching=matching, **values).matches(late)
    assert not parse(**values).matches(late)
    assert parse(matching=matching, StudyTime="0200-0201", TimezoneOffsetFromUTC="+0900").matches(
        late
    )
    # What does not say its zone, or has no time, is taken as it is.
    assert not parse(matching=matching, **values).matches({**late, 0x00080201: ""})
    assert not parse(matching=matching, **values).matches({**late, 0x00080030: ""})
    both = Matching(timezone=True, combined=True)
    assert parse(
        matching=both, StudyDate="20240102", StudyTime="02", TimezoneOffsetFromUTC="+0900"
    ).matches(late)
    assert parse(matching=matching, **values).key(0x00080201).is_universal
    last = {0x00080020: "99991231", 0x00080030: "23", 0x00080201: "-1000"}
    assert not parse(matching=matching, **values).matches(last)


# ── models ────────────────────────────────────────────────────────────────────────────────────


def test_levels_of_the_models():
    assert PATIENT_ROOT.check(parse("PATIENT")) is Level.PATIENT
    for model, query in ((STUDY_ROOT, parse("PATIENT")), (STUDY_ROOT, parse(""))):
        with pytest.raises(InvalidIdentifier) as refused:
            model.check(query)
        assert (refused.value.status, refused.value.offending) == (0xA900, (0x00080052,))


def test_a_query_of_series_has_to_name_something():
    with pytest.raises(InvalidIdentifier) as refused:
        STUDY_ROOT.check(parse("SERIES", SeriesInstanceUID="", StudyInstanceUID="*"))
    assert refused.value.offending == (0x0020000D,)
    assert STUDY_ROOT.check(parse("SERIES"), relational=True) is Level.SERIES
    assert STUDY_ROOT.check(parse("SERIES", Modality="CT")) is Level.SERIES
    assert PATIENT_ROOT.check(parse("STUDY")) is Level.STUDY


def test_a_strict_model_wants_every_unique_key_above():
    with pytest.raises(InvalidIdentifier) as refused:
        PATIENT_ROOT.check(parse("STUDY"), strict=True)
    assert refused.value.offending == (0x00100020,)
    for values in ({"PatientID": "1*"}, {"PatientID": "1\\2"}):
        ds = identifier()
        ds.add_new(0x00100020, "LO", values["PatientID"])
        with pytest.raises(InvalidIdentifier):
            PATIENT_ROOT.check(Query.parse(ds), strict=True)
    assert PATIENT_ROOT.check(parse("STUDY", PatientID="1"), strict=True) is Level.STUDY
    assert STUDY_ROOT.check(parse("STUDY"), strict=True) is Level.STUDY


MOVE = RETRIEVE_MODELS[sop_classes.STUDY_ROOT_MOVE]


def test_what_a_retrieve_names():
    assert uids_to_retrieve(MOVE, parse(StudyInstanceUID=["1.3", "1.2"], PatientID="P")) == {
        0x00100020: ("P",),
        0x0020000D: ("1.2", "1.3"),
    }
    assert uids_to_retrieve(MOVE, parse("IMAGE", SOPInstanceUID="1.4", SeriesInstanceUID="")) == {
        0x00080018: ("1.4",)
    }
    # What is below the level does not narrow it.
    named = uids_to_retrieve(MOVE, parse(StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1"))
    assert named == {0x0020000D: ("1.2",)}


@pytest.mark.parametrize(
    ("level", "values", "offending"),
    [
        ("STUDY", {}, 0x0020000D),
        ("STUDY", {"StudyInstanceUID": "*"}, 0x0020000D),
        ("SERIES", {"StudyInstanceUID": "1.2"}, 0x0020000E),
        ("PATIENT", {"PatientID": "1"}, 0x00080052),
        ("", {"StudyInstanceUID": "1.2"}, 0x00080052),
        ("STUDY", {"StudyInstanceUID": "1.*"}, 0x0020000D),
    ],
)
def test_what_a_retrieve_has_to_name(level, values, offending):
    ds = identifier(level)
    for keyword, value in values.items():
        ds.add_new(keyword, "LO", value)
    with pytest.raises(InvalidIdentifier) as refused:
        uids_to_retrieve(MOVE, Query.parse(ds))
    assert (refused.value.status, refused.value.offending) == (0xA900, (offending,))


def test_composite_instances_are_named_alone():
    model = RETRIEVE_MODELS[sop_classes.COMPOSITE_INSTANCE_ROOT_GET]
    assert uids_to_retrieve(model, parse("IMAGE", SOPInstanceUID="1.4")) == {0x00080018: ("1.4",)}


def test_attributes_of_a_header_can_be_matched():
    header = read_attributes(encode(identifier("", PatientName="Doe^Jane", StudyDate="20240101")))
    query = Query.of(
        (Attribute(0x00100010, "PN", "doe*"), Attribute(0x00080020, "DA", "2024.01.01"))
    )
    assert query.matches({one.tag: one.value for one in header})
    assert query.key(0x00100020) is None and Universal().matches("")
