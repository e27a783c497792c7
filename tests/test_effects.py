"""Effects: joined and hashed whatever the chain, labelled as the store's columns, kept in SQL."""

import math
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import records, store
from sysquant.effects import END_REASONS, FINANCING_KINDS, PURPOSES, Effects, Labels
from sysquant.orders import KINDS, TIFS
from sysquant.parity import KEYS, decided, first_difference, is_same
from sysquant.risk import RiskChain
from sysquant.tally import Tally
from tests.compare import TABLES

pytest_plugins = ["tests.served"]

CHAIN = RiskChain(
    checks=[
        {"check": "order_size", "limit": 2.1},
        {"check": "cash", "limit": 0.0},
        {"check": "drawdown", "limit": 0.5},
    ]
)
LABELS = Labels("r", ["a", "b"], ["SIM:A", "SIM:B"], CHAIN, {"b": "proved"})
START = 1_700_000_000_000_000_000


def rows(table, count, **columns):
    """Hand-made records of a table; zeros where nothing is said, times one apart."""
    made = np.zeros(count, records.effects(len(CHAIN.names))[table])
    made["ts"] = START + np.arange(count)
    for name, values in columns.items():
        made[name] = values
    return made


def labelled(table, count, **columns):
    """The same as Arrow."""
    return LABELS.table(table, rows(table, count, **columns), 7)


def of(column):
    """Values of a column."""
    return column.to_pylist()


def effects(count=2):
    """Some rows of every table, with what is odd in floats."""
    made = {name: rows(name, count) for name in records.EFFECTS}
    made["orders"]["order_no"] = made["executions"]["order_no"] = np.arange(1, count + 1)
    made["orders"]["limit_price"] = np.nan
    made["orders"]["stop_price"][0] = 99.5
    made["orders"]["expires"] = records.NEVER
    made["orders"]["expires"][0] = START + 5
    made["orders"]["refused_by"][-1] = 0b101
    made["risk_receipts"]["attempt"] = np.arange(1, count + 1)
    made["risk_receipts"]["value"][0] = [math.nan, -0.0, 5e-324]
    made["risk_receipts"]["room"] = math.inf
    made["order_ends"]["order_no"] = np.arange(1, count + 1)
    made["financing"]["symbol"] = -1
    made["portfolio_history"]["version"] = np.arange(1, count + 1)
    made["portfolio_history"]["sharpe"] = math.nan
    return Effects(made)


def test_numbers_of_an_order_become_names():
    table = labelled("orders", len(PURPOSES), purpose=np.arange(len(PURPOSES)))
    assert of(table["purpose"]) == list(PURPOSES)
    assert of(labelled("orders", 5, kind=np.arange(5))["kind"]) == list(KINDS)
    assert of(labelled("orders", 4, tif=np.arange(4))["tif"]) == list(TIFS)
    assert of(labelled("orders", 2, approved=[0, 1])["status"]) == ["refused", "approved"]
    assert "approved" not in table.column_names and "refused_by" not in table.column_names


def test_numbers_of_fills_ends_and_financing_become_names():
    assert of(labelled("executions", 2, maker=[0, 1])["liquidity"]) == ["taker", "maker"]
    ends = labelled("order_ends", len(END_REASONS), reason=np.arange(len(END_REASONS)))
    assert of(ends["reason"]) == list(END_REASONS)
    paid = labelled("financing", 3, kind=[0, 1, 2], symbol=[0, 1, -1], strategy=[0, 1, 0])
    assert of(paid["kind"]) == list(FINANCING_KINDS)
    assert of(paid["symbol"]) == ["SIM:A", "SIM:B", ""]
    assert of(paid["strategy"]) == ["a", "b", "a"]


def test_number_without_a_name_is_an_error():
    with pytest.raises(IndexError):
        labelled("orders", 1, kind=[5])


def test_refusals_are_named_in_the_order_of_the_chain():
    table = labelled("orders", 4, refused_by=[0, 0b101, 0b010, 0b101])
    assert of(table["reason"]) == ["", "order_size,drawdown", "cash", "order_size,drawdown"]


