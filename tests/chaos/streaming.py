"""`runners/stream.py` on a local exchange as a session that scenarios disturb."""

import random

from tests.chaos.lab import Lab
from tests.chaos.session import Session
from tests.streaming import records, stream_words
from tests.venue_server import VenueServer

DISTURBANCES = ("close", "cut", "half", "parts", "ping", "swap", "again", "noise")


def script(draw: random.Random, trades: int, disturbed: int, silent_s: float) -> dict[int, object]:
    """So many disturbances at places of their own, and one silence."""
    places = draw.sample(range(10, trades - 10), disturbed + 1)
    return {place: draw.choice(DISTURBANCES) for place in places} | {places[0]: silent_s}


class Streaming(Session):
    """A stream of one exchange to one topic."""

    runner = "stream"

    def __init__(self, lab: Lab, topic: str, venue: VenueServer, silent_s: float) -> None:
        super().__init__(lab, topic)
        self.words = [*stream_words(venue, lab.broker, topic, silent_s), "report_to_store=false"]

    def count(self) -> int:
        """Records of the topic."""
        return sum(self.lab.end_offsets(self.topic).values())

    def published(self, trades: int) -> dict[str, float]:
        """Trades of the topic, those `lost` and `doubled`, and `wrong` ones."""
        found = records(self.lab.broker, self.topic)
        ids = [number for number, _ in found]
        wrong = sum(said["price"] != 100.0 + (number or 0) for number, said in found)
        once = len(set(ids))
        return {
            "trades": len(ids), "lost": trades - once, "doubled": len(ids) - once, "wrong": wrong,
        }  # fmt: skip
