"""Event loops, servers that end with their test, and the proof that nothing is left behind."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
from tests.net.peer import ends_with, until

from hilum.net.link import Sweeper
from hilum.net.server import Server, serve
from hilum.net.service import Accept

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: object, item: object) -> Mapping[str, LoopFactory]:
    """Every test runs on asyncio's loop and on uvloop, unless it is marked otherwise."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No task and no connection outlives its test."""
    before = asyncio.all_tasks()
    yield
    await until(lambda: not Sweeper.of(asyncio.get_running_loop())._links, "links are left")
    await until(
        lambda: not {task for task in asyncio.all_tasks() - before if not ends_with(task, "yield")},
        "tasks are left",
    )


Listen = Callable[..., Awaitable[Server]]


@pytest_asyncio.fixture
async def listen(nothing_is_left: None) -> AsyncIterator[Listen]:
    """``await listen(authorise, **serve's arguments)``; everyone is let in by default."""
    servers = []

    async def start(authorise: Any = None, **arguments: Any) -> Server:
        server = await serve("127.0.0.1", 0, authorise or (lambda rq, peer: Accept()), **arguments)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close(0)
