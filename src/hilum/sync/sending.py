"""What programs want sent, made ready in their own thread before the loop gets it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread
from pydicom.tag import Tag
from pydicom.uid import UID

from hilum.errors import InvalidDicom
from hilum.net.association import Association as NetAssociation
from hilum.net.association import Response
from hilum.services.convert import CONVERTIBLE, convert, convert_bytes
from hilum.services.part10 import HEAD_MAXIMUM, FileHead, parse_head
from hilum.services.status import Status
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    properties,
)
from hilum.sync import _config
from hilum.sync.dsutils import decode_bytes, encode_bytes

if TYPE_CHECKING:
    from hilum.sync.presentation import PresentationContext
    from hilum.sync.responses import Feed

__all__ = [
    "Item",
    "behind",
    "check_priority",
    "encoded",
    "prepare",
    "reply",
    "stand_ins",
    "tags",
    "valid_contexts",
]

log = logging.getLogger("hilum.sync")

T = TypeVar("T")

# A file is read in such pieces, bytes; a smaller one is read at once.
PIECE = 1 << 20

# Into which a data set is converted where its own transfer syntax was not accepted: VRs are kept
# as long as any of the contexts allows it.
_PREFERRED = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

# Requests about a Unified Procedure Step name the push class whatever the context is (PS3.4 CC.2).
_UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
_UPS_OTHERS = tuple(f"1.2.840.10008.5.1.4.34.6.{number}" for number in (3, 2, 4, 5))


class Item:
    """A data set to be sent.

    Args:
        sop_class_uid: Affected SOP Class UID.
        sop_instance_uid: Affected SOP Instance UID.
        transfer_syntax_uid: of ``data`` as it is sent.
        data: the encoded data set, or the file to take it from.
        offset: where it begins in the file.
        source: its transfer syntax in the file.
    """

    def __init__(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        data: bytes | Path,
        offset: int = 0,
        source: str = "",
    ) -> None:
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.transfer_syntax_uid = transfer_syntax_uid
        self._data = data
        self._offset = offset
        self._source = source or transfer_syntax_uid

    async def send(
        self,
        core: NetAssociation,
        message_id: int | None,
        priority: int,
        originator: tuple[str, int] | None,
    ) -> Response:
        """Send it and wait for the response; on the loop."""
        data = (self._data,) if isinstance(self._data, bytes) else self._pieces(self._data)
        return await core.c_store(
            data,
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            priority=priority,
            move_originator=originator,
            message_id=message_id,
        )

    async def _pieces(self, path: Path) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(None, open, path, "rb")
        try:
            await loop.run_in_executor(None, file.seek, self._offset)
            while piece := await loop.run_in_executor(None, file.read, PIECE):
                yield piece
        finally:
            file.close()


def _fitting(core: NetAssociation, sop_class: str, syntax: str, convertible: bool) -> str:
    """The transfer syntax to send in.

    Raises:
        ValueError: no context fits.
    """
    accepted = {
        context.transfer_syntax
        for context in core.contexts.values()
        if context.abstract_syntax == sop_class and context.scu
    }
    if syntax in accepted:
        return syntax
    if convertible and syntax in CONVERTIBLE:
        for target in _PREFERRED:
            if target in accepted:
                return target
    message = (
        f"No presentation context for '{UID(sop_class).name}' has been accepted by the peer with "
        f"'{UID(syntax).name}' transfer syntax for the SCU role"
    )
    log.error(message)
    raise ValueError(message)


def prepare(core: NetAssociation, dataset: str | Path | Dataset) -> Item:
    """A data set or file in a transfer syntax that the peer accepted.

    Raises:
        AttributeError: it lacks what identifies it.
        ValueError: no context fits, or it cannot be encoded.
        OSError: the file cannot be read.
        pydicom.errors.InvalidDicomError: it is no DICOM file.
    """
    if isinstance(dataset, Dataset):
        return _of_dataset(core, dataset)
    path = Path(dataset)
    head = _head(path)
    if head is None:
        if _config.STORE_SEND_CHUNKED_DATASET:
            raise AttributeError(f"{path} has no file meta information to send it by")
        return _of_dataset(core, dcmread(os.fspath(path)))
    convertible = not _config.STORE_SEND_CHUNKED_DATASET
    source = head.transfer_syntax_uid
    target = _fitting(core, head.sop_class_uid, source, convertible)
    names = (head.sop_class_uid, head.sop_instance_uid, target)
    if target != source:
        return Item(*names, b"".join(_converted(path, head.data_set_offset, source, target)))
    if path.stat().st_size <= PIECE:
        return Item(*names, path.read_bytes()[head.data_set_offset :])
    return Item(*names, path, head.data_set_offset)


def _head(path: Path) -> FileHead | None:
    """What the file begins with; None where pydicom shall say what it is."""
    with open(path, "rb") as file:
        data = b""
        while True:
            piece = file.read(64 << 10)
            data += piece
            try:
                head = parse_head(data, final=not piece)
            except InvalidDicom:
                return None
            if head is not None:
                return head if data[128:132] == b"DICM" else None
            if len(data) > HEAD_MAXIMUM:
                return None


def _converted(path: Path, offset: int, source: str, target: str) -> Iterable[bytes]:
    with open(path, "rb") as file:
        file.seek(offset)
        pieces = iter(lambda: file.read(PIECE), b"")
        try:
            yield from convert(pieces, source, target)
        except InvalidDicom as error:
            raise ValueError(f"{path} cannot be converted: {error}") from error


def _of_dataset(core: NetAssociation, dataset: Dataset) -> Item:
    missing = [name for name in ("SOPClassUID", "SOPInstanceUID") if name not in dataset]
    if missing:
        raise AttributeError(f"the data set cannot be sent without {', '.join(missing)}")
    source = _syntax_of(dataset)
    sop_class = str(dataset.SOPClassUID)
    target = _fitting(core, sop_class, source, True)
    data = encode_bytes(dataset, source)
    if data is None:
        raise ValueError("Failed to encode the supplied dataset")
    if target != source:
        data = convert_bytes(data, source, target)
    return Item(sop_class, str(dataset.SOPInstanceUID), target, data)


def _syntax_of(dataset: Dataset) -> str:
    """The transfer syntax that a data set is in, by its file meta and by how it was read."""
    try:
        named = str(dataset.file_meta.TransferSyntaxUID)
    except AttributeError:
        raise AttributeError(
            "the data set cannot be sent: its file meta names no Transfer Syntax UID (0002,0010)"
        ) from None
    implicit, little = dataset.original_encoding
    if implicit is None:
        implicit = getattr(dataset, "_is_implicit_VR", None)
    if little is None:
        little = getattr(dataset, "_is_little_endian", None)
    syntax = properties(named)
    if None in (implicit, little) or (implicit, little) == (
        not syntax.explicit,
        syntax.little_endian,
    ):
        return named
    actual = {(True, True): IMPLICIT_VR_LITTLE_ENDIAN, (False, False): EXPLICIT_VR_BIG_ENDIAN}
    found = actual.get((bool(implicit), bool(little)))
    order = "little" if little else "big"
    kind = "implicit" if implicit else "explicit"
    message = f"the data set is encoded with {kind} VR in {order} endian, not in {UID(named).name}"
    if found is None:
        raise AttributeError(f"{message}; set the Transfer Syntax UID of its file meta")
    log.warning("%s; it is sent as it is", message)
    return found


def valid_contexts(
    contexts: Sequence[PresentationContext], syntax: str, convertible: bool
) -> PresentationContext | None:
    """The first of the contexts that has a transfer syntax, or one it is converted into."""
    for context in contexts:
        if not syntax or context.transfer_syntax[0] == syntax:
            return context
    if convertible and syntax in CONVERTIBLE:
        for target in _PREFERRED:
            for context in contexts:
                if context.transfer_syntax[0] == target:
                    return context
    return None


def check_priority(priority: int) -> None:
    """The priority of a request.

    Raises:
        ValueError: it is none (PS3.7 annex E.1).
    """
    if priority not in (0, 1, 2):
        raise ValueError(f"a priority is 0 (medium), 1 (high) or 2 (low), not {priority}")


def encoded(dataset: Dataset, transfer_syntax: str) -> bytes:
    """An identifier or attribute list for a context.

    Raises:
        ValueError: it cannot be encoded.
    """
    data = encode_bytes(dataset, transfer_syntax)
    if data is None:
        raise ValueError("Failed to encode the supplied Dataset")
    return data


def reply(
    status: Dataset, response: Response, transfer_syntax: str
) -> tuple[Dataset, Dataset | None]:
    """A status with the data set of its response, which is empty where there is none."""
    if not response.data:
        return status, Dataset()
    try:
        return status, decode_bytes(response.data, transfer_syntax)
    except Exception as error:  # pydicom raises whatever its reading came upon
        log.error("the data set of a response cannot be read: %s", error)
        status.Status = int(Status.PROCESSING_FAILURE)
        return status, None


def stand_ins(sop_class: str | UID) -> Sequence[str]:
    """Classes in whose contexts requests about this one may be sent as well."""
    return _UPS_OTHERS if sop_class == _UPS_PUSH else ()


def tags(identifiers: Sequence[Any] | None) -> tuple[int, ...]:
    """Tags in any of pydicom's forms as 32-bit numbers."""
    if identifiers is None:
        return ()
    if isinstance(identifiers, int):
        return (int(identifiers),)
    return tuple(int(Tag(tag)) for tag in identifiers)


async def behind(
    request: Coroutine[Any, Any, T], feeds: Sequence[Feed], patience: float | None
) -> T:
    """A request after operations whose responses may not have been taken.

    Without a window only one operation may be outstanding. Those that do not end in time, because
    nobody takes their responses, are given up.
    """
    task = asyncio.ensure_future(request)
    try:
        done, _ = await asyncio.wait({task}, timeout=patience)
        if not done:
            log.error("responses that nobody takes are given up for the next request")
            for feed in feeds:
                feed.give_up()
        return await task
    except asyncio.CancelledError:
        task.cancel()
        raise
