"""Connections of the web process: silent ones keep nobody out.

uvicorn waits for a request as long as it takes, and counts the connection among those that it
serves at once: a few dozen silent sockets would answer every health check with 503.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["MAX_SILENT", "REQUEST_WITHIN", "WebConnection"]

# A whole request comes within moments, and its answer is read as fast.
REQUEST_WITHIN = 10.0
# When one more comes, the one that has waited longest is closed.
MAX_SILENT = 32


class WebConnection(H11Protocol):
    """Closed when it has brought no new request, or has not taken its answer, for so long."""

    _timer: asyncio.TimerHandle | None = None
    _seen: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin; see `asyncio.Protocol`."""
        super().connection_made(transport)
        self.made = self.loop.time()
        self._timer = self.loop.call_later(REQUEST_WITHIN, self._look)
        silent = [
            one for one in self.connections if isinstance(one, WebConnection) and one.is_silent
        ]
        if len(silent) > MAX_SILENT:
            min(silent, key=lambda one: one.made).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; see `asyncio.Protocol`."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def is_silent(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        if self.cycle is self._seen:
            self.transport.abort()
            return
        self._seen = self.cycle
        self._timer = self.loop.call_later(REQUEST_WITHIN, self._look)
