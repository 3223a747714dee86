"""Host names of peers: looked up again, kept where the resolver fails."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from hilum.gateway.flow.names import HostNames
from hilum.gateway.store.entries import Peer

SCANNER = Peer("scanner", "CT1", "ct1.example")
LITERAL = Peer("pacs", "PACS", "192.0.2.0/24")


class Resolver:
    """Answers from a table; a name that is not there fails as an unreachable server does."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, host: str, port: None) -> list[Any]:
        self.asked.append(host)
        try:
            found = self.names[host.partition(".")[0]]
        except KeyError:
            raise socket.gaierror(socket.EAI_AGAIN, "try again") from None
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver(ct1=["198.51.100.7", "2001:db8::7"])
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    return resolver


def networks(*addresses: str) -> tuple[Any, ...]:
    return tuple(ipaddress.ip_network(address) for address in addresses)


def test_addresses_need_no_resolver(resolver: Resolver) -> None:
    names = HostNames()
    assert not names.unknown([LITERAL])
    names.look_up([LITERAL])
    assert names.networks([LITERAL]) == {"192.0.2.0/24": networks("192.0.2.0/24")}
    assert resolver.asked == []


def test_a_name_is_every_address_that_it_has(resolver: Resolver) -> None:
    names = HostNames()
    assert names.unknown([SCANNER, LITERAL])
    assert names.networks([SCANNER]) == {"ct1.example": ()}
    names.look_up([SCANNER, LITERAL])
    assert not names.unknown([SCANNER, LITERAL])
    assert names.networks([SCANNER])["ct1.example"] == networks("198.51.100.7", "2001:db8::7")


def test_a_name_moves(resolver: Resolver) -> None:
    names = HostNames()
    names.look_up([SCANNER])
    resolver.names["ct1"] = ["198.51.100.8"]
    names.look_up([SCANNER])
    assert names.networks([SCANNER])["ct1.example"] == networks("198.51.100.8")


def test_a_resolver_that_fails_takes_nothing_away(resolver: Resolver) -> None:
    names = HostNames()
    names.look_up([SCANNER])
    del resolver.names["ct1"]
    names.look_up([SCANNER])
    assert names.networks([SCANNER])["ct1.example"] == networks("198.51.100.7", "2001:db8::7")
    # A name that no peer has any more is forgotten.
    names.look_up([LITERAL])
    assert names.unknown([SCANNER])


def test_a_name_that_cannot_be_one(resolver: Resolver) -> None:
    names = HostNames()
    odd = Peer("odd", "ODD", "a" * 300)
    names.look_up([odd])
    assert names.networks([odd]) == {odd.host: ()}
