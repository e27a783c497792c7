"""Runs for the research ledger's tests; processes import it, with the home that they are given."""

from sysquant import research
from sysquant.recording import Extent, Recorder
from sysquant.strategies.momentum import Momentum
from tests.benchmarks.markets import Walk

BARS = Walk().bars(3_000)
TERMS = {"symbols": "SIM:S0", "bars": "1m", "risk": "none"}
ANY = (0, 1 << 62)


def filled(runs, name=0, *, told=False):
    """Add runs one by one, and say so after each."""
    extent = Extent(BARS)
    for number in range(runs):
        with Recorder(Momentum(), TERMS, extent, "backtest") as recorder:
            recorder.add({"fast": name, "slow": number}, 0.1, 30)
        if told:
            print(number, flush=True)


def counted(strategy=None):
    """What was tried of a strategy's lineage, on any data."""
    return research.tried(strategy or Momentum(), *ANY)
