"""The engine: one path whatever the cut, money conserved, nothing filled before its time."""

import copy
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.effects import Effects
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.operation import STATES, Move, Release, Switch
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.sizing import WeightSizing
from sysquant.types import SECOND, Ticks, clock_mark
from tests.market import CHECKS, START, UNIVERSE, Flip, Hold, Seldom, bars, engine, ticks

_MONEY = ("cash", "value", "realised_pnl", "unrealised_pnl", "fees", "financing")
TERMS = {
    "execution": Execution(latency_ms=0, slippage_bps=0, fee_bps=0),
    "universe": UNIVERSE[:1],
}


def cut(batch, places):
    edges = [0, *sorted(places), len(batch)]
    return [batch[a:b] for a, b in pairwise(edges)]


def same(left, right):
    return all(left[key].tobytes() == right[key].tobytes() for key in left) and set(left) == set(
        right
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    places=st.lists(st.integers(0, 600), max_size=12),
    disorder=st.booleans(),
)
def test_any_cut_of_the_events_gives_the_same_bytes(seed, places, disorder):
    events = ticks(600, seed=seed, disorder=disorder)
    whole, parts = engine(), engine()
    effects = whole.step(events)
    pieces = Effects.join([parts.step(piece) for piece in cut(events, places)])
    assert effects.hash() == pieces.hash()
    assert same(whole.state(), parts.state())


def test_one_tick_at_a_time_equals_all_at_once():
    events = ticks(400)
    whole, single = engine(), engine()
    effects = whole.step(events)
    pieces = Effects.join([single.step(events[i : i + 1]) for i in range(len(events))])
    assert len(effects["executions"]) > 20
    assert effects.hash() == pieces.hash()


def test_a_restored_engine_continues_with_the_same_bytes():
    events = ticks(800)
    whole, before, after = engine(), engine(), engine()
    whole.step(events[:500])
    before.step(events[:500])
    after.restore(before.state())
    assert whole.step(events[500:]).hash() == after.step(events[500:]).hash()


def test_a_snapshot_of_another_book_is_refused():
    with pytest.raises(DataError, match="does not fit"):
        engine(universe=UNIVERSE[:1]).restore(engine().state())


@pytest.mark.parametrize("seed", range(5))
def test_money_is_conserved_in_every_snapshot(seed):
    book = engine(strategies={"flip": Flip(), "hold": Hold()}, fractions={"flip": 0.5, "hold": 0.3})
    rows = book.step(ticks(5_000, seed=seed, disorder=True))["portfolio_history"]
    ts, at = np.unique(rows["ts"], return_inverse=True)
    total = {
        name: np.bincount(at, rows[name], len(ts))
        for name in ("cash", "value", "realised_pnl", "unrealised_pnl", "fees")
    }
    left = total["cash"] + total["value"]
    right = 1_000_000 + total["realised_pnl"] + total["unrealised_pnl"] - total["fees"]
    assert len(ts) > 100
    assert np.abs(left - right).max() < 1e-6
    assert rows["equity"][rows["strategy"] == -1].tolist() == [200_000.0] * len(ts)


def test_no_fill_before_its_order_is_due_and_each_approved_order_fills_once():
    effects = engine().step(ticks(4_000))
    orders = {row["order_no"]: row for row in effects["orders"]}
    fills = effects["executions"]
    assert len(fills) > 100
    for fill in fills:
        order = orders[fill["order_no"]]
        assert fill["ts"] >= order["due"] > order["ts"]
        assert fill["quantity"] == order["quantity"]
    assert len(set(fills["order_no"])) == len(fills)
    assert (effects["orders"]["approved"] == 1).sum() - len(fills) in (0, 1, 2)


def test_a_fill_is_never_better_than_the_market():
    fills = engine().step(ticks(4_000))["executions"]
    assert ((fills["price"] - fills["reference"]) * np.sign(fills["quantity"]) > 0).all()
    assert (fills["slippage"] > 0).all()
    assert (fills["fee"] > 0).all()


def test_another_strategy_in_the_book_changes_no_fill():
    events = ticks(3_000)
    alone = engine(fractions={"flip": 0.5}).step(events)
    together = engine(
        strategies={"flip": Flip(), "another": Hold()}, fractions={"flip": 0.5, "another": 0.5}
    ).step(events)
    mine = together["executions"][together["executions"]["strategy"] == 1]
    fields = ["ts", "order_no", "quantity", "price", "fee"]
    assert mine[fields].tolist() == alone["executions"][fields].tolist()


def test_an_order_decided_at_a_bars_close_fills_at_the_next_open_without_latency():
    book = engine(Hold(), **TERMS)
    effects = book.step(bars([100.0, 101.0, 102.0], opens=[99.0, 100.5, 101.5]))
    fills = effects["executions"]
    assert fills["reference"].tolist() == [100.5]
    assert fills["ts"].tolist() == [START + SECOND]


