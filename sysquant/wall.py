"""What the wall's clock tells the engine of a feed that is now, as marks among its ticks.

Input: a batch, and the time it is on the wall. Output: the batch with clock marks, which are
journaled as ticks are: a replay needs no clock. It reads no clock itself.
"""

from sysquant.types import Bars, Ticks, clock_mark


def with_marks(
    batch: Ticks | Bars, now: int, *, engine_ts: int, next_mark: int, grace_ms: int
) -> Ticks | Bars:
    """A batch of ticks with a mark before it, how far the feed is back, and one after a bar's end.

    The first tick counts for all of the batch: a backlog decides nothing that is meant for now.

    Parameters
    ----------
    now : the wall's time, ns UTC.
    engine_ts, next_mark : of the engine, see there.
    grace_ms : how long after its end a bar is closed without a tick.

    Returns
    -------
    The ticks in their order; bars as they are.
    """
    if not isinstance(batch, Ticks):
        return batch
    parts = [batch]
    is_due = next_mark and now >= next_mark + grace_ms * 1_000_000
    if is_due and not (len(batch) and batch.ts.max() >= next_mark):
        parts.append(clock_mark(next_mark, _lag_s(now, next_mark)))
    if len(batch):
        first = int(batch.ts.min())
        parts.insert(0, clock_mark(engine_ts or first, _lag_s(now, max(engine_ts, first))))
    elif len(parts) > 1:  # what a mark says counts after the decisions at it: it is said before
        parts.insert(0, clock_mark(engine_ts, _lag_s(now, next_mark)))
    return Ticks.join(parts)


def _lag_s(now: int, ts: int) -> float:
    # The exchange's clock may be ahead of ours.
    return max(0, now - ts) / 1e9
