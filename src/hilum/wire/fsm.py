"""The DICOM upper-layer state machine: PS3.8 9.2, Table 9-10, as a table.

Theory, in a page. An association end is in one of thirteen states. What happens to it is one of
nineteen events: a primitive from our own user (Evt1, 7, 8, 9, 11, 14, 15), something of the
transport (Evt2, 5, 17, 18) or a PDU from the peer (Evt3, 4, 6, 10, 12, 13, 16, 19). ``TABLE`` says
for each pair which action is taken and which states may follow; a pair that is absent cannot
happen (a local one is our caller's mistake, a remote one cannot be received in that state because
there is no transport connection yet). Only ``wire/connection.py`` looks here, and nothing else in
Hilum changes a state.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

__all__ = ["TABLE", "Action", "Cell", "Event", "State"]


class State(IntEnum):
    """PS3.8 Tables 9-1 to 9-5."""

    Sta1 = 1  # idle
    Sta2 = 2  # transport connection open, awaiting A-ASSOCIATE-RQ
    Sta3 = 3  # awaiting our user's A-ASSOCIATE response
    Sta4 = 4  # awaiting the transport connection
    Sta5 = 5  # awaiting A-ASSOCIATE-AC or -RJ
    Sta6 = 6  # association established
    Sta7 = 7  # awaiting A-RELEASE-RP
    Sta8 = 8  # awaiting our user's A-RELEASE response
    Sta9 = 9  # release collision, requestor side: awaiting our user's A-RELEASE response
    Sta10 = 10  # release collision, acceptor side: awaiting A-RELEASE-RP
    Sta11 = 11  # release collision, requestor side: awaiting A-RELEASE-RP
    Sta12 = 12  # release collision, acceptor side: awaiting our user's A-RELEASE response
    Sta13 = 13  # awaiting the transport connection's close


class Event(IntEnum):
    """PS3.8 Table 9-10, its rows."""

    Evt1 = 1  # A-ASSOCIATE request (local user)
    Evt2 = 2  # transport connection confirmed
    Evt3 = 3  # A-ASSOCIATE-AC PDU
    Evt4 = 4  # A-ASSOCIATE-RJ PDU
    Evt5 = 5  # transport connection indication
    Evt6 = 6  # A-ASSOCIATE-RQ PDU
    Evt7 = 7  # A-ASSOCIATE response, accept (local user)
    Evt8 = 8  # A-ASSOCIATE response, reject (local user)
    Evt9 = 9  # P-DATA request (local user)
    Evt10 = 10  # P-DATA-TF PDU
    Evt11 = 11  # A-RELEASE request (local user)
    Evt12 = 12  # A-RELEASE-RQ PDU
    Evt13 = 13  # A-RELEASE-RP PDU
    Evt14 = 14  # A-RELEASE response (local user)
    Evt15 = 15  # A-ABORT request (local user)
    Evt16 = 16  # A-ABORT PDU
    Evt17 = 17  # transport connection closed
    Evt18 = 18  # ARTIM timer expired
    Evt19 = 19  # unrecognised or invalid PDU


class Action(StrEnum):
    """PS3.8 Tables 9-6 to 9-9."""

    AE_1 = "AE-1"  # open the transport connection
    AE_2 = "AE-2"  # send A-ASSOCIATE-RQ
    AE_3 = "AE-3"  # confirm: accepted
    AE_4 = "AE-4"  # confirm: rejected; close the transport
    AE_5 = "AE-5"  # answer the transport's indication; start ARTIM
    AE_6 = "AE-6"  # stop ARTIM; indicate, or reject what this provider cannot serve
    AE_7 = "AE-7"  # send A-ASSOCIATE-AC
    AE_8 = "AE-8"  # send A-ASSOCIATE-RJ; start ARTIM
    DT_1 = "DT-1"  # send P-DATA-TF
    DT_2 = "DT-2"  # indicate P-DATA
    AR_1 = "AR-1"  # send A-RELEASE-RQ
    AR_2 = "AR-2"  # indicate A-RELEASE
    AR_3 = "AR-3"  # confirm A-RELEASE; close the transport
    AR_4 = "AR-4"  # send A-RELEASE-RP; start ARTIM
    AR_5 = "AR-5"  # stop ARTIM
    AR_6 = "AR-6"  # indicate P-DATA
    AR_7 = "AR-7"  # send P-DATA-TF
    AR_8 = "AR-8"  # indicate A-RELEASE (collision)
    AR_9 = "AR-9"  # send A-RELEASE-RP
    AR_10 = "AR-10"  # confirm A-RELEASE
    AA_1 = "AA-1"  # send A-ABORT (service user, or provider where the peer was wrong); start ARTIM
    AA_2 = "AA-2"  # stop ARTIM; close the transport
    AA_3 = "AA-3"  # indicate the peer's abort; close the transport
    AA_4 = "AA-4"  # indicate A-P-ABORT
    AA_5 = "AA-5"  # stop ARTIM
    AA_6 = "AA-6"  # ignore the PDU
    AA_7 = "AA-7"  # send A-ABORT
    AA_8 = "AA-8"  # send A-ABORT (provider); indicate A-P-ABORT; start ARTIM


class Cell(NamedTuple):
    """One cell: what is done, and which states may follow."""

    action: Action
    states: tuple[State, ...]


# Rows are events, columns Sta1 … Sta13; "AE-6/3|13" is action AE-6 leading to Sta3 or Sta13.
_ROWS = """
      Sta1   Sta2      Sta3    Sta4   Sta5    Sta6    Sta7       Sta8    Sta9    Sta10    Sta11   Sta12   Sta13
