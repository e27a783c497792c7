"""One way to a Kafka broker for everything that reads or writes a topic.

Input: an address and what the broker asks of its clients. Output: a kafka-python consumer or
producer that has found it, or one sentence, the same for every client. It knows no topic.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaConsumer
from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.net.compat import KafkaNetClient

from sysquant.errors import ConfigError, FeedError, nearest

Client = TypeVar("Client")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SECURITY = [k for k in KafkaConsumer.DEFAULT_CONFIG if k.startswith(("security_", "ssl_", "sasl_"))]


def client_settings(
    bootstrap: str,
    timeout_s: float,
    api_version: Sequence[int] | None,
    security: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Arguments that consumers and producers of kafka-python share.

    Parameters
    ----------
    bootstrap : `host:port`, several separated by commas.
    timeout_s : how long to look for a broker.
    api_version : of the broker, where it cannot be asked (librdkafka's mock); None asks.
    security : arguments of kafka-python's client, e.g. `security_protocol`, `sasl_mechanism`.

    Raises
    ------
    ConfigError
        If an address or a key of `security` cannot be meant; its values are never shown.
    """
    check_security(security)
    return {
        "bootstrap_servers": server_addresses(bootstrap),
        "bootstrap_timeout_ms": int(timeout_s * 1000),
        "reconnect_backoff_max_ms": 1000,
        "api_version": None if api_version is None else tuple(api_version),
        **(security or {}),
    }


def server_addresses(bootstrap: str) -> list[str]:
    """The addresses of `bootstrap`.

    Raises
    ------
    ConfigError
        If one is no address.
    """
    addresses = [address.strip() for address in bootstrap.split(",")]
    if not all(re.fullmatch(r"[^\s:]+(:\d+)?|\[.+\](:\d+)?", one) for one in addresses):
        raise ConfigError(f"bootstrap must be host:port, was {bootstrap!r}")
    return addresses


def check_security(security: Mapping[str, Any] | None) -> None:
    """Refuse what kafka-python has no word for; every client is told in its words.

    Raises
    ------
    ConfigError
        If a key cannot be meant; values are never shown.
    """
    for key in security or {}:
        if key not in SECURITY:
            raise ConfigError(f"security has no {key!r}{nearest(key, SECURITY)}")
    protocol = str((security or {}).get("security_protocol", "PLAINTEXT"))
    if protocol not in PROTOCOLS:  # kafka-python would take it for PLAINTEXT
        raise ConfigError(f"security_protocol was {protocol!r}{nearest(protocol, PROTOCOLS)}")


def does_not_answer(bootstrap: str, why: object) -> FeedError:
    """What to say where no broker is found."""
    return FeedError(
        f"Kafka at {bootstrap} does not answer ({why}); start one (make kafka), correct its "
        "address (bootstrap=host:port) or security, or use feed=replay"
    )


def refuses_settings(why: object) -> ConfigError:
    """What to say where a client does not take what it is given."""
    return ConfigError(f"Kafka's client refuses its settings: {why}; correct bootstrap or security")


def topic_life(
    bootstrap: str,
    topic: str,
    timeout_s: float,
    api_version: Sequence[int] | None,
    security: Mapping[str, Any] | None,
) -> str:
    """Name of this life of a topic: another when it was deleted and made anew.

    Its own name alone where the broker gives topics no id (before Kafka 2.8).

    Raises
    ------
    FeedError
        If no broker answers.
    """
    settings = client_settings(bootstrap, timeout_s, api_version, security)
    consumer, client = connect(KafkaConsumer, settings)
    try:
        consumer.partitions_for_topic(topic)
        found = client.cluster.topic_id(topic)
        return f"{topic}-{found.hex[:12]}" if found is not None and found.int else topic
    finally:
        consumer.close()


def connect(make: Callable[..., Client], settings: Mapping[str, Any]) -> tuple[Client, Any]:
    """A consumer or producer that has found its broker, and the network client below it.

    Parameters
    ----------
    make : its class.
    settings : its arguments.

    Raises
    ------
    ConfigError
        If an argument cannot be meant.
    FeedError
        If no broker answers in time, or it refuses.
    """
    clients = list[KafkaNetClient]()

    def client(**configs: Any) -> KafkaNetClient:
        clients.append(KafkaNetClient(**configs))
        # kafka-python does not hand it on, and makes a topic that was deleted anew.
        wished = configs.get("allow_auto_create_topics", True)
        clients[-1].cluster.config["allow_auto_create_topics"] = wished
        return clients[-1]

    try:
        return make(**settings, kafka_client=client), clients[0]
    except (KafkaError, ValueError, TypeError, OSError) as error:
        for one in clients:  # a consumer that finds no broker leaves its thread and sockets open
            one.close()
        if not isinstance(error, KafkaError | OSError) or isinstance(
            error, KafkaConfigurationError
        ):
            raise refuses_settings(error) from error
        raise does_not_answer(",".join(settings["bootstrap_servers"]), error) from error
