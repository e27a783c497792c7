"""The dashboards of grafana/: every query runs against the store, as Grafana's reader sends it."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import yaml

from sysquant import certificate, promotions
from sysquant.promotions import Promotion
from sysquant.proof import Proof
from sysquant.store import connect, insert
from tests.conftest import REPOSITORY
from tests.sessions import forked as run
from tests.sessions import server, store, until
from tests.test_audit_live import CHARGED, WORDS, stopped

__all__ = ["run", "server", "store"]  # fixtures

GRAFANA = REPOSITORY / "grafana"
FILES = sorted((GRAFANA / "dashboards").rglob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
ALL = ["$__all"]
PANELS = [
    pytest.param(name, panel, id=f"{name}-{panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
]


# -- a query as the data source sends it (docs of grafana-clickhouse-datasource: macros, variables)


def arguments(sql, start):
    """What stands in the brackets that open at `start`, by its commas, and where they close."""
    depth, found, begin = 0, [], start + 1
    for at in range(start, len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[at], 0)
        if depth == 0 or (depth == 1 and sql[at] == ","):
            found.append(sql[begin:at].strip())
            begin = at + 1
        if depth == 0:
            return found, at + 1
    raise AssertionError(f"a bracket stays open: {sql[start:]}")


def replaced(sql, macro, write):
    """With every call of a macro as `write` has it."""
    while (at := sql.find(f"{macro}(")) >= 0:
        given, end = arguments(sql, at + len(macro))
        sql = sql[:at] + write(*given) + sql[end:]
    return sql


def expanded(sql, begin, end, *, interval_s=60, **variables):
    """The statement that reaches ClickHouse."""

    def quoted(match):
        return ", ".join("'" + v.replace("'", r"\'") + "'" for v in variables[match[1]])

    def condition(said, variable):
        assert re.fullmatch(r"\$\w+", variable), "the plain variable, or All is not seen"
        return "1=1" if variables[variable[1:]] == ALL else said

    def within(column):
        return f"{column} >= {moment(begin)} AND {column} <= {moment(end)}"

    def bucket(column):
        return f"toStartOfInterval(toDateTime({column}), INTERVAL {interval_s} second)"

    def moment(when):
        return f"toDateTime({int(when.timestamp())})"

    sql = replaced(sql, "$__conditionalAll", condition)
    sql = re.sub(r"\$\{(\w+):singlequote\}", quoted, sql)
    sql = replaced(sql, "$__timeFilter", within)
    sql = replaced(sql, "$__timeInterval", bucket)
    sql = sql.replace("$__fromTime", moment(begin)).replace("$__toTime", moment(end))
    assert "$" not in sql, sql
    return sql


def test_macros_are_written_as_the_data_source_writes_them():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    sql = (
        "SELECT $__timeInterval(t.ts) AS time FROM t WHERE $__timeFilter(t.ts) AND "
        "$__conditionalAll(lower(a) IN (${a:singlequote}), $a) AND "
        "$__conditionalAll(b IN (${b:singlequote}), $b)"
    )
    assert expanded(sql, begin, begin + timedelta(1), a=["x", "it's"], b=ALL) == (
        "SELECT toStartOfInterval(toDateTime(t.ts), INTERVAL 60 second) AS time FROM t WHERE "
        "t.ts >= toDateTime(1767225600) AND t.ts <= toDateTime(1767312000) AND "
        r"lower(a) IN ('x', 'it\'s') AND 1=1"
    )


# -- the files


def test_dashboards_are_where_grafana_is_told_to_look():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/files.yaml").read_text())[
        "providers"
    ]
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    path = provider["options"]["path"]
    assert f"./grafana/dashboards:{path}:ro" in services["grafana"]["volumes"]
    assert FILES


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_names_what_is_provisioned_and_its_panels_do_not_overlap(name):
    board = BOARDS[name]
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/clickhouse.yaml").read_text())
    (source,) = sources["datasources"]
    here = {"type": source["type"], "uid": source["uid"]}
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 36
    taken = set()
    for panel in board["panels"]:
        assert panel["datasource"] == here and panel["description"]
        assert [each["datasource"] for each in panel["targets"]] == [here] * len(panel["targets"])
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for variable in board["templating"]["list"]:
        assert variable["datasource"] == here and variable["refresh"] == 1


@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_query_is_sent_in_the_form_that_its_panel_shows(name, panel):
    variables = {one["name"] for one in BOARDS[name]["templating"]["list"]}
    for target in panel["targets"]:
        is_series = panel["type"] == "timeseries"
        assert target["format"] == (0 if is_series else 1)
        assert target["queryType"] == ("timeseries" if is_series else "table")
        assert target["editorType"] == "sql" and target["refId"]
        used = set(re.findall(r"\$\{?(?!__)(\w+)", target["rawSql"]))
        assert used <= variables


def test_what_is_red_is_what_the_twin_would_not_leave_unexplained():
    limits = yaml.safe_load((REPOSITORY / "conf/promotion/default.yaml").read_text())["twin"]
    (panel,) = [each for each in BOARDS["promotion"]["panels"] if each["type"] == "stat"]
    red = [
        step["value"]
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if step["color"] == "red"
    ]
    assert red == [pytest.approx(float(limits["most_unexplained"]) * 1e6)]
    assert "millionths" in panel["title"]


# -- against a session that trades


def promoted(name, failures=()):
    """A row of `promotions` as the gate writes it."""
    record = Promotion(
        name=name, terms={"parameters": {"class": "Momentum", "fast": "3"}}, allocation=1e5,
        environment=promotions.environment(), model="", warmup=9, start=0, end=10**18,
        proofs=(Proof(name="risk", figures={"drawdown": -0.1}),), words=(),
        made=time.time_ns(), id="a1",
    )  # fmt: skip
    return certificate.row(record, list(failures))


class Reader:
    """Grafana's user: answers of a dashboard's queries, by the panels' titles."""

    def __init__(self, board):
        self.board = board
        self.client = connect("chdb:data/store", read_only=True)

    def variable(self, name):
        (one,) = [one for one in self.board["templating"]["list"] if one["name"] == name]
        return [value for (value,) in self.client.query(one["query"]).result_rows]

    def ask(self, title, *, hours=24, book=ALL, strategy=ALL, instead=None):
        (panel,) = [each for each in self.board["panels"] if each["title"] == title]
        now = datetime.now(UTC)
        (target,) = panel["targets"]
        sql = expanded(
            target["rawSql"], now - timedelta(hours=hours), now + timedelta(seconds=1),
            book=book, strategy=strategy,
        )  # fmt: skip
        for said, other in (instead or {}).items():
            assert said in sql
            sql = sql.replace(said, other)
        found = self.client.query(sql)
        return [SimpleNamespace(**row) for row in found.named_results()], found.column_names


