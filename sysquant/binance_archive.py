"""The public archive of Binance spot into the store: minute bars (klines) or trades.

Input: a client, a universe and the days that are wanted. Output: rows in `bars_imported` or
`ticks`, each once however often this is repeated or cut off, and a report of what came, what the
archive does not have, and what was left out. Whole months come as one file each; other days, and
those of a month that is missing or bad, as a file a day. A file is checked to its end before its
first row is written.
"""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from sysquant.backfill import Progress
from sysquant.binance_files import KINDS, PREFIX, ArchiveFile, check, read
from sysquant.downloads import Downloads
from sysquant.errors import ConfigError, DataError, FeedError
from sysquant.feeds.venues.venue import names_of
from sysquant.home import under_home
from sysquant.importing import INSIDE, Report, count_rows, refuse_overlap, repair
from sysquant.inspection import Finding, Inspection
from sysquant.keys import check_choice, check_number
from sysquant.months import filed
from sysquant.store import insert
from sysquant.tables import bar_table, tick_table
from sysquant.times import DAY, instant
from sysquant.types import Bars, Instrument, Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SOURCE = "binance_archive"  # epoch of its trades, source of its bars
DIRECTORY = "data/archive/binance"

_BARS = f"bars_imported FINAL WHERE {INSIDE}"
_HIDDEN = f"""bars_1m FINAL WHERE {INSIDE} AND ts IN (
  SELECT ts FROM bars_imported WHERE {INSIDE} AND source = {{source:String}})"""
_TICKS = f"ticks FINAL WHERE {INSIDE} AND epoch = {{source:String}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BinanceArchive:
    """Which part of the archive is wanted.

    Parameters
    ----------
    kind : klines (bars of one minute) | trades.
    start, end : whole days UTC, ISO 8601, as in [start, end); today at the latest, which is meant
        without an end.
    url : of the archive.
    parallel : downloads at once.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    kind: Literal["klines", "trades"] = "klines"
    start: str | None = None
    end: str | None = None
    url: str = "https://data.binance.vision"
    parallel: int = 4

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_number("parallel", self.parallel, least=1, whole=True)
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url must begin with http:// or https://, was {self.url!r}")
        if self.start is None:
            raise ConfigError("start was not set; name the first day: source.start=2024-01-01")
        first, end = self.span
        if first >= end:
            raise ConfigError(
                f"start must be before the end and before today, was {self.start}, end={self.end}"
            )

    @property
    def span(self) -> tuple[date, date]:
        """The first day that is wanted, and the one after the last."""
        today = datetime.now(UTC).date()
        end = today if self.end is None else min(today, _day("end", self.end))
        return _day("start", str(self.start)), end

    def days(self, universe: Sequence[Instrument]) -> int:
        """How many days are wanted of all symbols together."""
        first, end = self.span
        return len(names_of(universe, PREFIX)) * (end - first).days

    def files(self, symbol: str) -> list[ArchiveFile]:
        """Of a symbol, by the exchange's name: months that are wanted whole, and other days."""
        (day, end), found = self.span, list[ArchiveFile]()
        while day < end:
            month = ArchiveFile(symbol, self.kind, day, is_month=True)
            is_whole = day.day == 1 and month.end <= end
            found.append(month._replace(is_month=is_whole))
            day = found[-1].end
        return found


