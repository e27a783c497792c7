"""A real Apache Kafka on this machine: `make kafka`, or `python runners/kafka.py port=9092`.

Fetches the broker once through Maven (`runners/kafka/pom.xml`) into `.cache/kafka`, keeps its data
in `data/kafka`, and runs one combined broker and controller on 127.0.0.1 until Ctrl-C. The tests
start the same class on free ports. It is for one machine: no replication, no security.
"""

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

if __name__ == "__main__":  # replaced, not inserted: runners/ would hide the package `kafka`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from sysquant.errors import ConfigError, FeedError, nearest
from sysquant.home import cache, under_home

log = logging.getLogger("sysquant.kafka")

POM = Path(__file__).with_suffix("") / "pom.xml"
VERSION = ET.parse(POM).findtext(".//{*}kafka.version") or ""
JAVA = 17  # the lowest that Kafka 4 runs on
HOST = "127.0.0.1"
READY_TOPIC = "sysquant_ready"
WAY_OUT = "or use feed=replay, feed=synthetic or a Kafka of your own (feed.bootstrap=host:port)"

# Ends Java when the pipe to us closes, however we ended: `$$` is Java's own number after `exec`.
WATCHED = 'exec 3<&0; (read end <&3; kill $$; kill -CONT $$) & exec "$@"'

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={logs}
num.partitions=1
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


class Broker:
    """One running Kafka; made by `start`.

    Parameters
    ----------
    libs : directory of its jars.
    data_dir : where its records, properties and log lie.
    port : the port clients use; another free one is taken for the controller.
    """

    kind = f"kafka {VERSION}"
    client: ClassVar[dict[str, Any]] = {}  # what clients must be told besides `bootstrap`

    def __init__(self, libs: Path, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.bootstrap = f"{HOST}:{port}"
        self._libs = libs
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def restart(self, timeout_s: float = 60.0) -> None:
        """Run it again on the same port and data, until a produced record is read back."""
        self.stop()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        properties = self._write_properties()
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(properties)
        java = self._java("-Xms256m", "-Xmx512m")
        with (self.data_dir / "server.log").open("wb") as output:
            self._process = subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", *java, "kafka.Kafka", str(properties)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to pass on
            )
        is_up = False
        try:
            self._wait_until_ready(time.monotonic() + timeout_s)
            is_up = True
        finally:
            if not is_up:
                self.kill()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it cleanly; what does not end in time is killed."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)  # and the shell that watches the pipe
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        """Stall it: connections stay open, nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stalled one go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def create_topic(
        self, name: str, partitions: int = 1, settings: dict[str, str] | None = None
    ) -> None:
        """Make a topic and wait until it can be used; `settings` as Kafka names them."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            topic = NewTopic(name, partitions, 1, topic_configs=settings or {})
            admin.create_topics([topic], timeout_ms=10_000)
        finally:
            admin.close()

    def last_words(self) -> str:
        """The line of its log that says why it ended, as far as there is one."""
        lines = (self.data_dir / "server.log").read_text(errors="replace").splitlines()
        telling = [line for line in lines if re.search(r"Exception|ERROR|FATAL", line)]
        return (telling or lines or ["it wrote nothing"])[-1].strip()

    def _java(self, *options: str) -> list[str]:
        quick = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
        return ["java", *options, *quick, "-cp", f"{self._libs}/*"]

    def _write_properties(self) -> Path:
        path = self.data_dir / "server.properties"
        (controller,) = free_ports(1)
        path.write_text(
            PROPERTIES.format(
                host=HOST, port=self._port, controller=controller, logs=self.data_dir / "log"
            )
        )
        return path

    def _format(self, properties: Path) -> None:
        self._format_as(self._tool("random-uuid").strip(), properties)

    def _format_as(self, cluster: str, properties: Path) -> None:
        self._tool("format", "-t", cluster, "-c", str(properties))

    def _tool(self, *words: str) -> str:
        java = self._java("-Xmx128m")
        return _run([*java, "kafka.tools.StorageTool", *words], "Kafka's storage tool")

    def _wait_until_ready(self, deadline: float) -> None:
        while not _is_listening(self._port):
            if not self.is_running():
                raise FeedError(f"Kafka ended while starting: {self.last_words()}")
            if time.monotonic() > deadline:
                raise FeedError(
                    f"Kafka did not listen in time; its log is {self.data_dir}/server.log"
                )
            time.sleep(0.05)
        try:
            _read_back(self.bootstrap, max(1.0, deadline - time.monotonic()))
        except KafkaError as error:
            raise FeedError(
                f"Kafka took no record in time ({error}); its log is {self.data_dir}/server.log"
            ) from error


def start(port: int = 0, data_dir: str | Path = "data/kafka", timeout_s: float = 60.0) -> Broker:
    """A broker that has taken a record and given it back.

    Parameters
    ----------
    port : for clients; 0 takes a free one.
    data_dir : below `home()` unless absolute; formatted at its first use.
    timeout_s : for starting, without the one download.

    Raises
    ------
    FeedError
        If Java or Maven is missing or refuses, the port is taken, or the broker does not start.
    """
    if port and _is_listening(port):
        raise FeedError(
            f"port {port} is taken, perhaps by a Kafka that already runs; use that one, "
            f"or choose another: python runners/kafka.py port={port + 1}"
        )
    require_java()
    libs, tries = fetch(), 1 if port else 3  # a free port may be taken before Kafka takes it
    while True:
        broker = Broker(libs, under_home(data_dir), port or free_ports(1)[0])
        try:
            broker.restart(timeout_s)
        except FeedError:
            tries -= 1
            if not tries:
                raise
        else:
            return broker


