"""All 247 cells of PS3.8 Table 9-10: `hilum.wire.fsm` against an independent transcription."""

from __future__ import annotations

import pytest
from tests.conformance.table_9_10 import ACTIONS, EVENTS, NEXT_STATE, STATES, TABLE_9_10

from hilum.wire import fsm

CELLS = [
    pytest.param(event, state, cell, id=f"Evt{event}-Sta{state}")
    for (event, state), cell in TABLE_9_10.items()
]


def implemented(event: int, state: int) -> tuple[str, str] | None:
    """The cell as we have it, in the notation of the transcription."""
    cell = fsm.TABLE.get(fsm.Event(event), {}).get(fsm.State(state))
    if cell is None:
        return None
    return cell.action.value, "|".join(str(int(next_state)) for next_state in sorted(cell.states))


@pytest.mark.parametrize(("event", "state", "cell"), CELLS)
def test_cell(event: int, state: int, cell: tuple[str, str] | None) -> None:
    assert implemented(event, state) == cell


def test_the_transcription_is_whole() -> None:
    assert len(TABLE_9_10) == 247
    assert set(TABLE_9_10) == {(event, state) for event in EVENTS for state in STATES}
    assert sum(cell is not None for cell in TABLE_9_10.values()) == 123


def test_each_cell_goes_where_its_action_says() -> None:
    """Table 9-10 repeats the next state that Tables 9-6 to 9-9 give for the action."""
    used = [cell for cell in TABLE_9_10.values() if cell is not None]
    assert {action for action, _ in used} == set(ACTIONS)
    assert [(action, NEXT_STATE[action]) for action, _ in used] == used


def test_names_and_numbers() -> None:
    assert [event.name for event in fsm.Event] == [f"Evt{number}" for number in EVENTS]
    assert [int(event) for event in fsm.Event] == list(EVENTS)
    assert [state.name for state in fsm.State] == [f"Sta{number}" for number in STATES]
    assert [int(state) for state in fsm.State] == list(STATES)
    assert {action.value for action in fsm.Action} == set(ACTIONS)
