"""An embedded store of its own for a worker, served; a fresh, migrated database for a test."""

import os
import secrets
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from sysquant.serve import ensure_server
from sysquant.store import connect, migrate


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of a server, without a database."""
    home = tmp_path_factory.mktemp("served")
    before = os.environ.get("SYSQUANT_HOME")
    os.environ["SYSQUANT_HOME"] = str(home)
    try:
        dsn, server = ensure_server(f"chdb:{home}/store")
    finally:
        os.environ.pop("SYSQUANT_HOME") if before is None else os.environ.update(
            SYSQUANT_HOME=before
        )
    yield dsn.rpartition("/")[0]
    if server is not None:
        server.terminate()
        server.wait(10)


@pytest.fixture
def dsn(served: str) -> Iterator[str]:
    """The DSN of a fresh database."""
    name = f"test_{secrets.token_hex(4)}"
    yield f"{served}/{name}"
    drop(f"{served}/default", name)


def drop(dsn: str, database: str) -> None:
    """Take a test's database away: the engine looks after every table, used or not."""
    with connect(dsn) as found:
        found.command(f"DROP DATABASE IF EXISTS {database}")


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """A client of a migrated database."""
    found = connect(dsn)
    migrate(found)
    yield found
    found.close()
