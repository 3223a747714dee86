from __future__ import annotations

from hilum.services.identifier import Attribute
from hilum.services.matching import Query
from hilum.services.selection import select

NAME, ID, ROWS, STEPS, MODALITY, STATION, CODES, PRIVATE = (
    0x00100010, 0x00100020, 0x00280010, 0x00400100, 0x00080060, 0x00400001, 0x00081032, 0x00091001,
)  # fmt: skip


def test_what_is_asked_for_is_returned() -> None:
    query = Query.of([
        Attribute(NAME, "PN", "Doe*"),
        Attribute(ID, "LO", ""),
        Attribute(ROWS, "US", ""),
        Attribute(PRIVATE, "UN", b""),
        Attribute(STEPS, "SQ", ((Attribute(MODALITY, "CS", "CT"), Attribute(STATION, "AE", "")),)),
        Attribute(CODES, "SQ", ()),
    ])  # fmt: skip
    code = (Attribute(0x00080100, "SH", "X"),)
    step = (Attribute(MODALITY, "CS", "CT"), Attribute(0x00400002, "DA", "20261126"))
    found = select(
        query.keys,
        {
            NAME: "Doe^John",
            ROWS: 512,
            STEPS: (step,),
            CODES: (code,),
            PRIVATE: b"ab",
            0x00080020: "x",
        },
    )
    assert {one.tag: one.value for one in found} == {
        NAME: "Doe^John",
        ID: "",
        ROWS: "512",
        PRIVATE: b"ab",
        STEPS: ((Attribute(MODALITY, "CS", "CT"), Attribute(STATION, "AE", "")),),
        CODES: (code,),
    }


def test_what_an_entity_has_not() -> None:
    query = Query.of([Attribute(STEPS, "SQ", ()), Attribute(NAME, "PN", "")])
    assert [one.value for one in select(query.keys, {NAME: ((),)})] == ["", ()]
