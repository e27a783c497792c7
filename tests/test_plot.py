"""Figures draw what the result says, and the report is one page that needs nothing else."""

import html
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sysquant import page as page_parts
from sysquant import plot
from sysquant.backtesting import run
from sysquant.errors import ConfigError
from sysquant.risk import RiskChain
from tests import forked
from tests.market import Flip, engine, ticks

LIMITS = [{"check": "order_size", "limit": 0.6}, {"check": "short_limit", "limit": 0.3}]


@pytest.fixture(scope="module")
def result():
    """Long and short on two symbols; the chain refuses what turns a whole position."""
    chain = RiskChain(checks=LIMITS, cut=False)
    return run(engine(Flip(), risk=chain), [ticks(3_000)], name="test")


def traces(figure):
    return {trace.name.partition(" (")[0]: trace for trace in figure.data}


def test_equity_is_drawn_against_buy_and_hold_and_others(result):
    drawn = traces(plot.equity(result, also={"before costs": result.equity + 1.0}))
    assert list(drawn) == ["equity", "buy and hold", "before costs"]
    np.testing.assert_array_equal(drawn["equity"].y, result.equity)
    np.testing.assert_array_equal(drawn["buy and hold"].y, result.buy_and_hold)
    np.testing.assert_array_equal(drawn["before costs"].y, result.equity + 1.0)
    assert drawn["equity"].x[0] == result.equity.index[0].tz_localize(None).to_datetime64()


def test_drawdown_is_drawn_below_zero(result):
    (trace,) = plot.drawdown(result).data
    np.testing.assert_array_equal(trace.y, result.drawdown)
    assert trace.y.max() <= 0.0


def test_exposure_and_costs_are_drawn_a_line_each(result):
    drawn = traces(plot.exposure(result))
    assert list(drawn) == ["gross", "net"]
    np.testing.assert_array_equal(drawn["gross"].y, result.exposure["gross"])
    drawn = traces(plot.costs(result))
    assert list(drawn) == ["fees", "slippage", "financing"]
    np.testing.assert_array_equal(drawn["fees"].y, result.costs["fees"])
    assert drawn["slippage"].y[-1] > 0.0


def test_rolling_sharpe_is_drawn_from_where_it_is_known(result):
    figure = plot.rolling_sharpe(result, window=20)
    (trace,) = figure.data
    np.testing.assert_array_equal(trace.y, result.rolling_sharpe(20).iloc[19:])
    assert figure.layout.title.text == f"Rolling Sharpe of 20 periods of {result.period}"


def test_months_are_drawn_in_colours_about_zero():
    class Months:
        """Two years, of which half is not known."""

        monthly = pd.DataFrame(
            np.full((2, 13), np.nan), index=[2023, 2024], columns=[*range(1, 13), "year"]
        )

    Months.monthly.loc[2023, 12], Months.monthly.loc[2024, 1] = 0.02, -0.05
    (trace,) = plot.monthly(Months()).data
    assert trace.text[0][11] == "+2.0%" and trace.text[1][0] == "-5.0%" and trace.text[0][0] == ""
    assert (trace.zmin, trace.zmid, trace.zmax) == (-0.05, 0.0, 0.05)
    assert list(trace.y) == ["2023", "2024"] and trace.x[-1] == "year"


def test_every_figure_has_its_name(result):
    book = ["equity", "drawdown", "rolling_sharpe", "monthly", "exposure", "costs"]
    assert sorted(result.figures) == sorted([*book, "SIM:A", "SIM:B"])
    assert list(result.figures)[:6] == book


@pytest.mark.parametrize("symbol", ["SIM:A", "SIM:B"])
def test_price_is_drawn_with_every_fill_and_every_refusal(result, symbol):
    drawn = traces(plot.price(result, symbol))
    assert list(drawn) == ["close", "bought", "sold", "refused"]
    np.testing.assert_array_equal(drawn["close"].y, result.prices(symbol))
    fills = result.table("executions").query("symbol == @symbol")
    orders = result.table("orders").query("symbol == @symbol")
    np.testing.assert_array_equal(drawn["bought"].y, fills["price"][fills["quantity"] > 0])
    np.testing.assert_array_equal(drawn["sold"].y, fills["price"][fills["quantity"] < 0])
    refused = orders[orders["status"] == "refused"]
    assert drawn["refused"].name == f"refused ({len(refused):,})"
    assert len(refused) == len(drawn["refused"].y) > 5
    assert drawn["refused"].text[0].endswith(refused["reason"].iloc[0])
    assert min(len(drawn["bought"].y), len(drawn["sold"].y)) > 5


def test_unknown_symbol_is_answered_with_the_nearest(result):
    with pytest.raises(ConfigError, match="did you mean 'SIM:B'"):
        plot.price(result, "SIM:BB")


@settings(max_examples=50)
@given(arrays(np.float64, st.integers(0, 400), elements=st.floats(-1e6, 1e6)), st.integers(4, 60))
def test_thinned_rows_keep_first_last_and_extremes(values, most):
    rows = plot.thin(values, most)
    assert len(rows) <= max(most, 0) and np.all(np.diff(rows) > 0)
    if len(values):
        assert rows[0] == 0 and rows[-1] == len(values) - 1
        assert values[rows].max() == values.max() and values[rows].min() == values.min()
    if len(values) <= most:
        assert len(rows) == len(values)


def test_thinning_keeps_every_spike_of_a_long_series():
    values = np.sin(np.arange(86_400) / 5_000)
    spikes = np.arange(500, 86_400, 2_000)
    values[spikes] += np.where(np.arange(len(spikes)) % 2, 3.0, -3.0)
    assert set(spikes) <= set(plot.thin(values))


