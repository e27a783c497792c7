"""The past as a notebook holds it: bars of a range, the instruments they count, and the gaps.

Input: what `sysquant.history` has read. Output: itself, for `backtest` and `Strategy.frame`, frames
of pandas, and a few printed lines. pandas is imported only when a frame is asked for. Nothing is
filled: a bar that does not exist is no row.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sysquant.errors import ConfigError, nearest
from sysquant.times import length_name
from sysquant.types import Bars, Gaps, Instrument, Ints

if TYPE_CHECKING:
    import pandas as pd

_LINES = 8  # of symbols, at most, when it is printed
_PRICES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class History:
    """Bars of one interval, and all that a backtest must know of them.

    Parameters
    ----------
    bars : (T,) by (close, symbol).
    universe : the instruments that the bars' symbol column counts.
    interval : ns.
    start, end : the range, ns UTC: every bar lies wholly in [start, end).
    gaps : runs of bars that are missing in the range: around the clock, or in the sessions of an
        instrument that has a calendar.
    inferred : symbols whose tick and lot size are the smallest decimal ones that the bars show.
    """

    bars: Bars
    universe: tuple[Instrument, ...]
    interval: int
    start: int
    end: int
    gaps: Gaps
    inferred: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.bars)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Of the universe, in its order."""
        return tuple(instrument.symbol for instrument in self.universe)

    def frame(self, symbol: str | None = None) -> "pd.DataFrame":
        """The bars as a frame.

        Parameters
        ----------
        symbol : the one that is wanted; all by default.

        Returns
        -------
        Columns open, high, low, close (quote currency) and volume, indexed by `ts` (closes, UTC);
        of all symbols with a column `symbol` before them, and without copies where possible.

        Raises
        ------
        ConfigError
            If it is not a symbol of the universe.
        """
        import pandas as pd

        bars = self.bars
        if symbol is not None:
            bars = bars[bars.symbol == self._number(symbol)]
        columns = {name: getattr(bars, name) for name in _PRICES}
        if symbol is None:
            names = pd.Categorical.from_codes(bars.symbol, list(self.symbols))
            columns = {"symbol": names, **columns}
        return pd.DataFrame(columns, index=_times(bars.ts, "ts"), copy=False)

    def gap_frame(self) -> "pd.DataFrame":
        """The gaps as a frame: symbol, start, end (UTC) and the number of missing bars."""
        import pandas as pd

        gaps = self.gaps
        names = pd.Categorical.from_codes(gaps.symbol, list(self.symbols))
        start, end = _times(gaps.start), _times(gaps.end)
        columns = {"symbol": names, "start": start, "end": end, "missing": gaps.missing}
        return pd.DataFrame(columns)

    def _number(self, symbol: str) -> int:
        if symbol not in self.symbols:
            raise ConfigError(f"the history has no {symbol!r}{nearest(symbol, self.symbols)}")
        return self.symbols.index(symbol)

    def __repr__(self) -> str:
        count = f"{len(self.universe)} symbols" if len(self.universe) > 1 else self.symbols[0]
        lines = [
            f"History of {count}: {len(self):,} bars of {length_name(self.interval)}",
            f"  {_iso(self.start)} to {_iso(self.end)} UTC, times are closes",
        ]
        rows = np.bincount(self.bars.symbol, minlength=len(self.universe))
        for number, instrument in enumerate(self.universe[:_LINES]):
            lines.append(f"  {instrument.symbol}: {rows[number]:,} bars, {self._gaps_of(number)}")
            if instrument.symbol in self.inferred:
                lines[-1] += f"; tick {instrument.tick_size:g}, lot {instrument.lot_size:g} *"
        if len(self.universe) > _LINES:
            more = len(self.universe) - _LINES
            missing = self.gaps.missing[self.gaps.symbol >= _LINES].sum()
            lines.append(f"  and {more} more, {rows[_LINES:].sum():,} bars, {missing:,} missing")
        if self.inferred:
            lines.append("  * smallest decimal steps seen; give an Instrument to say better")
        return "\n".join(lines)

    def _gaps_of(self, number: int) -> str:
        gaps = self.gaps[self.gaps.symbol == number]
        if not len(gaps):
            return "no gaps"
        worst = int(np.argmax(gaps.missing))
        many = f"{len(gaps):,} gaps, the longest" if len(gaps) > 1 else "a gap"
        span = f"{_iso(int(gaps.start[worst]))} to {_iso(int(gaps.end[worst]))}"
        return f"{gaps.missing.sum():,} missing in {many} {span}"


def _times(ts: Ints, name: str | None = None) -> "pd.DatetimeIndex":
    import pandas as pd

    return pd.DatetimeIndex(np.ascontiguousarray(ts).view("M8[ns]"), tz="UTC", name=name)


def _iso(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("M8[s]"))
