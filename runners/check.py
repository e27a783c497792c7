"""Check what a session would rest on, and say in the exit code whether it may.

python runners/check.py data                               # the sample market, every day
python runners/check.py data universe=crypto start=-7d
python runners/check.py data start=-1d end=now json=true   # for scripts
python runners/check.py skew strategy=ml_direction         # the words of a session of live.py
python runners/check.py risk strategy=momentum             # its limits, against what it does
python runners/check.py whatif strategy=momentum risk=strict days=30
python runners/check.py causality strategy=momentum        # the words of a backtest
python runners/check.py warmup strategy=momentum           # likewise
python runners/check.py twin strategy=momentum             # the words of a session: by cause
python runners/check.py why order=momentum:17 strategy=momentum
python runners/check.py statistics strategy=momentum feed.start=-90d feed.kind=bars bars=1h

A word says what is checked, key=value the rest; `python runners/check.py data --help` has its keys.
Exit codes: 0 all is well, 1 something is not, 2 not understood, 3 (twin) nothing to compare with.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from runners import chain, compose, parts, promoted
from runners.causality import causality
from runners.evidence import statistics
from runners.parity import parity
from runners.risk import risk
from runners.warmup import warmup
from runners.whatif import whatif
from sysquant import archive, journal_reader, quality
from sysquant.errors import ConfigError, DataError, nearest
from sysquant.home import home
from sysquant.importing import repair
from sysquant.inspection import iso
from sysquant.keys import check_kind, check_number
from sysquant.months import months
from sysquant.quality import Quality
from sysquant.session import recorded
from sysquant.skew import Served, Skew, Witness, compare
from sysquant.store import connect, migrate
from sysquant.times import DAY, check_moment
from sysquant.types import Bars, Instrument

_NOW = "now"  # as the end
_MOST_TOLD = 20  # findings, the worst days first


@compose.main("check_data")
def data(cfg: DictConfig) -> None:
    """How good the store's data of each symbol is, day by day; scores go to the table `quality`."""
    least = compose.value(cfg, "least", float)
    check_number("least", least, least=0, most=1)
    check_kind("limits", cfg.limits, DictConfig, "a group of keys, see --help")
    limits: quality.Limits = compose.build(cfg.limits)
    universe = _chosen(cfg, parts.universe_of(cfg))
    check_moment("start", cfg.start)
    check_moment("end", None if cfg.end == _NOW else cfg.end)
    with closing(connect(cfg.store.dsn)) as client:
        migrate(client)
        start, end = _span(cfg, client, universe)
        if compose.value(cfg, "repair", bool):
            repair(client, [i.symbol for i in universe], start, end - 1)
        pairs, moved = _apart(client, universe, list(quality.days(start, end)))
        bar = tqdm(pairs, unit=" days", leave=False, disable=None)
        begins = {one.symbol: _begins(client, one) for one in universe}
        found = [
            quality.measure(client, one, start, end, limits, begins=begins[one.symbol])
            for one, start, end in bar
        ]
        measured = [each for each in found if each is not None]
        low = quality.low(client, [one.symbol for one in universe], start, end, least)
        quality.write(client, measured, f"quality-{secrets.token_hex(6)}")
    kept = {place: score for place, score in low.items() if place in moved}
    failures = [*_failures(measured, least), *_poor(kept, least)]
    _show(measured, least, failures, as_json=compose.value(cfg, "json", bool))
    if failures:
        raise SystemExit(1)


@compose.main("config")
def skew(cfg: DictConfig) -> None:
    """Whether a live session's models were asked the very rows that they are trained on."""
    book = compose.book_of(cfg)
    directory = home() / "data" / "journals" / book
    known = journal_reader.meta(directory)
    if "fingerprint" not in known:
        raise DataError(
            f"there is no session of a book {book!r} in {directory.parent}: give the words that "
            "live.py was given"
        )

    def opened() -> Client:
        return connect(cfg.store.dsn)

    replayed = compose.choice("feed") == "replay"
    feed = parts.feed_of(cfg, parts.universe_of(cfg), opened) if replayed else None
    chain.rate(cfg, opened, feed, known.get("quality", ""))
    universe = parts.universe_of(cfg)
    with closing(parts.models_of(cfg)) as models, closing(opened()) as client:
        witness = Witness(models)
        funding = parts.funding_of(cfg, universe, opened, feed)
        said = json.loads(known["fingerprint"])
        engine = parts.engine_of(
            cfg, universe, funding, contained=True, models=witness, promoted=promoted.named(said)
        )
        _refuse_other(said, engine.fingerprint())
        inputs = recorded(directory, home() / "runs" / known["id"])
        served = witness.replay(engine, tqdm(inputs, unit=" inputs", leave=False, disable=None))
        found = {name: compare(one, _stored(client, one)) for name, one in served.items()}
    failures = [failure for name, one in found.items() for failure in failures_of(name, one)]
    if not found:
        print("no strategy of the book asks a model: nothing was compared")
    for failure in failures:
        print(f"failed: {failure}")
    if failures:
        raise SystemExit(1)


