"""Who may see what: the one decision for DIMSE, and for every later service.

What was kept for everyone is seen by everyone who is let in. What was kept for a user is seen by
that user and by nobody else: over DIMSE by a peer that is known by its address *and* has proved who
it is, with the client certificate that the directory has for it or a user's passcode. With either, a
peer that is bound to a group is shown the data of the group's users; with the passcode only if it is
one of theirs. A calling AE title proves nothing.

Standard: PS3.7 D.3.3.7 (user identity), PS3.15 B (TLS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hilum.gateway.store.entries import Account, Peer, Snapshot
from hilum.gateway.store.results import Viewer

__all__ = ["fingerprint", "may_see"]


def may_see(
    snapshot: Snapshot,
    peer: Peer | None,
    *,
    certificate: str = "",
    user: Account | None = None,
) -> Viewer:
    """What a caller may see.

    Args:
        snapshot: the directory.
        peer: the configured system at the caller's address; None: everyone's data only.
        certificate: the verified client certificate's `fingerprint`; "" without.
        user: who proved with a passcode to be that user; None: nobody.
    """
    if peer is None:
        return Viewer()
    accounts = [] if user is None or user.disabled else [user]
    belonging = _belonging(snapshot, peer.belongs_to)
    by_certificate = bool(peer.certificate) and peer.certificate == certificate
    if by_certificate or {each.id for each in accounts} & {each.id for each in belonging}:
        accounts += belonging
    return _viewer(account for account in accounts if not account.disabled)


def _belonging(snapshot: Snapshot, belongs_to: str) -> list[Account]:
    if belongs_to.startswith("@"):
        return [each for each in snapshot.accounts if belongs_to[1:] in each.groups]
    account = snapshot.account_named(belongs_to)
    return [] if account is None else [account]


def _viewer(accounts: Iterable[Account]) -> Viewer:
    ids = list(dict.fromkeys(account.id for account in accounts))
    return Viewer(ids[0], others=tuple(ids[1:])) if ids else Viewer()


def fingerprint(certificate: bytes | None) -> str:
    """SHA-256 of a DER certificate in hexadecimal; "" without one."""
    return hashlib.sha256(certificate).hexdigest() if certificate else ""