UNPROMOTED, UNEXPLAINED = "Unpromoted, trading now", "Unexplained, millionths of capital"
CAUSES, NEWEST = "Live minus backtest P&L by cause", "Newest twin"
PROMOTIONS, FAILED = "Promotions", "Twins that failed"
COLUMNS = {
    UNPROMOTED: ("book", "strategy", "run", "equity", "drawdown", "ts", "seen"),
    UNEXPLAINED: ("strategy", "unexplained"),
    CAUSES: ("time", "cause", "pnl"),
    NEWEST: ("book", "strategy", "ts", "cause", "pnl", "differing", "first", "live", "backtest",
             "unexplained", "wall_bars", "made_at"),
    PROMOTIONS: ("made", "name", "verdict", "strategy", "allocation", "model", "id", "failures"),
    FAILED: ("ts", "book", "kind", "detail"),
}  # fmt: skip
SPLIT = ["data", "timing", "model version", "capital", "decision", "fees", "fill price", "risk"]
BOOK = "momentum-synthetic"


@pytest.mark.timeout(600)
def test_every_panel_shows_a_session_that_trades(run, home, store):
    board = BOARDS["promotion"]
    assert {panel["title"] for panel in board["panels"]} == set(COLUMNS)
    reader = Reader(board)
    for title in COLUMNS:
        assert reader.ask(title)[0] == [], title
    live = run("live", *WORDS)
    insert(store, "promotions", promoted("momentum"), "one")
    insert(store, "promotions", promoted("breakout", ["risk: too much"]), "two")
    until(lambda: store.query("SELECT uniqExact(made_at) FROM twin").result_rows[0][0] >= 2,
          timeout=200)  # fmt: skip
    assert reader.variable("book") == [BOOK]
    assert reader.variable("strategy") == ["breakout", "momentum"]
    _is_calm(reader)
    _is_chosen(reader)
    store.command(CHARGED)
    until(lambda: store.query("SELECT max(unexplained) FROM twin").result_rows[0][0] > 6,
          timeout=200)  # fmt: skip
    _is_red(reader)
    until(lambda: {row.kind for row in reader.ask(FAILED)[0]} == {"alert", "twin"})
    assert reader.ask(FAILED)[1] == COLUMNS[FAILED]
    stopped(live)


