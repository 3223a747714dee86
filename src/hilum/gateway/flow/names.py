"""Peers that are given by host name, and the addresses that those names stand for at present.

A peer's address may change while the gateway runs (DHCP, a container that is started anew), so
names are looked up again from time to time, in a thread, because a resolver may take its time.
A name that cannot be looked up keeps the addresses that it had.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping

from hilum.gateway.store.entries import Peer
from hilum.net.server import Network

__all__ = ["HostNames"]


class HostNames:
    """The networks of peers' hosts; one thread at a time may look up."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Network, ...]] = {}

    def networks(self, peers: Iterable[Peer]) -> dict[str, tuple[Network, ...]]:
        """Networks by host; none for a name that was never found. Does no I/O."""
        return {
            peer.host: literal or self._found.get(peer.host, ())
            for peer in peers
            for literal in [_literal(peer.host)]
        }

    def unknown(self, peers: Iterable[Peer]) -> bool:
        """Whether there is a name that was not found, or not looked for."""
        return any(not networks for networks in self.networks(peers).values())

    @staticmethod
    def is_known(peer: Peer) -> bool:
        """Whether a peer's host is an address, a range, or a name that is found now. Blocks."""
        return peer.host == "*" or bool(_literal(peer.host) or _resolved(peer.host))

    def look_up(self, peers: Iterable[Peer]) -> None:
        """Ask the resolver for every name. Blocks."""
        names = {peer.host for peer in peers if not _literal(peer.host)}
        known: Mapping[str, tuple[Network, ...]] = self._found
        self._found = {name: _resolved(name) or known.get(name, ()) for name in names}


def _literal(host: str) -> tuple[Network, ...]:
    try:
        return (ipaddress.ip_network(host, strict=False),)
    except ValueError:
        return ()


def _resolved(name: str) -> tuple[Network, ...]:
    try:
        addresses = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(name, None)}
        return tuple(ipaddress.ip_network(address) for address in sorted(addresses))
    except (OSError, ValueError):  # ValueError: a name that IDNA cannot encode
        return ()