def test_an_order_due_inside_a_bar_fills_at_its_close():
    book = engine(Hold(), **(TERMS | {"execution": Execution(latency_ms=50, fee_bps=0)}))
    fills = book.step(bars([100.0, 101.0, 102.0], opens=[99.0, 100.5, 101.5]))["executions"]
    assert fills["reference"].tolist() == [101.0]
    assert fills["ts"].tolist() == [START + 2 * SECOND - 1]


def test_weight_one_is_affordable_and_fully_invested():
    book = engine(Hold(), universe=UNIVERSE[:1])
    effects = book.step(bars([100.0] * 5))
    account = book.accounts()["flip"]
    assert effects["orders"]["approved"].tolist() == [1]
    assert 0 <= account["cash"] < 200


def test_no_opinion_leaves_the_last_target_standing():
    class Once(Hold):
        def target(self, f):
            return np.where(f["close"] > 100.5, np.nan, 0.5)

    effects = engine(Once(), **TERMS).step(bars([100.0, 101.0, 101.0, 101.0]))
    assert len(effects["signals"]) == 1
    assert len(effects["executions"]) == 1


def test_a_refused_order_is_stored_and_not_repeated_every_bar():
    checks = [{"check": "order_size", "limit": 0.1}]
    risk = RiskChain(checks=checks, cut=False)
    book = engine(Hold(), risk=risk, sizing=WeightSizing(retry_after=3))
    effects = book.step(ticks(2_000, symbols=1))
    orders, receipts = effects["orders"], effects["risk_receipts"]
    assert not effects["executions"].size
    assert (orders["approved"] == 0).all()
    assert len(receipts) == len(orders)
    bars_between = np.diff(orders["ts"]) / SECOND
    assert 1 < len(orders) <= book.bars / 3 + 1
    assert (bars_between >= 3).all()


def test_every_order_has_a_receipt_of_every_check():
    effects = engine(risk=RiskChain(checks=CHECKS, cut=False)).step(ticks(3_000))
    receipts = effects["risk_receipts"]
    assert receipts["order_no"].tolist() == effects["orders"]["order_no"].tolist()
    assert receipts["value"].shape == (len(receipts), len(CHECKS))
    assert (receipts["verdict"][:, : len(CHECKS)] > 0).all(axis=1).tolist() == (
        effects["orders"]["approved"] == 1
    ).tolist()
    assert len(effects["orders"]) > 50


def test_a_late_tick_neither_fills_nor_marks():
    book = engine(Hold(), universe=UNIVERSE[:1])
    early = ticks(300, symbols=1)
    book.step(early)
    equity = book.accounts()["flip"]["equity"]
    late = Ticks(
        **{name: column[-1:].copy() for name, column in early.columns()}  # pyright: ignore
    )
    late.ts[0] -= 30 * SECOND
    late.price[0] = 1.0
    effects = book.step(late)
    assert book.accounts()["flip"]["equity"] == equity
    assert book.late == 1
    assert not len(effects["executions"])


def test_history_ends_where_the_first_event_begins():
    book = engine()
    first = bars([100.0])
    assert book.warmup_end(first) == first.ts[0] - SECOND
    tick = ticks(1)
    assert 0 <= tick.ts[0] - book.warmup_end(tick) < SECOND


def test_a_wall_mark_closes_the_bar_without_a_tick():
    events = ticks(100, symbols=1)
    events = events[events.ts < START + 5 * SECOND]
    by_tick, by_mark = engine(Hold()), engine(Hold())
    by_tick.step(events)
    by_mark.step(events)
    assert by_mark.next_mark == by_tick.next_mark > 0
    closed = by_mark.step(clock_mark(by_mark.next_mark))
    assert by_mark.bars == by_tick.bars + 1
    assert by_mark.next_mark == 0
    assert by_mark.engine_ts % SECOND == 0
    assert not len(closed["executions"])


