"""The broker of a test run: Apache Kafka itself, or librdkafka's mock where there is no Java.

A pytest plugin: it brings the session's `broker` and `topic`, and says in the last lines of the
report which broker was used and what could not be shown with it.
"""

import itertools
import logging
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import pytest

from sysquant.errors import FeedError

if TYPE_CHECKING:
    from runners.kafka import Broker

NOT_SHOWN = "not shown with it: restart, retention, latency and throughput of the broker"
USED = pytest.StashKey[set[str]]()
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class MockBroker:
    """librdkafka's in-memory broker behind the same names; what it lacks skips the test."""

    kind = "mock"
    client: ClassVar[dict[str, Any]] = {"api_version": (2, 3)}  # later ones it answers undecodably

    def __init__(self) -> None:
        from confluent_kafka import Producer

        self._cluster = Producer({"test.mock.num.brokers": 1})
        (broker,) = self._cluster.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"

    def is_running(self) -> bool:
        return True

    def create_topic(
        self, name: str, partitions: int = 1, settings: dict[str, str] | None = None
    ) -> None:
        """Make a topic of the mock's four partitions, whatever was asked."""
        if settings:
            pytest.skip("the mock broker has no topic settings")
        until = time.monotonic() + 10
        while not self._cluster.list_topics(name, timeout=10).topics[name].partitions:
            assert time.monotonic() < until
            time.sleep(0.05)

    def stop(self) -> None:
        """It ends with this object."""

    def _lacks(self) -> None:
        pytest.skip("the mock broker cannot be killed, stalled or restarted")

    kill = restart = pause = resume = _lacks


AnyBroker: TypeAlias = "Broker | MockBroker"


@pytest.fixture(scope="session")
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnyBroker]:
    """One broker for the whole session; a test that ends it must start it again."""
    from runners import kafka as runner  # its imports warn; the filters below must stand first

    used: AnyBroker
    try:
        used = runner.start(0, tmp_path_factory.mktemp("kafka"))
        said = f"Kafka tests ran on Apache Kafka {runner.VERSION}"
    except FeedError as error:
        used = MockBroker()
        said = f"Kafka tests ran on librdkafka's mock broker ({error}); {NOT_SHOWN}"
    request.config.stash.setdefault(USED, set()).add(said)
    yield used
    used.stop()


@pytest.fixture
def mortal(broker: AnyBroker) -> Iterator[AnyBroker]:
    """The broker, started again after the test."""
    if broker.kind == "mock":
        pytest.skip("the mock broker cannot be killed, stalled or restarted")
    yield broker
    broker.resume()
    if not broker.is_running():
        broker.restart()


@pytest.fixture(scope="session")
def new_topic(broker: AnyBroker) -> Callable[..., str]:
    """Makes an empty topic of its own for each call, and returns its name."""
    numbers = itertools.count()

    def make(partitions: int = 1, **settings: str) -> str:
        name = f"price_ticks_{next(numbers)}"
        named = {key.replace("_", "."): value for key, value in settings.items()}
        broker.create_topic(name, partitions, named)
        return name

    return make


@pytest.fixture
def topic(new_topic: Callable[..., str]) -> str:
    """An empty topic of one partition."""
    return new_topic()


def pytest_configure(config: pytest.Config) -> None:
    """Mend, or let pass, what kafka-python itself is to blame for."""
    old = "(read|open)_text is deprecated"
    config.addinivalue_line("filterwarnings", f"ignore:{old}:DeprecationWarning")
    warnings.filterwarnings("ignore", old, DeprecationWarning)  # for the import below
    from kafka.net.inet import KafkaNetSocket

    connect: Any = KafkaNetSocket.sock_connect

    # A socket that was refused, or waits when its client is closed, is left to the garbage
    # collector: the warning would meet whichever test runs then.
    async def closing(*arguments: Any, **options: Any) -> socket.socket:
        try:
            return await connect(*arguments, **options)
        except BaseException:
            arguments[2].close()
            raise

    setattr(KafkaNetSocket, "sock_connect", closing)  # noqa: B010


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was used from a worker of pytest-xdist to the process that reports."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["brokers"] = sorted(session.config.stash.get(USED, set()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take it over from that worker."""
    said = getattr(node, "workeroutput", {}).get("brokers", [])
    node.config.stash.setdefault(USED, set()).update(said)  # pyright: ignore


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    """The last lines of the report, after pytest's own."""
    yield
    for line in sorted(config.stash.get(USED, set())):
        terminalreporter.write_line(line)