def _refuse_other(was: dict[str, str], now: dict[str, str]) -> None:
    names = [name for name, said in now.items() if was.get(name, "") != said]
    if names:
        raise ConfigError(
            f"the session's book differs: {', '.join(names)}; give the words that live.py was given"
        )


def _stored(client: Client, served: Served) -> Bars:
    past = served.past
    if not len(past):
        return Bars.empty()
    return archive.bars(client, past.universe, past.start, past.end, past.interval)


def failures_of(name: str, found: Skew) -> Iterator[str]:
    """Print what was compared of a strategy; yield what is not as it must be."""
    print(
        f"{name}: {found.equal:,} of {found.rows:,} rows that were served are those of training, "
        f"byte for byte; a model was asked of {found.asked:,}"
    )
    if found.data:
        first = found.data[0]
        print(
            f"  data: {len(found.data):,} bars are in the store otherwise than in the session, the "
            f"first {first.symbol} at {iso(first.ts)}: its {first.column or 'close'} was "
            f"{first.session:g}, is {first.other:g}; they move {found.moved:,} training rows"
        )
    for column, (count, first) in found.columns.items():
        yield (
            f"{name} was served another {column!r} in {count:,} rows, the first {first.symbol} at "
            f"{iso(first.ts)}: {first.session!r}, in training {first.other!r}"
        )


def _apart(
    client: Client, universe: list[Instrument], days: list[tuple[int, int]]
) -> tuple[list[tuple[Instrument, int, int]], set[tuple[str, str]]]:
    # A day whose ticks were moved into files is not measured again: its score was made before.
    archived = {(each.symbol, each.month) for each in months(client, [i.symbol for i in universe])}
    pairs, moved = list[tuple[Instrument, int, int]](), set[tuple[str, str]]()
    for start, end in days:
        day = str(np.datetime64(start, "ns").astype("M8[D]"))
        for one in universe:
            if (one.symbol, int(day[:7].replace("-", ""))) in archived:
                moved.add((one.symbol, day))
            else:
                pairs.append((one, start, end))
    if moved:
        print(f"{len(moved)} days lie in archived months: their scores stay", file=sys.stderr)
    return pairs, moved


def _chosen(cfg: DictConfig, universe: list[Instrument]) -> list[Instrument]:
    known = {instrument.symbol: instrument for instrument in universe}
    named = compose.value(cfg, "symbols", list[str] | None)
    if named == []:
        raise ConfigError("symbols is empty; name some of the universe, or null for all of them")
    for symbol in named or ():
        if symbol not in known:
            raise ConfigError(f"symbols: {symbol!r} is not of the universe{nearest(symbol, known)}")
    return universe if named is None else [known[symbol] for symbol in named]


def _span(cfg: DictConfig, client: Client, universe: list[Instrument]) -> tuple[int, int]:
    # Midnight of the first day, and where the last one ends; nothing of what is still to come.
    now = time.time_ns()
    end = now if cfg.end == _NOW else cfg.end
    start, until = archive.span(client, universe, cfg.start, end, kind="bars")
    start, until = start - start % DAY, min(until, now)
    if not any(quality.days(start, until)):
        raise DataError(f"no minute of {cfg.start} to {cfg.end} is over: choose an earlier start")
    return start, until


def _poor(kept: dict[tuple[str, str], float], least: float) -> list[str]:
    # Of days that were not measured now.
    if not kept:
        return []
    symbol, day = min(kept, key=lambda place: kept[place])
    return [
        f"{len(kept)} archived days have a score below {least:g}, the worst is {symbol} on {day} "
        f"with {kept[symbol, day]:.3f}: their scores stay, choose a later start or a lower least"
    ]


def _begins(client: Client, instrument: Instrument) -> int:
    # Of a symbol that the store has nothing of, every day is missing.
    try:
        return archive.span(client, [instrument], kind="bars")[0]
    except DataError:
        return 0


def _failures(measured: list[Quality], least: float) -> Iterator[str]:
    # What is not as it must be, each with its way out.
    low = sorted((each for each in measured if each.score < least), key=lambda each: each.score)
    if low:
        worst = low[0]
        yield (
            f"{len(low)} of {len(measured)} days have a score below {least:g}, the worst is "
            f"{worst.symbol} on {worst.day} with {worst.score:.3f} ({_weakest(worst)}): import "
            "what is missing with runners/backfill.py, or set limits to what the symbol is like"
        )
    wrong = [each for each in measured if each.differing]
    if wrong:
        yield (
            f"{sum(each.differing for each in wrong)} minute bars of {_names(wrong)} are not those"
            " of their ticks: repair=true makes those anew that count a tick twice"
        )
    twice = [each for each in measured if each.doubled]
    if twice:
        yield (
            f"{sum(each.doubled for each in twice)} ticks of {_names(twice)} have the epoch, "
            "partition and offset of another: a topic that was made anew needs another epoch, "
            "runners/ingest.py epoch=..."
        )