Evt1  AE-1/4 -         -       -      -       -       -          -       -       -        -       -       -
Evt2  -      -         -       AE-2/5 -       -       -          -       -       -        -       -       -
Evt3  -      AA-1/13   AA-8/13 -      AE-3/6  AA-8/13 AA-8/13    AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt4  -      AA-1/13   AA-8/13 -      AE-4/1  AA-8/13 AA-8/13    AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt5  AE-5/2 -         -       -      -       -       -          -       -       -        -       -       -
Evt6  -      AE-6/3|13 AA-8/13 -      AA-8/13 AA-8/13 AA-8/13    AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-7/13
Evt7  -      -         AE-7/6  -      -       -       -          -       -       -        -       -       -
Evt8  -      -         AE-8/13 -      -       -       -          -       -       -        -       -       -
Evt9  -      -         -       -      -       DT-1/6  -          AR-7/8  -       -        -       -       -
Evt10 -      AA-1/13   AA-8/13 -      AA-8/13 DT-2/6  AR-6/7     AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt11 -      -         -       -      -       AR-1/7  -          -       -       -        -       -       -
Evt12 -      AA-1/13   AA-8/13 -      AA-8/13 AR-2/8  AR-8/9|10  AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-6/13
Evt13 -      AA-1/13   AA-8/13 -      AA-8/13 AA-8/13 AR-3/1     AA-8/13 AA-8/13 AR-10/12 AR-3/1  AA-8/13 AA-6/13
Evt14 -      -         -       -      -       -       -          AR-4/13 AR-9/11 -        -       AR-4/13 -
Evt15 -      -         AA-1/13 AA-2/1 AA-1/13 AA-1/13 AA-1/13    AA-1/13 AA-1/13 AA-1/13  AA-1/13 AA-1/13 -
Evt16 -      AA-2/1    AA-3/1  -      AA-3/1  AA-3/1  AA-3/1     AA-3/1  AA-3/1  AA-3/1   AA-3/1  AA-3/1  AA-2/1
Evt17 -      AA-5/1    AA-4/1  AA-4/1 AA-4/1  AA-4/1  AA-4/1     AA-4/1  AA-4/1  AA-4/1   AA-4/1  AA-4/1  AR-5/1
Evt18 -      AA-2/1    -       -      -       -       -          -       -       -        -       -       AA-2/1
Evt19 -      AA-1/13   AA-8/13 -      AA-8/13 AA-8/13 AA-8/13    AA-8/13 AA-8/13 AA-8/13  AA-8/13 AA-8/13 AA-7/13
"""


def _parse(rows: str) -> dict[Event, dict[State, Cell]]:
    table: dict[Event, dict[State, Cell]] = {}
    for row in rows.strip().splitlines()[1:]:
        name, *cells = row.split()
        table[Event[name]] = line = {}
        for state, cell in zip(State, cells, strict=True):
            if cell != "-":
                action, _, following = cell.partition("/")
                line[state] = Cell(
                    Action(action), tuple(State(int(s)) for s in following.split("|"))
                )
    return table


TABLE = _parse(_ROWS)
