"""The status codes that PS3.4 adds for the operations of its services, as tables.

Codes that every service may answer with (PS3.7 Annex C) are not repeated, unless they have a
meaning of their own. The category follows from the code.

Standard: PS3.4, the clause beside each table.
"""

from __future__ import annotations

from hilum.services.status import Entry, category

__all__ = [
    "COLOR_IMAGE_BOX_SET",
    "DENSITY",
    "FILM_BOX_CREATE",
    "FILM_BOX_PRINT",
    "FILM_SESSION_CREATE",
    "FILM_SESSION_PRINT",
    "FIND",
    "FRAME_GET",
    "FRAME_MOVE",
    "GET",
    "GRAYSCALE_IMAGE_BOX_SET",
    "INVENTORY_ACTION",
    "MACHINE_CREATE",
    "MACHINE_INSTANCE",
    "MACHINE_SET",
    "MEDIA_CREATION_ACTION",
    "MEDIA_CREATION_CREATE",
    "MOVE",
    "MPPS_SET",
    "NON_PATIENT_STORE",
    "OPTIONAL",
    "PROCEDURAL_EVENT",
    "RELEVANT_PATIENT_FIND",
    "REPOSITORY_FIND",
    "SUBSTANCE_EVENT",
    "UPS_CANCEL",
    "UPS_CREATE",
    "UPS_GET",
    "UPS_SET",
    "UPS_STATE",
    "UPS_WATCH",
]