def test_no_tick_makes_no_bar():
    first, second = ticks(50, symbols=1)[:1], ticks(50, symbols=1)[:1]
    second.ts[0] += 3600 * SECOND
    book = engine(Hold())
    book.step(Ticks.join([first, second]))
    assert book.bars == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"fractions": {"flip": 1.2}},
        {"fractions": {"other": 1.0}},
        {"fractions": {"flip": 0.0}},
        {"strategies": {}},
        {"universe": []},
    ],
)
def test_a_book_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ConfigError):
        engine(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"capital": float("nan")}, "capital must be > 0 and finite, was nan"),
        ({"capital": "1"}, "capital must be > 0 and finite, was '1'"),
        ({"interval": 0}, "interval must be a whole number > 0"),
        (
            {"interval": "1s"},
            "interval must be a whole number > 0 and < 9.22337203685e+18, was '1s'",
        ),
        ({"interval": 1e9}, "was 1000000000.0"),
        ({"snapshot_ns": None}, "snapshot_ns must be a whole number > 0"),
        ({"snapshot_ns": 2**63}, "snapshot_ns must be a whole number > 0"),
        ({"seed": 1.7}, "seed must be a whole number"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"seed": 2**64}, "seed must be a whole number"),
        ({"universe": [*UNIVERSE, UNIVERSE[0]]}, "the universe names 'SIM:A' twice"),
        (
            {"execution": Execution(funding={"SIM:AA": ([1], [0.1])})},
            "execution.funding has rates of 'SIM:AA', which is not in the universe; did you mean",
        ),
        ({"sizing": {"flip": WeightSizing(), "flop": WeightSizing()}}, "sizing names 'flop', the "),
        ({"orders": {"flip": Orders(), "flop": Orders()}}, "orders names 'flop', the book holds"),
        ({"exits": {"flip": Exits(), "flop": Exits()}}, "exits names 'flop', the book holds"),
        ({"exits": {"flop": Exits()}}, "exits has nothing for 'flip'; did you mean 'flop'?"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_named_with_what_it_was(wrong, said):
    with pytest.raises(ConfigError) as caught:
        engine(**wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda book: book.__reduce_ex__(4)],
    ids=["copy", "deepcopy", "pickle"],
)
def test_an_engine_that_is_to_be_copied_says_how(copied):
    with pytest.raises(ConfigError, match=r"state\(\) of this one by restore\(\)"):
        copied(engine())


def test_money_is_conserved_over_a_million_ticks_with_strategies_switched_and_cash_moved():
    rng = np.random.default_rng(7)
    universe = [
        replace(UNIVERSE[0], perpetual=True),
        replace(UNIVERSE[1], multiplier=5.0, fee_tier="low"),
    ]
    book = engine(
        universe=universe,
        strategies={"flip": Flip(), "hold": Hold(weight=-0.7), "late": Flip(weight=0.4)},
        fractions={"flip": 0.4, "hold": 0.3, "late": 0.2},
        execution=Execution(
            latency_ms=80, latency_sigma=0.8, participation=0.4, impact=0.5, fee_fixed=0.1,
            tiers={"low": {"fee_bps": 1.0, "maker_fee_bps": 0.5}}, reject_probability=0.02,
            borrow_rate=0.1, interest_rate=0.2, funding_rate=0.0003,
            funding_hours=0.25, financing_hours=0.5,
        ),
        exits={
            "flip": Exits(stop_loss=0.004),
            "hold": Exits(),
            "late": Exits(take_profit=0.01, how="bracket"),
        },
        interval=20 * SECOND,
        snapshot_ns=60 * SECOND,
    )  # fmt: skip
    events = ticks(1_000_000, seed=3, disorder=True)
    names, pool = list(book.strategies), 0
    worst, rows_seen = 0.0, 0
    for part in np.array_split(np.arange(len(events)), 40):
        book.operate(Switch(str(rng.choice(STATES)), str(rng.choice(names))))
        for name in names:
            with suppress(ConfigError):
                book.operate(Release(name))
            if rng.random() < 0.5:
                book.operate(Switch("active", name))
        source, target = rng.choice([*names, ""], 2, replace=False)
        with suppress(ConfigError):
            book.operate(Move(str(source), str(target), 1_000.0))
        rows = book.step(events[part[0] : part[-1] + 1])["portfolio_history"]
        _, at = np.unique(rows["ts"], return_inverse=True)
        total = {name: np.bincount(at, rows[name]) for name in _MONEY}
        left = total["cash"] + total["value"]
        right = 1_000_000 + total["realised_pnl"] + total["unrealised_pnl"]
        worst = max(worst, np.abs(left - right + total["fees"] + total["financing"]).max())
        rows_seen += len(rows)
        pool += int((rows["strategy"] == -1).sum())
    assert rows_seen > 10_000 and pool > 1_500
    assert worst < 1e-6


CHECKED = RiskChain(
    checks=[
        *CHECKS, {"check": "reference_collar", "limit": 9}, {"check": "volatility", "limit": 9},
    ],
    risk_bar=7 * SECOND, min_history="allow",
)  # fmt: skip


