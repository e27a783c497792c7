"""How good the store's data of a symbol is on a day (UTC): counted by ClickHouse, scored here.

Input: a client, an instrument and a range of days. Output: a `Quality` for each, whose score is the
least of eight parts, shares of the day that are right; rows of the table `quality`; and the scores
that stand there. Nothing else is written, and no price is changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sysquant.archive import MINUTE
from sysquant.blocks import ask
from sysquant.defects import count_defects, step_of
from sysquant.inspection import Finding, iso
from sysquant.keys import check_number
from sysquant.sessions import sessions_of
from sysquant.store import insert
from sysquant.times import DAY
from sysquant.types import SECOND, Instrument

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_MS = 1e6  # ns

_SCORES_SQL = """
SELECT symbol, argMax(score, day) AS latest FROM quality FINAL
WHERE symbol IN {symbols:Array(String)}
  AND until <= fromUnixTimestamp64Nano({at:Int64}, 'UTC')
  AND until > fromUnixTimestamp64Nano({since:Int64}, 'UTC')
GROUP BY symbol
"""
_LOW_SQL = """
SELECT symbol, toString(day) AS of, score FROM quality FINAL
WHERE symbol IN {symbols:Array(String)} AND score < {least:Float64}
  AND day >= toDate(fromUnixTimestamp64Nano({start:Int64}, 'UTC'))
  AND toDateTime64(day, 9, 'UTC') < fromUnixTimestamp64Nano({end:Int64}, 'UTC')
