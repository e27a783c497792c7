"""What a session had done through another risk chain: which orders flip, and what it makes of P&L.

python runners/check.py whatif strategy=momentum feed=kafka risk=strict days=30

The words are those that live.py was given, but for the group `risk`, which is the other chain; of
a backtest that is in the store, run=... and the words of backtest.py. The targets are the recorded
ones: no strategy and no model is asked again.
"""

import ast
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, redirect_stdout
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from runners import chain, compose, parts, promoted
from runners.past import closed, past_of
from sysquant import journal_reader
from sysquant.backtesting import poll_all
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError
from sysquant.flips import Difference, Flip, Side, compare, purpose_of
from sysquant.home import home
from sysquant.inspection import iso
from sysquant.keys import check_number
from sysquant.packed import unpack_batch, unpack_table
from sysquant.session import recorded
from sysquant.store import connect
from sysquant.times import DAY
from sysquant.whatif import Course, Step, replay, steps_of

_MOST_TOLD = 20  # flips, the first ones
_CONFIG_SQL = """
SELECT config, build FROM runs WHERE run = {run:String} ORDER BY started_at DESC LIMIT 1
"""
_SIGNALS_SQL = """
SELECT seq, toUnixTimestamp64Nano(ts), toString(strategy), toString(symbol), target FROM signals
WHERE run = {run:String} ORDER BY seq, ts
"""
_FAULTS_SQL = """
SELECT toString(strategy), toUnixTimestamp64Nano(ts) FROM events
WHERE run = {run:String} AND kind = 'fault'
"""
_ORDERS_SQL = """
SELECT toString(strategy), order_no, toUnixTimestamp64Nano(ts), quantity, status = 'approved'
FROM orders WHERE run = {run:String} ORDER BY strategy, order_no
"""
_END_SQL = "SELECT toUnixTimestamp64Nano(max(ts)) FROM portfolio_history WHERE run = {run:String}"


class Recorded(NamedTuple):
    """A session or a backtest as it was recorded.

    Parameters
    ----------
    run : its name in the store.
    engines : fresh, of its own chain and of the other.
    steps : what it took.
    signals, faults : what its strategies wanted, and where they raised.
    end : of it, ns UTC.
    """

    run: str
    engines: tuple[Engine, Engine]
    steps: Iterable[Step]
    signals: pa.Table
    faults: list[tuple[str, int]]
    end: int


@compose.main("check_whatif")
def whatif(cfg: DictConfig) -> None:
    """Which orders of a session another risk chain flips, and what becomes of P&L and drawdown."""
    compose.start_log(quiet=True)
    days = compose.value(cfg, "days", float | None)
    if days is not None:
        check_number("days", days, above=0)
    run, as_json = compose.value(cfg, "run", str | None), compose.value(cfg, "json", bool)
    if run is None:
        found, courses = _of_session(cfg, days)
    else:
        found, courses = _of_backtest(cfg, run, days)
    difference = compare(*(Side(one.reviews, *one.equity) for one in courses))
    _show(found, courses, difference, as_json=as_json)


# -- what was recorded


def _of_session(cfg: DictConfig, days: float | None) -> tuple[Recorded, tuple[Course, Course]]:
    book = compose.book_of(cfg)
    directory = home() / "data" / "journals" / book
    known = journal_reader.meta(directory)
    if "fingerprint" not in known:
        raise DataError(
            f"there is no session of a book {book!r} in {directory.parent}: give the words that "
            "live.py was given, and its book.name if it had one; of a backtest its run=..."
        )

    def opened() -> Client:
        return connect(cfg.store.dsn)

    feed = None
    if compose.choice("feed") == "replay":
        feed = parts.feed_of(cfg, parts.universe_of(cfg), opened)
    with redirect_stdout(sys.stderr):  # what json=true prints is for scripts
        chain.rate(cfg, opened, feed, known.get("quality", ""))
    universe = parts.universe_of(cfg)
    funding = parts.funding_of(cfg, universe, opened, feed)
    run = known["id"]
    newest, end = _newest(directory)
    waiting = _waiting(directory)  # before the store is asked: what leaves here is there
    with closing(opened()) as client:
        own, _ = _configured(cfg, client, run)
        said: dict[str, str] = json.loads(known["fingerprint"])
        session = _engine_of(own, universe, funding, said)
        _refuse_other(said, session.fingerprint())
        other = _engine_of(cfg, universe, funding, said)
        signals = _signals(client, run, waiting["signals"])
        faults = _faults(client, run, waiting["events"])
    inputs = takewhile(lambda one: one.seq <= newest, recorded(directory, home() / "runs" / run))
    steps = steps_of(tqdm(inputs, unit=" inputs", leave=False, disable=None))
    found = Recorded(run, (session, other), steps, signals, faults, end)
    return found, _replayed(found, days)


