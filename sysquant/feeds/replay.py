"""History from the store as a feed, at a chosen speed or as fast as it goes.

Input: a way to connect, a universe and a range. Output: polls of ticks or bars; partition 0, the
offset is the row number in the order of `sysquant.archive`. The range is fixed at the first use,
so rows that come to the store later do not move the others, unless they lie inside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from sysquant import archive
from sysquant.errors import ConfigError, FeedError, nearest
from sysquant.feeds.tape import Tape
from sysquant.times import check_moment, interval_ns
from sysquant.types import Bars, Instrument, Poll, Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class ReplayFeed:
    """Ticks or bars of the store as a feed; reads in blocks, so memory does not grow.

    Parameters
    ----------
    universe : what is replayed.
    connect : gives a client; called once, at first use, in the thread that polls.
    kind : ticks | bars.
    interval : of the bars: `1m`, `5m`, `1s`.
    start, end : ISO 8601 UTC, `-6h` before the last row in the store, or None for all there is.
    speed : "max", or market seconds per wall second.
    batch : rows of a poll at most.
    source : ticks of epochs that begin with it; all by default.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant.
    """

    def __init__(
        self,
        universe: Sequence[Instrument],
        connect: "Callable[[], Client]",
        *,
        kind: Literal["ticks", "bars"] = "ticks",
        interval: str = "1m",
        start: archive.Moment = "-6h",
        end: archive.Moment = None,
        speed: float | str = "max",
        batch: int = 50_000,
        source: str = "",
    ) -> None:
        if kind not in ("ticks", "bars"):
            raise ConfigError(f"kind of a replay was {kind!r}{nearest(kind, ('ticks', 'bars'))}")
        self.kind: Literal["ticks", "bars"] = kind
        self.interval = interval_ns(interval, "feed.interval") if kind == "bars" else 0
        check_moment("feed.start", start)
        check_moment("feed.end", end)
        self._universe, self._connect, self._source = universe, connect, source
        self._start, self._end = start, end
        self._client: Client | None = None
        self._span: tuple[int, int] | None = None
        nothing = Ticks.empty() if kind == "ticks" else Bars.empty()
        self._tape = Tape(self._open_at, nothing, speed=speed, batch=batch)

    @property
    def span(self) -> tuple[int, int]:
        """What is replayed, [start, end) ns; asks the store the first time.

        Raises
        ------
        ConfigError, DataError, StoreError
            As `sysquant.archive.span`.
        """
        if self._span is None:
            # Whole minutes are read from the minute bars, others made of ticks.
            kind = "bars" if self.interval and not self.interval % archive.MINUTE else "ticks"
            self._span = archive.span(
                self._reader(), self._universe, self._start, self._end,
                kind=kind, source=self._source,
            )  # fmt: skip
        return self._span

    @property
    def name(self) -> str:
        """What is replayed; another range is another feed."""
        start, end = self.span
        what = f"bars-{self.interval}" if self.interval else f"ticks-{self._source}"
        return f"replay:{what}:{start}:{end}"

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Stand before row `next_offset[0]`; without it, at the start."""
        self._tape.seek(next_offset.get(0, 0))

    def poll(self, timeout_s: float) -> Poll:
        """Rows that are due, waiting at most `timeout_s` for the first.

        Raises
        ------
        FeedError
            If the position lies behind the last row.
        StoreError
            If the store does not answer.
        """
        return self._tape.poll(timeout_s)

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Nothing to tell anyone."""

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _reader(self) -> "Client":
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _open_at(self, row: int) -> Iterator[Ticks | Bars]:
        start, end = self.span
        client, universe = self._reader(), self._universe
        blocks: Iterator[Ticks | Bars]
        if self.kind == "ticks":
            blocks = archive.iter_ticks(
                client, universe, start, end, source=self._source, first_row=max(0, row - 1)
            )
        else:
            blocks = archive.iter_bars(
                client, universe, start, end, self.interval, first_row=max(0, row - 1)
            )
        # The row before shows that the position is one of this history.
        found = row == 0
        for block in blocks:
            rest = block if found else block[1:]
            found = True
            yield rest
        if not found:
            raise FeedError(
                f"{self.name} has fewer rows than the position, {row}: the store lost rows, or"
                " the position is of another replay; start with a fresh journal"
            )
