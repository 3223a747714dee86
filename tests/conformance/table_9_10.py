"""PS3.8 9.2 transcribed for the second time, by another hand than `hilum.wire.fsm`.

Nothing here is imported from the implementation: two transcriptions that agree in all 247 cells
are the check. Rows are events, columns are states; a cell is action/next state, `-` is a blank
cell (the event cannot happen in that state, or is an error of our own), `9|10` means that the
action decides which of the two states comes next.

Standard: PS3.8 9.2.1 (Tables 9-1 to 9-5), 9.2.2 (Tables 9-6 to 9-9), 9.2.3 (Table 9-10).
"""

from __future__ import annotations

_ACTIONS = """
AE-1    4     ask the transport service for a connection
AE-2    5     send A-ASSOCIATE-RQ
AE-3    6     tell the local user that the association was accepted
AE-4    1     tell the local user that the association was rejected; close the transport
AE-5    2     take the incoming transport connection; start ARTIM
AE-6    3|13  stop ARTIM; hand an acceptable request to the user, else send RJ and start ARTIM
AE-7    6     send A-ASSOCIATE-AC
AE-8    13    send A-ASSOCIATE-RJ; start ARTIM
DT-1    6     send P-DATA-TF
DT-2    6     hand received P-DATA to the local user
AR-1    7     send A-RELEASE-RQ
AR-2    8     tell the local user that the peer asks for release
AR-3    1     tell the local user that the release is done; close the transport
AR-4    13    send A-RELEASE-RP; start ARTIM
AR-5    1     stop ARTIM
AR-6    7     hand P-DATA that came after our release request to the local user
AR-7    8     send P-DATA-TF after the peer's release request
AR-8    9|10  tell the local user of a release collision; requestor to Sta9, acceptor to Sta10
AR-9    11    send A-RELEASE-RP in a collision, as requestor
AR-10   12    tell the local user, in a collision, that the peer answered our release request
AA-1    13    send A-ABORT with source service-user; start ARTIM anew
AA-2    1     stop ARTIM if it runs; close the transport
AA-3    1     tell the local user of the abort by the peer's user or provider; close the transport
AA-4    1     tell the local user that the provider aborted (the transport is gone)
AA-5    1     stop ARTIM
AA-6    13    ignore the PDU
AA-7    13    send A-ABORT
AA-8    13    send A-ABORT with source service-provider; tell the local user; start ARTIM
"""

_STATES = """
1   idle
2   transport open, awaiting A-ASSOCIATE-RQ
3   awaiting the local A-ASSOCIATE response
4   awaiting the opening of the transport connection
5   awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ
6   established, ready for data transfer
7   awaiting A-RELEASE-RP
8   awaiting the local A-RELEASE response
9   release collision, requestor: awaiting the local A-RELEASE response
10  release collision, acceptor: awaiting A-RELEASE-RP
11  release collision, requestor: awaiting A-RELEASE-RP
12  release collision, acceptor: awaiting the local A-RELEASE response
13  association over, awaiting the close of the transport connection
"""

_EVENTS = """
1   A-ASSOCIATE request from the local user
2   transport connection confirmed
3   A-ASSOCIATE-AC received
4   A-ASSOCIATE-RJ received
5   transport connection indicated
6   A-ASSOCIATE-RQ received
7   A-ASSOCIATE response (accept) from the local user
8   A-ASSOCIATE response (reject) from the local user
9   P-DATA request from the local user
10  P-DATA-TF received
11  A-RELEASE request from the local user
12  A-RELEASE-RQ received
13  A-RELEASE-RP received
14  A-RELEASE response from the local user
15  A-ABORT request from the local user
16  A-ABORT received
17  transport connection closed
18  ARTIM timer expired
19  unrecognised or invalid PDU received
"""