def fetch() -> Path:
    """Directory of the broker's jars; fetched through Maven when not there yet.

    Raises
    ------
    FeedError
        If Maven is missing or refuses.
    """
    libs = cache() / "kafka" / VERSION
    if _is_fetched(libs):
        return libs
    if shutil.which("mvn") is None:
        raise FeedError(f"Maven was not found, and Kafka comes through it; install it, {WAY_OUT}")
    log.info("fetching version=%s to=%s (about 45 MB, once)", VERSION, libs)
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=libs.parent) as scratch:
        target = Path(scratch) / "libs"
        options = ("-DincludeScope=runtime", f"-DoutputDirectory={target}")
        _run(["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", *options], "Maven")
        shutil.copy(POM, target)
        if not _is_fetched(libs):  # else another process was faster
            shutil.rmtree(libs, ignore_errors=True)
            with contextlib.suppress(OSError):
                target.rename(libs)
    return libs


def _is_fetched(libs: Path) -> bool:
    # The pom is copied last: a fetch cut short, or one of another pom, is begun again.
    stamp = libs / "pom.xml"
    return stamp.exists() and stamp.read_bytes() == POM.read_bytes()


def require_java() -> None:
    """Refuse at once when Java is missing or too old for Kafka 4."""
    answer = ""
    if shutil.which("java") is not None:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
        answer = said.stderr if said.returncode == 0 else ""  # macOS has a `java` that is none
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    if found is None:
        raise FeedError(f"Java was not found, and Kafka runs on it; install Java {JAVA}, {WAY_OUT}")
    if int(found[1]) < JAVA:
        raise FeedError(f"Java must be >= {JAVA} for Kafka, was {found[1]}; update it, {WAY_OUT}")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def _run(command: list[str], name: str) -> str:
    # One sentence instead of a Java stack trace: the first line that tells something.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        telling = [line for line in lines if "ERROR" in line or "Exception" in line] or lines
        raise FeedError(
            f"{name} refused: {(telling or ['no reason given'])[0]}; repair it, {WAY_OUT}"
        )
    return done.stdout


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0


def _read_back(bootstrap: str, timeout_s: float) -> None:
    # Listening is not enough: the first seconds of a broker refuse producers.
    timeout_ms = int(timeout_s * 1000)
    settings: dict[str, Any] = {"bootstrap_servers": bootstrap, "bootstrap_timeout_ms": timeout_ms}
    producer = KafkaProducer(**settings)
    try:
        written = producer.send(READY_TOPIC, b"ready").get(timeout_s)
    finally:
        producer.close(timeout=1)
    consumer = KafkaConsumer(**settings)
    try:
        partition = TopicPartition(READY_TOPIC, written.partition)
        consumer.assign([partition])
        consumer.seek(partition, written.offset)
        if not consumer.poll(timeout_ms=timeout_ms, max_records=1):
            raise FeedError(f"Kafka gave no record back within {timeout_s:.0f} s")
    finally:
        consumer.close()


HELP = f"""\
{__doc__}
Keys
  port=9092            of the broker on {HOST}
  data_dir=data/kafka  where its records lie, below SYSQUANT_HOME or the repository

Examples
  python runners/kafka.py
  python runners/kafka.py port=9192
  python runners/kafka.py port=9192 data_dir=data/kafka-test
"""


def _arguments(words: list[str]) -> dict[str, str]:
    # `key=value`, as every runner takes them; two keys need no Hydra.
    known = {"port": "9092", "data_dir": "data/kafka"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in known or not value:
            raise ConfigError(f"{word!r} is not understood{nearest(key, known)}")
        known[key] = value
    if not known["port"].isdigit():
        raise ConfigError(f"port must be a number, was {known['port']!r}")
    return known


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    stopped = threading.Event()
    kept = {s: signal.signal(s, lambda *_: stopped.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, before in kept.items():
            signal.signal(number, before)


def main(words: list[str]) -> int:
    """Run until Ctrl-C or SIGTERM; the exit code."""
    if {"-h", "--help"} & set(words):
        print(HELP, end="")
        return 0
    try:
        chosen = _arguments(words)
        broker = start(int(chosen["port"]), chosen["data_dir"])
    except (ConfigError, FeedError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while it was starting
        return 130
    with _signals() as stopped:
        print(f"Kafka {VERSION} listens on {broker.bootstrap}; Ctrl-C ends it", flush=True)
        while broker.is_running() and not stopped.wait(0.5):
            pass
        if not stopped.is_set():
            print(f"Kafka ended by itself: {broker.last_words()}", file=sys.stderr)
            return 1
        broker.stop()
    print("Kafka ended")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    sys.exit(main(sys.argv[1:]))
