"""What every answer of the web process has in common: whose Host is served, and its headers."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Protection", "allowed_hosts"]

log = logging.getLogger("hilum.web")

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def allowed_hosts(bound: str, more: Iterable[str] = ()) -> frozenset[str]:
    """Whose Host header is served.

    Args:
        bound: the address or name that is listened on.
        more: further names, such as that of a proxy in front.

    Returns:
        Lower-case names and addresses. With an address that stands for all of this machine's,
        ``"*"`` is among them: every address, still no name.
    """
    names = {*_LOOPBACK, bound.lower(), *(name.lower() for name in more)}
    if not bound or (_is_address(bound) and ipaddress.ip_address(bound).is_unspecified):
        names.add("*")
    return frozenset(names - {""})


class Protection:
    """ASGI middleware around everything else, its errors too.

    A page elsewhere can give its own name our address (DNS rebinding) and read what we answer;
    its requests then carry that name as Host. A name that is not ours is answered with 421. An
    address cannot be given to someone else, so addresses are safe.

    Args:
        app: what answers.
        hosts: from `allowed_hosts`.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                log.debug("%s %r: %d", scope["method"], scope["path"], message["status"])
            await send(message)

        answer = self._app if self._serves(Headers(scope=scope).getlist("host")) else _MISDIRECTED
        await answer(scope, receive, send_protected)

    def _serves(self, hosts: list[str]) -> bool:
        name = _name(hosts[0]).lower() if len(hosts) == 1 else ""
        return name in self._hosts - {"*"} or ("*" in self._hosts and _is_address(name))


_MISDIRECTED = PlainTextResponse("this host is not served here\n", status_code=421)


def _name(host: str) -> str:
    """A Host header without the port (RFC 9110 7.2), and an IPv6 address without brackets."""
    if host.startswith("["):
        name, closing, port = host[1:].partition("]")
        return name if closing and (not port or port.startswith(":")) else ""
    name, _, _ = host.partition(":")
    return name.removesuffix(".")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