def _is_calm(reader):
    for title, names in COLUMNS.items():
        if title != FAILED:
            assert reader.ask(title)[1] == names, title
    (trading,) = reader.ask(UNPROMOTED)[0]
    assert (trading.book, trading.strategy) == (BOOK, "momentum") and trading.equity > 0
    (amount,) = reader.ask(UNEXPLAINED)[0]
    assert amount.strategy == f"{BOOK} momentum" and amount.unexplained < 1e-6
    newest = reader.ask(NEWEST)[0]
    assert [row.cause for row in newest] == SPLIT and newest[0].live != 0
    assert newest[0].live - newest[0].backtest == pytest.approx(
        sum(row.pnl for row in newest) + newest[0].unexplained, abs=1e-7
    )
    bars = reader.ask(CAUSES)[0]
    assert {row.cause for row in bars} == {*SPLIT, "unexplained"}
    assert len({(row.time, row.cause) for row in bars}) == len(bars)
    assert [row.time for row in bars] == sorted(row.time for row in bars)
    assert reader.ask(CAUSES, hours=-1)[0] == []
    made = {row.name: row for row in reader.ask(PROMOTIONS)[0]}
    assert made["momentum"].verdict == "promoted" and made["momentum"].id == "a1"
    assert made["breakout"].failures == "risk: too much"
    assert made["momentum"].strategy == "Momentum(fast=3)"


def _is_chosen(reader):
    for title in (UNPROMOTED, UNEXPLAINED, CAUSES, NEWEST):
        assert reader.ask(title, book=[BOOK], strategy=["momentum", "breakout"])[0], title
        assert reader.ask(title, strategy=["breakout"])[0] == [], title
        assert reader.ask(title, book=["it's another"])[0] == [], title
    assert [row.name for row in reader.ask(PROMOTIONS, strategy=["breakout"])[0]] == ["breakout"]


def _is_red(reader):
    (amount,) = reader.ask(UNEXPLAINED)[0]
    assert amount.unexplained > 1
    assert [row.unexplained for row in reader.ask(NEWEST)[0]] == pytest.approx([7] * 8, abs=1e-6)
    last = max(row.time for row in reader.ask(CAUSES)[0])
    (shown,) = [
        row.pnl for row in reader.ask(CAUSES)[0] if (row.time, row.cause) == (last, "unexplained")
    ]
    assert shown == pytest.approx(7, abs=1e-6)


@pytest.mark.timeout(120)
def test_what_was_promoted_and_what_ended_is_not_among_the_unpromoted(run, home, store):
    reader = Reader(BOARDS["promotion"])
    live = run("live", *WORDS, "runtime.twin_s=null")
    until(lambda: reader.ask(UNPROMOTED)[0], timeout=60)
    later = {"now64(9, 'UTC')": "(now64(9, 'UTC') + INTERVAL 2 MINUTE)"}
    assert reader.ask(UNPROMOTED, instead=later)[0] == []
    store.command(
        "INSERT INTO portfolio_state SELECT * REPLACE (version + 1000000 AS version, 'a1' AS "
        "promotion) FROM portfolio_state FINAL WHERE symbol = ''"
    )
    assert reader.ask(UNPROMOTED)[0] == []
    stopped(live)