def _of_backtest(
    cfg: DictConfig, run: str, days: float | None
) -> tuple[Recorded, tuple[Course, Course]]:  # fmt: skip
    with redirect_stdout(sys.stderr):
        past = past_of(cfg)
    with closed(past):
        own, build = _configured(cfg, past.client, run)
        said: dict[str, str] = ast.literal_eval(build)
        session = _engine_of(own, past.universe, past.funding, said)
        _refuse_other(said, session.fingerprint())
        other = _engine_of(cfg, past.universe, past.funding, said)

        def steps() -> Iterator[Step]:
            is_first = past.history is not None
            for batch in tqdm(poll_all(past.feed), unit=" batches", leave=False, disable=None):
                if len(batch):
                    if is_first and past.history is not None:
                        warm = past.history(session.warmup_end(batch), {})
                        yield Step(warm, "history")
                    is_first = False
                    yield Step(batch, "events")

        ((end,),) = past.client.query(_END_SQL, {"run": run}).result_rows
        signals = _signals(past.client, run, [])
        found = Recorded(run, (session, other), steps(), signals, [], int(end))
        courses = _replayed(found, days)
        _refuse_other_orders(past.client, run, courses[0], whole=days is None)
    return found, courses


def _replayed(found: Recorded, days: float | None) -> tuple[Course, Course]:
    since = 0 if days is None else max(found.end - round(days * DAY), 1)
    return replay(*found.engines, found.steps, found.signals, found.faults, since=since)


def _configured(cfg: DictConfig, client: Client, run: str) -> tuple[DictConfig, str]:
    # The configuration with the chain that was recorded, and what it was built of.
    rows = client.query(_CONFIG_SQL, {"run": run}).result_rows
    if not rows:
        raise DataError(f"the store has no run {run!r}: look at the table runs, or at the store=")
    own, recorded_one = cfg.copy(), OmegaConf.create(str(rows[0][0]))
    OmegaConf.update(own, "risk", OmegaConf.select(recorded_one, "risk"), merge=False)
    return own, str(rows[0][1])


def _engine_of(cfg: DictConfig, universe: Any, funding: Any, said: Mapping[str, str]) -> Engine:
    names = promoted.named(said)
    return parts.engine_of(cfg, universe, funding, contained=True, promoted=names)


def _refuse_other(was: Mapping[str, str], now: Mapping[str, str]) -> None:
    names = [name for name, said in now.items() if was.get(name, "") != said]
    if names:
        raise ConfigError(
            f"the session's book differs: {', '.join(names)}; give the words that it was started "
            "with, all but those of risk"
        )


def _refuse_other_orders(client: Client, run: str, course: Course, *, whole: bool) -> None:
    rows = client.query(_ORDERS_SQL, {"run": run}).result_rows
    names = list(course.engine.strategies)
    orders = course.reviews.orders
    columns = (orders[n].tolist() for n in ("strategy", "order_no", "ts", "quantity", "approved"))
    made = sorted((names[s], *rest) for s, *rest in zip(*columns, strict=True))
    stored = [(name, number, ts, size, int(ok)) for name, number, ts, size, ok in rows]
    if not whole:
        first = int(course.equity[0][0])
        stored = [row for row in stored if row[2] > first]
    if made != stored:
        raise DataError(
            f"the recorded targets lead to {len(made):,} orders that are not the {len(stored):,} "
            f"that {run} made: its market in the store is another one by now, or the words "
            "feed.start and feed.end were others"
        )


