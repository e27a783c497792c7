"""Backtest one strategy on the store's history: the engine that trades live, and its report.

python runners/backtest.py strategy=momentum
python runners/backtest.py strategy=momentum strategy.fast=5,10,20 --multirun
python runners/backtest.py --multirun strategy.fast='range(5,60,5)' execution=free,simulated
python runners/backtest.py --multirun hydra/sweeper=optuna strategy.slow='interval(40,400)'

--multirun tries every combination of several values: a table, the best first, sweep.csv and a
report; docs/sweeps.md tells of searches, processes and clusters.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import secrets

from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from runners.past import compile_first, past_of
from sysquant import backtesting, plot, research
from sysquant.errors import DataError, StoreError
from sysquant.recording import Extent, record

log = logging.getLogger(__name__)


def job(cfg: DictConfig) -> "dict[str, float | int | str]":
    """What a job of a multirun does in a process of its own."""
    from runners.jobs import row_of

    return row_of(cfg)


@compose.main("config", job=job)
def main(cfg: DictConfig) -> None:
    """Run the feed of the past through the engine, write rows and report, print the result."""
    compose.start_log(quiet=True)
    compile_first(cfg)
    past = past_of(cfg)
    engine = parts.engine_of(cfg, past.universe, past.funding)
    extent = Extent()
    result = backtesting.run(
        engine, extent.seen(backtesting.poll_all(past.feed)),
        name=f"backtest-{secrets.token_hex(6)}", history=past.history,
    )  # fmt: skip
    past.feed.close()
    record(result, extent)
    try:
        research.carry(past.client)
    except (DataError, StoreError) as error:  # the gate says so again, and refuses
        log.warning("research error=%s", compose.sentence(error))
    book = str(cfg.book.name or compose.choice("strategy"))
    result.store(past.client, book, OmegaConf.to_yaml(cfg))
    span = {"start": result.start, "end": result.end}  # first and last event, ns UTC
    compose.record(run=result.labels.run, feed=past.feed.name, **span, **engine.fingerprint())
    print(result)
    print(f"  run {result.labels.run}, files in {compose.output_dir()}")
    print(f"  report {plot.report(result, compose.output_dir() / 'report.html')}")


if __name__ == "__main__":
    main()
