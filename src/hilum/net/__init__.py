"""Associations on asyncio: ``connect`` opens one, ``serve`` accepts them."""

from hilum.net.ae import AE, Remote
from hilum.net.association import Association, Response, Responses
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.server import Server, serve
from hilum.net.service import (
    Accept,
    Context,
    Handler,
    Outcome,
    Peer,
    Refused,
    Reject,
    Reply,
    Request,
    StoreSink,
    service_policy,
    storage_policy,
)

__all__ = [
    "AE",
    "Accept",
    "Association",
    "Context",
    "Handler",
    "Limits",
    "Outcome",
    "Peer",
    "Refused",
    "Reject",
    "Remote",
    "Reply",
    "Request",
    "Response",
    "Responses",
    "Server",
    "StoreSink",
    "Timeouts",
    "connect",
    "serve",
    "service_policy",
    "storage_policy",
]
