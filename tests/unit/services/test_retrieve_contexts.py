"""What a C-GET's requestor proposes: everything known in every syntax, then what is usual."""

from __future__ import annotations

import pytest

from hilum.services.retrieve_contexts import (
    COMPRESSED,
    MAX_CONTEXTS,
    UNCOMPRESSED,
    storage_contexts,
)
from hilum.services.sop_classes import STORAGE_SOP_CLASSES, STUDY_ROOT_GET
from hilum.services.transfer_syntaxes import TRANSFER_SYNTAXES
from hilum.wire.negotiation import presentation_contexts
from hilum.wire.pdu import AssociateRQ

ARC = "1.2.840.10008.5.1.4.1.1."
CT, MR, SR = ARC + "2", ARC + "4", ARC + "88.33"


def test_a_known_image_class_has_a_context_of_every_syntax() -> None:
    contexts = storage_contexts([CT, CT], others=False)
    assert contexts[0] == (CT, UNCOMPRESSED)
    assert len(contexts) == len(set(contexts))
    single = {syntaxes[0] for _, syntaxes in contexts[1:]}
    assert all(len(syntaxes) == 1 for _, syntaxes in contexts[1:])
    assert single >= {*COMPRESSED, UNCOMPRESSED[1]}
    assert single <= TRANSFER_SYNTAXES.keys()


def test_what_has_no_pixels_is_not_compressed() -> None:
    single = {syntaxes for _, syntaxes in storage_contexts([SR], others=False)}
    assert not {(syntax,) for syntax in COMPRESSED} & single


def test_a_private_class_may_be_anything() -> None:
    assert ("1.2.3", COMPRESSED[:1]) in storage_contexts(["1.2.3"])


def test_the_usual_classes_take_the_room_that_is_left() -> None:
    contexts = storage_contexts([ARC + "66.4", MR])
    assert len(contexts) == MAX_CONTEXTS - 1
    assert contexts[:2] == ((ARC + "66.4", UNCOMPRESSED), (MR, UNCOMPRESSED))
    assert (CT, UNCOMPRESSED) in contexts


def test_every_class_that_is_known_can_come_whatever_else_there_is_no_room_for() -> None:
    many = sorted(STORAGE_SOP_CLASSES)[:50]
    for compressed_first in (False, True):
        contexts = storage_contexts(many, compressed_first=compressed_first)
        assert {(uid, UNCOMPRESSED) for uid in many} <= set(contexts)
        assert len(contexts) == MAX_CONTEXTS - 1


@pytest.mark.parametrize("known", [[], [CT]])
def test_compressed_first(known: list[str]) -> None:
    contexts = storage_contexts(known, compressed_first=True)
    of_ct = [syntaxes for uid, syntaxes in contexts if uid == CT]
    assert of_ct.index(UNCOMPRESSED) > of_ct.index(COMPRESSED[:1])
    assert set(of_ct) == {syntaxes for uid, syntaxes in storage_contexts(known) if uid == CT}


def test_without_knowledge_images_are_proposed_as_they_are_found() -> None:
    contexts = storage_contexts()
    assert len(contexts) == MAX_CONTEXTS - 1
    assert {uid for uid, _ in contexts} <= STORAGE_SOP_CLASSES
    assert {(CT, (syntax,)) for syntax in COMPRESSED[:2]} <= set(contexts)
    assert len({uid for uid, _ in contexts}) > 70


def test_uncompressed_only() -> None:
    assert {syntaxes for _, syntaxes in storage_contexts(compressed=False)} == {UNCOMPRESSED}


@pytest.mark.parametrize("known", [[], [CT, MR, SR, "1.2.3"]])
def test_the_request_is_no_longer_than_those_of_others(known: list[str]) -> None:
    contexts = ((STUDY_ROOT_GET, UNCOMPRESSED), *storage_contexts(known))
    rq = AssociateRQ(
        called_ae_title="A", calling_ae_title="B", contexts=presentation_contexts(contexts)
    )
    assert len(rq.encode()) < 17_000  # field notes A 9: as DCMTK's getscu sends
