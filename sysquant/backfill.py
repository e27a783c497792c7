"""History into the store: files of ticks, minute bars or funding rates, and the synthetic sample.

Input: a client and a file with its mapping. Output: rows in `ticks`, `bars_imported` or `funding`,
each once however often this is repeated, and a report of what was odd about them. A file is checked
to its end before its first row is written. Ticks of a file have an epoch of their own, so they
never meet those of a topic.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sysquant import archive
from sysquant.archive import MINUTE
from sysquant.errors import ConfigError, DataError
from sysquant.feeds.synthetic import SAMPLE, synthetic_bars, synthetic_ticks
from sysquant.importing import (
    INSIDE,
    Report,
    count_rows,
    refuse_bars,
    refuse_contradictions,
    refuse_overlap,
    repair,
)
from sysquant.inspection import Inspection, iso
from sysquant.keys import check_number
from sysquant.mapping import FileMapping
from sysquant.months import filed, months
from sysquant.store import insert
from sysquant.tables import bar_table, rate_table, tick_table
from sysquant.times import instant
from sysquant.types import SECOND, Bars, Instrument, Rates, Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Progress = Callable[[int], object]

_SAMPLE_BLOCK = 200_000


def import_file(
    client: "Client",
    universe: Sequence[Instrument],
    path: Path,
    mapping: FileMapping,
    *,
    gap_s: float = 60.0,
    absurd: float = 0.2,
    overlap: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Import a file of ticks, minute bars or funding rates; a second time changes nothing.

    Parameters
    ----------
    client : of a migrated store.
    universe : which symbols may come.
    path : `.parquet`, `.csv` or `.csv.gz`.
    mapping : what its columns mean.
    gap_s : longest time between two ticks of a symbol that is not reported.
    absurd : fraction by which a price must differ from both neighbours to be reported.
    overlap : whether ticks may be added where another source has some of the same symbol.
    progress : called with the number of rows that were read, twice for each row.

    Returns
    -------
    What was done and found.

    Raises
    ------
    DataError
        If the file holds anything that cannot be meant, or is here already with another mapping,
        or meets ticks of another source; nothing was written then.
    StoreError
        If the store does not answer; repeat the import.
    """
    inspection = Inspection([i.symbol for i in universe], gap_ns=round(gap_s * 1e9), absurd=absurd)
    done = progress or (lambda rows: None)
    content = "file:" + _content(path)
    importing = {"ticks": _import_ticks, "bars": _import_bars, "funding": _import_rates}
    job = _Import(client, universe, path, mapping, content, inspection, done)
    report = importing[mapping.kind](job, overlap)
    if not inspection.rows:
        raise DataError(f"{path.name} has no rows")
    return report


@dataclass(frozen=True, slots=True)
class _Import:
    client: "Client"
    universe: Sequence[Instrument]
    path: Path
    mapping: FileMapping
    content: str
    inspection: Inspection
    done: Progress

    @property
    def source(self) -> str:
        return f"{self.content}-{self.mapping.digest[:6]}"

    def blocks(self, *, look: bool) -> Iterator[Ticks | Bars | Rates]:
        for block in self.mapping.read(self.path, self.universe):
            if look:
                self.inspection.take(block)
            yield block
            self.done(len(block))

    def bound(self) -> dict[str, object]:
        look = self.inspection
        return {
            "symbols": list(look.counts), "source": self.source, "content": self.content,
            "first": look.first, "last": look.last,
        }  # fmt: skip

    def ask(self, sql: str) -> int:
        return count_rows(self.client, sql, self.bound())

    def report(self, added: int, *notes: str) -> Report:
        look = self.inspection
        return Report(
            self.source, self.mapping.kind, look.rows, added, look.first, look.last,
            look.counts, look.findings, list(notes),
        )  # fmt: skip


def _import_ticks(job: _Import, overlap: bool) -> Report:
    for _ in job.blocks(look=True):
        pass
    if not job.inspection.rows:
        return job.report(0)
    if job.ask("ticks WHERE startsWith(epoch, {content:String}) AND epoch != {source:String}"):
        raise DataError(
            f"{job.path.name} is in the store with another mapping: remove that first, DELETE FROM"
            f" ticks WHERE startsWith(epoch, '{job.content}'), and its minutes from bars_1m"
        )
    look = job.inspection
    if not overlap:
        refuse_overlap(job.client, list(look.counts), look.first, look.last, job.source)
    mine = f"ticks FINAL WHERE {INSIDE} AND epoch = {{source:String}}"
    before = job.ask(mine)
    if _is_archived(job, before):
        return job.report(0, "some of its ticks lie in archived months")
    names = [i.symbol for i in job.universe]
    for number, block in enumerate(job.blocks(look=False)):
        rows = tick_table(cast("Ticks", block), names, job.source)
        insert(job.client, "ticks", rows, f"{job.source}-{number}")
    repair(job.client, list(look.counts), look.first, look.last)
    return job.report(job.ask(mine) - before)


def _is_archived(job: _Import, there: int) -> bool:
    # Whether all is there already, in part in files: to these nothing can be added.
    look = job.inspection
    path, rows = filed(job.client, list(look.counts), look.first, look.last + 1, job.source)
    if path and there + rows < look.rows:
        raise DataError(
            f"{job.path.name} has ticks of a month that is archived, {path}: leave it out"
        )
    return bool(path)


