"""A stream of a local exchange to a topic: its command line, frames, and what reached the topic."""

import json
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from tests.venue_server import VenueServer


def binance_frame(number: int, symbol: str = "BTCUSDT", price: float | str | None = None) -> str:
    """A frame of the combined streams: one trade."""
    said = {
        "e": "trade", "E": number + 5, "s": symbol, "t": number, "p": str(price or 100 + number),
        "q": "0.5", "T": 1_723_161_600_000 + number, "m": True, "M": True,
    }  # fmt: skip
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": said})


def binance_past(frames: list[str]) -> Any:
    """What REST answers of the trades of frames."""
    told = [json.loads(frame)["data"] for frame in frames]
    told = sorted((one["t"], one["s"], one["p"], one["q"], one["T"]) for one in told)

    def past(path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        assert path == "/api/v3/historicalTrades"
        first, limit = int(query["fromId"]), int(query["limit"])
        rows = [one for one in told if one[0] >= first and one[1] == query["symbol"]][:limit]
        return [dict(zip(("id", "price", "qty", "time"), (t, p, q, ms), strict=True))
                for t, _, p, q, ms in rows]  # fmt: skip

    return past


def stream_words(server: VenueServer, broker: Any, topic: str, silent_s: float = 1.0) -> list[str]:
    """Of the command line of `runners/stream.py`."""
    version = str(list(broker.client.get("api_version", ()))).replace(" ", "")
    return [
        "source=binance", "universe=crypto", f"source.venue.url={server.url}",
        f"source.venue.rest={server.rest}", f"publisher.bootstrap={broker.bootstrap}",
        f"publisher.topic={topic}", f"source.silent_s={silent_s}", "source.retry_s=0.3",
        "report_s=0.5", *([f"publisher.api_version={version}"] if broker.client else []),
    ]  # fmt: skip


def records(broker: Any, topic: str) -> list[tuple[int, dict[str, Any]]]:
    """Header id and value of every record of a topic of one partition, in order."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, **broker.client)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end, found = consumer.end_offsets([place])[place], []
    while (consumer.position(place) or 0) < end:
        for batch in consumer.poll(timeout_ms=250).values():
            found += [(int(dict(r.headers)["binance"]), json.loads(r.value)) for r in batch]
    consumer.close()
    return found
