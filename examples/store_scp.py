"""Receive data sets and look at them; keep nothing.

For a receiver that keeps what it gets, start ``hilum serve``.

python store_scp.py PORT
"""

import asyncio
import io
import sys
from collections.abc import Sequence

from pydicom import dcmread

from hilum.net.association import Association
from hilum.net.server import serve
from hilum.net.service import Accept, Context, Outcome, Part, Peer, Reject
from hilum.services.part10 import encode_head
from hilum.wire.command import Command
from hilum.wire.pdu import AssociateRQ

LIMIT = 64 << 20  # bytes that this example is willing to hold


class Look:
    """Collects one data set, then reads it."""

    def __init__(self, command: Command, context: Context) -> None:
        self.data = bytearray(
            encode_head(
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
                context.transfer_syntax,
            )
        )

    def write(self, parts: Sequence[Part]) -> bool:
        # The parts are views into the receive buffer: copied here, done with.
        for part in parts:
            if len(self.data) <= LIMIT:
                self.data += part
        return True

    async def drained(self) -> None:
        """Nothing is left of what was written."""

    async def commit(self) -> Outcome:
        if len(self.data) > LIMIT:
            return Outcome(0xA700, "too large for this example")
        # Parsing may take long: never on the event loop.
        return await asyncio.to_thread(self._look)

    def _look(self) -> Outcome:
        try:
            ds = dcmread(io.BytesIO(self.data), stop_before_pixels=True)
            print(ds.get("Modality", "?"), ds.get("SOPInstanceUID", "?"), flush=True)
        except Exception as error:
            return Outcome(0xC000, f"cannot be read: {type(error).__name__}")
        return Outcome(0x0000)

    def abort(self, cause: BaseException) -> None:
        self.data.clear()


def open_store(command: Command, context: Context, association: Association) -> Look | Outcome:
    return Look(command, context)


def authorise(rq: AssociateRQ, peer: Peer) -> Accept | Reject:
    if rq.called_ae_title not in ("EXAMPLE", "ANY-SCP"):
        return Reject.unknown_called_title()
    return Accept(open_store=open_store)


async def main(port: int) -> None:
    async with await serve("127.0.0.1", port, authorise) as server:
        print(f"listening on port {server.port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(0)
