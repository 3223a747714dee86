from __future__ import annotations

from types import SimpleNamespace

from hilum.gateway.flow.moves import LATE, Moves
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
    with (
        moves.going_on("HILUM", "10.0.0.1", "PACS", ALICE) as first,
        moves.going_on("HILUM", "10.0.0.1", "PACS", BOB) as second,
    ):
        assert first != second
        assert arrival(moves, "HILUM", first) is ALICE
        assert arrival(moves, "HILUM", second) is BOB
        assert arrival(moves, "HILUM", second, address="10.0.0.9") is BOB
        assert arrival(moves, "HILUM", second, calling="X") is BOB
        assert arrival(moves, "HILUM", second, address="10.0.0.9", calling="X") is None
        assert arrival(moves, "OTHER", first) is None
        assert arrival(moves, None, None) is None


def test_what_comes_late_is_kept_for_no_other():
    """A peer goes on sending when the association of its C-MOVE has been lost."""
    now = 0.0
    moves = Moves(clock=lambda: now)
    with moves.going_on("HILUM", "10.0.0.1", "PACS", ALICE) as first:
        pass
    now = LATE - 1.0
    assert arrival(moves, "HILUM", first) is ALICE
    with moves.going_on("HILUM", "10.0.0.1", "PACS", BOB) as second:
        assert second != first
        now = LATE + 1.0
        assert arrival(moves, "HILUM", first) is None
        assert arrival(moves, "HILUM", second) is BOB


def test_a_process_does_not_begin_with_the_numbers_of_the_one_before():
    numbers = set()
    for _ in range(8):
        with Moves().going_on("HILUM", "10.0.0.1", "PACS", ALICE) as number:
            assert 1 <= number <= 65535
            numbers.add(number)
    assert len(numbers) > 1


def test_numbers_are_used_again_when_there_are_no_others():
    now = 0.0
    moves = Moves(clock=lambda: now)
    for _ in range(65535):
        with moves.going_on("HILUM", "10.0.0.1", "PACS", ALICE):
            pass
    with moves.going_on("HILUM", "10.0.0.1", "PACS", BOB) as number:
        assert arrival(moves, "HILUM", number) is BOB