def test_price_that_an_order_has_not_is_null_and_so_is_its_end():
    table = labelled(
        "orders", 2,
        limit_price=[math.nan, 101.5], stop_price=[99.0, math.nan],
        expires=[records.NEVER, START + 9], due=[START + 1, START + 2],
    )  # fmt: skip
    assert of(table["limit_price"]) == [None, 101.5]
    assert of(table["stop_price"]) == [99.0, None]
    assert of(table["expires"].cast(pa.int64())) == [None, START + 9]
    assert of(table["due"].cast(pa.int64())) == [START + 1, START + 2]


def test_statistic_that_is_not_known_is_null():
    table = labelled("portfolio_history", 2, sharpe=[math.nan, 1.5], equity=[math.nan, 1.0])
    assert of(table["sharpe"]) == [None, 1.5]
    assert math.isnan(of(table["equity"])[0])


@given(st.integers(0, 5), st.integers(0, 2**32))
def test_receipts_have_a_row_for_every_check_of_every_review(reviews, seed):
    rng = np.random.default_rng(seed)
    checks = len(CHAIN.names)
    made = rows(
        "risk_receipts", reviews,
        order_no=rng.integers(1, 9, reviews), attempt=rng.integers(1, 3, reviews),
        strategy=rng.integers(0, 2, reviews), symbol=rng.integers(0, 2, reviews),
        value=rng.normal(size=(reviews, checks)), room=rng.exponential(size=(reviews, checks)),
    )  # fmt: skip
    made["verdict"][:, :checks] = rng.integers(0, 3, (reviews, checks))
    plain = [
        {
            "run": "r", "seq": 7, "ts": int(row["ts"]),
            "strategy": LABELS.strategies[row["strategy"]], "order_no": int(row["order_no"]),
            "symbol": LABELS.symbols[row["symbol"]], "attempt": int(row["attempt"]),
            "check": name, "value": row["value"][place], "limit": CHAIN.limits[place],
            "verdict": ("refuse", "pass", "exempt")[row["verdict"][place]],
            "room": row["room"][place], "promotion": ("", "proved")[row["strategy"]],
        }
        for row in made
        for place, name in enumerate(CHAIN.names)
    ]  # fmt: skip
    table = LABELS.table("risk_receipts", made, 7)
    ts = table["ts"].cast(pa.int64())
    assert table.set_column(table.column_names.index("ts"), "ts", ts).to_pylist() == plain


def test_infinite_room_stays_infinite_and_an_unknown_value_stays_nan():
    table = labelled("risk_receipts", 1, room=math.inf, value=math.nan)
    assert of(table["room"]) == [math.inf] * 3
    assert table["value"].null_count == 0 and np.isnan(table["value"].to_numpy()).all()