def test_more_fills_than_can_be_drawn_are_said_to_be_fewer(result, monkeypatch):
    monkeypatch.setattr(plot.thin, "__defaults__", (8,))
    drawn = traces(plot.price(result, "SIM:A"))
    assert all(len(trace.y) <= 8 for trace in drawn.values())
    assert re.fullmatch(r"bought \([\d,]+, \d drawn\)", drawn["bought"].name)


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    """A written report."""
    return plot.report(result, tmp_path_factory.mktemp("report") / "new" / "report.html")


def test_report_holds_the_result_every_figure_the_orders_and_the_refusals(result, page):
    text = page.read_text()
    assert repr(result).splitlines()[2].strip() in text
    assert text.count('class="plotly-graph-div"') == 8  # six of the book, two symbols
    orders = result.table("orders")
    reasons = orders.loc[orders["status"] == "refused", "reason"].value_counts()
    for reason, count in reasons.items():
        assert re.search(rf"<td>{reason}</td>\s*<td>{count}</td>", text)
    last = text[text.index("Last orders") : text.index("As printed")]
    assert last.count("<tr") == 1 + min(50, len(orders))
    assert f"<td>{orders['order_no'].iloc[-1]}</td>" in last


def test_report_begins_with_what_is_wrong_and_tells_every_statistic(result, page):
    text = page.read_text()
    assert len(result.warnings) > 0
    places = [text.index(html.escape(finding.text)) for finding in result.warnings]
    assert max(places) < text.index('class="tile"') < text.index("<h2>Statistics")
    table = text[text.index("<h2>Statistics") : text.index("<h2>Figures")]
    assert table.count("<tr>") == 1 + len(result.statistics)
    sharpe = result.statistics.loc["sharpe"]
    assert f"<tr><th>Sharpe</th><td>{sharpe['value']:,.2f}</td>" in table
    assert html.escape(sharpe["source"]) in table


def test_best_and_worst_round_trips_are_told(result, tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "_MOST_TRIPS", 2)
    text = plot.report(result, tmp_path / "page.html").read_text()
    told = text[text.index("<h2>Round trips") : text.index("<h2>Refusals")]
    assert told.count("<tr>") == 1 + 4 < len(result.trips)
    ranked = result.trips["pnl"].sort_values(ascending=False).round(2).tolist()
    said = [f"<td>{pnl:,.10g}</td>" for pnl in [*ranked[:2], *ranked[-2:]]]
    assert sorted(said, key=told.index) == said


def test_result_writes_its_own_tear_sheet(result, page, tmp_path):
    written = result.tear_sheet(tmp_path / "sheet.html")
    assert strip_ids(written.read_text()) == strip_ids(page.read_text())


def strip_ids(text):
    """Without the random names of figures."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", text)


@pytest.mark.parametrize(
    ("number", "unit", "said"),
    [
        (0.1234, "fraction a year", "12.34%"), (12.3, "fraction", "1,230%"),
        (-1.234, "a year", "-1.23"), (1234.5, "hours", "1,234"), (12.0, "count", "12"),
        (0.5, "probability", "50.00%"), (math.nan, "fraction", "-"), (math.inf, "", "-"),
    ],
)  # fmt: skip
def test_number_is_said_by_its_unit(number, unit, said):
    assert page_parts.number(number, unit) == said


def test_report_loads_nothing_from_elsewhere(page):
    text = page.read_text()
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?https?:", text)
    assert "plotly.js v" in text[:200_000]  # inlined
    assert 4_000_000 < len(text) < 6_000_000


def test_what_a_result_says_cannot_break_the_page(result, tmp_path):
    class Strange:
        """The same, with a name that is markup."""

        def __getattr__(self, name):
            return getattr(result, name)

        def __repr__(self):
            return "Backtest of <script>alert(1)</script>"

    text = plot.report(Strange(), tmp_path / "page.html").read_text()
    assert "<script>alert(1)" not in text and "&lt;script&gt;alert(1)" in text


def test_a_page_or_a_line_that_cannot_be_meant_is_refused_in_words(result, tmp_path):
    with pytest.raises(ConfigError, match=r"name it \.html"):
        result.tear_sheet(tmp_path / "page.pdf")
    with pytest.raises(ConfigError, match="also must be a mapping"):
        plot.equity(result, also=[result])


def test_report_of_no_events_is_written(tmp_path):
    empty = run(engine(), [], name="empty")
    text = plot.report(empty, tmp_path / "page.html").read_text()
    assert "no events" in text and "No order was refused" in text and "There was none" in text


def test_backtest_runner_writes_the_report_and_says_where(home):
    done = forked.run("backtest", "strategy=momentum", "bars=5m", cwd=home)
    assert done.returncode == 0, done.stderr
    (said,) = re.findall(r"^  report (.+)$", done.stdout, re.MULTILINE)
    assert Path(said).is_relative_to(home)
    text = Path(said).read_text()
    assert "Backtest of momentum=Momentum(fast=20, slow=100)" in text
    assert text.count('class="plotly-graph-div"') >= 3


def test_report_is_drawn_by_a_browser_without_a_network(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine: the drawn report is not shown here")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
        f"--user-data-dir={tmp_path}", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, text=True, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    # Plotly draws each figure into layers of SVG and says its title there.
    assert done.stdout.count('class="js-plotly-plot') + done.stdout.count(" js-plotly-plot") >= 8
    for title in ("Equity", "Drawdown", "Exposure", "Costs so far", "SIM:A", "SIM:B"):
        assert re.search(rf'class="gtitle"[^>]*>{title}<', done.stdout), title
