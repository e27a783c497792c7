"""A second node of a lab's Kafka, so that a topic has a leader that can move.

The first is the controller, too: it is the one that stays.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from runners.kafka import Broker, fetch, free_ports
from tests.chaos.session import until

FIRST, SECOND = 1, 2
PREFERRED = 0  # of Kafka's kinds of election


class Second(Broker):
    """Node 2, beside a broker that runs."""

    def __init__(self, first: Broker, data_dir: Path) -> None:
        super().__init__(fetch(), data_dir, free_ports(1)[0])
        self.first = first

    def _write_properties(self) -> Path:
        path = super()._write_properties()
        voters = re.findall(r"(?m)^controller.quorum.voters=.*$", self._said_first("server"))
        said = path.read_text().replace("process.roles=broker,controller", "process.roles=broker")
        said = said.replace("node.id=1\n", f"node.id={SECOND}\n")
        said = re.sub(r"(?m)^controller.quorum.voters=.*$", voters[0], said)
        path.write_text(re.sub(r",CONTROLLER://\S+(?=\n)", "", said, count=1))
        return path

    def _format(self, properties: Path) -> None:
        (cluster,) = re.findall(r"(?m)^cluster.id=(.*)$", self._said_first("log/meta"))
        self._format_as(cluster, properties)

    def _said_first(self, name: str) -> str:
        return (self.first.data_dir / f"{name}.properties").read_text()

    def make_topic(self, name: str) -> None:
        """A topic of one partition on both nodes, which this one leads."""
        with self._admin() as admin:
            admin.create_topics([NewTopic(name, replica_assignments={0: [SECOND, FIRST]})])
        until(lambda: self.leader(name) == SECOND)

    def leader(self, topic: str) -> int:
        """The node that leads a topic; -1 while that is not known."""
        return int(self._told(topic).get("leader_id", -1))

    def lead(self, topic: str) -> None:
        """Become its leader again, once all of it is here."""
        until(lambda: SECOND in self._told(topic).get("isr_nodes", ()))
        with self._admin() as admin:
            admin.elect_leaders(PREFERRED, {topic: [0]})
        until(lambda: self.leader(topic) == SECOND)

    def _told(self, topic: str) -> dict[str, Any]:
        # Of its partition; nothing where a node is asked that has just died.
        with contextlib.suppress(KafkaError), self._admin() as admin:
            (found,) = admin.describe_topics([topic])
            return found["partitions"][0]
        return {}

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        admin: Any = KafkaAdminClient(bootstrap_servers=self.first.bootstrap)
        try:
            yield admin
        finally:
            admin.close()
