"""Trades of an exchange's socket, whatever happens to it: each once, gaps filled or told."""

import gzip
import json
import time

import numpy as np
import pytest

from runners.kafka import free_ports
from sysquant.errors import ConfigError
from sysquant.feeds.marks import Published
from sysquant.feeds.sequence import Missing
from sysquant.feeds.socket import SocketFeed
from sysquant.feeds.venues.binance import Binance
from sysquant.feeds.venues.coinbase import Coinbase
from sysquant.feeds.venues.finnhub import Finnhub
from sysquant.types import Instrument, Ticks
from tests.streaming import binance_frame, binance_past
from tests.venue_server import VenueServer

UNIVERSE = [Instrument("BINANCE:ETHUSDT"), Instrument("BINANCE:BTCUSDT")]
DISTURBED = {
    20: "ping", 60: "swap", 100: "close", 160: "parts", 200: "half", 260: "again", 300: "cut",
    340: "noise", 380: 1.5, 420: "close", 430: "close", 500: "swap", 502: "half",
}  # fmt: skip


@pytest.fixture
def binance():
    """Feed of a server's frames; closed at the end."""
    feeds = []

    def make(server, **options):
        venue = Binance(url=server.url, rest=server.rest)
        options = {"silent_s": 1.0, "retry_s": 0.3, "hold_s": 1.0} | options
        feeds.append(SocketFeed(universe=UNIVERSE, venue=venue, **options))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def read(feed, is_done, timeout_s=30.0):
    batches, gaps, until = [Ticks.empty()], [], time.monotonic() + timeout_s
    while not is_done(sum(map(len, batches))):
        assert time.monotonic() < until, feed.counters
        poll = feed.poll(0.1)
        batches.append(poll.events)
        gaps += feed.gaps
    return Ticks.join(batches), gaps


