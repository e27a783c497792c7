"""A challenger against a champion: what is compared, when it is judged, and what comes next."""

import math

import numpy as np
import pyarrow as pa
import pytest

from sysquant import challenging
from sysquant.challenging import Comparison, Record, Rule, compare, judge, todo
from sysquant.errors import ConfigError
from sysquant.rows import model_served
from sysquant.store import connect, insert, migrate
from sysquant.types import SECOND

MINUTE = 60 * SECOND
OLD, NEW = "000001-aaaa", "000002-bbbb"


def record(pnl, *, first=0, model=OLD, equity=1_000.0):
    ts = MINUTE * (first + np.arange(len(pnl)))
    return Record("run", model, ts, np.asarray(pnl, float), equity)


def walk(count, drift=0.0, seed=1):
    return np.cumsum(np.random.default_rng(seed).normal(drift, 1.0, count))


def test_books_are_compared_at_the_snapshots_that_both_have():
    champion, challenger = record([0, 5, 10, 15, 20]), record([100, 110, 90, 120], first=2)
    found = compare(champion, challenger)
    assert (found.since, found.until, found.snapshots) == (2 * MINUTE, 4 * MINUTE, 2)
    assert found.returns == pytest.approx((0.01, -0.01))
    assert found.drawdowns == pytest.approx((0.0, 0.99 / 1.01 - 1.0))
    assert found.edge == pytest.approx(-0.01)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("sides", [([], []), ([1.0], []), ([1.0], [2.0])])
def test_what_has_no_time_in_common_is_not_compared(sides):
    found = compare(*(record(side, first=9 * len(side) * n) for n, side in enumerate(sides)))
    assert found.snapshots == 0 and math.isnan(found.edge)
    assert judge(found, Rule()) == ("early", "0 of 1,440 snapshots")


def test_a_return_is_of_each_ones_own_equity():
    found = compare(record([0, 10], equity=1_000.0), record([0, 10], equity=100.0))
    assert found.returns == pytest.approx((0.01, 0.1))


def test_the_same_path_is_never_better():
    path = walk(2_000, drift=0.5)
    found = compare(record(path), record(path))
    assert judge(found, Rule())[0] == "kept"


def test_who_is_surely_ahead_is_better_and_who_may_be_is_not():
    noise = walk(2_000, seed=2)
    better = compare(record(noise), record(walk(2_000, drift=0.3)))
    assert judge(better, Rule())[0] == "better" and better.low > 0
    assert judge(better, Rule(snapshots=2_000))[0] == "early"
    assert judge(better, Rule(most_drawdown=1e-3))[0] == "kept"
    worse = compare(record(walk(2_000, drift=0.3)), record(noise))
    assert judge(worse, Rule())[0] == "kept" and worse.high < 0


def test_of_challengers_that_are_no_better_few_are_taken_for_it():
    taken = sum(
        judge(compare(record(walk(300, seed=n)), record(walk(300, seed=n + 500))), Rule(300 - 1))[0]
        == "better"
        for n in range(200)
    )
    assert taken <= 16, "2.5 % are meant"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("", NEW, 2, ""), "wait"),
        ((OLD, "", 2, ""), "challenge"),
        ((OLD, OLD, 2, ""), "challenge"),
        ((OLD, OLD, 1, ""), "wait"),
        ((OLD, "", 1, ""), "wait"),
        ((OLD, NEW, 2, ""), "compare"),
        ((OLD, NEW, 9, "early"), "compare"),  # it is judged before another comes
        ((OLD, NEW, 9, "better"), "promote"),
        ((OLD, NEW, 2, "kept"), "wait"),
        ((OLD, NEW, 9, "kept"), "challenge"),
        ((OLD, NEW, 2, "promoted"), "wait"),  # it was, and its champion went back
        ((OLD, NEW, 3, "promoted"), "challenge"),
        ((OLD, NEW, 3, "refused"), "challenge"),
    ],
)
def test_what_comes_next(given, wanted):
    assert todo(*given)[0] == wanted