def _weakest(one: Quality) -> str:
    # The part that the score is; none where all is well.
    return min(one.parts, key=lambda name: one.parts[name]) if one.score < 1 else ""


def _names(some: list[Quality]) -> str:
    return ", ".join(sorted({each.symbol for each in some}))


def _show(measured: list[Quality], least: float, failures: list[str], *, as_json: bool) -> None:
    # JSON; or a table at a terminal, plain lines when piped.
    if as_json:
        days = [_plain(each) for each in measured]
        print(json.dumps({"least": least, "failures": failures, "days": days}, indent=1))
        return
    if sys.stdout.isatty():
        _table(measured, least)
    else:
        for each in measured:
            print(_line(each))
    worst = sorted(measured, key=lambda each: each.score)
    told = [(each, one) for each in worst for one in each.findings]
    console = Console(soft_wrap=True, highlight=False)
    for each, one in told[:_MOST_TOLD]:
        line = f"  {one.symbol} {each.day}: {one.count:,} x {one.kind}, {one.example}"
        console.print(escape(line))
    if len(told) > _MOST_TOLD:
        print(f"  and {len(told) - _MOST_TOLD} more, see json=true")
    for failure in failures:
        print(f"failed: {failure}")


def _line(one: Quality) -> str:
    weakest = f" ({_weakest(one)})" if _weakest(one) else ""
    return (
        f"{one.symbol} {one.day} score {one.score:.3f}{weakest}; "
        f"{one.bars} of {one.open_minutes} minutes, {one.ticks} ticks, {one.gaps} gaps, longest "
        f"{one.gap_longest_s:g} s, skew {_ms(one.skew_median_ms)}, jitter {_ms(one.jitter_ms)}"
    )


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f} ms"


def _table(measured: list[Quality], least: float) -> None:
    table = Table(title="Data quality", title_justify="left")
    table.add_column("symbol")
    table.add_column("day")
    names = (
        "score", "weakest", "minutes", "ticks", "gaps", "longest", "disorder", "stuck", "spikes",
        "skew", "jitter", "bars differ",
    )  # fmt: skip
    for name in names:
        table.add_column(name, justify="left" if name == "weakest" else "right")
    for one in measured:
        color = "green" if one.score >= least else "red"
        table.add_row(
            escape(one.symbol), str(one.day), f"[{color}]{one.score:.3f}[/]",
            _weakest(one), f"{one.bars:,}/{one.open_minutes:,}",
            f"{one.ticks:,}", f"{one.gaps:,}", f"{one.gap_longest_s:,.0f} s",
            f"{one.disordered:,}", f"{one.stuck_longest} min", f"{one.spikes:,}",
            _ms(one.skew_median_ms), _ms(one.jitter_ms), f"{one.differing:,}",
        )  # fmt: skip
    Console().print(table)


def _plain(one: Quality) -> dict[str, Any]:
    # As JSON has it: no NaN, times as text.
    row = one.row | {"day": str(one.day), "until": iso(one.until), "weakest": _weakest(one)}
    row |= {name: None for name, of in row.items() if isinstance(of, float) and math.isnan(of)}
    found = [{"kind": f.kind, "count": f.count, "example": f.example} for f in one.findings]
    return row | {"findings": found}


def twin() -> None:
    """Live minus backtest P&L of a recorded session, split into causes; rows go to `twin`."""
    from runners.twin import twin as word

    word()


def why() -> None:
    """Why an order of a session was sent or refused, and what it did: order=NAME:NUMBER."""
    from runners.twin import why as word

    word()


WORDS: dict[str, Callable[[], None]] = {  # what can be checked
    "data": data, "skew": skew, "causality": causality, "warmup": warmup,
    "statistics": statistics, "risk": risk, "parity": parity, "twin": twin, "why": why,
    "whatif": whatif,
}  # fmt: skip


def main() -> None:
    """Hand the rest of the command line to what its word names, wherever that stands."""
    words = sys.argv[1:]
    named = [word for word in words if "=" not in word and not word.startswith(("-", "~"))]
    if not named and not set(words) - {"--help", "-h"}:
        print(__doc__)
        print("Words:")
        for name, check in WORDS.items():
            print(f"  {name:10} {(check.__doc__ or '').splitlines()[0]}")
        return
    if not named or named[0] not in WORDS:
        said = f"was {named[0]!r}{nearest(named[0], WORDS)}" if named else "as in check.py data"
        print(f"error: a word says what is checked, {said}", file=sys.stderr)
        raise SystemExit(2)
    words.remove(named[0])
    sys.argv[1:] = words
    WORDS[named[0]]()


if __name__ == "__main__":
    main()
