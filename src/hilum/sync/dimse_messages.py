"""Messages as observers get them: ``event.message`` of ``EVT_DIMSE_RECV`` and ``EVT_DIMSE_SENT``.

The class of a message is that of its name, such as ``C_STORE_RQ``.

Standard: PS3.7 6.3, annex E.
"""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset

from hilum.sync.dsutils import decode
from hilum.wire.command import Command, CommandField

__all__ = ["DIMSEMessage", "message"]


class DIMSEMessage:
    """A message: its command set, and its data set as a byte stream.

    Args:
        command: the command set.
        context_id: of the presentation context.
        data: the data set, or None.
    """

    def __init__(self, command: Command, context_id: int, data: bytes | None) -> None:
        self.command = command
        self.context_id = context_id
        self.data_set = None if data is None else BytesIO(data)

    @property
    def command_set(self) -> Dataset:
        """The command set, decoded anew at every call."""
        return decode(BytesIO(self.command.encode()), True, True)

    @property
    def ID(self) -> int:
        """The id of the presentation context."""
        return self.context_id

    def __str__(self) -> str:
        return f"{type(self).__name__} in context {self.context_id}\n{self.command_set}"


_KINDS: dict[int, type[DIMSEMessage]] = {
    field: type(field.name, (DIMSEMessage,), {"__doc__": f"{field.name.replace('_', '-')}."})
    for field in CommandField
}
globals().update({kind.__name__: kind for kind in _KINDS.values()})
__all__ += [kind.__name__ for kind in _KINDS.values()]  # they are strings


def message(command: Command, context_id: int, data: bytes | None) -> DIMSEMessage:
    """The message of a command set and data set."""
    return _KINDS.get(command.command_field, DIMSEMessage)(command, context_id, data)
