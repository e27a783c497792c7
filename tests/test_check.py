"""`runners/check.py data` as a person runs it: what it says, writes, and ends with."""

import json
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from runners.evidence import dearer
from sysquant.evidence import Limits
from sysquant.times import DAY
from tests.conftest import REPOSITORY
from tests.sessions import forked as run
from tests.sessions import server, store
from tests.test_conf import composed
from tests.test_quality import MIDNIGHT, MINUTE, a_day, gap, put

__all__ = ["run", "server", "store"]  # fixtures

A_AND_B = "universe.instruments=[{symbol: 'SIM:A'}, {symbol: 'SIM:B'}]"
WHOLE = [A_AND_B, "end=2024-03-05"]


def said(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def scores(store) -> list[tuple]:
    found = store.query("SELECT symbol, toString(day), score FROM quality FINAL ORDER BY ALL")
    return list(found.result_rows)


def test_good_days_are_told_line_by_line_and_their_scores_stay(run, store):
    put(store, a_day())
    put(store, a_day(seed=2), symbol="SIM:B", token="b")
    code, out, err = said(run("check", "data", *WHOLE))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"SIM:{name} 2024-03-04 score 1.000; 1440 of 1440 minutes, 4320 ticks, 0 gaps, "
        "longest 20 s, skew 250 ms, jitter 0 ms"
        for name in "AB"
    ]
    assert scores(store) == [("SIM:A", "2024-03-04", 1.0), ("SIM:B", "2024-03-04", 1.0)]


def test_nothing_is_missing_before_a_history_begins(run, store):
    put(store, a_day())
    late = a_day(seed=2)
    put(store, late[late.ts >= MIDNIGHT + 600 * MINUTE], symbol="SIM:B", token="b")
    code, out, _ = said(run("check", "data", *WHOLE, "start=2024-03-03"))
    assert (code, [line[:28] for line in out.splitlines()]) == (0, [
        "SIM:A 2024-03-04 score 1.000", "SIM:B 2024-03-04 score 1.000",
    ])  # fmt: skip
    assert "840 of 840 minutes" in out


def test_a_poor_day_fails_and_is_named_with_the_way_out(run, store):
    put(store, a_day())
    put(store, gap(a_day(seed=2)), symbol="SIM:B", token="b")
    code, out, err = said(run("check", "data", *WHOLE))
    assert (code, err) == (1, "")
    assert "  SIM:B 2024-03-04: 1 x gap, 14440 s of open time after 2024-03-04T06:59:40Z\n" in out
    assert out.splitlines()[-1] == (
        "failed: 1 of 2 days have a score below 0.9, the worst is SIM:B on 2024-03-04 with 0.833 "
        "(continuity): import what is missing with runners/backfill.py, or set limits to what the "
        "symbol is like"
    )
    assert said(run("check", "data", *WHOLE, "least=0.8"))[0] == 0
    assert said(run("check", "data", *WHOLE, "symbols=['SIM:A']"))[0] == 0


def test_a_script_reads_json(run, store):
    put(store, gap(a_day()))
    code, out, _ = said(run("check", "data", *WHOLE, "symbols=['SIM:A']", "json=true"))
    found = json.loads(out)
    (day,) = found["days"]
    assert code == 1 and len(found["failures"]) == 1
    assert (day["symbol"], day["day"], day["weakest"]) == ("SIM:A", "2024-03-04", "continuity")
    assert day["part_coverage"] == day["bars"] / 1440 and day["gaps"] == 1
    assert day["until"] == "2024-03-05T00:00:00Z"
    assert [one["kind"] for one in day["findings"]] == ["gap"]


def test_a_bar_that_counts_ticks_twice_fails_whatever_the_score_until_it_is_repaired(run, store):
    put(store, a_day())
    twice = f"fromUnixTimestamp64Nano({MIDNIGHT + 90 * MINUTE}, 'UTC')"
    store.command(f"INSERT INTO bars_1m SELECT * FROM bars_1m WHERE ts = {twice}")
    words = [*WHOLE, "symbols=['SIM:A']"]
    code, out, _ = said(run("check", "data", *words))
    assert code == 1 and "failed: 1 minute bars of SIM:A are not those of their ticks" in out
    assert "repair=true" in out
    assert said(run("check", "data", *words, "repair=true"))[0] == 0
    assert said(run("check", "data", *words))[0] == 0


def test_days_whose_ticks_were_moved_into_files_keep_their_scores(run, store, home):
    put(store, a_day())
    words = [*WHOLE, "symbols=['SIM:A']"]
    assert said(run("check", "data", *words))[0] == 0
    assert said(run("retain", "keep=1d"))[0] == 0
    assert not store.query("SELECT count() FROM ticks").result_rows[0][0]
    _, _, err = said(run("check", "data", *words))
    assert "1 days lie in archived months: their scores stay" in err
    assert store.query("SELECT score FROM quality FINAL").result_rows == [(1.0,)]
    code, out, _ = said(run("check", "data", *words, "least=1"))
    assert code == 0
    store.command("INSERT INTO quality SELECT * REPLACE(0.5 AS score) FROM quality FINAL")
    code, out, _ = said(run("check", "data", *words))
    assert code == 1
    assert "failed: 1 archived days have a score below 0.9, the worst is SIM:A on 2024-03-04" in out


def test_an_offset_that_stands_twice_fails_whatever_the_score(run, store):
    frame = a_day()
    put(store, frame)
    put(store, frame.iloc[[9]].assign(ts=lambda f: f.ts + 1_000_000), token="again")
    code, out, _ = said(run("check", "data", *WHOLE, "symbols=['SIM:A']"))
    assert code == 1 and "failed: 1 ticks of SIM:A have the epoch, partition and offset" in out


