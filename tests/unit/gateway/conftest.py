"""The gateway's database, of both makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from tests import postgresql as servers
from tests.unit.gateway.store.index_world import make_database

from hilum.gateway.store.database import Database, open_database


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes PostgreSQL databases with our tables; returns their URLs."""
    if line := servers.missing():
        message = f"PostgreSQL is not installed; install it with: {line}"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    with servers.server() as url, servers.databases(url) as new:
        yield new


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Database]:
    """Makes databases with our tables: what asks for it runs with SQLite and with PostgreSQL."""
    if request.param == "SQLite":
        return lambda: make_database(tmp_path_factory.mktemp("database"))
    new: Callable[[], str] = request.getfixturevalue("postgresql")
    return lambda: open_database(new(), role="receiver")
