from __future__ import annotations

from types import SimpleNamespace

from hilum.gateway.flow.moves import Moves
from hilum.gateway.store.commit import Destination

ALICE, BOB = Destination(1, "alice"), Destination(2, "bob")


def arrival(moves, originator, number, *, address="10.0.0.1", calling="PACS"):
    command = {
        "move_originator_application_entity_title": originator,
        "move_originator_message_id": number,
    }
    association = SimpleNamespace(
        peer=SimpleNamespace(address=address), rq=SimpleNamespace(calling_ae_title=calling)
    )
    return moves.destination(command, association)


def test_what_a_move_brings_belongs_to_its_fetch():
    moves = Moves()
    with moves.going_on("HILUM", "10.0.0.1", "PACS", ALICE) as first:
        with moves.going_on("HILUM", "10.0.0.1", "PACS", BOB) as second:
            assert first != second
            assert arrival(moves, "HILUM", first) is ALICE
            assert arrival(moves, "HILUM", second) is BOB
            assert arrival(moves, "HILUM", second, address="10.0.0.9") is BOB
            assert arrival(moves, "HILUM", second, calling="X") is BOB
            assert arrival(moves, "HILUM", second, address="10.0.0.9", calling="X") is None
            assert arrival(moves, "OTHER", first) is None
            assert arrival(moves, None, None) is None
        assert arrival(moves, "HILUM", second) is None
    assert arrival(moves, "HILUM", first) is None
