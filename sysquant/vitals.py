"""How a session does, in numbers: rates, latencies, lag, memory, collections of garbage.

Input: one call for each poll and each batch of the loop, with arrays, never a tick at a time.
Output: `Measures` of the time since the last ones: a row of `runtime_metrics`. It decides nothing
and tells nobody; `health.py` says whether it is well.
"""

import gc
import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import psutil

from sysquant.types import Bars, Floats, Poll, Ticks

SHARES = (0.5, 0.99, 0.999)
ERROR = 0.005  # of a quantile, as a fraction of it
_LEAST_MS, _MOST_MS = 1e-3, 1e9
_GROWTH = math.log((1 + ERROR) / (1 - ERROR))
_BUCKETS = math.ceil(math.log(_MOST_MS / _LEAST_MS) / _GROWTH) + 1
_WINDOW_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """A row of `runtime_metrics`, whose columns say what each is; NaN for what is not known."""

    ts: int
    period_s: float
    batches: int
    ticks_per_s: float
    lag_records: int
    lag_ms: float
    decision_ms_p50: float
    decision_ms_p99: float
    decision_ms_p999: float
    exchange_ms_p50: float
    exchange_ms_p99: float
    exchange_ms_p999: float
    clock_skew_ms: float
    outbox_rows: int
    outbox_age_s: float
    memory_bytes: int
    open_files: int
    gc_collections: int
    gc_pause_ms: float
    gc_longest_ms: float
    snapshot_age_s: float


class Quantiles:
    """Quantiles of durations since they were last taken, each to 0.5 % of itself.

    Counts in buckets that grow by a constant ratio: memory is constant, and an array is added in
    one pass. What lies outside 1 us to 11 days counts as the nearer of the two.

    References
    ----------
    C. Masson, J. E. Rim, H. K. Lee, DDSketch: a fast and fully-mergeable quantile sketch with
    relative-error guarantees, PVLDB 12 (12), 2019.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, values_ms: Floats | float) -> None:
        """Count durations, in ms."""
        inside = np.atleast_1d(np.clip(values_ms, _LEAST_MS, _MOST_MS))
        bucket = np.ceil(np.log(inside / _LEAST_MS) / _GROWTH).astype(np.int64)
        self._counts += np.bincount(bucket, minlength=_BUCKETS)

    def take(self) -> tuple[float, ...]:
        """The quantiles of `SHARES` in ms, NaN when nothing was counted; counting begins anew."""
        reached = np.cumsum(self._counts)
        self._counts[:] = 0
        if not reached[-1]:
            return (math.nan,) * len(SHARES)
        ranks = np.floor(np.array(SHARES) * (reached[-1] - 1))
        bucket = np.searchsorted(reached, ranks, side="right")
        return tuple((_LEAST_MS * (1 - ERROR) * np.exp(bucket * _GROWTH)).tolist())


class ClockSkew:
    """How far our clock is ahead of the exchange's, by the record that came soonest.

    Arrival minus time of the event is the skew plus a delay that is never negative. So the least of
    them is a bound from above, and close to it once a record came without waiting; below zero, our
    clock is behind for certain. The part of the delay that every record has cannot be told from
    skew without a round trip. The least of the last ten minutes counts, for clocks drift.

    References
    ----------
    V. Paxson, On calibrating measurements of packet transit times, SIGMETRICS 1998.
    D. Mills et al., RFC 5905, 2010, section 10 (of several samples, that of the least delay).
    """

    def __init__(self) -> None:
        self._least: deque[tuple[int, float]] = deque()  # both rise; one a second at most

    @property
    def ms(self) -> float:
        """The estimate, NaN before the first record."""
        return self._least[0][1] if self._least else math.nan

    def add(self, least_ms: float, now_s: float) -> None:
        """Take a batch's least arrival minus time of event; `now_s` never goes back."""
        second = int(now_s)
        while self._least and self._least[-1][1] >= least_ms:
            self._least.pop()
        if not self._least or self._least[-1][0] < second:
            self._least.append((second, least_ms))
        while self._least[0][0] < second - _WINDOW_S:
            self._least.popleft()


