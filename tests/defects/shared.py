"""Seeded defects of what backtest and live share: a wrong piece of source, in a copy of the tree.

The two run the same code, so that no comparison of theirs can tell these: they are caught by the
plain-Python oracle, or by examples that were reckoned by hand or by another library. Each defect
names the tests that are run on it; it counts as caught when one of them fails by its assertion,
and by nothing else.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.defects import Caught, NotShownError, copied, first_sentence, replaced, witness

TIMEOUT_S = 900.0  # a copy compiles the whole engine, beside another one


class Defect(NamedTuple):
    """A piece of source that is there exactly once, and the wrong one in its place."""

    name: str
    where: str  # its layer
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # of those that catch it, the quickest


class Told(NamedTuple):
    """What a test said: the kind of what it raised, '' when it passed."""

    test: str
    outcome: str
    kind: str
    said: str


def by_oracle(part: str) -> tuple[str, ...]:
    """The engine on random streams, against the oracle."""
    return (f"tests/test_oracle.py::test_the_engine_does_what_the_oracle_does[{part}]",)


BAR_ENDS = "tests/test_bars.py::test_a_tick_at_the_very_end_belongs_to_the_next_bar"
PANDAS = "tests/test_bars.py::test_bars_equal_those_of_pandas"
TAKER = "tests/test_execution.py::test_taker_pays_slippage_and_the_next_tick"
LOTS = "tests/test_execution.py::test_cutting_down_by_hand"
FEES = "tests/test_execution.py::test_fee_of_an_order_is_its_minimum_or_its_fixed_part_and_rates"
BOOKS = "tests/test_portfolio.py::test_cash_and_position_explain_the_pnl_after_any_fills"
LIMITS = "tests/test_checks.py::test_a_check_passes_at_its_limit_and_within_and_refuses_beyond"
NO_NUMBER = "tests/test_checks.py::test_a_value_that_is_no_number_refuses"
QUANTITY = "tests/test_sizing.py::test_quantity_is_what_costs_leave_affordable"
CHANGES = "tests/test_indicators.py::test_changes_equal_ta_lib_and_pandas"
AVERAGES = "tests/test_indicators.py::test_averages_equal_ta_lib_and_pandas"

DEFECTS = (
    # -- bars
    Defect(
        "bar_closed_one_tick_late", "bars", "sysquant/bars.py",
        "if ts >= end > 0:", "if ts > end > 0:",
        (BAR_ENDS,),
    ),
    Defect(
        "bar_labelled_by_its_start", "bars", "sysquant/bars.py",
        "count = _close_all(i, end, bars, closed, count)",
        "count = _close_all(i, end - clock.interval, bars, closed, count)",
        (PANDAS,),
    ),
    Defect(
        "last_volume_dropped", "bars", "sysquant/bars.py",
        "close, volume + events.volume[i]\n", "close, volume + events.volume[i - 1]\n",
        (PANDAS,),
    ),
    Defect(
        "mark_one_event_late", "bars", "sysquant/bars.py",
        "count = _close_all(i, end, bars, closed, count)",
        "count = _close_all(i + 1, end, bars, closed, count)",
        by_oracle("orders"),
    ),
    # -- features
    Defect(
        "lag_one_bar_ahead", "features", "sysquant/features/changes.py",
        "        out[i] = ring[place]\n        ring[place] = inputs[0, i]\n",
        "        ring[place] = inputs[0, i]\n        out[i] = ring[(place + 1) % bars]\n",
        (CHANGES,),
    ),
    Defect(
        "average_sees_the_next_bar", "features", "sysquant/features/windows.py",
        "        x = inputs[0, i]\n        cells[place] = x\n        prefix += x\n",
        "        x = inputs[0, min(i + 1, out.shape[0] - 1)]\n"
        "        cells[place] = x\n        prefix += x\n",
        (AVERAGES,),
    ),
    # -- sizing
    Defect(
        "lots_rounded_up", "sizing", "sysquant/steps.py",
        "    if nearest > size:\n        nearest = _cut(nearest - step, step, per_unit_)\n",
        "    if nearest < size:\n        nearest = _cut(nearest + step, step, per_unit_)\n",
        (LOTS,),
    ),
    Defect(
        "costs_left_out_of_the_size", "sizing", "sysquant/sizing.py",
        "cut_lots_down(value / worst_unit_cost(terms, instrument, market, value), instrument)",
        "cut_lots_down(value / (market.price * market.unit), instrument)",
        (QUANTITY,),
    ),
    Defect(
        "sized_by_stale_equity", "sizing", "sysquant/proposal.py",
        "cell.target * account.scale, account.equity,\n    )  # fmt: skip\n    if cell.state",
        "cell.target * account.scale, account.day_equity,\n    )  # fmt: skip\n    if cell.state",
        by_oracle("orders"),
    ),
    # -- the risk chain
    Defect(
        "limit_itself_refused", "risk", "sysquant/checks/outcome.py",
        "    return value, value <= limit, room if room > 0.0 else 0.0\n",
        "    return value, value < limit, room if room > 0.0 else 0.0\n",
        (LIMITS,),
    ),
    Defect(
        "gross_compared_for_net", "risk", "sysquant/checks/portfolio.py",
        "    before = order.net_others + order.held * unit\n",
        "    before = order.gross_others + order.held * unit\n",
        (LIMITS,),
    ),
    Defect(
        "no_number_passes", "risk", "sysquant/checks/outcome.py",
        '    """Passes up to the limit, whatever the size."""\n    passes = value <= limit\n',
        '    """Passes up to the limit, whatever the size."""\n    passes = not value > limit\n',
        (NO_NUMBER,),
    ),
    Defect(
        "checks_exchanged", "risk", "sysquant/risk.py",
        "CHECKS[name].number for name in self.names]]",
        "CHECKS[name].number for name in self.names[::-1]]]",
        by_oracle("checks"),
    ),
    Defect(
        "cash_reserved_twice", "risk", "sysquant/facts.py",
        "order.cash_others -= _fixed_cost(terms) + _cost(",
        "order.cash_others -= _fixed_cost(terms) + 2.0 * _cost(",
        by_oracle("checks"),
    ),
    # -- execution
    Defect(
        "slippage_in_favour", "execution", "sysquant/execution.py",
        "tick_beyond(reference * (1.0 + side * slip), side, instrument)",
        "tick_beyond(reference * (1.0 - side * slip), side, instrument)",
        (TAKER,),
    ),
    Defect(
        "tick_rounded_in_favour", "execution", "sysquant/steps.py",
        "    return side * np.ceil(ticks - (1e-9 + 1e-15 * abs(ticks)))\n",
        "    return side * np.floor(ticks + (1e-9 + 1e-15 * abs(ticks)))\n",
        (TAKER,),
    ),
    Defect(
        "fee_halved", "execution", "sysquant/execution.py",
        "terms.fee_fixed + rate_value)", "terms.fee_fixed + 0.5 * rate_value)",
        (FEES,),
    ),
    Defect(
        "sales_without_fee", "execution", "sysquant/broker.py",
        "    fee = cut_cash(total - order.paid)\n",
        "    fee = cut_cash(total - order.paid) if quantity > 0.0 else 0.0\n",
        by_oracle("broker"),
    ),
    Defect(
        "maker_and_taker_exchanged", "execution", "sysquant/broker.py",
        "(instrument.maker if maker == 1 else instrument.taker)",
        "(instrument.taker if maker == 1 else instrument.maker)",
        by_oracle("broker"),
    ),
    Defect(
        "latency_ignored", "execution", "sysquant/placing.py",
        "draft.due = ts + latency(book.terms[0], book.latencies, account.key, draft.order_no)",
        "draft.due = ts",
        by_oracle("orders"),
    ),
    Defect(
        "fill_one_point_late", "execution", "sysquant/broker.py",
        "return order.due <= start < order.end", "return order.due < start < order.end",
        by_oracle("orders"),
    ),
    Defect(
        "remainder_lost", "execution", "sysquant/broker.py",
        "elif order.carry == 0 and order.fills > 0:", "elif order.fills > 0:",
        by_oracle("broker"),
    ),
    Defect(
        "stop_on_the_wrong_side", "execution", "sysquant/protection.py",
        "stopped = (stop - worse) * side >= 0.0", "stopped = (worse - stop) * side >= 0.0",
        by_oracle("exits"),
    ),
    # -- the portfolio
    Defect(
        "trade_with_the_wrong_sign", "portfolio", "sysquant/portfolio.py",
        "    account.cash = cut_cash(account.cash - paid)\n",
        "    account.cash = cut_cash(account.cash + paid)\n",
        (BOOKS,),
    ),
    Defect(
        "turn_keeps_the_old_cost", "portfolio", "sysquant/portfolio.py",
        "        cell.cost = cut_cash(paid + proceeds)\n",
        "        cell.cost = cut_cash(cell.cost + paid)\n",
        (BOOKS,),
    ),
    Defect(
        "funding_with_the_wrong_sign", "portfolio", "sysquant/portfolio.py",
        "ts, strategy, symbol, FUNDING, value, rate,",
        "ts, strategy, symbol, FUNDING, -value, rate,",
        by_oracle("accounts"),
    ),
    Defect(
        "snapshot_before_the_fill", "portfolio", "sysquant/loop.py",
        "        if bar < bars and closed.position[bar] == i:\n",
        "        if bar < bars and closed.position[bar] == i + 1:\n",
        by_oracle("orders"),
    ),
)  # fmt: skip
SMALL = ("bar_closed_one_tick_late", "lots_rounded_up", "turn_keeps_the_old_cost")


def caught(defect: Defect, directory: Path) -> Caught | None:
    """Seed a defect into a copy of the tree below a directory; which test catches it, None if none.

    Raises
    ------
    NotShownError
        If the piece of source is not there once, or a test broke by something else than an
        assertion of its own.
    """
    began = time.monotonic()
    tree = copied(directory)
    source = (tree / defect.file).read_text()
    wrong = replaced(defect.name, source, defect.old, defect.new)
    (tree / defect.file).write_text(wrong)
    for one in tested(tree, defect.tests):
        if one.outcome == "passed":
            continue
        if one.kind != "AssertionError":
            raise NotShownError(f"{defect.name}: {one.test}: {one.kind or one.outcome}: {one.said}")
        said = first_sentence(one.said)
        took_s = round(time.monotonic() - began, 1)
        return Caught(defect.name, defect.where, one.test, "", said, took_s)
    return None


def control(directory: Path, tests: Sequence[str]) -> int:
    """The same tests on a copy as it is; how many they are.

    Raises
    ------
    NotShownError
        If one of them does not pass: what it says of a defect means nothing then.
    """
    told = tested(copied(directory), tests)
    for one in told:
        if one.outcome != "passed":
            raise NotShownError(f"without any defect: {one.test}: {one.kind}: {one.said}")
    return len(told)


def tested(tree: Path, tests: Sequence[str]) -> list[Told]:
    """Run tests in a copy, up to the first that fails; what each said.

    Raises
    ------
    NotShownError
        If none was run.
    """
    file = tree / "told.jsonl"
    left_out = ("PYTEST_", "SYSQUANT_", "PYTHON")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment[witness.FILE] = str(file)
    words = ["-x", "-q", "-p", witness.NAME, "-p", "no:cacheprovider", "-o", "timeout=0", *tests]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=tree, env=environment,
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    lines = file.read_text().splitlines() if file.exists() else []
    if not lines or done.returncode not in (0, 1):
        raise NotShownError(f"the tests did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [Told(**json.loads(line)) for line in lines]