def _import_bars(job: _Import, overlap: bool) -> Report:
    bars = cast("Bars", Bars.join([Bars.empty(), *job.blocks(look=True)]))  # pyright: ignore
    if not len(bars):
        return job.report(0)
    refuse_bars(bars, job.path.name)
    have = f"bars_imported FINAL WHERE {INSIDE}"
    before = job.ask(have)
    hidden = job.ask(f"bars_1m FINAL WHERE {INSIDE}")
    names = [i.symbol for i in job.universe]
    insert(job.client, "bars_imported", bar_table(bars, names, job.source), job.source)
    job.done(len(bars))
    notes = []
    if job.mapping.volume_unit == "quote":
        notes.append("volume: quote currency / ((high + low + close) / 3) = units")
    if job.mapping.label == "left":
        notes.append("time: the label plus one minute, since it named the open")
    if hidden:
        notes.append(f"{hidden} minutes that ticks have made are hidden by imported bars")
    return job.report(job.ask(have) - before, *notes)


def _import_rates(job: _Import, overlap: bool) -> Report:
    rates = cast("Rates", Rates.join([Rates.empty(), *job.blocks(look=True)]))  # pyright: ignore
    if not len(rates):
        return job.report(0)
    refuse_contradictions(rates, job.path.name, "funding time", ("rate",))
    have = f"funding FINAL WHERE {INSIDE}"
    before, replaced = job.ask(have), _replaced(rates, job)
    names = [i.symbol for i in job.universe]
    # What was imported last holds, so a file may come again after another one: no token of its own.
    token = f"{job.source}-{secrets.token_hex(6)}"
    insert(job.client, "funding", rate_table(rates, names, job.source), token)
    job.done(len(rates))
    notes = [f"{replaced} rates were others in the store, and are replaced"] if replaced else []
    return job.report(job.ask(have) - before, *notes)


def _replaced(rates: Rates, job: _Import) -> int:
    # How many rates differ from what the store has of their time.
    look = job.inspection
    known = archive.funding(job.client, list(look.counts), look.first, look.last + 1)
    count = 0
    for index, instrument in enumerate(job.universe):
        ts, rate = known.get(instrument.symbol, ((), ()))
        was = dict(zip(ts, rate, strict=True))
        mine = rates[rates.symbol == index]
        new = dict(zip(mine.ts, mine.rate, strict=True))
        count += sum(was.get(at, value) != value for at, value in new.items())
    return count


def sample(
    client: "Client",
    universe: Sequence[Instrument] = SAMPLE,
    *,
    seed: int = 1,
    days: int = 60,
    hours: int = 6,
    end: int | str | None = None,
    ticks_per_second: float = 10.0,
    progress: Progress | None = None,
) -> Report | None:
    """Fill a store that has no ticks of the universe with a synthetic market.

    Parameters
    ----------
    client : of a migrated store.
    universe : what the market trades; five symbols, `SIM:OAK` and others, by default.
    seed : of the market.
    days : of minute bars; the last hours of them are made of the ticks.
    hours : of ticks, at the end.
    end : a whole minute; the last whole hour by default.
    ticks_per_second : all symbols together, on average.
    progress : called with the number of rows that were made.

    Returns
    -------
    What was done; None when the store has ticks of the universe already.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant.
    StoreError
        If the store does not answer.
    """
    check_number("source.seed", seed, least=0, whole=True)
    check_number("source.days", days, least=1, whole=True)
    check_number("source.hours", hours, above=0)
    if not 0 < hours <= days * 24:
        raise ConfigError(f"hours must be in [1, 24 * days], was {hours} with days={days}")
    names = [i.symbol for i in universe]
    there = "ticks WHERE symbol IN {symbols:Array(String)}"
    if months(client, names) or count_rows(client, there, {"symbols": names}):
        return None
    until = _last_hour() if end is None else instant(end)
    since, turn = until - days * 1440 * MINUTE, until - hours * 60 * MINUTE
    source = f"sample:{seed}:{_digest((tuple(universe), ticks_per_second))[:6]}"
    done = progress or (lambda rows: None)
    inspection = Inspection(names)
    # Ticks come last, so that a sample that was cut off is filled again.
    bars = synthetic_bars(universe, since, turn, seed=seed, ticks_per_second=ticks_per_second)
    token = f"{source}:{since}:{turn}:{until}"
    insert(client, "bars_imported", bar_table(bars, names, source), f"{token}:bars")
    done(len(bars))
    made = synthetic_ticks(universe, turn, until, seed=seed, ticks_per_second=ticks_per_second)
    for number, block in enumerate(_joined(made)):
        inspection.take(block)
        insert(client, "ticks", tick_table(block, names, source), f"{token}:{number}")
        done(len(block))
    return Report(
        source, "ticks", inspection.rows, inspection.rows, inspection.first, inspection.last,
        inspection.counts, [], [f"{len(bars)} minute bars from {iso(since)} to {iso(turn)}"],
    )  # fmt: skip


def _joined(blocks: Iterator[Ticks]) -> Iterator[Ticks]:
    # Minutes of the market as blocks worth an insert.
    waiting: list[Ticks] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= _SAMPLE_BLOCK:
            yield Ticks.join(waiting)
            waiting = []
    if any(map(len, waiting)):
        yield Ticks.join(waiting)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check path=") from error


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _last_hour() -> int:
    hour = 3600 * SECOND
    return int(datetime.now(UTC).timestamp()) * SECOND // hour * hour