def _waiting(directory: Path) -> dict[str, list[dict[str, Any]]]:
    # Rows on their way to the store.
    found: dict[str, list[dict[str, Any]]] = {"signals": [], "events": []}
    rows = journal_reader.ask(
        directory, "SELECT tbl, payload FROM outbox WHERE tbl IN ('signals', 'events') ORDER BY id"
    )
    for table, payload in rows:
        columns = unpack_table(payload)
        at = columns.schema.get_field_index("ts")
        whole = columns.set_column(at, "ts", columns["ts"].cast(pa.int64()))
        found[table] += whole.to_pylist()
    return found


def _signals(client: Client, run: str, waiting: list[dict[str, Any]]) -> pa.Table:
    rows: list[Any] = list(client.query(_SIGNALS_SQL, {"run": run}).result_rows)
    known = {row[:4] for row in rows}
    more = [tuple(one[n] for n in ("seq", "ts", "strategy", "symbol", "target")) for one in waiting]
    rows = sorted([*rows, *(one for one in more if one[:4] not in known)], key=lambda one: one[:2])
    columns = list(zip(*rows, strict=True)) or [()] * 5
    kinds = (pa.uint64(), pa.int64(), pa.string(), pa.string(), pa.float64())
    names = ("seq", "ts", "strategy", "symbol", "target")
    arrays = [pa.array(list(of), kind) for of, kind in zip(columns, kinds, strict=True)]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _faults(client: Client, run: str, waiting: list[dict[str, Any]]) -> list[tuple[str, int]]:
    stored = {(name, ts) for name, ts in client.query(_FAULTS_SQL, {"run": run}).result_rows}
    return sorted(stored | {(w["strategy"], w["ts"]) for w in waiting if w["kind"] == "fault"})


def _newest(directory: Path) -> tuple[int, int]:
    # The newest input of a session that may go on, and the event time of the newest with events.
    ((newest,),) = journal_reader.ask(directory, "SELECT ifnull(max(seq), 0) FROM inputs")
    rows = journal_reader.ask(
        directory,
        "SELECT kind, payload FROM inputs WHERE kind IN ('ticks', 'bars') "
        "ORDER BY seq DESC LIMIT 1",
    )
    return newest, max((int(unpack_batch(*row).ts.max()) for row in rows), default=0)


# -- what is told


def _show(
    found: Recorded, courses: tuple[Course, Course], of: Difference, *, as_json: bool
) -> None:  # fmt: skip
    left_out = courses[1].left_out
    page = _drawn(found, of)
    if as_json:
        print(json.dumps(_plain(found, of, left_out, page), indent=1))
        return
    start, end = (iso(int(ts)) for ts in of.was.ts[[0, -1]])
    print(
        f"{found.run}, {start} to {end}: {len(of.flips):,} of {len(of.was.reviews):,} orders flip"
    )
    if sys.stdout.isatty():
        _table(found, of.flips[:_MOST_TOLD])
    else:
        for flip in of.flips[:_MOST_TOLD]:
            print(f"  {_line(found, flip)}")
    if len(of.flips) > _MOST_TOLD:
        print(f"  and {len(of.flips) - _MOST_TOLD:,} more, see json=true")
    for (turn, check), count in of.by_check.items():
        print(f"  {check}: {count:,} {_TURNS[turn]}")
    for name, side in (("session", of.was), ("other chain", of.would)):
        said = ", ".join(f"{what} {count:,}" for what, count in side.counts.items())
        print(f"{name}: P&L {side.pnl:,.2f}, drawdown {abs(side.drawdown):.2%}, {said}")
    print(
        f"change: P&L {of.pnl:+,.2f}, drawdown {0.0 - of.drawdown:+.2%}; {of.same:,} orders are "
        f"the same, {of.resized:,} of another size, {of.gone:,} are not made, {of.new:,} are new"
    )
    for said in left_out:
        print(f"  {said}")
    print(f"both equities: {page}")


