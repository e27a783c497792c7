"""The benchmark of the whole gate: its market, its strategies, and how it reads what is said."""

import subprocess

import numpy as np
import pytest

from sysquant import recording
from sysquant.proof import Proof
from tests.benchmarks import whole_gate
from tests.benchmarks.whole_gate import EDGE, HOUR_S, PARTS, SIGMA, Desk, closes, line, strategies


def test_the_side_of_the_look_back_foretells_what_is_planted_and_no_more():
    back, hours = 60, 300_000
    logs = np.log(closes(back, np.random.default_rng(1), hours))
    side, after = np.sign(logs[back:-1] - logs[: -back - 1]), np.diff(logs)[back:]
    within = 4.0 / np.sqrt(hours)  # standard errors
    assert (side * after).mean() / SIGMA == pytest.approx(EDGE, abs=within)
    rest = after - SIGMA * EDGE * side
    assert rest.std() / SIGMA == pytest.approx(1.0, abs=within)
    assert abs(np.corrcoef(rest[1:], rest[:-1])[0, 1]) < within


def test_trades_are_in_order_and_make_bars_of_an_hour():
    trades = whole_gate.market(1, 200)
    assert (np.diff(trades.timestamp_ms) >= 0).all() and (trades.price > 0).all()
    assert trades.symbol.nunique() == whole_gate.SYMBOLS
    hours = trades.groupby(["symbol", trades.timestamp_ms // (1_000 * HOUR_S)]).price
    assert set(hours.size()) == {4}
    bars = hours.agg(["first", "max", "min", "last"])
    assert (bars["max"] >= bars[["first", "last"]].max(axis=1)).all()
    assert (bars["min"] <= bars[["first", "last"]].min(axis=1)).all()


def test_each_strategy_is_a_trial_of_its_own():
    made = strategies(4)
    assert [one.planted for one in made] == [True] * 4 + [False] * 2
    origins = list[recording.Origin]()
    for one in made:
        space = {"__name__": one.name}
        exec(compile(one.source, one.name, "exec"), space)
        origins.append(recording.origin_of(space[one.name.capitalize()]()))
    marks = [{o.lineage, o.code, *o.names, *([o.graph] if o.graph else [])} for o in origins]
    assert sum(map(len, marks)) == len(set().union(*marks))


def answering(monkeypatch, code, out, err=""):
    """A desk whose runners say this."""
    desk = Desk.__new__(Desk)
    desk.bootstrap = "there:1"
    told = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr(Desk, "_run", lambda *_: told)
    return desk


def test_what_the_gate_says_is_read_part_by_part(monkeypatch):
    one = strategies(1)[0]
    proofs = [
        Proof(name=name, notes=("60 returns of 1d: Sharpe ratio 2.50 a year",) * (name == "risk"))
        for name in PARTS
    ]
    said = "\n".join(map(str, proofs))
    found = answering(monkeypatch, 0, f"{said}\nplanted0 is promoted, record 1").promote(one)
    assert found.passes and found.parts == dict.fromkeys(PARTS, True) and found.refused == ()
    assert found.sharpe == 2.5
    assert "promoted" in line(found) and "statistics=+" in line(found)
    proofs[3] = Proof(name="risk", failures=("it is bad",))
    said = "\n".join(map(str, proofs))
    out = f"{said}\nplanted0 is not promoted, 1 reasons:\nfailed: risk: it is bad"
    found = answering(monkeypatch, 1, out).promote(one)
    assert not found.passes and found.refused == ("risk: it is bad",)
    assert line(found).splitlines()[1] == "    risk: it is bad" and "risk=x" in line(found)
    found = answering(monkeypatch, 1, str(proofs[0]), "error: no broker\n").promote(one)
    assert found.refused == ("error: no broker",) and "parity=?" in line(found)