class _Pauses:
    # Collections of garbage in this process, in whichever thread: all others wait for them.

    def __init__(self) -> None:
        self._began = 0
        self._ns: list[int] = []

    def on_collection(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._began = time.perf_counter_ns()
        elif self._began:
            self._ns.append(time.perf_counter_ns() - self._began)

    def take(self) -> list[int]:
        found, self._ns = self._ns, []
        return found


class Vitals:
    """What the loop of a session measures of itself.

    Parameters
    ----------
    is_now : whether events are of now; of the past, times since they happened say nothing.

    Attributes
    ----------
    connected_ts, record_ts, commit_ts : when the feed was last connected, when the last record
        came, good or not, and when the last input was journaled; wall clock, ns.
    last : the newest measures; None before the first.
    """

    def __init__(self, *, is_now: bool) -> None:
        self.connected_ts = self.record_ts = self.commit_ts = time.time_ns()
        self.last: Measures | None = None
        self._is_now = is_now
        self._lag = self._ticks = self._batches = 0
        self._polled_ns = time.perf_counter_ns()
        self._since = time.monotonic()
        self._decision, self._exchange = Quantiles(), Quantiles()
        self._skew = ClockSkew()
        self._pauses = _Pauses()
        self._process = psutil.Process()

    def open(self) -> None:
        """Begin to count collections of garbage."""
        gc.callbacks.append(self._pauses.on_collection)

    def close(self) -> None:
        """Count them no longer."""
        if self._pauses.on_collection in gc.callbacks:
            gc.callbacks.remove(self._pauses.on_collection)

    def polled(self, poll: Poll) -> None:
        """A poll has returned."""
        self._polled_ns, now = time.perf_counter_ns(), time.time_ns()
        self._lag = poll.lag
        if poll.is_connected:
            self.connected_ts = now
        if len(poll.events) or poll.dead:
            self.record_ts = now
        if self._is_now and len(poll.events):
            self._skew.add((now - int(poll.events.ts.max())) / 1e6, time.monotonic())

    def taken(self, batch: Ticks | Bars) -> None:
        """A batch, and all that it caused, is in the journal."""
        self._decision.add((time.perf_counter_ns() - self._polled_ns) / 1e6)
        self.commit_ts = time.time_ns()
        ts = batch.ts[batch.symbol >= 0]  # a clock mark is no record
        self._batches += 1
        self._ticks += len(ts)
        if self._is_now and len(ts):
            self._exchange.add((self.commit_ts - ts) / 1e6 - self._skew.ms)

    def measure(
        self, *, lag_ms: float, outbox_rows: int, outbox_age_s: float, snapshot_age_s: float
    ) -> Measures:
        """Measures since the last ones; counting begins anew.

        Parameters
        ----------
        lag_ms : wall clock minus engine time, NaN for a feed of the past.
        outbox_rows, outbox_age_s : rows that wait for the store, and since when the oldest batch.
        snapshot_age_s : since the last snapshot, or the start.
        """
        now = time.monotonic()
        period_s, self._since = max(now - self._since, 1e-9), now
        pauses_ms = [ns / 1e6 for ns in self._pauses.take()]
        decision, exchange = self._decision.take(), self._exchange.take()
        self.last = Measures(
            ts=time.time_ns(),
            period_s=period_s,
            batches=self._batches,
            ticks_per_s=self._ticks / period_s,
            lag_records=self._lag,
            lag_ms=lag_ms,
            **dict(zip(_QUANTILES, decision + exchange, strict=True)),
            clock_skew_ms=self._skew.ms,
            outbox_rows=outbox_rows,
            outbox_age_s=outbox_age_s,
            memory_bytes=self._process.memory_info().rss,
            open_files=self._process.num_fds(),
            gc_collections=len(pauses_ms),
            gc_pause_ms=sum(pauses_ms, 0.0),
            gc_longest_ms=max(pauses_ms, default=0.0),
            snapshot_age_s=snapshot_age_s,
        )
        self._ticks = self._batches = 0
        return self.last


_QUANTILES = [f"{of}_ms_p{p}" for of in ("decision", "exchange") for p in ("50", "99", "999")]
