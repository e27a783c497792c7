"""An exchange that cuts, repeats, swaps and falls silent, and a stream that is killed: all once."""

import random
import signal

from tests.chaos.harness import scenario
from tests.chaos.session import until
from tests.chaos.streaming import Streaming, script
from tests.streaming import binance_frame, binance_past
from tests.venue_server import VenueServer


@scenario(
    small={"trades": 3_000, "disturbed": 20, "kills": 1, "silent_s": 1.5},
    full={"trades": 200_000, "disturbed": 500, "kills": 20, "silent_s": 60.0},
    zero=("lost", "doubled", "wrong"), least={"connections": 3, "disturbed": 10},
)  # fmt: skip
def exchange_disturbed(lab, seed, trades, disturbed, kills, silent_s):
    draw, topic = random.Random(seed), lab.topic()
    told = [binance_frame(number) for number in range(trades)]
    does = script(draw, trades, disturbed, silent_s)
    with VenueServer(told, binance_past(told), script=does) as venue:
        with Streaming(lab, topic, venue, silent_s / 2) as stream:
            stream.start()
            for place in sorted(draw.sample(range(trades), kills)):
                until(lambda least=place: venue.place >= least, 300)
                stream.end(signal.SIGKILL)
                venue.place += draw.randrange(100)
                stream.start()
            until(lambda: stream.count() >= trades, 300)
            ended = stream.end()
        assert ended.code == 0, ended.said
        return stream.published(trades) | {
            "connections": venue.connections, "disturbed": venue.disturbed,
        }  # fmt: skip