def _table(text: str, *more: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """A table from lines of a code, or a range of codes, and its meaning; in order of codes."""
    entries = [entry for table in more for entry in table]
    for line in text.strip().splitlines():
        code, meaning = line.strip().split(maxsplit=1)
        first, _, last = code.partition("-")
        entries.append(
            Entry(int(first, 16), int(last or first, 16), category(int(first, 16)), meaning)
        )
    return tuple(sorted(entries))


FIND = _table("""
    A700       refused: out of resources
    A900       identifier does not match SOP class
    C000-CFFF  unable to process
    FE00       matching terminated due to cancel request
    FF00       matches are continuing
    FF01       matches are continuing, optional keys are not supported for existence
""")
"""C-FIND. Standard: PS3.4 Table C.4-1, K.4-1, V.4-1, CC.2.8-2."""

_RETRIEVE = """
    A701       refused: out of resources, unable to calculate number of matches
    A702       refused: out of resources, unable to perform sub-operations
    A900       identifier does not match SOP class
    B000       sub-operations complete, one or more failures or warnings
    C000-CFFF  unable to process
    FE00       sub-operations terminated due to cancel indication
    FF00       sub-operations are continuing
"""
_FRAMES = _table("""
    AA00  none of the frames requested were found in the SOP instance
    AA01  unable to create new object for this SOP class
    AA02  unable to extract frames
    AA03  time-based request received for a non-time-based original SOP instance
    AA04  invalid request
""")

GET = _table(_RETRIEVE)
"""C-GET. Standard: PS3.4 Table C.4-3, Z.4-1."""
MOVE = _table("A801 refused: move destination unknown", GET)
"""C-MOVE. Standard: PS3.4 Table C.4-2."""
FRAME_GET = _table("", GET, _FRAMES)
"""C-GET of frames. Standard: PS3.4 Table Y.4-2."""
FRAME_MOVE = _table("", MOVE, _FRAMES)
"""C-MOVE of frames. Standard: PS3.4 Table Y.4-1."""

RELEVANT_PATIENT_FIND = _table("""
    A700  refused: out of resources
    A900  identifier does not match SOP class
    C000  unable to process
    C100  more than one match found
    C200  unable to support requested template
    FE00  matching terminated due to cancel request
    FF00  current match is supplied
""")
"""C-FIND of Relevant Patient Information. Standard: PS3.4 Table Q.2-1."""

REPOSITORY_FIND = _table(
    """
    A710  invalid prior record key
    B001  matching reached response limit, a subsequent request may return additional matches
    """,
    FIND,
)
"""C-FIND of Repository Query. Standard: PS3.4 C.6.4.1.1, C.6.4.5."""

NON_PATIENT_STORE = _table("""
    A700  refused: out of resources
    A900  data set does not match SOP class
    C000  cannot understand
""")
"""C-STORE of non-patient objects: no ranges, other than in Annex B. Standard: PS3.4 GG.4."""

OPTIONAL = _table("0001 requested optional attributes are not supported")
"""N-GET where nothing else is added. Standard: PS3.4 Table F.8.2-2, S.3.2.4.4-1."""

MPPS_SET = _table("0110 performed procedure step object may no longer be updated")
"""N-SET of MPPS; Error ID is A710H then. Standard: PS3.4 Table F.7.2-2."""

# ── print ───────────────────────────────────────────────────────────────────────────────────────

DENSITY = _table("""
    B605  minimum or maximum density outside of printer's operating range, its own is used
""")
"""N-CREATE of a presentation LUT. Standard: PS3.4 H.4.9.2.1.2."""

_FITTED = _table("""
    B604  image size is larger than image box size, the image has been demagnified
    B609  image size is larger than image box size, the image has been cropped to fit
    B60A  image or combined print image is larger than image box, it has been decimated to fit
    C603  image size is larger than image box size
    C613  combined print image size is larger than image box size
""")

FILM_SESSION_CREATE = _table("B600 memory allocation not supported")
"""N-CREATE and N-SET of a film session. Standard: PS3.4 H.4.1.2.1.2, H.4.1.2.2.2."""

FILM_SESSION_PRINT = _table(
    """
    B601  film session printing (collation) is not supported
    B602  film session hierarchy does not contain image boxes (empty page)
    C600  film session hierarchy does not contain film boxes
    C601  unable to create print job, print queue is full
    """,
    _FITTED,
)
"""N-ACTION of a film session. Standard: PS3.4 H.4.1.2.4.2."""

FILM_BOX_CREATE = _table(
    "C616 an existing film box has not been printed and the film session cannot be printed as one",
    DENSITY,
)
"""N-CREATE and N-SET of a film box. Standard: PS3.4 H.4.2.2.1.2, H.4.2.2.2.2."""

FILM_BOX_PRINT = _table(
    """
    B603  film box hierarchy does not contain image boxes (empty page)
    C602  unable to create print job, print queue is full
    """,
    _FITTED,
)
"""N-ACTION of a film box. Standard: PS3.4 H.4.2.2.4.2."""

COLOR_IMAGE_BOX_SET = _table("C605 insufficient memory in printer to store the image", _FITTED)
"""N-SET of a color image box. Standard: PS3.4 H.4.3.2.2.1.2."""
GRAYSCALE_IMAGE_BOX_SET = _table("", COLOR_IMAGE_BOX_SET, DENSITY)
"""N-SET of a grayscale image box. Standard: PS3.4 H.4.3.1.2.1.2."""

# ── event logging, media creation ───────────────────────────────────────────────────────────────

PROCEDURAL_EVENT = _table("""
    B101  synchronization frame of reference does not match that of the provider
    B102  event logged under a different Study Instance UID
    B104  IDs inconsistent in matching a current study, event logged
    C101  procedural logging not available for the Study Instance UID
    C102  event information does not match template
    C103  cannot match event to a current study
    C104  IDs inconsistent in matching a current study, event not logged
""")
"""N-ACTION of procedural events. Standard: PS3.4 Table P.2-3."""

SUBSTANCE_EVENT = _table("""
    C10E  operator not authorised to add entry to medication administration record
    C110  patient cannot be identified from Patient ID or Admission ID
    C111  update of medication administration record failed
""")
"""N-ACTION of substance administration events. Standard: PS3.4 Table P.3-3."""

MEDIA_CREATION_CREATE = _table(
    "A510 an Initiate Media Creation action has already been received for this SOP instance"
)
"""N-CREATE of media creation. Standard: PS3.4 S.3.2.1.4."""

# A510H stands in the clause of N-CREATE, in a table that is numbered as of N-ACTION (S.3.2.2.4-1).
MEDIA_CREATION_ACTION = _table(
    """
    C201  media creation request already completed
    C202  media creation request already in progress and cannot be interrupted
    C203  cancellation denied for unspecified reason
    """,
    MEDIA_CREATION_CREATE,
)
"""N-ACTION of media creation. Standard: PS3.4 Table S.3.2.3.4-1, S.3.2.2.4-1."""

# ── unified procedure step ──────────────────────────────────────────────────────────────────────

_NO_SUCH_UPS = _table("C307 SOP instance does not exist or is no UPS managed here")

UPS_CREATE = _table("""
    B300  the UPS was created with modifications
    C309  the provided value of UPS state was not SCHEDULED
""")
"""N-CREATE. Standard: PS3.4 CC.2.5.4."""

UPS_STATE = _table(
    """
    B304  the UPS is already in the requested state of CANCELED
    B306  the UPS is already in the requested state of COMPLETED
    C300  the UPS may no longer be updated
    C301  the correct Transaction UID was not provided
    C302  the UPS is already IN PROGRESS
    C303  the UPS may only become SCHEDULED via N-CREATE
    C304  the UPS has not met final state requirements for the requested state
    C310  the UPS is not yet IN PROGRESS
    """,
    _NO_SUCH_UPS,
)
"""N-ACTION, change of state. Standard: PS3.4 Table CC.2.1-2."""

UPS_CANCEL = _table(
    """
    B304  the UPS is already in the requested state of CANCELED
    C311  the UPS is already COMPLETED
    C312  the performer cannot be contacted
    C313  performer chooses not to cancel
    """,
    _NO_SUCH_UPS,
)
"""N-ACTION, request to cancel. Standard: PS3.4 Table CC.2.2-2."""

UPS_WATCH = _table(
    """
    B301  deletion lock not granted
    C308  receiving AE title is unknown here
    C314  action is not appropriate for the instance
    C315  event reports are not supported
    """,
    UPS_CANCEL,
)
"""N-ACTION, subscriptions, and requests to cancel. Standard: PS3.4 Table CC.2.3-3, CC.2.2-2."""

UPS_SET = _table(
    """
    0001  requested optional attributes are not supported
    B305  coerced invalid values to valid values
    C300  the UPS may no longer be updated
    C301  the correct Transaction UID was not provided
    C310  the UPS is not IN PROGRESS
    """,
    _NO_SUCH_UPS,
)
"""N-SET. Standard: PS3.4 CC.2.6.4."""

UPS_GET = _table("", OPTIONAL, _NO_SUCH_UPS)
"""N-GET. Standard: PS3.4 CC.2.7.4."""

# ── radiotherapy, storage management ────────────────────────────────────────────────────────────

MACHINE_CREATE = _table("""
    C221  referenced fraction group number does not exist in the referenced plan
    C222  no beams exist within the referenced fraction group
    C223  already verifying, the request cannot be processed now
    C227  no such object instance, referenced RT plan not found
""")
"""N-CREATE of machine verification. Standard: PS3.4 DD.3.2.1.2."""

MACHINE_SET = _table("""
    C224  referenced beam number not found within the referenced fraction group
    C225  referenced device or accessory not supported
    C226  referenced device or accessory not found within the referenced beam
""")
"""N-SET of machine verification. Standard: PS3.4 DD.3.2.1.2."""

MACHINE_INSTANCE = _table("C112 no such object instance, machine verification instance not found")
"""N-GET and N-ACTION of machine verification. Standard: PS3.4 DD.3.2.2.3, DD.3.2.3.2."""

INVENTORY_ACTION = _table(
    "B010 attribute list warning, key attributes are not supported for matching"
)
"""N-ACTION of Inventory Creation. Standard: PS3.4 Table KK.2.2.3-1."""
