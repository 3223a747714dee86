from __future__ import annotations

import pytest

from hilum.cli.storage_contexts import retrieve_contexts
from hilum.errors import ConfigurationError
from hilum.services.retrieve_contexts import MAX_CONTEXTS
from hilum.services.sop_classes import STORAGE_SOP_CLASSES, STUDY_ROOT_GET
from hilum.wire.negotiation import presentation_contexts
from hilum.wire.pdu import AssociateRQ

ARC = "1.2.840.10008.5.1.4.1.1."


def test_the_usual_contexts_fill_one_association() -> None:
    contexts = retrieve_contexts(STUDY_ROOT_GET)
    assert contexts[0][0] == STUDY_ROOT_GET
    assert len(contexts) == MAX_CONTEXTS
    classes = {abstract for abstract, _ in contexts[1:]}
    assert classes <= STORAGE_SOP_CLASSES
    for number in ("2", "4", "1.2", "77.1.6", "88.67", "481.5", "66.4", "9.1.1", "104.1"):
        assert ARC + number in classes
    rq = AssociateRQ(
        called_ae_title="A", calling_ae_title="B", contexts=presentation_contexts(contexts)
    )
    assert len(rq.encode()) < 17_000  # DCMTK's getscu sends as much


def test_images_can_come_compressed_and_uncompressed() -> None:
    of_ct = [
        syntaxes
        for abstract, syntaxes in retrieve_contexts(STUDY_ROOT_GET)
        if abstract == ARC + "2"
    ]
    assert len(of_ct[0]) == 2
    assert len(of_ct) > 4
    assert all(len(syntaxes) == 1 for syntaxes in of_ct[1:])


def test_uncompressed_only() -> None:
    contexts = retrieve_contexts(STUDY_ROOT_GET, compressed=False)
    assert len({syntaxes for _, syntaxes in contexts}) == 1
    assert len({abstract for abstract, _ in contexts}) == MAX_CONTEXTS


def test_named_classes() -> None:
    contexts = retrieve_contexts(STUDY_ROOT_GET, ["CTImageStorage", "1.2.3.4"])
    assert {abstract for abstract, _ in contexts} == {STUDY_ROOT_GET, ARC + "2", "1.2.3.4"}
    assert sum(len(syntaxes) == 1 for _, syntaxes in contexts) > 40
    many = retrieve_contexts(STUDY_ROOT_GET, sorted(STORAGE_SOP_CLASSES)[:120])
    assert len(many) == MAX_CONTEXTS
    assert len(retrieve_contexts(STUDY_ROOT_GET, ["1.2.3.4"], compressed=False)) == 3


@pytest.mark.parametrize("word", ["Verification", "1.2.840.10008.1.1", "nonsense", ""])
def test_what_is_no_storage_class(word: str) -> None:
    with pytest.raises(ConfigurationError, match="no storage SOP class"):
        retrieve_contexts(STUDY_ROOT_GET, [word])


def test_too_many() -> None:
    with pytest.raises(ConfigurationError, match="127"):
        retrieve_contexts(STUDY_ROOT_GET, sorted(STORAGE_SOP_CLASSES)[:128])
