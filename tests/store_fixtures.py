"""A served store of a worker's own, and plain requests to it."""

import base64
import http.client
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import pyarrow as pa
import pytest

from sysquant.serve import ensure_server
from sysquant.store import Server, find_server


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, without the line's end."""
        return self.body.decode().rstrip("\n")

    @property
    def code(self) -> int:
        """ClickHouse's number of the failure; 0 for none."""
        return int(self.headers.get("x-clickhouse-exception-code", 0))


@dataclass(frozen=True)
class Store:
    """A running server, and a database in it."""

    server: Server
    database: str

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.server.url).netloc

    def headers(self, user: str = "default") -> dict[str, str]:
        """What lets a user in."""
        secret = f"{user}:{self.server.users[user]}".encode()
        return {"Authorization": "Basic " + base64.b64encode(secret).decode()}

    def ask(
        self,
        body: bytes | str | Iterable[bytes] | None = None,
        *,
        method: str = "POST",
        path: str = "/",
        user: str = "default",
        headers: dict[str, str] | None = None,
        **options: object,
    ) -> Reply:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        url = f"{path}?{urlencode({'database': self.database} | options)}"
        data = body.encode() if isinstance(body, str) else body
        try:
            connection.request(method, url, data, self.headers(user) | (headers or {}))
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, named, reply.read())
        finally:
            connection.close()

    def tell(self, sql: str, **options: object) -> str:
        """The answer to a statement that must succeed."""
        reply = self.ask(sql, **options)  # pyright: ignore[reportArgumentType]
        assert reply.status == 200, reply.text
        return reply.text


def arrow_codec(name: str, data: bytes) -> bytes:
    """`data` in a streaming compression of pyarrow's."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, name) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of an embedded store."""
    directory = tmp_path_factory.mktemp("server") / "store"
    _, child = ensure_server(f"chdb:{directory}")
    found = find_server(directory)
    assert found
    assert child
    yield found
    child.terminate()
    assert child.wait(10) == 0


@pytest.fixture
def db(server: Server) -> Iterator[Store]:
    """A fresh database in it."""
    found, default = Store(server, f"test_{secrets.token_hex(4)}"), Store(server, "default")
    default.tell(f"CREATE DATABASE {found.database}")
    yield found
    default.tell(f"DROP DATABASE {found.database}")
