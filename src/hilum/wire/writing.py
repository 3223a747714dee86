"""Writing: messages cut into P-DATA-TFs that the peer takes, data sets not copied.

Standard: PS3.8 9.3.5 and annex F, PS3.7 6.3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hilum.errors import LocalProtocolError
from hilum.wire.command import Command
from hilum.wire.fsm import TABLE, Event, State
from hilum.wire.pdu import PDV_HEADER, pdv_header
from hilum.wire.reading import Buffer

__all__ = ["Writing"]


class Writing:
    """What is to be sent of an association, in order."""

    state: State
    contexts: dict[int, str]

    def __init__(self) -> None:
        #: Bytes of a fragment, at most; even.
        self.max_send_length = 0
        self._out: list[Buffer] = []

    def data_to_send(self) -> list[Buffer]:
        """Buffers to write, in order; the list is the caller's."""
        out, self._out = self._out, []
        return out

    def send_message(
        self, context_id: int, command: Command, data: Sequence[Buffer] | None = None
    ) -> None:
        """Queue a command set, and the data set where it is given whole.

        Where ``command.has_data_set`` and ``data`` is None, ``send_data`` must follow.

        Raises:
            LocalProtocolError: no P-DATA in this state, a context that was not accepted, or data
                that does not go with the command; nothing was queued.
        """
        if context_id not in self.contexts:
            raise LocalProtocolError(f"presentation context {context_id} was not accepted")
        if self.state not in TABLE[Event.Evt9]:
            raise LocalProtocolError(f"no message can be sent in {self.state.name}")
        # No data at all is still a data set: one empty fragment ends it.
        parts = () if data is None else data or (b"",)
        if parts and not command.has_data_set:
            raise LocalProtocolError(f"data with a {command.name} that announces none")
        if any(len(part) % 2 for part in parts[:-1]):
            raise LocalProtocolError("a fragment before the last must have an even length")
        encoded = command.encode()
        limit = self.max_send_length
        out = self._out
        if len(encoded) <= limit:
            out.append(pdv_header(context_id, len(encoded), command=True, last=True) + encoded)
        else:
            self._fragment(context_id, encoded, command=True, last=True)
        for index, part in enumerate(parts, 1):
            self._fragment(context_id, part, command=False, last=index == len(parts))

    def send_responses(
        self, context_id: int, responses: Iterable[tuple[Command, Buffer | None]]
    ) -> None:
        """Queue whole messages, as ``send_message`` does; a command set that is given several times
        in a row is encoded once.

        Raises:
            LocalProtocolError: see ``send_message``; what came before has been queued.
        """
        if context_id not in self.contexts or self.state not in TABLE[Event.Evt9]:
            raise LocalProtocolError(f"no message can be sent in {self.state.name}")
        limit = self.max_send_length
        before: Command | None = None
        head = b""
        for command, data in responses:
            size = len(data or b"")
            if command is not before:
                encoded = command.encode()
                header = pdv_header(context_id, len(encoded), command=True, last=True)
                before, head = command, header + encoded
            if (
                len(head) - PDV_HEADER.size > limit
                or size > limit
                or size % 2
                or (command.has_data_set is not (data is not None))
            ):
                self.send_message(context_id, command, None if data is None else (data,))
            elif data is None:
                self._out.append(head)
            else:
                header = pdv_header(context_id, size, command=False, last=True)
                self._out.append(b"".join((head, header, data)))

    def send_data(self, context_id: int, data: Buffer, *, last: bool) -> None:
        """Queue part of a data set, without copying it.

        Fragments must have an even length (PS3.8 annex F): an odd last part is padded with a NUL,
        an odd part before the last is refused.
        """
        if self.state not in TABLE[Event.Evt9]:
            raise LocalProtocolError(f"no data can be sent in {self.state.name}")
        if len(data) % 2 and not last:
            raise LocalProtocolError("a fragment before the last must have an even length")
        self._fragment(context_id, data, command=False, last=last)

    def _fragment(self, context_id: int, data: Buffer, *, command: bool, last: bool) -> None:
        limit, length = self.max_send_length, len(data)
        if length <= limit and not length % 2:
            self._out.append(pdv_header(context_id, length, command=command, last=last))
            if length:
                self._out.append(data)
            return
        view = memoryview(data)
        position = 0
        while True:
            size = min(limit, length - position)
            ends = last and position + size == length
            odd = size % 2
            out = pdv_header(context_id, size + odd, command=command, last=ends)
            self._out.append(out)
            self._out.append(view[position : position + size])
            if odd:
                self._out.append(b"\0")
            position += size
            if position >= length:
                return
