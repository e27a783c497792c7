"""Whether a strategy decides by nothing but the bars that had closed: no later ones, nothing else.

Input: a strategy, a market, how much of it is looked at. Output: what is wrong, a sentence each
with the way out, and figures. Everything after many moments is replaced by noise, and what came
before must stay the same bytes in every form; bar by bar must give what the whole array gives; and
code, files, clocks and memory are looked at, which noise in the market does not reach.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numba.core.errors import NumbaError
from tqdm import tqdm

from sysquant import forms, outside, purity
from sysquant.activity import Activity
from sysquant.decider import features_of
from sysquant.effects import Effects
from sysquant.errors import SysquantError
from sysquant.forms import TARGET, Answers, Apart, Market, StandIn
from sysquant.keys import check_kind, check_number
from sysquant.noise import another_future
from sysquant.proof import Figure
from sysquant.strategy import Strategy
from sysquant.types import Bars, Ints, Ticks

T = TypeVar("T")
# What code of a strategy can raise.
_FAULTS: tuple[type[Exception], ...] = (
    SysquantError, NumbaError, ArithmeticError, AssertionError, AttributeError, BufferError,
    ImportError, LookupError, MemoryError, NameError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
_WAY = "build it of what the bar and those before it say, as lag(x, 1) or rolling_max(x, 20)"
_AGAIN = "memory is a step function (features.step), whose state the engine keeps and restores"
_OUTSIDE = {
    "clock": "reads a clock, {}: the time of a bar is bar.ts, its hour time_of_day()",
    "file": "reads or writes the file {}: what is known of it only later cannot be told",
    "connection": "opens a connection, {}: a target follows from bars alone",
    "process": "starts a process, {}: a target follows from bars alone",
    "environment": "asks the environment for {}: make it a parameter of the class",
    "code": "loads other code, {}: a target follows from bars alone",
}


@dataclass(frozen=True, slots=True)
class Causality:
    """How much is looked at, as configured by `conf/promotion`.

    Parameters
    ----------
    cuts : moments after which everything is replaced by noise.
    seed : of the moments and of the noise.
    bars : newest bars that are looked at, of all symbols.
    events : newest events that the engine is given.
    numbers : that one table in the code of a strategy may hold.
    quiet_days : without a trade after which a symbol counts as dead.
    left_out : symbols of the store that died and are left out of the universe on purpose.

    Raises
    ------
    ConfigError
        If one cannot be meant.
    """

    cuts: int = 64
    seed: int = 1
    bars: int = 20_000
    events: int = 200_000
    numbers: int = 256
    quiet_days: float = 2.0
    left_out: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("cuts", "bars", "events", "numbers"):
            value = getattr(self, name)
            check_number(f"causality.{name}", value, least=1, below=2**31, whole=True)
        check_number("causality.seed", self.seed, least=0, below=2**31, whole=True)
        check_number("causality.quiet_days", self.quiet_days, above=0)
        check_kind("causality.left_out", self.left_out, list, "a list of symbols")


@dataclass(slots=True)
class Examined:
    """What was found.

    Parameters
    ----------
    failures, notes, figures : as of `Proof`.
    digest : of all answers in the array form; empty where there are none.
    """

    failures: dict[str, None]
    notes: list[str]
    figures: dict[str, Figure]
    digest: str = ""


def examine(
    strategy: Strategy, market: Market, limits: Causality, *, model: Any = None
) -> Examined:  # fmt: skip
    """Look for anything that a strategy knows beside the bars that had closed.

    Its code runs, so this belongs into a process of its own.

    Parameters
    ----------
    strategy : without a model.
    market : cut to what `limits` allow.
    model : that it asks; a stand-in by default, where it asks any.
    """
    return _Examination(strategy, market, limits, model).run()


class _Examination:
    def __init__(
        self, strategy: Strategy, market: Market, limits: Causality, model: Any
    ) -> None:  # fmt: skip
        self.strategy, self.market, self.limits = strategy, market, limits
        self.model = model or (StandIn(strategy.classes) if strategy.classes else None)
        self.files = outside.files_of(strategy)
        self.rng = np.random.default_rng(limits.seed)
        self.found = Examined({}, [], {})
        self.seen = dict[outside.Seen, None]()
        self.clock = 0

    def run(self) -> Examined:
        self._read()
        copies = self._tried("its modules, loaded anew,", lambda: [self._fresh() for _ in range(3)])
        if copies is not None:
            whole, stream, other = copies
            self._hold(whole)
            self._decide(whole, stream, other)
            self._trade(whole, stream, other)
        for one in self.seen:
            self._fail(f"{one.where}: the strategy {_OUTSIDE[one.kind].format(one.what)}")
        if not outside.is_loadable(self.strategy):
            self.found.notes.append(
                f"{type(self.strategy).__name__} stands in no module, so it was not loaded anew"
            )
        figures = self.found.figures
        figures.update(bars=len(self.market.bars), events=len(self.market.events))
        if "orders" in figures:
            self.found.notes.append(
                f"{figures['bars']:,} bars, and {figures['events']:,} events with "
                f"{figures['orders']:,} orders, in every form, at {figures.get('cuts_array', 0)} "
                f"and {figures['cuts_engine']} moments"
            )
        return self.found

    # -- what is read

    def _read(self) -> None:
        for code in outside.codes_of(self.strategy):
            try:
                lines, first = inspect.getsourcelines(code)
            except (OSError, TypeError):
                name = code.__name__
                self.found.notes.append(f"the source of {name} cannot be read: nobody has read it")
                continue
            place = code.__name__.rpartition(".")[2]
            source = textwrap.dedent("".join(lines))
            for one in purity.remarks(source, self.limits.numbers):
                self._fail(f"{place}, line {max(first, 1) - 1 + one.line}: {one.text}")

    def _hold(self, strategy: Strategy) -> None:
        features = self._tried("features", lambda: features_of(strategy)) or {}
        for one in outside.tables(strategy, features, self.limits.numbers):
            self._fail(
                f"{one.holder} holds {one.name}, a table of {one.numbers:,} values: what they know "
                f"of later bars cannot be told, and more than {self.limits.numbers} are refused; "
                "make what is meant a few parameters"
            )

    # -- the array form against all others

    def _decide(self, fresh: Strategy, stream: Strategy, other: Strategy) -> None:
        bars, symbols = self.market.bars, self.market.symbols
        whole = self._tried("the array form", lambda: forms.in_one(fresh, bars, symbols))
        if whole is None:
            return
        self.found.digest = whole.digest()
        decided = int(np.count_nonzero(~np.isnan(whole.values[:, -1])))
        self.found.figures["decided"] = decided
        if not decided:
            self._fail(
                f"it had no opinion on any of {len(bars):,} bars, so nothing was shown: take a "
                "longer history (feed.start)"
            )

        def told(form: str, make: Callable[[], Answers], why: str) -> None:
            self._compare(form, whole, make, len(bars), why)

        told("the same instance, asked again",
             lambda: forms.in_one(fresh, bars, symbols), f"it remembers; {_AGAIN}")  # fmt: skip
        told("Strategy.frame", lambda: forms.in_frame(fresh, bars, symbols),
             "the engine never asks `frame`, so let it be what Strategy has")  # fmt: skip
        told("the stream form, bar by bar", lambda: forms.bar_by_bar(stream, bars, symbols),
             f"in an array it sees later bars, or how many there are; {_WAY}")  # fmt: skip
        self._tried("an array of noise", lambda: forms.in_one(other, self._future(0), symbols))
        self._cut_arrays(whole, other)
        told("the array form after it was shown other bars",
             lambda: forms.in_one(other, bars, symbols), f"it remembers; {_AGAIN}")  # fmt: skip

    def _cut_arrays(self, whole: Answers, copy: Strategy) -> None:
        # In rising order: what the copy could remember of earlier cuts is no later bar.
        bars, symbols = self.market.bars, self.market.symbols
        kept = dict[str, tuple[int, list[int], Apart]]()
        for cut in self._cuts(forms.bar_ends(bars), "array"):
            for changed in (self._future(cut), bars[:cut]):
                found = self._tried(
                    "the array form", lambda changed=changed: forms.in_one(copy, changed, symbols)
                )
                for one in forms.apart(whole, found, cut) if found is not None else ():
                    kept.setdefault(one.name, (cut, [], one))[1].append(cut)
        for name, (cut, cuts, one) in kept.items():
            place = self._place(one.row)
            self._fail(
                f"{_called(name)} {place} rests on what came after {_iso(self._closed(cut))}: "
                f"{one.one} became {one.other} when that was replaced by noise or left out, in the "
                f"array form, at {len(set(cuts))} of {self.found.figures['cuts_array']} moments; "
                f"{_WAY}"
            )

    def _compare(
        self, form: str, whole: Answers, make: Callable[[], Answers], rows: int, why: str
    ) -> None:  # fmt: skip
        found = self._tried(form, make)
        for one in forms.apart(whole, found, rows) if found is not None else ():
            self._fail(
                f"{_called(one.name)} {self._place(one.row)} is {one.one} in the array form and "
                f"{one.other} in {form}, and {one.rows:,} of {rows:,} bars differ: {why}"
            )

    # -- the whole engine

    def _trade(self, fresh: Strategy, stream: Strategy, other: Strategy) -> None:
        events, ends = self.market.events, forms.step_ends(self.market)
        whole = self._traded(fresh, events)
        if whole is None:
            return
        self.found.figures["orders"] = len(whole["orders"])
        stepped = self._traded(stream, events, ends)
        if stepped is not None and (found := forms.effects_apart(whole, stepped)):
            at = forms.moment_of(whole, found[0]) or forms.moment_of(stepped, found[0])
            self._fail_effects(found, at, "in one batch and bar by bar", "later bars of a batch")
        is_told = False
        for cut in self._cuts(forms.moments(self.market), "engine"):
            # A bar that is an event closes with the next one: without it there is no signal yet.
            unclosed = ("signals",) if isinstance(events, Bars) else ()
            before = self._traded(other, events[:cut]), unclosed
            after = self._traded(other, self._noise(events, cut)), ()
            for effects, but in (before, after):
                found = self._moved(whole, effects, cut, but)
                if found and not is_told:
                    said = "whatever came after"
                    self._fail_effects(found, int(events.ts[:cut].max()), said, "what came after")
                    is_told = True

    def _moved(
        self, whole: Effects, other: Effects | None, cut: int, but: tuple[str, ...]
    ) -> list[Apart]:  # fmt: skip
        if other is None:
            return []
        one, other = (forms.up_to(each, self.market, cut) for each in (whole, other))
        return forms.effects_apart(one, other, but=but)

    def _fail_effects(self, found: list[Apart], ts: int, said: str, cause: str) -> None:
        one = found[0]
        others = ", ".join(other.name for other in found[1:])
        self._fail(
            f"the engine's {one.name} up to {_iso(ts)}, row {one.row + 1:,}, are not the same "
            f"{said} ({one.one}; {one.other}){f', nor are {others}' if others else ''}: the "
            f"strategy rests on {cause}; {_WAY}"
        )

    def _traded(
        self, strategy: Strategy, events: Ticks | Bars, ends: Ints | None = None
    ) -> Effects | None:  # fmt: skip
        edges = [] if ends is None else ends.tolist()
        return self._tried(
            "the engine", lambda: forms.by_engine(strategy, self.market, events, edges)
        )

    # -- what they share

    def _fresh(self) -> Strategy:
        again = outside.fresh(self.strategy)
        return again.with_model(self.model) if self.model is not None else again

    def _cuts(self, places: Ints, of: str) -> Iterator[int]:
        count = min(self.limits.cuts, len(places))
        chosen = np.sort(self.rng.choice(places, count, replace=False)) if count else places
        self.found.figures[f"cuts_{of}"] = count
        words = f"causality, {of}"
        yield from tqdm(chosen.tolist(), words, unit=" cuts", leave=False, disable=None)

    def _future(self, cut: int) -> Bars:
        bars: Any = self._noise(self.market.bars, cut)
        return bars

    def _noise(self, events: Ticks | Bars, cut: int) -> Ticks | Bars:
        return another_future(
            events, cut, self.limits.seed + cut, symbols=len(self.market.universe),
            interval=self.market.length,
        )  # fmt: skip

    def _tried(self, form: str, make: Callable[[], T]) -> T | None:
        # What a form answers; None where it raises, which fails.
        self.clock += 1
        found, fault = None, ""
        with outside.watched(self.files, self.limits.seed + self.clock) as seen:
            try:
                found = make()
            except _FAULTS as error:
                fault = str(error) if isinstance(error, SysquantError) else _raised(error)
        self.seen.update(dict.fromkeys(seen))
        if fault:
            self._fail(f"{form} raised: {fault}")
        return found

    def _fail(self, sentence: str) -> None:
        self.found.failures[sentence] = None

    def _closed(self, cut: int) -> int:
        return int(self.market.bars.ts[cut - 1])

    def _place(self, row: int) -> str:
        bars = self.market.bars
        symbol = self.market.symbols[int(bars.symbol[row])]
        return f"of {symbol} at {_iso(int(bars.ts[row]))}"


def trained_past(name: str, known: int, first: int) -> list[str]:
    """What is wrong where a model decides on bars of the time that it was trained on.

    Parameters
    ----------
    name : of the model.
    known : when the newest outcome of its training was known, ns UTC; `manifest.trained.known`.
    first : close of the first bar that it is asked about, ns UTC.
    """
    if known < first:
        return []
    return [
        f"model {name} was trained on outcomes known until {_iso(known)}, and is asked about bars "
        f"from {_iso(first)} on: it knows what came of them; take a history that begins later "
        "(feed.start), or train it on what ended before (runners/retrain.py end=...)"
    ]


def _called(name: str) -> str:
    return "the target" if name == TARGET else f"feature {name!r}"


def _raised(error: BaseException) -> str:
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}"


def _iso(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("M8[s]" if ns % 10**9 == 0 else "M8[ms]")) + "Z"


def newest(market: Market, limits: Causality) -> Market:
    """The newest part of a market, as much of it as is looked at; earlier events are left out."""
    bars, events = market.bars, market.events
    if len(bars) > limits.bars:
        ends = forms.bar_ends(bars)
        bars = bars[int(ends[ends >= len(bars) - limits.bars][0]) :]
    if len(events) > limits.events:
        ends = forms.step_ends(market)
        later = ends[ends >= len(events) - limits.events]
        events = events[int(later[0]) if len(later) else len(events) - limits.events :]
        start = int(events.ts[0]) - (market.length if isinstance(events, Bars) else 0)
        whole = not isinstance(market.interval, Activity)
        history = market.bars[market.bars.ts <= start - (start % market.length if whole else 0)]
        return market._replace(bars=bars, events=events, history=history)
    return market._replace(bars=bars)
