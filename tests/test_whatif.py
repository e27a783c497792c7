"""A session through another risk chain: what flips, told of sessions and reckoned by hand."""

import math
from dataclasses import replace as changed

import numpy as np
import pyarrow as pa
import pytest

from sysquant import control
from sysquant.activity import bar_size, closed_bars
from sysquant.effects import PURPOSES
from sysquant.errors import DataError, JournalError
from sysquant.flips import Side, compare
from sysquant.journal import Input
from sysquant.risk import RiskChain
from sysquant.session import recorded
from sysquant.sizing import WeightSizing
from sysquant.strategy import Strategy
from sysquant.types import SECOND
from sysquant.whatif import replay, steps_of
from tests.market import CHECKS, UNIVERSE, Flip, engine, ticks
from tests.test_desk import commanded
from tests.test_live import MemoryFeed, rows

MARKET = ticks(4_000)
FIRST = int(np.searchsorted(MARKET.ts, MARKET.ts[500] // SECOND * SECOND))  # of the session
PAST = closed_bars([MARKET[: FIRST + 1]], UNIVERSE, SECOND)
LIVE = changed(MARKET[FIRST:], offset=np.arange(len(MARKET) - FIRST))
LAX = [*CHECKS, {"check": "tick_jump", "limit": 0.5}, {"check": "order_rate_minute", "limit": 900}]


class Pulse(Strategy):
    """Long for five seconds, flat for five."""

    def features(self, bar):
        return {"five": bar.ts / (5 * SECOND)}

    def target(self, f):
        return np.where(np.ceil(f["five"]) % 2 == 0, 0.6, 0.0)


class Raises(Flip):
    """Raises in the tenth part of the session."""

    def target(self, f):
        if (f["close"] == MARKET.price[1_200]).any():
            raise ValueError("a price that it does not like")
        return super().target(f)


class Session:
    """A session, and what is asked of it afterwards."""

    def __init__(self, directory, strategies, *said, **book):
        self.directory, self.tables = directory, {}
        self.book = {
            "strategies": strategies, "contained": True, "risk": RiskChain(checks=LAX),
            "sizing": WeightSizing(band=1.0, retry_after=6), **book,
        }  # fmt: skip
        runner, _, _ = commanded(
            directory, *said, tables=self.tables, feed=MemoryFeed(LIVE), book=engine(**self.book),
            history=lambda _end, _first: PAST,
        )  # fmt: skip
        runner.run()
        self.ended = runner.engine

    def table(self, name):
        return pa.concat_tables(self.tables[name].values())

    def courses(self, chain=None, *, since=0, more=(), signals=None, **own):
        engines = [engine(**{**self.book, **own}) for _ in range(2)]
        if chain is not None:
            engines[1] = engine(**{**self.book, "risk": chain})
        inputs = [*recorded(self.directory, self.directory / "sealed"), *more]
        faults = [
            (row["strategy"], row["ts"].value)
            for row in self.table("events").to_pylist() if row["kind"] == "fault"
        ]  # fmt: skip
        signals = self.table("signals") if signals is None else signals
        return replay(*engines, steps_of(inputs), signals, faults, since=since)

    def through(self, chain=None, **more):
        return difference(*self.courses(chain, **more))


def difference(was, would):
    return compare(*(Side(one.reviews, *one.equity) for one in (was, would)))


def chain_of(*tighter, cut=True, **limits):
    """The session's chain with other limits, and checks that it has not."""
    checks = {one["check"]: one["limit"] for one in LAX} | limits
    return RiskChain(checks=[{"check": n, "limit": limit} for n, limit in checks.items()], cut=cut)


@pytest.fixture(scope="module")
def pulse(tmp_path_factory):
    """One that buys from flat and sells to flat."""
    return Session(tmp_path_factory.mktemp("pulse"), {"pulse": Pulse()})


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Two strategies, of which an operator stops one for a while and moves the other's capital."""
    return Session(
        tmp_path_factory.mktemp("commands"), {"flip": Flip(), "pulse": Pulse()},
        (485, control.Stop("flip")), (970, control.Weight("pulse", 0.5)),
        (1_940, control.Start("flip")), (2_425, control.Pause()), (2_716, control.Resume()),
    )  # fmt: skip


def receipts(session, check):
    """Order number -> value of a check of the first review, of buys that were approved."""
    buys = {
        row["order_no"]
        for row in session.table("orders").to_pylist()
        if row["quantity"] > 0 and row["status"] == "approved"
    }
    return {
        row["order_no"]: row["value"]
        for row in session.table("risk_receipts").to_pylist()
        if row["check"] == check and row["attempt"] == 1 and row["order_no"] in buys
    }


# -- the same chain


@pytest.mark.parametrize("since", [0, int(LIVE.ts[700]), int(LIVE.ts[2_500]), 1])
def test_the_same_chain_flips_nothing_and_changes_nothing(commands, since):
    was, would = commands.courses(since=since)
    found = difference(was, would)
    assert (found.flips, found.pnl, found.drawdown) == ((), 0.0, 0.0)
    assert (found.resized, found.gone, found.new) == (0, 0, 0)
    assert found.same == len(found.was.reviews) > 20
    assert was.effects.hash() == would.effects.hash() and not would.left_out


def test_the_sessions_own_course_is_the_session(commands):
    was, _ = commands.courses()
    assert was.engine.accounts() == commands.ended.accounts()
    assert was.engine.positions() == commands.ended.positions()
    ts, equity = was.equity
    assert equity[0] == 1_000_000.0 and ts[-1] == LIVE.ts.max() and (np.diff(ts) >= 0).all()
    history = [row for row in rows(commands.tables, "portfolio_history") if not row["symbol"]]
    total = {}
    for row in history:
        total[row["ts"].value] = total.get(row["ts"].value, 0.0) + row["equity"]
    inside = [at for at in total if at < ts[-1]]
    assert dict(zip(ts[1:-1].tolist(), equity[1:-1], strict=True)) == pytest.approx(
        {at: total[at] for at in inside}
    )


def test_profits_before_and_after_a_moment_are_those_of_all(commands):
    since = int(LIVE.ts[2_500])
    whole, late = commands.through().was, commands.through(since=since).was
    before = whole.equity[whole.ts <= since][-1]
    assert late.equity[-1] == whole.equity[-1]
    assert late.ts[0] <= since and late.pnl == pytest.approx(whole.equity[-1] - before, abs=2e3)
    assert len(late.reviews) == (whole.reviews.orders["ts"] >= since).sum()


@pytest.mark.parametrize(
    "book", [{"interval": bar_size("40ticks")}, {"snapshot_ns": 7 * SECOND}], ids=["ticks", "slow"]
)
def test_bars_of_any_kind_are_replayed(tmp_path, book, monkeypatch):
    monkeypatch.setattr("tests.test_whatif.PAST", closed_bars([MARKET[:0]], UNIVERSE, SECOND))
    session = Session(tmp_path, {"flip": Flip()}, **book)
    found = session.through()
    assert (found.flips, found.pnl) == ((), 0.0) and found.same > 20


def test_a_strategy_that_raised_leaves_where_it_did(tmp_path):
    session = Session(tmp_path, {"flip": Flip(), "raises": Raises()})
    assert session.ended.accounts()["raises"]["failed"] == 1
    found = session.through()
    assert (found.flips, found.pnl) == ((), 0.0)
    assert "off" in {PURPOSES[row["purpose"]] for row in found.was.reviews.orders}
    stricter = session.through(chain_of(order_size=0.05))
    assert {one.turn for one in stricter.flips} == {"cut"}


# -- a stricter one, by hand


def test_a_stricter_chain_refuses_the_orders_whose_receipts_say_so(pulse):
    jumps = receipts(pulse, "tick_jump")
    limit = float(np.median(list(jumps.values())))
    wanted = {number: value for number, value in jumps.items() if value > limit}
    assert 10 < len(wanted) < len(jumps) - 10
    was, would = pulse.courses(chain_of(tick_jump=limit))
    found = difference(was, would)
    assert {one.order_no: one.value for one in found.flips} == wanted
    for flip in found.flips:
        assert (flip.turn, flip.checks, flip.limit) == ("refused", ("tick_jump",), limit)
        assert flip.was > 0.0 == flip.would and (flip.strategy, flip.purpose) == (0, 0)
    assert found.by_check == {("refused", "tick_jump"): len(wanted)}
    assert found.gone == len(wanted), "what was not bought is not sold"
    assert found.new == 0 and found.pnl != 0.0
    assert found.pnl == pytest.approx(
        would.engine.accounts()["pulse"]["equity"] - was.engine.accounts()["pulse"]["equity"]
    )
    assert found.drawdown == found.would.drawdown - found.was.drawdown
    back = compare(found.would, found.was)
    assert {one.ts for one in back.flips} == {one.ts for one in found.flips}
    assert {one.turn for one in back.flips} == {"approved"} and back.pnl == -found.pnl


def test_an_order_that_is_cut_otherwise_names_the_check_with_least_room(pulse):
    sizes = receipts(pulse, "order_size")
    assert min(sizes.values()) > 0.2
    found = pulse.through(chain_of(order_size=0.2, order_notional=250_000.0))
    cut = {one.order_no: one for one in found.flips}
    assert cut.keys() == sizes.keys() and found.resized == len(found.was.reviews) - len(cut)
    prices = {row["order_no"]: row["price"] for row in pulse.table("orders").to_pylist()}
    for number, one in cut.items():
        assert (one.turn, one.checks, one.limit) == ("cut", ("order_size",), 0.2)
        room = 0.2 * 1e6 / prices[number]
        lot = UNIVERSE[one.symbol].lot_size
        assert room - lot < one.would <= room < one.was


def test_without_cuts_a_smaller_limit_refuses(pulse):
    found = pulse.through(chain_of(cut=False, order_size=0.2))
    assert {one.turn for one in found.flips} == {"refused"}
    assert len(found.flips) == len(receipts(pulse, "order_size"))
    assert found.would.pnl == found.would.drawdown == 0.0 and found.pnl == -found.was.pnl


@pytest.mark.parametrize(
    "limits", [{"order_size": 0.4}, {"short_limit": 0.2}, {"drawdown": 0.004}, {"cash": 9e5}]
)
def test_the_first_flip_is_the_first_order_whose_receipt_breaks_a_limit(tmp_path, limits):
    session = Session(tmp_path, {"flip": Flip()})
    ((check, limit),) = limits.items()
    found = session.through(chain_of(cut=False, **limits))
    is_broken = (lambda x: x < limit) if check == "cash" else (lambda x: x > limit)
    own = found.was.reviews
    place = own.risk.names.index(check)
    held, broken = 0.0, []
    positions = dict.fromkeys((0, 1), 0.0)
    for order, receipt in zip(own.orders, own.first, strict=True):
        held = positions[int(order["symbol"])]
        reduces = held * order["asked"] < 0 and abs(order["asked"]) <= abs(held)
        if order["approved"]:
            positions[int(order["symbol"])] += order["quantity"]
        if is_broken(receipt["value"][place]) and order["approved"] and not reduces:
            broken.append(int(order["order_no"]))
    assert found.flips[0].order_no == broken[0]
    assert found.flips[0].turn == "refused" and found.flips[0].checks == (check,)


def test_until_a_moment_the_sessions_chain_trades(pulse):
    since = int(LIVE.ts[1_801])
    everything = chain_of(cut=False, order_notional=0.0, order_rate_second=5)
    was, would = pulse.courses(everything, since=since)
    found = difference(was, would)
    assert found.flips and min(one.ts for one in found.flips) >= since
    assert would.reviews.is_refused.all()
    held = dict.fromkeys(would.engine.symbols, 0.0)
    for row in pulse.table("executions").to_pylist():
        if row["ts"].value < since:
            held[row["symbol"]] += row["quantity"]
    held = {s: round(q, 6) for s, q in held.items()}
    assert would.engine.positions()["pulse"] == {s: q for s, q in held.items() if q}
    made = 0.0
    for number, symbol in enumerate(would.engine.symbols):
        own = LIVE[LIVE.symbol == number]
        made += held[symbol] * (own.price[-1] - own.price[own.ts < since][-1])
    assert found.would.pnl == pytest.approx(made, abs=1e-4)


def test_rings_of_another_length_hold_the_last_orders(pulse):
    was, would = pulse.courses(chain_of(order_rate_minute=7), since=int(LIVE.ts[1_801]))
    minute = 60 * SECOND
    orders = [row["ts"].value for row in pulse.table("orders").to_pylist()]
    first = next(one for one in would.reviews.first)
    place = would.engine.risk.names.index("order_rate_minute")
    at = int(first["ts"])
    inside = sum(at - minute < ts < at for ts in orders) + 1
    assert inside > 9
    assert first["value"][place] == 9.0, "as many as the ring holds, one beyond the limit, and it"
    assert "order_rate_minute" in difference(was, would).flips[0].checks


# -- what cannot be asked


def test_what_the_other_book_cannot_do_is_left_out_and_told(commands):
    nothing = chain_of(cut=False, order_notional=0.0)
    was, would = commands.courses(nothing, since=int(LIVE.ts[300]))
    assert would.engine.positions()["flip"] and not was.left_out
    (said,) = would.left_out
    assert said.startswith("Release(strategy='flip') of input ") and "is left out: " in said


def test_targets_that_are_not_the_recorded_ones_are_refused(pulse):
    signals = pulse.table("signals")
    lost = pa.concat_tables([signals[:30], signals[31:]])
    with pytest.raises(JournalError, match="rows of the table signals are missing"):
        pulse.courses(signals=lost)
    with pytest.raises(JournalError, match="do not lead to what input"):
        pulse.courses(seed=2)
    with pytest.raises(DataError, match="the session has a strategy 'pulse', the book has"):
        pulse.courses(strategies={"flip": Flip()})


def test_a_session_that_adopted_another_is_refused(pulse):
    with pytest.raises(DataError, match="adopts another session's book"):
        pulse.courses(more=[Input(99_999, "adopted", b"", b"")])


def test_a_moment_after_the_session_is_refused(pulse):
    with pytest.raises(DataError, match="the session ended before"):
        pulse.courses(since=int(LIVE.ts[-1]) + math.ceil(1e9))