def test_million_receipts_are_labelled_in_well_under_a_second():
    made = rows("risk_receipts", 1_000_000 // len(CHAIN.names))
    took = []
    for _ in range(5):
        before = time.perf_counter()
        table = LABELS.table("risk_receipts", made, 1)
        took.append(time.perf_counter() - before)
    assert table.num_rows > 999_990
    assert min(took) < 1.0


def test_tables_without_rows_are_left_out_and_an_empty_one_has_its_columns():
    some = Effects.empty(3).rows | {"signals": rows("signals", 1)}
    assert list(LABELS.tables(Effects(some), 1)) == ["signals"]
    for name in records.EFFECTS:
        empty = LABELS.table(name, Effects.join([])[name], 1)
        assert empty.num_rows == 0
        assert empty.schema == labelled(name, 1).schema


def test_effects_of_any_cut_are_joined_and_hashed_the_same():
    whole = effects(6)
    parts = [Effects({n: r[a : a + 2] for n, r in whole.rows.items()}) for a in (0, 2, 4)]
    joined = Effects.join([Effects.empty(3), *parts, Effects.empty(3)])
    assert joined.hash() == whole.hash() != effects(5).hash()
    assert all(joined[name].dtype == whole[name].dtype for name in TABLES)
    assert Effects.join([]).hash() == Effects.empty(40).hash()


def test_one_batch_with_rows_is_joined_without_a_copy():
    whole = effects()
    joined = Effects.join([Effects.empty(3), whole])
    assert all(np.shares_memory(joined[name], whole[name]) for name in TABLES)


@pytest.mark.parametrize("field", ["value", "room", "verdict", "attempt"])
def test_every_byte_of_a_receipt_is_in_the_hash(field):
    one, other = effects(), effects()
    other["risk_receipts"][field][-1] = 3
    assert one.hash() != other.hash()


def test_tally_counts_cuts_exits_and_ends():
    stop, limit = KINDS.index("stop"), KINDS.index("limit")
    loss, profit, longest = (PURPOSES.index(n) for n in ("stop_loss", "take_profit", "max_hold"))
    orders = rows(
        "orders", 7,
        approved=[1, 1, 0, 1, 1, 1, 0], refused_by=[0, 0, 0b11, 0, 0, 0, 0b10],
        asked=[5.0, 5.0, 5.0, -3.0, -3.0, -3.0, -3.0],
        quantity=[5.0, 4.0, 1.0, -3.0, -3.0, -3.0, -3.0],
        purpose=[0, 0, 0, loss, loss, profit, longest], kind=[0, limit, 0, 0, stop, limit, 0],
    )  # fmt: skip
    ends = rows("order_ends", 3, reason=[END_REASONS.index(n) for n in ("filled", "oco", "filled")])
    tally = Tally()
    for _ in range(2):
        made = Effects.empty(3).rows | {"orders": orders, "order_ends": ends}
        tally.add(Effects(made), 10, CHAIN)
    assert (tally.approved, tally.refused, tally.cut) == (10, 4, 2)
    assert tally.exits == {"stop_loss": 2}  # brackets' legs wait at the broker, max_hold: refused
    assert tally.ends == {"filled": 4, "oco": 2}
    assert tally.reasons == {"order_size": 2, "cash": 4}
    assert Tally.from_json(tally.to_json()) == tally


def test_tally_of_an_older_journal_goes_on_from_its_counts():
    old = (
        '{"events":5,"dead":1,"signals":2,"approved":1,"refused":1,"fills":1,"reasons":{"cash":1}}'
    )
    tally = Tally.from_json(old)
    assert (tally.events, tally.fills, tally.cut, tally.exits, tally.ends) == (5, 1, 0, {}, {})
    tally.add(effects(), 2, CHAIN)
    assert (tally.events, tally.reasons["cash"], tally.ends) == (7, 1, {"filled": 2})


def test_what_is_labelled_is_what_the_store_has_and_gives_back(client):
    for name, table in LABELS.tables(effects(), 7).items():
        store.insert(client, name, table, f"r {name}")
        stored = decided(client, name, "r")
        by = [(key, "ascending") for key in KEYS[name].split(", ")]
        own = table.select(stored.column_names).sort_by(by).cast(stored.schema)
        assert is_same(own, stored), (name, first_difference(own, stored))
    columns = client.query("DESCRIBE TABLE risk_receipts").result_columns[0]
    assert set(columns) == set(labelled("risk_receipts", 1).column_names)


def test_two_tables_that_differ_in_a_sign_of_zero_are_not_the_same():
    nan = pa.table({"x": [math.nan]})
    assert is_same(nan, nan)
    assert not is_same(pa.table({"x": [0.0]}), pa.table({"x": [-0.0]}))


CONSERVED = """
SELECT ts, sum(cash) + sum(value) + sum(fees) + sum(financing)
  - sum(realised_pnl) - sum(unrealised_pnl) AS capital
FROM portfolio_history WHERE run = {run:String} GROUP BY ts ORDER BY ts
"""


def test_money_is_conserved_in_sql_with_fees_and_financing(client):
    # Pool 200, two strategies of 400 each. `a` buys 2 at 50 (fee 0.5), pays funding 0.25, now 60.
    # `b` sold 3 at 40 (fee 1), pays borrow 0.125 and interest 0.0625, closed 1 at 30, now 35.
    made = rows(
        "portfolio_history", 5, ts=START, version=np.arange(1, 6),
        strategy=[-1, 0, 0, 1, 1], symbol=[-1, -1, 0, -1, 1],
        quantity=[0, 0, 2, 0, -2], average_price=[0, 0, 50, 0, 40], price=[0, 0, 60, 0, 35],
        value=[0, 0, 120, 0, -70],
        cash=[200, 400 - 100 - 0.5 - 0.25, 0, 400 + 120 - 30 - 1 - 0.125 - 0.0625, 0],
        realised_pnl=[0, 0, 0, 0, 10], unrealised_pnl=[0, 0, 20, 0, 10], fees=[0, 0, 0.5, 0, 1],
        financing=[0, 0, 0.25, 0.0625, 0.125],
    )  # fmt: skip
    store.insert(client, "portfolio_history", LABELS.table("portfolio_history", made, 1), "x")
    found = client.query(CONSERVED, parameters={"run": "r"}).result_rows
    assert [capital for _, capital in found] == [1_000.0]


def migrate_up_to(client, monkeypatch, tmp_path, last):
    """Bring a database to an older schema."""
    for path in sorted(store.SCHEMA.glob("*.sql"))[:last]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(store, "SCHEMA", tmp_path)
        store.migrate(client)


OLD = {
    "orders": ["order_no", "symbol", "kind", "quantity", "target", "price", "status", "due"],
    "risk_receipts": ["order_no", "symbol", "check", "value", "limit", "verdict"],
    "executions": ["order_no", "fill_no", "symbol", "quantity", "price", "fee"],
    "portfolio_history": ["version", "symbol", "cash", "value", "equity"],
}


@pytest.fixture
def older(dsn, monkeypatch, tmp_path):
    """A database of the schema before the engine's, with rows as that version wrote them."""
    client = store.connect(dsn)
    migrate_up_to(client, monkeypatch, tmp_path, 2)
    for name, columns in OLD.items():
        table = labelled(name, 1, **({"quantity": 5.0} if "quantity" in columns else {}))
        store.insert(client, name, table.select(["run", "seq", "ts", "strategy", *columns]), name)
    yield client
    client.close()


def test_rows_from_before_keep_their_meaning(older):
    assert store.migrate(older)[:2] == [3, 4]
    found = older.query(
        "SELECT kind, tif, purpose, asked, limit_price, stop_price, expires FROM orders"
    ).result_rows
    assert found == [("market", "gtc", "signal", 5.0, None, None, None)]
    found = older.query("SELECT attempt, isNaN(room) FROM risk_receipts").result_rows
    assert set(found) == {(1, 1)}
    assert older.query("SELECT liquidity FROM executions").result_rows == [("taker",)]
    found = older.query("SELECT financing, sharpe FROM portfolio_history").result_rows
    assert found == [(0.0, None)]


def test_current_rows_follow_with_every_new_column(older):
    store.migrate(older)
    made = rows(
        "portfolio_history", 1, version=2, financing=3.5,
        volatility=0.1, sharpe=1.5, sortino=2.5, value_at_risk=0.02,
    )  # fmt: skip
    table = LABELS.table("portfolio_history", made, 9)
    for _ in range(2):
        store.insert(older, "portfolio_history", table, "new")
    names = store.decided_columns(older, "portfolio_history")
    assert store.decided_columns(older, "portfolio_state") == names
    listed = ", ".join(f"`{name}`" for name in names)
    state = older.query(f"SELECT {listed} FROM portfolio_state FINAL").result_rows
    history = f"SELECT {listed} FROM portfolio_history WHERE version = 2"
    assert state == older.query(history).result_rows
    assert dict(zip(names, state[0], strict=True))["sortino"] == 2.5


@pytest.mark.parametrize("done", range(1, 9))
def test_migration_that_was_cut_off_is_finished(older, done):
    statements = store.statements((store.SCHEMA / "0003_engine.sql").read_text())
    assert len(statements) == 9
    for statement in statements[:done]:
        older.command(statement)
    assert store.migrate(older)[:2] == [3, 4]
    assert older.query("SELECT count(), max(asked) FROM orders").result_rows == [(1, 5.0)]


def test_rows_that_an_older_version_left_in_its_outbox_are_taken(older):
    store.migrate(older)
    table = labelled("orders", 1, quantity=2.0).select(["run", "seq", "ts", *OLD["orders"]])
    store.insert(older, "orders", table, "outbox")
    found = older.query("SELECT asked, expires FROM orders WHERE quantity = 2").result_rows
    assert found == [(2.0, None)]


def test_columns_that_tell_of_the_run_are_not_decided(client):
    for table in ("order_ends", "financing"):
        assert not {"run", "seq"} & set(store.decided_columns(client, table))
    assert store.decided_columns(client, "funding") == ["symbol", "ts", "rate"]