def test_prices_that_no_market_has_are_taken_alike_however_they_are_cut():
    events = ticks(300, seed=2, symbols=1)
    events.price[100], events.price[150:153], events.price[200] = 0.0, -1.0, np.nan
    states = []
    for size in (300, 1, 7):
        book = engine(Hold(), universe=UNIVERSE[:1], risk=CHECKED, sizing=WeightSizing(split=False))
        for at in range(0, 300, size):
            book.step(events[at : at + size])
        states.append({name: array.tobytes() for name, array in book.state().items()})
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("disorder", [False, True])
@pytest.mark.parametrize(
    "exits",
    [Exits(), Exits(stop_loss=0.004, take_profit=0.006), Exits(trailing_stop=0.005)],
    ids=str,
)
@pytest.mark.parametrize(
    "strategy", [Flip(), Flip(weight=0.3), Hold(), Hold(weight=-0.8), Seldom()], ids=str
)
def test_a_calm_stretch_leaves_the_bytes_of_the_loop(strategy, exits, disorder):
    # A second symbol that never trades keeps a book from being calm, and changes nothing else.
    events = ticks(4_000, seed=2, symbols=1, disorder=disorder)
    minutes = bars((100 * np.exp(np.cumsum(np.sin(np.arange(900.0) ** 2) / 300))).tolist())
    minutes.ts[:] += events.ts[-1] - minutes.ts[0] + 5 * SECOND
    sizing = WeightSizing(split=False)
    for source in ([events], [minutes], [events, minutes], cut(events, [7, 8, 900, 901, 2_500])):
        books = [
            engine(strategy, universe=universe, risk=CHECKED, exits=exits, sizing=sizing)
            for universe in (UNIVERSE[:1], UNIVERSE)
        ]
        calm, other = (Effects.join([book.step(batch) for batch in source]) for book in books)
        assert len(calm["executions"]) > 0
        assert calm.hash() == other.hash()
        states = [book.state() for book in books]
        for name in ("clock", "accounts"):
            assert states[0][name].tobytes() == states[1][name].tobytes()
        assert states[0]["market"][:1].tobytes() == states[1]["market"][:1].tobytes()


def test_history_is_known_to_the_statistics_of_a_symbol_as_if_it_had_been_traded():
    risk = RiskChain(
        checks=[{"check": "warm_up", "limit": 40}, {"check": "order_size", "limit": 9}]
    )
    execution = Execution(spread_model="roll", impact=0.1)
    minutes = bars((100 * np.exp(np.cumsum(np.sin(np.arange(80.0) ** 2) / 300))).tolist())
    whole, warmed, cold = (
        engine(Hold(), universe=UNIVERSE[:1], risk=risk, execution=execution) for _ in range(3)
    )
    whole.step(minutes)
    warmed.warm(minutes[:50])
    caused = warmed.step(minutes[50:])
    known = ["bars", "reference", "volume", "variance", "change", "roll_covariance", "roll"]
    for name in known:
        assert whole.state()["market"][name] == warmed.state()["market"][name]
    assert caused["orders"]["approved"][0] == 1
    assert not cold.step(minutes[50:])["orders"]["approved"].any()


def test_history_fills_no_risk_bars():
    risk = RiskChain(
        checks=[{"check": "value_at_risk", "limit": 9}], risk_bar=SECOND, least_history=20
    )
    book = engine(Hold(), universe=UNIVERSE[:1], risk=risk, sizing=WeightSizing(retry_after=0))
    minutes = bars((100 * np.exp(np.cumsum(np.sin(np.arange(80.0) ** 2) / 300))).tolist())
    book.warm(minutes[:40])
    first = minutes.ts[40]
    orders = book.step(minutes[40:])["orders"]
    allowed = orders["ts"][orders["approved"] == 1]
    assert len(orders) > 20
    assert allowed.min() == first + 20 * SECOND


def test_what_a_call_cannot_mean_is_refused_before_anything_moved():
    book = engine()
    book.step(ticks(300))
    before = book.state()
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        book.operate(Move("flip", "filp", 1_000.0))
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        book.operate(Move("", "filp", 1e-8))
    with pytest.raises(ConfigError, match="did you mean 'off'"):
        book.operate(Switch("of", "flip"))
    assert same(before, book.state())


@pytest.mark.parametrize("fractions", [{"flip": float("nan")}, {"flip": 0.0}, {"flip": 1.1}])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(ConfigError, match="fractions must be > 0"):
        engine(fractions=fractions)


@pytest.mark.parametrize("promoted", [["flap"], "flip"])
def test_only_strategies_of_the_book_can_be_promoted(promoted):
    with pytest.raises(ConfigError, match="promoted names"):
        engine(promoted=promoted)


@pytest.mark.parametrize("key", ["financing_hours", "funding_hours"])
def test_an_accrual_more_often_than_the_clock_can_tell_is_refused(key):
    with pytest.raises(ConfigError, match=key):
        Execution(**{key: 1e-13})