_TURNS = {"refused": "refused instead", "approved": "approved instead", "cut": "cut otherwise"}


def _names(found: Recorded, flip: Flip) -> tuple[str, str]:
    engine = found.engines[0]
    return tuple(engine.strategies)[flip.strategy], engine.symbols[flip.symbol]


def _cells(found: Recorded, flip: Flip) -> list[str]:
    strategy, symbol = _names(found, flip)
    checks = ", ".join(flip.checks)
    return [
        iso(flip.ts), f"{strategy} {flip.order_no}", symbol, f"{flip.asked:+.10g}",
        _TURNS[flip.turn], f"{flip.was:+.10g}", f"{flip.would:+.10g}", checks,
        f"{flip.value:.6g}", f"{flip.limit:g}",
    ]  # fmt: skip


def _line(found: Recorded, flip: Flip) -> str:
    at, order, symbol, asked, turn, was, would, checks, value, limit = _cells(found, flip)
    return (
        f"{at} {order} {symbol} {asked}: {turn}, {was} becomes {would}; {checks} {value}, "
        f"limit {limit}"
    )


def _table(found: Recorded, flips: tuple[Flip, ...]) -> None:
    table = Table(title="Orders that flip", title_justify="left")
    words = ("time", "order", "symbol", "becomes", "check")
    for name in (
        "time", "order", "symbol", "asked", "becomes", "was", "would be", "check", "value", "limit",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name in words else "right")
    colors = {"refused": "red", "approved": "green", "cut": "yellow"}
    for flip in flips:
        cells = [escape(cell) for cell in _cells(found, flip)]
        cells[4] = f"[{colors[flip.turn]}]{cells[4]}[/]"
        table.add_row(*cells)
    Console().print(table)


def _plain(
    found: Recorded, of: Difference, left_out: list[str], page: Path
) -> dict[str, Any]:  # fmt: skip
    # As JSON has it: times as text, and no NaN.
    flips = [
        flip._asdict()
        | dict(zip(("strategy", "symbol"), _names(found, flip), strict=True))
        | {"ts": iso(flip.ts), "purpose": purpose_of(flip)}
        | {"value": flip.value if np.isfinite(flip.value) else None}
        for flip in of.flips
    ]
    chains = [dict(zip(e.risk.names, e.risk.limits.tolist(), strict=True)) for e in found.engines]
    sides = [
        {"limits": chain, "pnl": side.pnl, "drawdown": side.drawdown, **side.counts}
        for chain, side in zip(chains, (of.was, of.would), strict=True)
    ]
    return {
        "run": found.run, "start": iso(int(of.was.ts[0])), "end": iso(int(of.was.ts[-1])),
        "session": sides[0], "other": sides[1], "pnl": of.pnl, "drawdown": of.drawdown,
        "same": of.same, "resized": of.resized, "gone": of.gone, "new": of.new,
        "flips": flips, "left_out": left_out, "page": str(page),
    }  # fmt: skip


def _drawn(found: Recorded, of: Difference) -> Path:
    # Both equities as a page that needs no network.
    import pandas as pd

    from sysquant import plot
    from sysquant.page import document

    figure = plot.blank("Equity", "book's currency")
    for name, side in (("session", of.was), ("other chain", of.would)):
        times = pd.DatetimeIndex(side.ts.view("M8[ns]"), tz="UTC")
        figure.add_trace(plot.line(pd.Series(side.equity, times), name))
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, include_mathjax=False)
    span = " to ".join(iso(int(ts)) for ts in of.was.ts[[0, -1]])
    path = compose.output_dir() / "whatif.html"
    path.write_text(document(f"{found.run} through another chain", span, [drawn]), encoding="utf-8")
    return path
