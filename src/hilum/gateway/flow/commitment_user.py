"""Storage Commitment as user: results that come to us, and requests that are made by work.

A result is recorded before the peer hears that we have it. It comes over whichever association the
peer chooses: one of ours, or one that it opens to a listener.

Standard: PS3.4 Annex J.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from hilum.errors import HilumError, NoPresentationContext, Refused
from hilum.gateway.config import Config
from hilum.gateway.flow.address import Call
from hilum.gateway.flow.peers import address_of, client_tls, server_name
from hilum.gateway.store.claims import Job, NewWork, Outcome, dead, done, later, retry
from hilum.gateway.store.commitment_requests import ASK, CommitmentRequests
from hilum.gateway.store.database import Database
from hilum.gateway.store.entries import Peer, Snapshot
from hilum.gateway.threads import in_thread
from hilum.gateway.work.kinds import Kind
from hilum.net.commitment import Commitments, Destination, transaction_uid
from hilum.net.service import Accept, service_policy
from hilum.services.commitment import TRANSFER_SYNTAXES, Action, Reference, Result
from hilum.services.sop_classes import STORAGE_COMMITMENT_PUSH_MODEL

__all__ = ["CommitmentUser", "destination"]

log = logging.getLogger("hilum.commitment")

ATTEMPTS = 1_000_000  # how long is measured in time
ASKERS = 8
# The result of a small request comes within seconds over the association of the request.
STAY = 10.0


def destination(peer: Peer, config: Config, *, default: str = "HILUM") -> Destination:
    """How a peer is asked; reads the files of its TLS.

    Raises:
        NotCallable: it only calls us.
        ConfigurationError: its TLS cannot be set up.
    """
    address = address_of(peer)
    if address is None:
        raise NotCallable(f"where peer {peer.name!r} listens is not known; it can only call us")
    return Destination(
        *address,
        called=peer.ae_title,
        calling=peer.calling_ae or default,
        tls=client_tls(peer, config.tls),
        server_hostname=server_name(peer),
        timeouts=config.timeouts,
        limits=config.limits,
    )


class NotCallable(HilumError):
    """A peer without a port cannot be asked for anything."""


class CommitmentUser:
    """Asks peers for commitment, and hears their results. Used on the event loop.

    Args:
        config: ``commitment``, and what associations of ours need.
        database: see `open_database`.
        snapshot: gives the directory as it is now.
    """

    def __init__(
        self, config: Config, database: Database, *, snapshot: Callable[[], Snapshot]
    ) -> None:
        self._config = config
        self._snapshot = snapshot
        self._requests = CommitmentRequests(database)
        self._commitments = Commitments(self._on_result)
        #: What to give `connect`, so that results are heard over associations of ours.
        self.handlers = self._commitments.handlers

    def forget(self) -> None:
        """Delete old requests; blocks on the database for a moment."""
        while self._requests.forget(keep=self._config.commitment.keep):
            pass

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The work that this does."""
        return (Kind(name=ASK, run=self.ask, concurrency=ASKERS, per_key=1, max_attempts=ATTEMPTS),)

    def admit(self, accept: Accept, call: Call) -> Accept:
        """The same acceptance, with results of our requests heard."""
        return replace(
            accept,
            policy=service_policy(
                (STORAGE_COMMITMENT_PUSH_MODEL,),
                transfer_syntaxes=TRANSFER_SYNTAXES,
                otherwise=accept.policy,
            ),
            roles={**accept.roles, STORAGE_COMMITMENT_PUSH_MODEL: (True, True)},
            handlers={**accept.handlers, **self.handlers},
        )

    async def _on_result(self, result: Result) -> bool:
        """Record a result; False: nothing was asked for under that Transaction UID."""
        known = await in_thread(self._requests.answered, result)
        if known:
            log.info(
                "result of a commitment: %d instances committed, %d not",
                *(len(result.committed), len(result.failed)),
            )
        return known

    # ── asking ──────────────────────────────────────────────────────────────────────────────

    def request(
        self, peer: Peer, references: Sequence[Reference], *, owner_id: int, origin: str = ""
    ) -> NewWork:
        """Have a peer asked for commitment of instances that it was sent; blocks on the database.

        For what follows a forwarding: the instances are marked as committed elsewhere when the
        result says so, and only then may they be deleted here (see `store.retention`).

        Args:
            peer: who has them.
            references: the instances.
            owner_id: whose, in our archive.
            origin: who wants it.

        Returns:
            The work to be enqueued, in the transaction that finishes the forwarding.
        """
        action = Action(transaction_uid(), tuple(dict.fromkeys(references)))
        self._requests.create(
            action,
            peer=peer.name,
            called_ae=peer.ae_title,
            calling_ae=peer.calling_ae or "HILUM",
            owner_id=owner_id,
            origin=origin,
        )
        return NewWork(ASK, {"transaction": action.transaction_uid}, key=peer.name, origin=origin)

    async def ask(self, job: Job) -> Outcome:
        """Work: ask, then open an association now and then until the result has come."""
        uid = str(job.payload["transaction"])
        request = await in_thread(self._requests.find, uid)
        if request is None or request.result is not None:
            return done()
        peer = next((p for p in self._snapshot().peers if p.name == request.peer), None)
        if peer is None:
            return dead(f"no peer {request.peer!r}")
        settings = self._config.commitment
        age = time.time() - request.created_at / 1e6
        wait = min(settings.retry_most, max(settings.retry_least, age))
        try:
            to = await in_thread(destination, peer, self._config)
            if request.asked_at is not None:
                await self._commitments.collect(to)
            else:
                await self._commitments.commit_instances(
                    to,
                    request.action.references,
                    uid=uid,
                    stay=STAY,
                    taken=lambda: in_thread(self._requests.asked, uid),
                )
        except (Refused, NoPresentationContext) as error:
            cause = str(error)
            await in_thread(self._requests.asked, uid, cause)
            return dead(cause) if age > settings.retry_for else retry(cause, wait)
        except HilumError as error:
            return dead(str(error)) if age > settings.retry_for else retry(str(error), wait)
        request = await in_thread(self._requests.find, uid)
        if request is None or request.result is not None:
            return done()
        if age > settings.retry_for:
            return dead("no result has come")
        return later(wait, "the result has not come yet")
