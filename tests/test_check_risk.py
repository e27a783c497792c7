"""`runners/check.py risk` and `whatif` as a person runs them: what they say, and end with."""

import json
from pathlib import Path

import pytest

from tests.sessions import ended, journaled, run_of, server, until
from tests.sessions import forked as run
from tests.test_challenge import Trainer

__all__ = ["run", "server"]  # fixtures

WORDS = [
    "strategy=momentum", "strategy.fast=3", "strategy.slow=8", "feed=synthetic",
    "runtime.warmup_bars=0", "book.unpromoted=null",
]  # fmt: skip
SMALL = ["risk.checks.0.limit=0.1"]  # order_size


def said(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def flips(run, *words):
    """What `json=true` says."""
    return json.loads(ended(run("check", "whatif", *words, "json=true")))


@pytest.mark.timeout(240)
def test_a_session_through_another_chain(run, home, server):
    first = run_of(ended(run("live", *WORDS)))
    code, out, err = said(run("check", "whatif", *WORDS))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{first}, 2026-01-01T00:01:00Z to 2026-01-01T00:59:59.")
    assert lines[0].endswith(": 0 of 27 orders flip")
    assert lines[3].startswith("change: P&L +0.00, drawdown +0.00%; 27 orders are the same, 0 of")
    cut = flips(run, *WORDS, *SMALL)
    assert (cut["run"], cut["session"]["orders"], cut["left_out"]) == (first, 27, [])
    assert cut["session"]["limits"]["order_size"] == 2.1
    assert cut["other"]["limits"] == cut["session"]["limits"] | {"order_size": 0.1}
    assert {(one["turn"], *one["checks"]) for one in cut["flips"]} == {("cut", "order_size")}
    assert cut["pnl"] == cut["other"]["pnl"] - cut["session"]["pnl"] != 0.0
    assert Path(cut["page"]).read_text(encoding="utf-8").count("other chain") >= 1
    late = flips(run, *WORDS, *SMALL, "days=0.02")  # 29 minutes
    assert late["start"] > "2026-01-01T00:30" and 0 < late["session"]["orders"] < 27
    assert {one["ts"] > late["start"] for one in late["flips"]} == {True}
    code, out, err = said(run("check", "whatif", *WORDS, *SMALL))
    assert (code, err) == (0, "") and f"{len(cut['flips'])} of 27 orders flip" in out
    assert " momentum 1 SIM:OAK +" in out and "order_size 0.199835, limit 0.1" in out
    code, out, err = said(run("check", "whatif", *WORDS, "strategy.fast=4", "risk=strict"))
    assert (code, out) == (1, "")
    assert err == (
        "error: the session's book differs: strategies; give the words that it was started with, "
        "all but those of risk\n"
    )


@pytest.mark.timeout(240)
def test_a_session_that_goes_on_is_asked_as_far_as_it_is(run, home, server):
    paced = [
        *WORDS,
        "feed.speed=400",
        "feed.length_s=360000",
        "feed.batch=20",
        "risk=canary",
        "book.name=paced",
    ]
    live = run("live", *paced)
    until(lambda: journaled(home, "paced") > 300)
    running = [word for word in paced if word != "risk=canary"]
    same = flips(run, *running, "risk=canary")
    assert same["flips"] == [] and same["pnl"] == 0.0 and same["session"]["orders"] > 0
    assert same["session"]["limits"] == same["other"]["limits"] != {}
    assert live.poll() is None
    lax = flips(run, *running)
    assert "order_notional" not in lax["other"]["limits"]
    assert lax["other"]["orders"] > 0 and lax["pnl"] != 0.0
    live.terminate()
    ended(live)


@pytest.mark.timeout(240)
def test_a_backtest_of_the_store_through_another_chain(run, home, server):
    name = run_of(ended(run("backtest", *WORDS)))
    same = flips(run, *WORDS, f"run={name}")
    assert (same["flips"], same["pnl"], same["session"]["orders"]) == ([], 0.0, 27)
    refused = flips(run, *WORDS, f"run={name}", *SMALL, "risk.cut=false")
    assert {one["turn"] for one in refused["flips"]} == {"refused"}
    assert refused["other"]["pnl"] == 0.0 and refused["pnl"] == -refused["session"]["pnl"]
    late = flips(run, *WORDS, f"run={name}", "days=0.02")
    assert late["flips"] == [] and 0 < late["session"]["orders"] < 27
    code, _, err = said(run("check", "whatif", *WORDS, f"run={name}", "feed.seed=2"))
    assert code == 1 and f"orders that are not the 27 that {name} made: its market" in err
    code, _, err = said(run("check", "whatif", *WORDS, "run=backtest-none"))
    assert code == 1 and "the store has no run 'backtest-none'" in err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 1, "there is no session of a book 'momentum-synthetic' in "),
        (["days=0"], 1, "days must be > 0"),
        (["days=month"], 1, "days must be a number or null, was 'month'"),
        (["dys=1"], 2, "there is no key 'dys'; did you mean 'days'?"),
        (["risk=dsk"], 2, "risk=dsk does not exist; did you mean 'desk'?"),
    ],
)
def test_what_cannot_be_meant_is_answered_in_one_sentence(run, home, words, code, text):
    found, out, err = said(run("check", "whatif", *WORDS, *words))
    assert (found, out) == (code, "") and text in err and err.count("\n") == 1


@pytest.mark.timeout(240)
def test_a_chain_that_bounds_its_strategy_passes_and_one_that_bends_it_fails(run, home, server):
    code, out, err = said(run("check", "risk", *WORDS))
    assert (code, err) == (0, "")
    assert out.startswith("risk passes (") and "\n  27 orders: 0 refused, 1 cut; worst day -" in out
    assert "  too loose: drawdown 0.5 protects nothing, the strategy came to 0.00482" in out
    code, out, _ = said(run("check", "risk", *WORDS, *SMALL, "risk.cut=false"))
    assert code == 1 and out.startswith("risk fails (")
    assert "failed: order_size refuses 5 of 5 orders, more than 5.0%: its limit is 0.1" in out
    code, out, _ = said(run("check", "risk", *WORDS, "promotion.risk.drawdown=0.001"))
    assert code == 1 and "failed: the drawdown was 0." in out
    code, out, err = said(run("check", "risk", *WORDS, "promotion.risk.loose=1"))
    assert (code, out) == (1, "")
    assert err == "error: promotion.risk.loose must be > 2 and finite, was 1\n"


@pytest.mark.timeout(240)
def test_a_strategy_that_asks_a_model_is_given_the_newest(run, home, server):
    words = ["strategy=ml_direction", *WORDS[3:], "feed.length_s=10800"]  # it looks back an hour
    code, out, err = said(run("check", "risk", *words))
    assert (code, err) == (1, "") and "failed: the strategy made no order in the past" in out
    assert "  ml_direction asks no model: there is no model yet: python runners/retrain.py" in out
    name = Trainer().publish(is_good=True)
    _, out, err = said(run("check", "risk", *words))
    assert err == "" and f"  ml_direction asks model {name} from 1970-01-01T00:00:00Z on" in out
    assert "made no order" not in out
