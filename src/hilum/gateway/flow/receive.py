"""C-STORE as provider: the sink between an association and the committer.

Standard: PS3.4 annex B, PS3.7 9.1.1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from hilum.gateway.flow.moves import Moves
from hilum.gateway.store.blob import SPILL
from hilum.gateway.store.commit import Arrival, Committer, Destination
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.net.association import Association
from hilum.net.service import Context, OpenStore, Outcome, Part
from hilum.wire.command import Command

__all__ = ["ReceiveSink", "opener"]


class ReceiveSink:
    """One data set on its way in; see ``net.service.StoreSink``.

    Up to ``SPILL`` bytes wait in memory for their batch; more go to the file in an I/O thread.
    """

    __slots__ = ("_arrival", "_committer", "_job")

    def __init__(self, committer: Committer, arrival: Arrival) -> None:
        self._committer = committer
        self._arrival = arrival
        self._job: asyncio.Future[None] | None = None

    def write(self, parts: Sequence[Part]) -> bool:
        """Take the next parts."""
        arrival = self._arrival
        if self._job is None:
            size = sum(map(len, parts))
            if arrival.held + size <= SPILL:
                arrival.parts += [p if type(p) is bytes else bytes(p) for p in parts]
                arrival.held += size
                return True
        self._job = self._committer.spill(arrival, parts)
        return False

    def drained(self) -> asyncio.Future[None]:
        """Done when the file has what was written."""
        assert self._job is not None
        return self._job

    def commit(self) -> asyncio.Future[Outcome]:
        """The data set is whole: durable, indexed, then answered."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._committer.submit(self._arrival, done)
        return done

    def abort(self, cause: BaseException) -> None:
        """The sender is gone: drop what no batch has claimed."""
        job = self._job
        if job is None or job.done():
            self._committer.cancel(self._arrival)
        else:
            # The thread still reads from the receive buffers and writes to the file.
            job.add_done_callback(lambda _: self._committer.cancel(self._arrival))


def opener(
    committer: Committer, destination: Destination, source: str = "", moves: Moves | None = None
) -> OpenStore:
    """What opens a sink for each C-STORE-RQ of an association.

    Args:
        committer: takes the arrivals.
        destination: whose the objects will be.
        source: AE title of who wrote the files, where they are not the sender's own.
        moves: C-MOVEs of ours; what comes for one of them is kept as it says.
    """

    def open_store(command: Command, context: Context, association: Association) -> ReceiveSink:
        rq = association.rq
        whose = (moves.destination(command, association) if moves else None) or destination
        meta = ObjectMeta(
            sop_class_uid=context.abstract_syntax,
            sop_instance_uid=command.affected_sop_instance_uid,
            transfer_syntax_uid=context.transfer_syntax,
            receiving_ae_title=rq.called_ae_title,
            sending_ae_title=rq.calling_ae_title,
            source_ae_title=source,
            owner=whose.owner,
            arrived_us=time.time_ns() // 1000,
        )
        return ReceiveSink(committer, Arrival(meta, whose, association.peer.address))

    return open_store
