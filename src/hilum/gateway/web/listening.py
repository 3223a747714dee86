"""The web process's listening socket, held by the receiver until someone connects.

The web process is 60 MB that a gateway needs only while someone looks: it is started by the first
connection, which waits in the socket meanwhile, and ends when nobody has asked it for long. This
module is imported by the receiver, and imports nothing of the pages.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from hilum.errors import ConfigurationError

__all__ = ["can_pass_sockets", "first_connection", "listen_for_web"]


def can_pass_sockets() -> bool:
    """Whether a process can be given an open socket; where not, it listens by itself."""
    return sys.platform != "win32"


def listen_for_web(host: str, port: int) -> socket.socket:
    """The listening socket, announced on standard error.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        # socket.create_server puts the address behind the system's words once more.
        why = (error.strerror or str(error)).partition(" (while")[0].lower()
        raise ConfigurationError(
            f"the web pages cannot listen on {host}:{port}: {why}; "
            "choose another address with --web, or --web off"
        ) from error
    listening.setblocking(False)
    bound = listening.getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    print(f"status page on http://{shown}:{bound[1]}/", file=sys.stderr, flush=True)
    return listening


async def first_connection(listening: socket.socket) -> None:
    """Until someone connects; the connection is left to whoever accepts it.

    Cancellation: the socket is not watched any more.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_reader(listening, asked.set)
    try:
        await asked.wait()
    finally:
        loop.remove_reader(listening)
