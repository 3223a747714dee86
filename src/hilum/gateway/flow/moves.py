"""C-MOVEs of ours that are going on: what arrives for them belongs to whom the fetch says.

A peer knows us by one AE title, so that is where it sends; Move Originator AE title and Message ID
of its C-STOREs tell which C-MOVE they are for.

Standard: PS3.7 9.3.1.1 (0000,1030), (0000,1031); PS3.4 C.4.2.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from hilum.errors import HilumError
from hilum.gateway.store.commit import Destination
from hilum.net.association import Association
from hilum.wire.command import Command

__all__ = ["Moves"]

LATE = 600.0
"""Seconds for which a C-MOVE that is over is known: a peer may send on when its association is lost,
and what it sends is no less private then."""

_MESSAGE_IDS = 0xFFFF


@dataclass(frozen=True, slots=True)
class _Move:
    originator: str
    addresses: frozenset[str]
    titles: frozenset[str]
    destination: Destination


class Moves:
    """The C-MOVEs that are going on. Used on one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moves: dict[int, _Move] = {}
        # Those that are over, in the order in which they ended, and when they are forgotten.
        self._over: OrderedDict[int, float] = OrderedDict()
        # Not from 1: a peer may still be sending what the process before had asked for.
        self._next = count(secrets.randbelow(_MESSAGE_IDS))

    @contextmanager
    def going_on(
        self, originator: str, address: str, title: str, destination: Destination
    ) -> Iterator[int]:
        """A C-MOVE for the length of a block; gives the Message ID that it must have.

        Args:
            originator: our calling AE title.
            address: the peer's; sub-operations come from there, or from its AE title.
            title: the peer's AE title.
            destination: whose the instances will be.
        """
        number = self._free()
        self._moves[number] = _Move(
            originator, frozenset({address}), frozenset({title}), destination
        )
        try:
            yield number
        finally:
            self._over[number] = self._clock() + LATE

    def _forget(self) -> None:
        while self._over:
            number, until = next(iter(self._over.items()))
            if until > self._clock():
                return
            del self._over[number], self._moves[number]

    def _free(self) -> int:
        self._forget()
        for _ in range(_MESSAGE_IDS):
            number = next(self._next) % _MESSAGE_IDS + 1
            if number not in self._moves:
                return number
        if self._over:  # the one that ended first
            number = next(iter(self._over))
            del self._over[number], self._moves[number]
            return number
        raise HilumError("as many C-MOVEs go on as there are Message IDs")

    def destination(self, command: Command, association: Association) -> Destination | None:
        """Whose an instance is that a C-STORE brings; None when it is of no C-MOVE of ours."""
        if not self._moves:
            return None
        self._forget()
        number = command.get("move_originator_message_id")
        move = self._moves.get(number) if number is not None else None
        if move is None:
            return None
        if command.get("move_originator_application_entity_title") != move.originator:
            return None
        from_there = (
            association.peer.address in move.addresses
            or association.rq.calling_ae_title in move.titles
        )
        return move.destination if from_there else None