ORDER BY symbol, day
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still in order.

    Parameters
    ----------
    gap_s : the longest open time without a trade or an imported bar, s.
    absurd : fraction by which a price may differ from both neighbours.
    stuck_minutes : the longest run of minutes with trades at one unchanged price.
    jitter_ms : how far clock skew may stray from its median, ms; a constant skew costs nothing.

    Raises
    ------
    ConfigError
        If one is no positive number.
    """

    gap_s: float = 60.0
    absurd: float = 0.2
    stuck_minutes: int = 10
    jitter_ms: float = 1000.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_number("limits.gap_s", self.gap_s, above=0, most=86_400)
        check_number("limits.absurd", self.absurd, above=0)
        check_number("limits.stuck_minutes", self.stuck_minutes, least=1, most=1440, whole=True)
        check_number("limits.jitter_ms", self.jitter_ms, above=0)


@dataclass(frozen=True, slots=True)
class Quality:
    """What was counted of a symbol and a day; columns of the table `quality`, which explains them.

    `findings` has the worst case of each kind of fault.
    """

    symbol: str
    day: date
    until: int
    open_minutes: int
    bars: int
    ticks: int
    gaps: int
    gap_longest_s: float
    gap_total_s: float
    duplicates: int
    disordered: int
    disorder_worst_ms: float
    stuck_longest: int
    stuck_minutes: int
    spikes: int
    spike_minutes: int
    skew_median_ms: float
    skew_p99_ms: float
    jitter_ms: float
    compared: int
    differing: int
    doubled: int
    limits: Limits = field(repr=False)
    findings: tuple[Finding, ...] = field(default=(), repr=False, compare=False)

    @property
    def parts(self) -> dict[str, float]:
        """Name -> share of the day that is right, in [0, 1]."""
        beyond = self.jitter_ms > self.limits.jitter_ms  # false for NaN
        return {
            "coverage": _share(self.open_minutes - self.bars, self.open_minutes),
            "continuity": _share(self.gap_total_s, self.open_minutes * 60.0),
            "order": _share(self.disordered, self.ticks),
            "movement": _share(self.stuck_minutes, self.bars),
            "plausibility": _share(self.spike_minutes, self.bars),
            "steadiness": self.limits.jitter_ms / self.jitter_ms if beyond else 1.0,
            "agreement": _share(self.differing, self.compared),
            "uniqueness": _share(self.doubled, self.ticks),
        }

    @property
    def score(self) -> float:
        """The least of the parts."""
        return min(self.parts.values())

    @property
    def row(self) -> dict[str, Any]:
        """Columns of its row, `until` in ns."""
        counted = asdict(self)
        del counted["limits"], counted["findings"]
        parts = {f"part_{name}": part for name, part in self.parts.items()}
        return counted | {"score": self.score} | parts


def _share(wrong: float, whole: float) -> float:
    # What is right of a whole; of nothing, all.
    return max(0.0, 1.0 - wrong / whole) if whole > 0 else 1.0


def days(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Midnight and end of each day (UTC) of a range in ns; the last one ends where the range does.

    The first is whole: its midnight may lie before `start`.
    """
    for midnight in range(start // DAY * DAY, end, DAY):
        until = min(midnight + DAY, end) // MINUTE * MINUTE
        if until > midnight:
            yield midnight, until


def measure(
    client: "Client", instrument: Instrument, start: int, end: int, limits: Limits | None = None,
    *, begins: int = 0,
) -> Quality | None:  # fmt: skip
    """Count what is right and wrong of one symbol on one day.

    Parameters
    ----------
    client : of a migrated store.
    instrument : whose symbol and calendar.
    start : midnight, ns UTC.
    end : the next midnight, or the whole minute to which the day has come, ns UTC.
    limits : what is still in order.
    begins : where the symbol's history does, ns UTC: nothing is missing before.

    Returns
    -------
    What was counted; None for a day on which nothing is due and the store has nothing.

    Raises
    ------
    ConfigError
        If the calendar is not known.
    StoreError
        If the store does not answer.
    """
    limits = limits or Limits()
    opens, closes = _open_spans(instrument, max(start, begins), end)
    found = count_defects(
        client, instrument.symbol, start, end, opens=opens, closes=closes,
        gap=round(limits.gap_s * SECOND), stuck=limits.stuck_minutes,
        step=step_of(limits.absurd),
    )  # fmt: skip
    minutes, ticks, gaps = found["minutes"], found["ticks"], found["gaps"]
    if not opens and not minutes["minutes"] and not ticks["rows"]:
        return None
    low, median, high = ticks["skew_ms"] if ticks["rows"] else (np.nan, np.nan, np.nan)
    return Quality(
        symbol=instrument.symbol,
        day=datetime.fromtimestamp(start // SECOND, UTC).date(),
        until=end,
        open_minutes=sum(b - a for a, b in zip(opens, closes, strict=True)) // MINUTE,
        bars=minutes["bars"],
        ticks=ticks["ticks"],
        gaps=gaps["gaps"],
        gap_longest_s=gaps["longest"] / SECOND,
        gap_total_s=gaps["total"] / SECOND,
        duplicates=found["duplicates"]["duplicates"],
        disordered=found["disorder"]["disordered"],
        disorder_worst_ms=found["disorder"]["worst"] / _MS,
        stuck_longest=found["stuck"]["longest"],
        stuck_minutes=found["stuck"]["stuck"],
        spikes=found["spikes"]["spikes"],
        spike_minutes=found["spikes"]["minutes"],
        skew_median_ms=median,
        skew_p99_ms=high,
        jitter_ms=max(high - median, median - low),
        compared=found["agreement"]["compared"],
        differing=found["agreement"]["differing"],
        doubled=ticks["rows"] - ticks["ticks"],
        limits=limits,
        findings=tuple(_findings(instrument.symbol, found)),
    )


def _open_spans(instrument: Instrument, start: int, end: int) -> tuple[list[int], list[int]]:
    # Opens and closes of the calendar's sessions inside a range, which may be empty.
    if start >= end:
        return [], []
    sessions, first, last = sessions_of([instrument])
    if first[0] == last[0]:
        return [start], [end]
    inside = sessions[(sessions[:, 1] > start) & (sessions[:, 0] < end)]
    return np.maximum(inside[:, 0], start).tolist(), np.minimum(inside[:, 1], end).tolist()


def _findings(symbol: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    # The worst case of what was found at all.
    gaps, same, late = found["gaps"], found["duplicates"], found["disorder"]
    stuck, spikes, bars = found["stuck"], found["spikes"], found["agreement"]
    told = (
        ("gap", gaps["gaps"],
         f"{gaps['longest'] / SECOND:g} s of open time after {iso(gaps['longest_at'])}"),
        ("duplicate", same["duplicates"],
         f"{same['most']} equal trades at {iso(same['most_at'])}; they can be real"),
        ("disorder", late["disordered"],
         f"{iso(late['worst_at'])} comes {late['worst'] / SECOND:g} s too late"),
        ("stuck price", stuck["stuck"],
         f"{stuck['longest']} minutes at {stuck['price']:g} from {iso(stuck['longest_at'])}"),
        ("absurd price", spikes["spikes"],
         f"{spikes['worst']:g} at {iso(spikes['worst_at'])} beside {spikes['beside']:g}"),
        ("bar that is not that of its ticks", bars["differing"],
         f"the first closes at {iso(bars['first'])}"),
    )  # fmt: skip
    for kind, count, example in told:
        if count:
            yield Finding(symbol, kind, count, example)


def write(client: "Client", measured: Sequence[Quality], token: str) -> None:
    """Put rows into the table `quality`; they replace those of the same symbols and days.

    Parameters
    ----------
    client : of a migrated store.
    measured : what was counted.
    token : names these rows for ever; the same call may be repeated with it.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    rows = [each.row for each in measured]
    if not rows:
        return
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    columns["until"] = columns["until"].cast(pa.timestamp("ns", "UTC"))
    insert(client, "quality", pa.table(columns), token)


def low(
    client: "Client", symbols: Sequence[str], start: int, end: int, least: float
) -> dict[tuple[str, str], float]:
    """Stored scores below `least` of the days in [start, end), ns UTC: (symbol, day) -> score.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    bound = {"symbols": list(symbols), "least": least, "start": start, "end": end}
    rows = ask(client, _LOW_SQL, bound).to_pylist()
    return {(row["symbol"], row["of"]): row["score"] for row in rows}


def scores(client: "Client", symbols: Sequence[str], at: int, days: int) -> dict[str, float]:
    """The latest score of each symbol that was measured up to a time; those without are left out.

    Causal: a day counts when all of it that was measured lies before `at`.

    Parameters
    ----------
    client : of a migrated store.
    symbols : whose scores.
    at : ns UTC.
    days : how far back a score may lie.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    bound = {"symbols": list(symbols), "at": at, "since": at - days * DAY}
    rows = ask(client, _SCORES_SQL, bound).to_pylist()
    return {row["symbol"]: row["latest"] for row in rows}
