"""What the scenarios disturb: a real broker, and the store's server behind a proxy.

Everything lies below one scratch directory and ends with the `Lab`.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kafka
from clickhouse_connect.driver.client import Client
from kafka.structs import TopicPartition

from runners.kafka import Broker
from runners.kafka import start as start_broker
from sysquant.serve import ensure_server
from sysquant.store import connect, find_server
from tests.chaos.proxy import Proxy


class Lab:
    """Broker, store and proxy of one run of scenarios, in a scratch directory of its own."""

    broker: Broker

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="chaos-"))
        self._environ = dict(os.environ)
        os.environ["SYSQUANT_HOME"] = str(self.home)
        self._names = itertools.count(1)
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.home, ignore_errors=True)
        self._store = self.home / "data" / "store"
        self.server: subprocess.Popen[bytes] | None = None
        try:
            self.broker = start_broker(0, self.home / "kafka")
            self._ends.callback(lambda: self.broker.stop())
            self.revive_store()
            self._ends.callback(self.end_store, signal.SIGTERM)
            found = find_server(self._store)
            assert found is not None
            self._port = int(found.url.rpartition(":")[2])
            self._login = f"default:{found.users['default']}"
            self.proxy = Proxy(self._port)
            self._ends.callback(lambda: self.proxy.close())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything that was started."""
        self._ends.close()
        os.environ.clear()
        os.environ.update(self._environ)

    # -- the store

    def revive_store(self) -> None:
        """Start the store's server where none runs; it keeps its port."""
        _, process = ensure_server(f"chdb:{self._store}")
        self.server = process or self.server

    def end_store(self, number: signal.Signals) -> None:
        """Send its server a signal that ends it, and wait for that."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGCONT)
            self.server.send_signal(number)
            self.server.wait(20)

    @contextlib.contextmanager
    def stalled_store(self) -> Iterator[None]:
        """SIGSTOP to its server: connections are taken, nothing is answered."""
        assert self.server is not None
        self.server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.server.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def dropping(self, share: float) -> Iterator[None]:
        """The proxy drops this share of the replies to inserts."""
        self.proxy.drop_share = share
        try:
            yield
        finally:
            self.proxy.drop_share = 0.0

    def dsn(self, database: str, *, direct: bool = False) -> str:
        """Of a database of the store: through the proxy, or around it."""
        port = self._port if direct else self.proxy.port
        return f"http://{self._login}@127.0.0.1:{port}/{database}"

    def client(self, database: str) -> Client:
        """A client of a database, around the proxy."""
        return connect(self.dsn(database, direct=True))

    # -- the broker

    def name(self) -> str:
        """One that nothing has yet."""
        return f"ticks_{next(self._names)}"

    @contextlib.contextmanager
    def state(self, state: str) -> Iterator[None]:
        """`broker` or `store`, and whether it is `down` or `stalled`; any other changes nothing."""
        match state:
            case "store stalled":
                with self.stalled_store():
                    yield
            case "store down":
                self.end_store(signal.SIGKILL)
                yield
                self.revive_store()
            case "broker stalled":
                self.broker.pause()
                yield
                self.broker.resume()
            case "broker down":
                self.broker.kill()
                yield
                self.broker.restart()
            case _:
                yield

    def topic(self, partitions: int = 1) -> str:
        """A new, empty topic."""
        name = self.name()
        self.broker.create_topic(name, partitions)
        return name

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition -> offset after its last record."""
        consumer = kafka.KafkaConsumer(bootstrap_servers=self.broker.bootstrap)
        try:
            partitions = consumer.partitions_for_topic(topic) or ()
            ends = consumer.end_offsets([TopicPartition(topic, p) for p in partitions])
            return {one.partition: end for one, end in ends.items() if end}
        finally:
            consumer.close()
