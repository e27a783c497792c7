"""What is known of a symbol's data when a session begins decides whether it may be entered."""

import math
import signal

import pytest

from runners import control
from tests.sessions import ended, run_of, server, store, until
from tests.sessions import forked as run
from tests.test_quality import a_day, put

__all__ = ["run", "server", "store"]  # fixtures

NAMES = ("SIM:A", "SIM:B", "SIM:C")
UNIVERSE = ", ".join(f"{{symbol: '{name}'}}" for name in NAMES)
SESSION = [
    "strategy=buy_and_hold", f"universe.instruments=[{UNIVERSE}]", "feed=replay", "feed.start=null",
    "runtime.warmup_bars=0", "sizing.retry_after=1",
]  # fmt: skip
ASKED = [*SESSION, "quality.least=0.9"]


def rated(store, **score: float) -> None:
    """Scores of the day before the first tick."""
    values = ", ".join(
        f"('SIM:{name}', '2024-03-03', '2024-03-04 00:00:00', {x})" for name, x in score.items()
    )
    store.command(f"INSERT INTO quality (symbol, day, until, score) VALUES {values}")


@pytest.fixture
def market(store):
    """A day of ticks of three symbols: good data, poor data, data that nobody measured."""
    for seed, name in enumerate(NAMES):
        put(store, a_day(seed=seed), symbol=name, token=name)
    rated(store, A=0.95, B=0.5)
    return store


def receipts(store, run: str) -> dict[str, tuple]:
    """Symbol -> value, limit and verdict of the check, all that there are of a run."""
    rows = store.query(
        "SELECT symbol, groupUniqArray((value, limit, toString(verdict))) FROM risk_receipts "
        "WHERE run = {run:String} AND check = 'data_quality' GROUP BY symbol",
        {"run": run},
    ).result_rows
    return dict(rows)


def entered(store, run: str) -> set[str]:
    sql = "SELECT DISTINCT toString(symbol) FROM executions WHERE run = {run:String}"
    return {row[0] for row in store.query(sql, {"run": run}).result_rows}


def test_a_symbol_whose_data_is_poor_is_not_entered(run, market):
    output = ended(run("backtest", *ASKED))
    assert "SIM:B is not entered: the score of its data is 0.500, quality.least is 0.9" in output
    assert "SIM:C is not entered: the score of its data was not told in 7 days" in output
    assert "SIM:A is not entered" not in output
    told = receipts(market, run_of(output))
    assert told["SIM:A"] == [(0.95, 0.9, "pass")]
    assert told["SIM:B"] == [(0.5, 0.9, "refuse")]
    assert math.isnan(told["SIM:C"][0][0]) and told["SIM:C"][0][1:] == (0.9, "refuse")
    assert entered(market, run_of(output)) == {"SIM:A"}
    ((config,),) = market.query("SELECT config FROM runs").result_rows
    assert config.count("quality: 0.5") == config.count("quality: .nan") == 1


def test_without_a_threshold_no_score_is_asked_for(run, market):
    output = ended(run("backtest", *SESSION))
    assert entered(market, run_of(output)) == set(NAMES)
    assert receipts(market, run_of(output)) == {} and "is not entered" not in output


def test_a_score_counts_when_it_was_known_and_is_not_too_old(run, market):
    late = run_of(ended(run("backtest", *ASKED, "feed.start=2024-03-04T12:00")))
    assert set(receipts(market, late)["SIM:A"]) == {(0.95, 0.9, "pass")}
    market.command(
        "INSERT INTO quality (symbol, day, until, score) VALUES "
        "('SIM:A', '2024-03-04', '2024-03-05 00:00:00', 0.1)"
    )
    later = run_of(ended(run("backtest", *ASKED, "feed.start=2024-03-04T12:00")))
    assert receipts(market, later)["SIM:A"] == [(0.95, 0.9, "pass")]
    market.command("ALTER TABLE quality DELETE WHERE 1 SETTINGS mutations_sync = 1")
    market.command(
        "INSERT INTO quality (symbol, day, until, score) VALUES "
        "('SIM:A', '2024-03-01', '2024-03-02 00:00:00', 1.0)"
    )
    for days, verdict in ((2, "refuse"), (3, "pass")):
        old = run_of(ended(run("backtest", *ASKED, f"quality.days={days}")))
        assert receipts(market, old)["SIM:A"][0][2] == verdict


def stopped(process) -> str:
    process.send_signal(signal.SIGTERM)
    return run_of(ended(process))


def test_a_restart_has_the_scores_that_its_session_began_with_until_it_adopts_others(run, market):
    def refusals() -> int:
        sql = (
            "SELECT count() FROM risk_receipts WHERE check = 'data_quality' AND verdict = 'refuse'"
        )
        return market.query(sql).result_rows[0][0]

    paced = [*ASKED, "feed.speed=3000", "feed.batch=60", "runtime.snapshot_s=0.2"]
    live = run("live", *paced)
    until(lambda: refusals() > 10)
    first = stopped(live)
    rated(market, A=0.1, B=1.0, C=1.0)
    before = refusals()
    refused = run("live", *SESSION)
    _, err = refused.communicate(timeout=200)
    assert refused.returncode == 1 and "this journal's book differs" in err
    live = run("live", *paced)
    until(lambda: refusals() > before + 10)
    assert stopped(live) == first
    told = receipts(market, first)
    assert told["SIM:B"] == [(0.5, 0.9, "refuse")] and set(told["SIM:A"]) == {(0.95, 0.9, "pass")}
    assert entered(market, first) == {"SIM:A"}
    assert control.main(["adopt"]) == 0
    adopted = ended(run("live", *ASKED))
    assert "adopted by" in adopted and "SIM:A is not entered" in adopted
    assert entered(market, run_of(adopted)) == set(NAMES)


def test_another_threshold_is_another_book(run, market):
    paced = [*ASKED, "feed.speed=3000", "feed.batch=60"]
    live = run("live", *paced)
    until(lambda: entered(market, market.query("SELECT any(run) FROM runs").result_rows[0][0]))
    stopped(live)
    changed = run("live", *paced, "quality.least=0.4")
    out, err = changed.communicate(timeout=200)
    assert changed.returncode == 1 and "this journal's book differs: risk" in err, (out, err)
