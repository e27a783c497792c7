"""From an exchange's socket to a backtest, all parts real: what was told is what is traded on."""

import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd

from sysquant import history
from sysquant.serve import ensure_server
from sysquant.store import connect, migrate
from sysquant.types import Instrument
from tests import forked
from tests.streaming import binance_past
from tests.test_socket import DISTURBED
from tests.test_stream_live import ROOT, real_frames, streaming, until
from tests.venue_server import VenueServer

__all__ = ["streaming"]  # a fixture
COLUMNS = ["open", "high", "low", "close", "volume"]


def bars_of_file(frames):
    """Minute bars by pandas, labelled by their close."""
    said = pd.DataFrame([json.loads(frame)["data"] for frame in frames]).sort_values(["T", "t"])
    said = said.assign(price=said.p.astype(float), volume=said.q.astype(float))
    minutes = said.groupby(said["T"] // 60_000 * 60_000 + 60_000)
    bars = minutes.price.agg(["first", "max", "min", "last"])
    bars.columns = COLUMNS[:4]
    return bars.assign(volume=minutes.volume.sum(), ticks=minutes.size())


def test_socket_to_kafka_to_ticks_to_bars_to_history_to_a_backtest(
    broker, topic, streaming, home, shared_data
):
    frames = real_frames(shared_data)
    wanted = bars_of_file(frames)
    dsn, server = ensure_server("chdb:data/store")
    client = connect(dsn)
    migrate(client)
    version = str(list(broker.client.get("api_version", ()))).replace(" ", "")
    words = [f"feed.bootstrap={broker.bootstrap}", f"feed.topic={topic}", "universe=crypto"]
    words += [f"feed.api_version={version}"] if broker.client else []
    ingest = subprocess.Popen(
        [sys.executable, str(ROOT / "runners" / "ingest.py"), *words], cwd=home,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        with VenueServer(frames, binance_past(frames), script=DISTURBED) as venue:
            stream = streaming(venue)
            stream.start()
            until(lambda: venue.is_over)
            until(lambda: _count(client) >= len(frames))
            assert stream.end()[0] == 0
        ingest.send_signal(signal.SIGTERM)
        said, _ = ingest.communicate(timeout=200)
        assert ingest.returncode == 0, said
        assert _count(client) == len(frames) == wanted.ticks.sum()
        btc = Instrument("BINANCE:BTCUSDT", tick_size=0.01, lot_size=0.00001, min_notional=5.0)
        found = history(btc, None, client=client)
        _equal(found.frame(btc.symbol), wanted)
        _equal(client.query_df("SELECT * FROM bars ORDER BY ts").set_index("ts"), wanted)
        done = forked.run(
            "backtest", "strategy=momentum", "universe=crypto", "feed=replay", "feed.start=null",
            "bars=1s", "strategy.fast=3", "strategy.slow=9", cwd=home,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        fills = client.query("SELECT reference, toUnixTimestamp64Milli(ts) FROM executions")
        told = {(float(one["p"]), one["T"]) for one in (json.loads(f)["data"] for f in frames)}
        assert len(fills.result_rows) > 10
        assert set(fills.result_rows) <= told, "every fill is at a price that the exchange told"
    finally:
        ingest.kill()
        ingest.communicate()
        client.close()
        if server is not None:
            server.terminate()
            server.wait(10)


def _count(client):
    return client.query("SELECT count() FROM ticks").result_rows[0][0]


def _equal(bars, wanted):
    assert len(bars) == len(wanted) >= 5
    labels = pd.to_datetime(wanted.index, unit="ms", utc=True)
    assert (pd.to_datetime(bars.index, utc=True) == labels).all()
    for name in COLUMNS[:4]:
        np.testing.assert_array_equal(bars[name], wanted[name], err_msg=name)
    np.testing.assert_allclose(bars.volume, wanted.volume, rtol=1e-12)