def told(ticks):
    return set(zip(ticks.offset.tolist(), ticks.price.tolist(), ticks.volume.tolist(),
                   (ticks.ts // 1_000_000).tolist(), strict=True))  # fmt: skip


def truth(frames):
    said = [json.loads(frame)["data"] for frame in frames]
    return {(one["t"], float(one["p"]), float(one["q"]), one["T"]) for one in said}


def test_real_frames_come_once_each_whatever_happens_to_the_socket(binance, shared_data):
    path = shared_data / "binance_spot_btcusdt_2024-08-09_frames.jsonl.gz"
    with gzip.open(path, "rt") as file:
        frames = [json.dumps(json.loads(line)["frame"]) for line in file][:3_000]
    wanted = truth(frames)
    with VenueServer(frames, binance_past(frames), script=DISTURBED) as server:
        feed = binance(server)
        ticks, gaps = read(feed, lambda count: count >= len(wanted))
        more = feed.poll(0.5).events
    assert len(ticks) == len(wanted) and not len(more)
    assert told(ticks) == wanted
    assert (np.diff(ticks.offset) > 0).all(), "what was missed is back in its place"
    assert feed.counters.connections >= 5 and feed.counters.filled >= 20
    assert (gaps, feed.counters.lost) == ([], 0)
    assert server.script == {}, "everything was tried"


def test_what_rest_does_not_bring_is_told_and_the_rest_goes_on(binance):
    frames = [binance_frame(number) for number in range(100)]
    with VenueServer(frames, script={30: "close"}) as server:
        feed = binance(server, hold_s=0.2, give_up_s=1.0)
        ticks, gaps = read(feed, lambda _: feed.counters.lost)
    assert ticks.offset.tolist() == [*range(30), *range(37, 100)]
    assert gaps == ["BTCUSDT: trades 30 to 36 are lost"] and feed.counters.lost == 7


def test_what_rest_brings_late_follows(binance):
    frames = [binance_frame(number) for number in range(100)]
    with VenueServer(frames, binance_past(frames), script={30: "close"}) as server:
        server.is_rest_down = True
        feed = binance(server, hold_s=0.2, give_up_s=30.0)
        first, _ = read(feed, lambda count: count == 93)
        server.is_rest_down = False
        late, gaps = read(feed, lambda count: count == 7)
    assert late.offset.tolist() == [*range(30, 37)] and not gaps
    assert late.received_at.min() > first.ts.max()


def test_a_topic_that_stands_somewhere_is_gone_on_from_there(binance):
    frames = [binance_frame(number) for number in range(100)]
    with VenueServer(frames, binance_past(frames)) as server:
        server.place = 50
        feed = binance(server)
        feed.go_on({1: Published(20, [Missing(1, 7, 8)])}, {})
        ticks, _ = read(feed, lambda count: count == 82)
    assert ticks.offset.tolist()[:2] == [7, 8] or 7 in ticks.offset
    assert sorted(ticks.offset.tolist()) == [7, 8, *range(20, 100)]


def test_too_long_an_absence_is_told_and_its_end_filled(binance):
    frames = [binance_frame(number) for number in range(300)]
    with VenueServer(frames, binance_past(frames)) as server:
        server.place = 250
        feed = binance(server, most_filled=100)
        feed.go_on({1: Published(20, [])}, {})
        ticks, gaps = read(feed, lambda count: count == 150)
    assert ticks.offset.tolist() == [*range(150, 300)]
    assert gaps == ["BTCUSDT: trades 20 to 149 are lost"]


def test_two_symbols_are_counted_apart(binance):
    frames = [
        binance_frame(number, name) for number in range(50) for name in ("BTCUSDT", "ETHUSDT")
    ]
    with VenueServer(frames, binance_past(frames), script={40: "close"}) as server:
        ticks, _ = read(binance(server), lambda count: count == 100)
    for symbol in range(2):
        assert ticks.offset[ticks.symbol == symbol].tolist() == list(range(50))
    assert (ticks.partition == ticks.symbol).all()


def test_what_cannot_be_meant_is_counted_and_no_tick(binance):
    frames = [binance_frame(0), binance_frame(1, price="-1"), binance_frame(2, price="nan"),
              '{"error":{"code":2,"msg":"no"}}', '{"data":1}',
              binance_frame(9).replace('"t":', '"other":'), binance_frame(3)]  # fmt: skip
    with VenueServer(frames) as server:
        feed = binance(server)
        ticks, _ = read(feed, lambda count: count == 2)
    assert ticks.offset.tolist() == [0, 3]
    assert feed.counters.bad == 5
    assert feed.unheard == ["ETHUSDT"]


def test_an_exchange_that_is_not_there_is_waited_for(caplog):
    (port,) = free_ports(1)
    feed = SocketFeed(universe=UNIVERSE, venue=Binance(url=f"ws://127.0.0.1:{port}"))
    assert not feed.poll(0.3).is_connected
    assert not len(feed.poll(0.3).events)
    feed.close()
    assert any("cannot be reached" in record.getMessage() for record in caplog.records)


# -- other exchanges


def coinbase_frame(number, kind="match"):
    return json.dumps({
        "type": kind, "trade_id": number, "maker_order_id": "a", "side": "sell", "size": "0.25",
        "price": str(10 + number), "product_id": "BTC-USD", "sequence": number * 3,
        "time": f"2026-01-01T00:00:{number % 60:02d}.028459Z",
    })  # fmt: skip


def coinbase_past(count):
    def past(path, query):
        assert path == "/products/BTC-USD/trades"
        after, limit = int(query["after"]), int(query["limit"])
        numbers = range(min(after, count) - 1, max(-1, after - 1 - limit), -1)
        return [json.loads(coinbase_frame(number)) for number in numbers]

    return past


def test_coinbase_counts_by_its_heartbeat_and_fills_from_its_pages(monkeypatch):
    monkeypatch.setattr("sysquant.feeds.venues.coinbase.PAGE", 3)
    beat = '{"type":"heartbeat","sequence":90,"last_trade_id":59,"product_id":"BTC-USD"}'
    frames = ['{"type":"subscriptions","channels":[]}', coinbase_frame(5, "last_match")]
    frames += [coinbase_frame(number) for number in range(6, 58)] + [beat]
    universe = [Instrument("COINBASE:BTC-USD")]
    with VenueServer(frames, coinbase_past(60), script={20: "close"}) as server:
        venue = Coinbase(url=server.url, rest=server.rest)
        feed = SocketFeed(universe=universe, venue=venue, retry_s=0.2, hold_s=2.0)
        ticks, gaps = read(feed, lambda count: count == 55)
        feed.close()
    assert ticks.offset.tolist() == [*range(5, 60)] and not gaps
    assert ticks.ts[0] == 1_767_225_605_028_000_000
    assert json.loads(server.greetings[0]) == {
        "type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches", "heartbeat"],
    }  # fmt: skip
    assert all(int(query["limit"]) <= 3 for _, query in server.asked)


def test_finnhub_brings_trades_without_ids_and_tells_that_a_connection_was_lost(caplog):
    def frame(*prices):
        trades = [{"s": "AAPL", "p": price, "t": 1_575_526_691_134, "v": 3} for price in prices]
        return json.dumps({"type": "trade", "data": trades})

    frames = [frame(1.0, 1.0, 2.0), '{"type":"ping"}', frame(3.0), frame(4.0)]
    with VenueServer(frames, script={0: "greeted", 3: "cut"}) as server:
        venue = Finnhub(token="se cret", url=server.url)
        feed = SocketFeed(universe=[Instrument("AAPL")], venue=venue)
        ticks, gaps = read(feed, lambda count: count == 4 and feed.counters.connections == 2)
        feed.poll(0.2)
        gaps += feed.gaps
        feed.close()
    assert ticks.price.tolist() == [1.0, 1.0, 2.0, 3.0]
    assert "finnhub: unknown trades" in gaps[0]
    assert not any("cret" in record.getMessage() for record in caplog.records)
    assert json.loads(server.greetings[0]) == {"type": "subscribe", "symbol": "AAPL"}


def test_one_trade_that_cannot_be_read_does_not_cost_the_others_of_its_frame():
    venue = Finnhub(token="secret")
    venue.want([Instrument("AAPL")])
    good = {"s": "AAPL", "p": 1.0, "t": 1_575_526_691_134, "v": 3}
    heard = venue.read(json.dumps({"type": "trade", "data": [good, good | {"p": "x"}, good]}), 0)
    assert len(heard.trades) == 2 and "unreadable trade" in heard.complaint


def test_finnhub_without_a_token_is_refused():
    with pytest.raises(ConfigError, match="FINNHUB_TOKEN"):
        Finnhub(token="")


def test_a_universe_without_the_venues_symbols_is_refused():
    with pytest.raises(ConfigError, match="begins with 'COINBASE:'"):
        Coinbase().want(UNIVERSE)


@pytest.mark.parametrize("name", ["btcusdt", "BTC/USDT", "BTC-USDT", ""])
def test_a_symbol_that_would_stay_silent_is_refused(name):
    with pytest.raises(ConfigError, match="one is BINANCE:BTCUSDT"):
        Binance().want([Instrument(f"BINANCE:{name}")])
    with pytest.raises(ConfigError, match="one is COINBASE:BTC-USD"):
        Coinbase().want([Instrument("COINBASE:BTCUSD")])


@pytest.mark.parametrize(
    "url", ["https://x.example", "wss://", "stream", "wss://user@x.example", "ws://x:99999"]
)
def test_an_address_that_cannot_be_meant_is_refused_without_the_token(url):
    with pytest.raises(ConfigError, match=r"source\.venue\.url") as error:
        SocketFeed(universe=UNIVERSE, venue=Finnhub(token="secret", url=url))
    assert "secret" not in str(error.value)
    with pytest.raises(ConfigError, match=r"source\.venue\.rest"):
        Binance(rest="api.example")


def test_at_the_end_what_waited_goes_out_and_what_is_missing_is_known(binance):
    frames = [binance_frame(number) for number in range(100)]
    with VenueServer(frames, script={30: "close"}) as server:
        feed = binance(server, hold_s=60.0)
        first, _ = read(feed, lambda _: server.is_over and feed._sequences[1]._last == 99)
        feed.close()
        waited, missing = feed.rest()
    assert first.offset.tolist() == [*range(30)] and waited.offset.tolist() == [*range(37, 100)]
    assert missing == {"BTCUSDT": [(30, 36)]} and feed.counters.trades == 93


def test_ids_that_began_anew_while_nobody_looked_are_followed(binance):
    late = [binance_frame(number) for number in range(50)]
    newest = json.loads(late[0])["data"]["T"] * 1_000_000 - 3_600 * 10**9
    with VenueServer(late) as server:
        feed = binance(server)
        feed.go_on({1: Published(5_000, [], newest)}, {})
        ticks, gaps = read(feed, lambda count: count >= 49)
    assert ticks.offset.tolist()[-1] == 49 and "ids went back from 5000" in gaps[0]


def test_one_price_that_is_none_costs_its_trade_and_not_the_page(binance):
    frames = [binance_frame(number) for number in range(100)]
    past = binance_past(frames)

    def odd(path, query):
        return [one | ({"price": "abc"} if one["id"] == 33 else {}) for one in past(path, query)]

    with VenueServer(frames, odd, script={30: "close"}) as server:
        feed = binance(server)
        ticks, gaps = read(feed, lambda count: count == 99)
    assert ticks.offset.tolist() == [n for n in range(100) if n != 33] and not gaps
    assert feed.counters.bad == 1


def test_what_was_given_up_before_is_not_asked_for_again(binance):
    frames = [binance_frame(number) for number in range(100)]
    with VenueServer(frames, binance_past(frames)) as server:
        server.place = 50
        feed = binance(server)
        lacks = [Missing(1, 7, 8), Missing(1, 10, 15)]
        feed.go_on({1: Published(50, lacks)}, {"BTCUSDT": [(7, 8), (12, 13)]})
        ticks, _ = read(feed, lambda count: count == 54)
    assert sorted(ticks.offset.tolist()) == [10, 11, 14, 15, *range(50, 100)]