def test_now_ends_the_last_day_and_shows_that_a_feed_is_dead(run, store):
    put(store, a_day().assign(ts=lambda f: f.ts - 2 * DAY))
    words = ["universe.instruments=[{symbol: 'SIM:A'}]", "start=2024-03-02"]
    assert said(run("check", "data", *words))[0] == 0
    now = store.query("SELECT toString(today() - 1), toString(today())").result_rows[0]
    code, out, _ = said(run("check", "data", *words[:1], f"start={now[0]}", "end=now"))
    assert code == 1 and f"SIM:A {now[0]} score 0.000 (coverage)" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["least=2"], "least must be >= 0 and <= 1"),
        (["symbols=['SIM:C']"], "symbols: 'SIM:C' is not of the universe"),
        (["start=yesterday"], "start must be like -6h, 2026-01-31"),
        (["limits.gap_s=0"], "limits.gap_s must be > 0"),
        (["limits=null"], "limits must be a group of keys"),
        (["symbols=[]"], "symbols is empty"),
        ([], "the store has no bars of SIM:A, SIM:B: import some"),
        (["start=2124-01-01", "end=2124-01-02"], "is over: choose an earlier start"),
    ],
)
def test_what_cannot_be_meant_is_answered_in_one_sentence(run, store, words, text):
    code, out, err = said(run("check", "data", A_AND_B, *words))
    assert (code, out) == (1, "") and text in err and err.count("\n") == 1


def test_skew_is_of_a_session_that_was(home):
    done = started("skew", "strategy=ml_direction", "feed=kafka")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no session of a book 'ml_direction-kafka'" in done.stderr


def started(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "runners" / "check.py"), *words]
    return subprocess.run(command, text=True, capture_output=True, timeout=60)


def test_the_first_word_says_what_is_checked_and_help_lists_the_words(home):
    asked, empty = started("--help"), started()
    assert asked.returncode == empty.returncode == 0 and asked.stdout == empty.stdout
    for word, does in {
        "data": "How good the store's data of each symbol is, day by day",
        "skew": "Whether a live session's models were asked the very rows",
        "risk": "Whether the risk chain of a strategy bounds it",
        "whatif": "Which orders of a session another risk chain flips",
    }.items():
        assert re.search(rf"^  {word} +{does}", asked.stdout, re.MULTILINE), word
    wrong = started("dta", "start=-1d")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "was 'dta'; did you mean 'data'?" in wrong.stderr
    for words in (["data", "lest=1"], ["lest=1", "data"]):
        key = started(*words)
        assert key.returncode == 2 and "did you mean 'least'?" in key.stderr
    none = started("start=-1d")
    assert (none.returncode, none.stdout) == (2, "") and "as in check.py data" in none.stderr


MARKET = ["feed=synthetic", "feed.length_s=7200", "bars=10s", "snapshots=1m"]


def test_statistics_are_judged_with_the_words_of_a_session(run, store, home, monkeypatch):
    code, out, err = said(run("check", "statistics", "strategy=momentum", *MARKET))
    assert (code, err) == (1, "")
    first, told, *lines = out.splitlines()
    assert first.startswith("statistics fails (") and told.startswith("  ")
    assert "deflated for 1 trials" in told
    assert any(line.startswith("failed: the deflated Sharpe ratio is") for line in lines)
    assert any(line.startswith("failed: at 2 times its costs it returns -") for line in lines)
    lenient = [
        f"promotion.statistics.{key}"
        for key in ("deflated=0", "walk_sharpe=null", "costs=null", "capacity=null")
    ]
    code, out, err = said(run("check", "statistics", "strategy=momentum", *MARKET, *lenient))
    assert (code, err) == (0, "") and out.startswith("statistics passes (")
    assert "deflated for 1 trials" in out, "the same at the gate again is no other trial"
    assert store.query("SELECT kind, lineage FROM research_runs").result_rows == [
        ("gate", "Momentum"), ("gate", "Momentum"),
    ]  # fmt: skip
    code, _, err = said(run("check", "statistics", "promotion.statistics.deflated=2", *MARKET))
    assert code == 1 and "promotion.statistics.deflated must be" in err
    code, _, err = said(run("check", "statistics", "book=all", *MARKET))
    assert code == 1 and "the gate looks at one strategy at a time, the book has" in err


def test_costs_and_delays_of_the_configuration_are_changed_in_a_copy():
    words = ["execution=volatility", "execution.maker_fee_bps=2", "execution.latency_sample_ms=[5]"]
    cfg = composed("config", *words, "+execution.tiers.vip={fee_bps: 2.0}")
    dear = dearer(cfg, 3.0, 60_000.0).execution
    assert (dear.fee_bps, dear.slippage_bps, dear.maker_fee_bps) == (15.0, 1.5, 6.0)
    assert dear.volatility_scale == pytest.approx(0.3) and dear.tiers.vip.fee_bps == 6.0
    assert list(dear.latency_sample_ms) == [60_005.0] and dear.latency_ms == 50.0
    assert cfg.execution.fee_bps == 5.0 and cfg.execution.latency_ms == 50.0
    assert dear.fee_fixed == 0.0 and dear.participation is None


def test_limits_of_the_configuration_are_those_of_the_code():
    section = OmegaConf.to_container(composed("config").promotion.statistics)
    assert section.pop("_target_") == "sysquant.evidence.Limits"
    assert section == asdict(Limits())