@pytest.mark.parametrize("given", [{"snapshots": 9}, {"snapshots": 0.5}, {"most_drawdown": 0}])
def test_a_rule_that_cannot_be_meant_is_refused(given):
    with pytest.raises(ConfigError, match=r"rule\."):
        Rule(**given)


# -- what books recorded


@pytest.fixture
def client(tmp_path):
    with connect(f"chdb://{tmp_path}/store") as client:
        migrate(client)
        yield client


def snapshots(client, rows, token, strategy="asks"):
    """Rows (minute, version, symbol, realised, unrealised, fees, financing, equity)."""
    names = ["symbol", "realised_pnl", "unrealised_pnl", "fees", "financing", "equity"]
    columns = list(zip(*rows, strict=True))
    zeros = pa.array([0.0] * len(rows))
    table = dict.fromkeys(
        ("quantity", "average_price", "price", "value", "cash", "slippage", "peak", "drawdown"),
        zeros,
    )
    table |= {name: pa.array(list(of)) for name, of in zip(names, columns[2:], strict=True)}
    table |= {
        "run": pa.array(["r"] * len(rows)), "strategy": pa.array([strategy] * len(rows)),
        "seq": pa.array(range(len(rows)), pa.uint64()),
        "ts": pa.array([MINUTE * one for one in columns[0]], pa.timestamp("ns", "UTC")),
        "version": pa.array(columns[1], pa.uint64()),
    }  # fmt: skip
    insert(client, "portfolio_history", pa.table(table), token)


def test_a_record_is_of_the_model_that_serves_and_knows_no_cash_that_was_moved(client):
    for seq, (minute, model) in enumerate([(0, OLD), (2, NEW)]):
        row = model_served("r", seq + 1, minute * MINUTE, "asks", model, "")
        insert(client, "models_served", row, f"served {seq}")
    account, a = ("", 0.0, 0.0, 0.0), ("A",)
    snapshots(client, [
        (1, 1, *account, 0.0, 900.0), (2, 2, *account, 1.0, 1_000.0),
        (2, 3, *a, 10.0, 5.0, 2.0, 1.0, 0.0), (3, 4, *account, 2.0, 5_000.0),
        (3, 5, *a, 20.0, 5.0, 3.0, 1.0, 0.0), (3, 6, *a, 30.0, 5.0, 3.0, 1.0, 0.0),
    ], "one")  # fmt: skip
    found = challenging.record(client, "r", "asks")
    assert (found.run, found.model, found.equity) == ("r", NEW, 1_000.0)
    assert found.ts.tolist() == [2 * MINUTE, 3 * MINUTE]
    assert found.pnl.tolist() == [10 + 5 - 2 - 2, 30 + 5 - 3 - 3], "the newest row of a time"
    assert challenging.record(client, "r", "asks", 3 * MINUTE).ts.tolist() == [3 * MINUTE]
    other = challenging.record(client, "another", "asks")
    assert (other.model, len(other.ts)) == ("", 0)


def test_the_last_row_of_two_models_is_their_verdict(client):
    found = Comparison(1, 2, 3, (0.1, 0.2), (-0.1, -0.2), 0.01, float("nan"), float("nan"))
    sides = record([1.0]), record([1.0], model=NEW)
    assert challenging.verdict_of(client, "asks", OLD, NEW) == ""
    for number, verdict in enumerate(("early", "better")):
        row = challenging.row_of("asks", *sides, found, verdict, "why")
        insert(client, "challenges", row, f"row {number}")
        assert challenging.verdict_of(client, "asks", OLD, NEW) == verdict
    assert challenging.verdict_of(client, "asks", NEW, OLD) == ""
    (row,) = client.query("SELECT * FROM challenges WHERE verdict = 'better'").named_results()
    assert (row["champion_return"], row["challenger_return"]) == (0.1, 0.2)
    assert (row["champion"], row["challenger"], row["why"]) == (OLD, NEW, "why")
