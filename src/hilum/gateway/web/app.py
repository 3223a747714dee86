"""The web process: status page, health checks and metrics, apart from the receiver.

It reads files and the database and writes nothing, so whatever is asked of it (or done to it)
cannot hold up an association.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hilum.gateway.web import metrics, page
from hilum.gateway.web.connection import WebConnection
from hilum.gateway.web.listening import listen_for_web
from hilum.gateway.web.protection import Protection, allowed_hosts
from hilum.gateway.web.status import ANSWER_WITHIN, Watch

__all__ = ["create_app", "run"]

# Requests answered at once; more are told to come back (503). A page takes milliseconds.
MAX_REQUESTS = 64
# After an answer; Prometheus asks every 15 s and may reconnect. Before it: see `connection`.
KEEP_ALIVE = 5
# Prometheus asks every 15 s, a person comes back after a coffee.
UNASKED = 600.0
# Nobody waits for a page of a gateway that ends.
STOP_WITHIN = 2


def create_app(
    data: Path,
    database: str | Path,
    *,
    bound: str = "127.0.0.1",
    hosts: Iterable[str] = (),
    reserve: int | None = None,
    patience: float = ANSWER_WITHIN,
) -> Starlette:
    """The application. GET and HEAD only.

    - ``/`` the status page, which reloads itself; ``/?still`` does not;
    - ``/healthz`` 200 while this process lives;
    - ``/readyz`` 200 when the receiver accepts, the store is there and the database answers;
      else 503 with a JSON list of what is wrong;
    - ``/metrics`` for Prometheus, see `hilum.gateway.web.metrics`.

    Args:
        data: the data directory.
        database: SQLite file or PostgreSQL URL; it may come later.
        bound: the address that is listened on, for the check of Host headers.
        hosts: further names under which this may be asked.
        reserve: bytes of free space below which nothing is taken; None when not known.
        patience: seconds for which an answer of disk or database is waited for.
    """
    watch = Watch(data, database, reserve=reserve, patience=patience)
    style = (files("hilum.gateway.web") / "static" / "style.css").read_text(encoding="utf-8")

    async def status(request: Request) -> Response:
        reload = "still" not in request.query_params
        return HTMLResponse(page.render(await watch.report(), reload=reload))

    async def style_sheet(_: Request) -> Response:
        return Response(style, media_type="text/css")

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        problems = (await watch.report()).problems
        return JSONResponse(list(problems), status_code=503 if problems else 200)

    async def prometheus(_: Request) -> Response:
        return Response(
            metrics.render(await watch.report()), headers={"content-type": metrics.CONTENT_TYPE}
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            watch.close()

    return Starlette(
        routes=[
            Route("/", status),
            Route("/style.css", style_sheet),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
        ],
        middleware=[Middleware(Protection, hosts=allowed_hosts(bound, hosts))],
        lifespan=lifespan,
    )


def run(
    data: Path,
    host: str,
    port: int,
    stop_on_stdin_eof: bool = False,
    *,
    hosts: Iterable[str] = (),
    reserve: int | None = None,
    descriptor: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    With a descriptor, also until nobody has asked for ten minutes: its owner hears the next one.

    Args:
        data: the data directory.
        host: address or name to listen on.
        port: 0 for any free one.
        stop_on_stdin_eof: end as well when standard input ends, which it does when the process
            that holds its other end has died.
        hosts: see `create_app`.
        reserve: see `create_app`.
        descriptor: of a socket that listens at that address already.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    from hilum.gateway.app import DATABASE

    with (
        listen_for_web(host, port) if descriptor is None else socket.socket(fileno=descriptor)
    ) as listening:
        app = create_app(data, data / DATABASE, bound=host, hosts=hosts, reserve=reserve)
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                http=WebConnection,
                ws="none",
                lifespan="on",
                limit_concurrency=MAX_REQUESTS,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=STOP_WITHIN,
            )
        )
        if descriptor is not None:
            server.end_after = UNASKED
        if stop_on_stdin_eof:
            threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends on a signal as on any other reason, without raising the signal once more behind it.

    Attributes:
        end_after: seconds without a connection after which it ends; None for never.
    """

    end_after: float | None = None
    _asked = 0
    _asked_at = 0.0

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True to end."""
        now, requests = time.monotonic(), self.server_state.total_requests
        if requests != self._asked or self.server_state.connections or not self._asked_at:
            self._asked, self._asked_at = requests, now
        if self.end_after is not None and now - self._asked_at > self.end_after:
            return True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order, however often and for however many reasons it is said.

        Ctrl-C in a terminal comes together with the end of our standard input; uvicorn would take
        it for impatience and drop what it is doing with a traceback.
        """
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT while serving."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _stop_at_eof(server: uvicorn.Server) -> None:
    # Not sys.stdin: a thread that holds its lock would trip the interpreter's end.
    while True:
        try:
            if not os.read(0, 1024):
                break
        except OSError:
            break
    server.should_exit = True
