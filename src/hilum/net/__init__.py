"""Associations on asyncio: ``connect`` opens one, ``serve`` accepts them."""

from hilum.net.association import Association, Response
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.server import Server, serve
from hilum.net.service import Accept, Context, Outcome, Peer, Reject, StoreSink, storage_policy

__all__ = [
    "Accept",
    "Association",
    "Context",
    "Limits",
    "Outcome",
    "Peer",
    "Reject",
    "Response",
    "Server",
    "StoreSink",
    "Timeouts",
    "connect",
    "serve",
    "storage_policy",
]
