"""History into the store: a file of ticks or minute bars, or the synthetic sample.

`python runners/backfill.py source=sample`, or
`python runners/backfill.py source=file path=ticks.parquet universe=crypto`, or
`python runners/backfill.py source=binance_archive universe=crypto source.start=2024-01-01`, or
`python runners/backfill.py source=ccxt universe=crypto source.exchange=binance source.start=-7d`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from runners import compose, parts
from sysquant import backfill
from sysquant.binance_archive import import_archive
from sysquant.ccxt_candles import import_candles
from sysquant.errors import ConfigError, nearest
from sysquant.home import under_home
from sysquant.keys import check_number
from sysquant.mapping import row_count
from sysquant.store import connect, migrate
from sysquant.types import Instrument


@compose.main("backfill")
def main(cfg: DictConfig) -> None:
    """Import what the configuration names, and say what was done and found."""
    universe = parts.universe_of(cfg)
    source = compose.choice("source")
    if source not in IMPORTS:
        raise ConfigError(f"source={source} cannot be imported{nearest(source, IMPORTS)}")
    if source == "file" and cfg.path is None:
        raise ConfigError("path was not set; name a file: source=file path=ticks.parquet")
    check_number("gap_s", cfg.gap_s, above=0)
    check_number("absurd", cfg.absurd, above=0)
    client = connect(cfg.store.dsn)
    try:
        migrate(client)
        report = IMPORTS[source](cfg, client, universe)
    finally:
        client.close()
    show(report)
    if report is not None and (not report.rows or (report.bad and not report.added)):
        raise SystemExit(1)


def _from_file(cfg: DictConfig, client: Client, universe: list[Instrument]) -> backfill.Report:
    path = Path(cfg.path).expanduser()
    path = path if path.exists() else under_home(path)
    rows = row_count(path)
    with _bar(rows and 2 * rows) as bar:  # checked, then stored
        return backfill.import_file(
            client,
            universe,
            path,
            compose.build(cfg.mapping),
            gap_s=cfg.gap_s,
            absurd=cfg.absurd,
            overlap=cfg.overlap,
            progress=bar.update,
        )


def _sample(cfg: DictConfig, client: Client, universe: list[Instrument]) -> backfill.Report | None:
    with _bar() as bar:
        return backfill.sample(client, universe, progress=bar.update, **cfg.source)


def _from_binance(cfg: DictConfig, client: Client, universe: list[Instrument]) -> backfill.Report:
    archive = compose.build(cfg.source)
    with _bar(archive.days(universe), "days") as bar:
        return import_archive(
            client,
            universe,
            archive,
            gap_s=cfg.gap_s,
            absurd=cfg.absurd,
            overlap=cfg.overlap,
            progress=bar.update,
        )


def _from_ccxt(cfg: DictConfig, client: Client, universe: list[Instrument]) -> backfill.Report:
    wanted = compose.build(cfg.source)
    with _bar(wanted.minutes(universe), "minutes") as bar:
        return import_candles(client, universe, wanted, absurd=cfg.absurd, progress=bar.update)


IMPORTS = {
    "file": _from_file,
    "sample": _sample,
    "binance_archive": _from_binance,
    "ccxt": _from_ccxt,
}


def _bar(total: int | None = None, unit: str = "rows") -> tqdm:
    # On a terminal only: piped output is plain lines.
    return tqdm(unit=f" {unit}", unit_scale=True, total=total, leave=False, disable=None)


def show(report: backfill.Report | None) -> None:
    """Print a report: a table at a terminal, plain lines when piped."""
    if report is None:
        print("the store has ticks of this universe already: nothing was added")
        return
    if not sys.stdout.isatty():
        print(report)
        return
    table = Table(
        title=f"{report.added} of {report.rows} {report.kind} added as {report.source}",
        caption=report.span,
    )
    table.add_column("symbol")
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_column("worst or first case")
    for symbol, rows in report.counts.items():
        table.add_row(escape(symbol), report.kind, f"{rows:,}", "")
    for found in report.findings:
        table.add_row(escape(found.symbol), found.kind, f"{found.count:,}", escape(found.example))
    console = Console()
    console.print(table)
    for remark in report.remarks:
        console.print(escape(remark))


if __name__ == "__main__":
    main()
