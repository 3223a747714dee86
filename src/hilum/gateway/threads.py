"""Blocking calls beside the event loop that nothing may be taken away from under."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a blocking call in a thread, as ``asyncio.to_thread`` does.

    Cancellation: takes effect once the call has returned. ``asyncio.to_thread`` would return at
    once with the thread still running, and whoever cancelled would close the database connection
    or release the lock that it is using.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                continue  # once more, while the call is not over: the first one will be raised
        raise
