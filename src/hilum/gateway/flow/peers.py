"""How peers are called: where they listen, and with what TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from hilum.gateway.config import Tls
from hilum.gateway.store.entries import Peer
from hilum.net.tls import client_context

__all__ = ["address_of", "client_tls", "server_name"]


def address_of(peer: Peer) -> tuple[str, int] | None:
    """Host and port of a peer's listener; None when it only calls us."""
    if peer.port is None or "/" in peer.host or peer.ae_title == "*":
        return None
    return peer.host, peer.port


def client_tls(peer: Peer, own: Tls) -> ssl.SSLContext | None:
    """TLS towards a peer, None for plain TCP; reads files.

    Args:
        peer: its ``tls`` may say ``ca``, ``certificate``, ``key``, ``name`` and ``verify``.
        own: our certificate, where the peer's settings name none.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    said = peer.tls
    if not said:
        return None
    certificate = said.get("certificate") or own.certificate
    key = said.get("key") or own.key
    return client_context(
        ca=Path(said["ca"]) if said.get("ca") else None,
        certificate=Path(certificate) if certificate else None,
        key=Path(key) if key else None,
        verify=bool(said.get("verify", True)),
    )


def server_name(peer: Peer) -> str | None:
    """The name that a peer's certificate must show; None for that of its host."""
    return peer.tls.get("name") or None
