"""What the server of `forked` does once: import what the runners import, and load the engine."""

import gc

from runners import backfill, backtest, check, ingest, live, retrain, stream
from tests.market import engine, ticks

__all__ = ["backfill", "backtest", "check", "ingest", "live", "retrain", "stream"]

engine().step(ticks(2))
gc.freeze()