_TABLE = """
Evt  Sta1    Sta2       Sta3     Sta4    Sta5     Sta6     Sta7       Sta8     Sta9     Sta10     Sta11    Sta12    Sta13
1    AE-1/4  -          -        -       -        -        -          -        -        -         -        -        -
2    -       -          -        AE-2/5  -        -        -          -        -        -         -        -        -
3    -       AA-1/13    AA-8/13  -       AE-3/6   AA-8/13  AA-8/13    AA-8/13  AA-8/13  AA-8/13   AA-8/13  AA-8/13  AA-6/13
4    -       AA-1/13    AA-8/13  -       AE-4/1   AA-8/13  AA-8/13    AA-8/13  AA-8/13  AA-8/13   AA-8/13  AA-8/13  AA-6/13
5    AE-5/2  -          -        -       -        -        -          -        -        -         -        -        -
6    -       AE-6/3|13  AA-8/13  -       AA-8/13  AA-8/13  AA-8/13    AA-8/13  AA-8/13  AA-8/13   AA-8/13  AA-8/13  AA-7/13
7    -       -          AE-7/6   -       -        -        -          -        -        -         -        -        -
8    -       -          AE-8/13  -       -        -        -          -        -        -         -        -        -
9    -       -          -        -       -        DT-1/6   -          AR-7/8   -        -         -        -        -
10   -       AA-1/13    AA-8/13  -       AA-8/13  DT-2/6   AR-6/7     AA-8/13  AA-8/13  AA-8/13   AA-8/13  AA-8/13  AA-6/13
11   -       -          -        -       -        AR-1/7   -          -        -        -         -        -        -
12   -       AA-1/13    AA-8/13  -       AA-8/13  AR-2/8   AR-8/9|10  AA-8/13  AA-8/13  AA-8/13   AA-8/13  AA-8/13  AA-6/13
13   -       AA-1/13    AA-8/13  -       AA-8/13  AA-8/13  AR-3/1     AA-8/13  AA-8/13  AR-10/12  AR-3/1   AA-8/13  AA-6/13
14   -       -          -        -       -        -        -          AR-4/13  AR-9/11  -         -        AR-4/13  -
15   -       -          AA-1/13  AA-2/1  AA-1/13  AA-1/13  AA-1/13    AA-1/13  AA-1/13  AA-1/13   AA-1/13  AA-1/13  -
16   -       AA-2/1     AA-3/1   -       AA-3/1   AA-3/1   AA-3/1     AA-3/1   AA-3/1   AA-3/1    AA-3/1   AA-3/1   AA-2/1
17   -       AA-5/1     AA-4/1   AA-4/1  AA-4/1   AA-4/1   AA-4/1     AA-4/1   AA-4/1   AA-4/1    AA-4/1   AA-4/1   AR-5/1
18   -       AA-2/1     -        -       -        -        -          -        -        -         -        -        AA-2/1
19   -       AA-1/13    AA-8/13  -       AA-8/13  AA-8/13  AA-8/13    AA-8/13  AA-8/13  AA-8/13   AA-8/13  AA-8/13  AA-7/13
"""


def _rows(block: str, columns: int) -> list[list[str]]:
    """Split a block into rows; every row has exactly that many columns, the last takes the rest."""
    rows = [line.split(maxsplit=columns - 1) for line in block.strip().splitlines()]
    if any(len(row) != columns for row in rows):
        raise ValueError("a row of the transcription has a cell too few")
    return rows


def _cells() -> dict[tuple[int, int], tuple[str, str] | None]:
    header, *rows = _rows(_TABLE, 14)
    states = [int(name.removeprefix("Sta")) for name in header[1:]]
    cells: dict[tuple[int, int], tuple[str, str] | None] = {}
    for event, *row in rows:
        for state, cell in zip(states, row, strict=True):
            action, _, next_state = cell.partition("/")
            cells[int(event), state] = None if cell == "-" else (action, next_state)
    return cells


ACTIONS: dict[str, str] = {action: text for action, _, text in _rows(_ACTIONS, 3)}
"""Tables 9-6 to 9-9: action to what it does, in our own words."""

NEXT_STATE: dict[str, str] = {action: state for action, state, _ in _rows(_ACTIONS, 3)}
"""Tables 9-6 to 9-9: action to the state or states that it leads to, as `4` or `9|10`."""

STATES: dict[int, str] = {int(number): text for number, text in _rows(_STATES, 2)}
"""Tables 9-1 to 9-5."""

EVENTS: dict[int, str] = {int(number): text for number, text in _rows(_EVENTS, 2)}
"""The row headings of Table 9-10."""

TABLE_9_10: dict[tuple[int, int], tuple[str, str] | None] = _cells()
"""(event, state) to (action, next state), or None for a blank cell: 247 entries."""
