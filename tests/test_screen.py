"""What a person sees: a table at a terminal, one plain line after another when piped."""

import os
import pty

import pytest

from runners.screen import Screen
from sysquant.tally import Tally
from tests.market import engine, ticks


@pytest.fixture
def session():
    book, tally = engine(), Tally(dead=3)
    tally.add(book.step(ticks(2_000)), 2_000, book.risk)
    return book, tally


FACTS = (
    "engine time 2023-11-14", "lag 12 ms", "events 2,000 (late 0, dead letters 3)", "bars ",
    "signals ", "orders approved ", "fills ", "rows waiting for the store 7",
)  # fmt: skip


def test_piped_output_is_one_plain_line(session, capsys):
    book, tally = session
    screen = Screen("book")
    screen.show(book, tally, lag_ms=12.0, waiting=7)
    screen.close()
    (line,) = capsys.readouterr().out.splitlines()
    assert "\x1b" not in line
    for fact in FACTS:
        assert fact in line
    account = book.accounts()["flip"]
    assert f"flip equity {account['equity']:,.2f}" in line
    assert f"drawdown {account['drawdown']:.2%}" in line


def test_a_terminal_gets_a_table_that_is_redrawn(session, monkeypatch):
    book, tally = session
    leader, follower = pty.openpty()
    terminal = os.fdopen(follower, "w")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", terminal)
    screen = Screen("momentum on price_ticks")
    screen.show(book, tally, lag_ms=float("nan"), waiting=0)
    terminal.flush()
    shown = os.read(leader, 1 << 20)
    screen.show(book, tally, lag_ms=float("nan"), waiting=0)
    screen.close()
    monkeypatch.undo()
    terminal.flush()
    shown = (shown + os.read(leader, 1 << 20)).decode(errors="replace")
    terminal.close()
    os.close(leader)
    assert shown.count("momentum on price_ticks") >= 2
    assert "\x1b[" in shown
    for text in ("equity", "drawdown", "flip", "lag: -", tally.top_reasons()):
        assert text in shown


def test_the_most_frequent_refusals_come_first():
    tally = Tally(reasons={"cash": 2, "drawdown": 9, "order_size": 5, "short_limit": 1})
    assert tally.top_reasons() == "drawdown x 9, order_size x 5, cash x 2"
    assert Tally().top_reasons() == "-"
    assert Tally.from_json(tally.to_json()) == tally