def import_archive(
    client: "Client",
    universe: Sequence[Instrument],
    archive: BinanceArchive,
    *,
    gap_s: float = 60.0,
    absurd: float = 0.2,
    overlap: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Import a part of the archive; a second time downloads and changes nothing.

    Parameters
    ----------
    client : of a migrated store.
    universe : of which the symbols that begin with `BINANCE:` are wanted.
    archive : which part.
    gap_s, absurd, overlap : as of `backfill.import_file`.
    progress : called with the number of days of a symbol that are done.

    Returns
    -------
    What was done and found, with the days that are missing and the files that were left out.

    Raises
    ------
    ConfigError
        If the universe has no symbol of Binance.
    DataError
        If trades would meet those of another source; nothing was downloaded or written then.
    StoreError
        If the store does not answer; repeat the import.
    """
    listed = names_of(universe, PREFIX)
    if archive.kind == "trades" and not overlap:
        first, end = (instant(day.isoformat()) for day in archive.span)
        refuse_overlap(client, [PREFIX + name for name in listed], first, end - 1, SOURCE)
    look = Inspection([i.symbol for i in universe], gap_ns=round(gap_s * 1e9), absurd=absurd)
    downloads = Downloads(archive.url, under_home(DIRECTORY), parallel=archive.parallel)
    job = _Import(client, universe, downloads, look)
    pool = ThreadPoolExecutor(archive.parallel, thread_name_prefix="download")
    try:
        files = [file for name in listed for file in archive.files(name)]
        for file, rows in job.fetched(files, pool):
            job.store(file, rows)
            if progress is not None:
                progress(len(file.days()))
    finally:
        downloads.stop()
        pool.shutdown(cancel_futures=True)
    return job.report("bars" if archive.kind == "klines" else "ticks")


@dataclass(slots=True)
class _Import:
    client: "Client"
    universe: Sequence[Instrument]
    downloads: Downloads
    look: Inspection
    missing: list[ArchiveFile] = field(default_factory=list[ArchiveFile])
    bad: list[str] = field(default_factory=list[str])
    gaps: dict[str, Finding] = field(default_factory=dict[str, Finding])
    last_id: dict[str, int] = field(default_factory=dict[str, int])
    good: int = 0  # rows that the store should have
    added: int = 0
    idle: int = 0  # minutes without a trade
    hidden: int = 0  # minutes of ticks
    replaced: int = 0  # bars of other sources

    def fetched(
        self, files: Sequence[ArchiveFile], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[ArchiveFile, int]]:
        """Files in their order with their rows, 0 where there is none; days may replace a month."""

        def begun(file: ArchiveFile) -> tuple[ArchiveFile, Future[int | None]]:
            return file, pool.submit(
                self.downloads.fetch, file.path, lambda path: check(file, path, self.universe)
            )

        waiting = deque(begun(file) for file in files)
        while waiting:
            file, future = waiting.popleft()
            rows, by_days = 0, file.is_month
            try:
                rows = future.result() or 0
                if not rows and not file.is_month:
                    self.missing.append(file)
            except (DataError, FeedError) as error:
                self.bad.append(f"{file.stem}.zip: {error}")
                by_days &= isinstance(error, DataError)  # a server that is away has no days either
            if by_days and not rows:
                waiting.extendleft(reversed([begun(day) for day in file.days()]))
            else:
                yield file, rows

    def store(self, file: ArchiveFile, rows: int) -> None:
        """Write what the store does not have of a checked file."""
        if rows and file.kind == "klines":
            self._store_bars(file)
        elif rows:
            self._store_ticks(file, rows)

    def _store_bars(self, file: ArchiveFile) -> None:
        bars = cast("Bars", Bars.join(list(self._blocks(file))))  # pyright: ignore
        self.look.take(bars)
        traded = bars[bars.volume > 0]  # no trade, no bar
        good = len(np.unique(traded.ts))
        self.idle += len(np.unique(bars.ts)) - good
        self.good += good
        start, end = file.span
        bound = self._bound(file, start + 1, end)
        mine = count_rows(self.client, f"{_BARS} AND source = {{source:String}}", bound)
        if mine == good:
            return
        before = count_rows(self.client, _BARS, bound)
        self.replaced += count_rows(
            self.client, f"{_BARS} AND source NOT IN ('ticks', {{source:String}})", bound
        )
        # What was imported last holds, so the rows may come again: no token of their own.
        token = f"{SOURCE}:{file.stem}:{secrets.token_hex(6)}"
        insert(self.client, "bars_imported", bar_table(traded, self._names, SOURCE), token)
        self.added += count_rows(self.client, _BARS, bound) - before
        self.hidden += count_rows(self.client, _HIDDEN, bound)

    def _store_ticks(self, file: ArchiveFile, rows: int) -> None:
        token = f"{SOURCE}:{file.stem}:{self.downloads.checksum(file.path)[:16]}"
        before = there = self._ticks_of(file)
        path, moved = filed(self.client, [PREFIX + file.symbol], *file.span, SOURCE)
        if path and before + moved >= rows:
            for block in self._blocks(file):
                self.look.take(block)
            self.good += rows
            return
        if path:  # to these nothing can be added
            self.bad.append(f"{file.stem}.zip: has ticks of a month that is archived, {path}")
            return
        for number, block in enumerate(self._blocks(file)):
            self.look.take(block)
            self._look_for_gaps(PREFIX + file.symbol, cast("Ticks", block))
            if before < rows:
                self._insert(block, f"{token}-{number}")
        if before < rows:
            there = self._ticks_of(file)
        if there < rows:  # they were deleted, and the store still knows their tokens
            again = f"{token}-{secrets.token_hex(6)}"
            for number, block in enumerate(self._blocks(file)):
                self._insert(block, f"{again}-{number}")
            there = self._ticks_of(file)
        for day in file.days():
            start, end = day.span
            repair(self.client, [PREFIX + file.symbol], start, end - 1)
        self.good += rows
        self.added += there - before

    def _insert(self, block: Bars | Ticks, token: str) -> None:
        insert(self.client, "ticks", tick_table(cast("Ticks", block), self._names, SOURCE), token)

    def _blocks(self, file: ArchiveFile) -> Iterator[Bars | Ticks]:
        return read(file, self.downloads.path(file.path), self.universe)

    def _ticks_of(self, file: ArchiveFile) -> int:
        # By the day: a month of a large symbol is more than one answer should take.
        spans = [day.span for day in file.days()]
        bounds = [self._bound(file, start, end - 1) for start, end in spans]
        return sum(count_rows(self.client, _TICKS, bound) for bound in bounds)

    @property
    def _names(self) -> list[str]:
        return [instrument.symbol for instrument in self.universe]

    def _bound(self, file: ArchiveFile, first: int, last: int) -> dict[str, object]:
        return {
            "symbols": [PREFIX + file.symbol], "source": SOURCE, "first": first, "last": last,
        }  # fmt: skip

    def _look_for_gaps(self, symbol: str, ticks: Ticks) -> None:
        # Ids of a symbol have no gaps at the exchange.
        before = self.last_id.get(symbol)
        ids = ticks.offset if before is None else np.append(before, ticks.offset)
        steps = np.diff(ids)
        self.last_id[symbol] = int(ids[-1])
        if len(steps):
            worst = int(steps.argmax())
            found = self.gaps.setdefault(symbol, Finding(symbol, "missing trades"))
            found.add(
                int(np.sum(steps > 1)), float(steps[worst]),
                f"{steps[worst] - 1} after trade {ids[worst]}",
            )  # fmt: skip

    def report(self, kind: str) -> Report:
        """What was done."""
        look = self.look
        findings = look.findings + [gap for gap in self.gaps.values() if gap.count]
        said = {
            "rows were there already": self.good - self.added,
            "minutes without a trade are no bars, and were left out": self.idle,
            "minutes that ticks have made are hidden by imported bars": self.hidden,
            "bars of another source are replaced": self.replaced,
        }
        return Report(
            SOURCE, kind, look.rows, self.added, look.first, look.last, look.counts,
            sorted(findings, key=lambda found: (found.symbol, found.kind)),
            [f"{count} {what}" for what, count in said.items() if count],
            _ranges(self.missing), self.bad,
        )  # fmt: skip


def _day(key: str, said: str) -> date:
    ns = instant(said, key)
    if ns % DAY:
        raise ConfigError(f"{key} must be a whole day UTC, like 2024-01-31, was {said!r}")
    return date(1970, 1, 1) + timedelta(days=ns // DAY)


def _ranges(days: Sequence[ArchiveFile]) -> list[str]:
    # Days one after another as one line.
    runs = list[list[ArchiveFile]]()
    for day in days:
        if runs and runs[-1][-1].symbol == day.symbol and runs[-1][-1].end == day.first:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [
        f"{PREFIX}{run[0].symbol} {run[0].first}"
        + (f" to {run[-1].first}, {len(run)} days" if len(run) > 1 else "")
        for run in runs
    ]
