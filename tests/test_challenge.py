"""A challenger trades the champion's ticks on paper, is promoted, and sent back when it loses."""

import os
from dataclasses import replace
from functools import partial

import pytest

from runners.challenge import Challenge, Side
from sysquant.challenging import Rule
from sysquant.control import Answer, Promote
from sysquant.home import home as home_of
from sysquant.locking import lock
from sysquant.models.families import pipeline_of
from sysquant.models.labels import QuantileLabels
from sysquant.models.manifest import TrainedOn, signing_key
from sysquant.models.registry import Registry
from sysquant.models.training import fit, training_set
from sysquant.rows import model_served
from sysquant.store import connect, insert
from sysquant.strategies.ml_direction import MlDirection
from tests.minutes import Market, live_words, minutes
from tests.published import publish
from tests.sessions import ended, server, store, until
from tests.sessions import forked as run
from tests.test_training import bars

pytest_plugins = ["tests.served"]
__all__ = ["run", "server", "store"]  # fixtures

COUNT, TRAINED = 4_000, 1_500  # minutes
LONG_AGO = TrainedOn(1, 2, 3, 600, "hash")  # or none might serve before the market was there


class Trainer:
    """Publishes models of the market, and such as say the contrary."""

    def __init__(self):
        history = bars(COUNT, symbols=1, signal=2.0)[:TRAINED]
        self.rows = training_set(MlDirection(), history, QuantileLabels(horizon="5m"))
        self.key = signing_key(home_of() / "data" / "keys")
        self.registry = Registry(home_of() / "data" / "models")

    def publish(self, *, is_good, c=1.0):
        rows = self.rows if is_good else replace(self.rows, value=-self.rows.value)
        model = fit(pipeline_of("logistic_regression", {"c": c}), rows).classifier
        return publish(
            self.registry, self.key, model, rows.x, lineage="ml_direction",
            strategy=repr(MlDirection()), features=rows.features, trained=LONG_AGO,
        )  # fmt: skip


@pytest.mark.timeout(300)
def test_the_better_of_two_models_trades(run, home, store, broker, topic):
    trainer = Trainer()
    first = trainer.publish(is_good=False)
    market = Market(broker, topic, minutes(COUNT))
    market.go_on(100)
    words = live_words(broker, topic)
    champion = run("live", *words, "serving=holds", "serving.most_lost=0.02")
    shadow = run("live", *words, "serving=challenger")
    challenge = run("challenge", "look_s=0.2", "rule.snapshots=60")

    def rows(sql):
        return store.query(sql).result_rows

    def reached(condition):
        def is_so():
            for process in (champion, shadow, challenge):
                assert process.returncode is None, process.communicate()
            if market.told < COUNT:
                market.go_on(1)
            return condition()

        until(is_so, timeout=90)

    reached(lambda: len(rows("SELECT DISTINCT run FROM models_served")) == 2)
    second = trainer.publish(is_good=True)
    verdicts = f"SELECT verdict FROM challenges WHERE challenger = '{second}' ORDER BY ts"
    reached(lambda: ("promoted",) in rows(verdicts))
    assert [one for (one,) in rows(verdicts)][-2:] == ["better", "promoted"]
    assert ("early",) in rows(verdicts)

    third = trainer.publish(is_good=False, c=0.5)
    verdicts = f"SELECT verdict FROM challenges WHERE challenger = '{third}' ORDER BY ts"
    reached(lambda: ("kept",) in rows(verdicts))
    said = run("control", "promote", "ml_direction", "3", "--book", "ml_direction-kafka")
    ended(said)  # a person may, against the verdict
    reached(lambda: rows("SELECT count() FROM events WHERE kind = 'went_back'") == [(1,)])
    second_one = run("challenge", "once=true")
    assert f"in use by process {challenge.pid}" in second_one.communicate(200)[1]
    left(challenge)
    once = ended(run("challenge", "once=true"))
    assert third not in once
    for process in (shadow, champion):
        left(process)
    modes = dict(rows("SELECT mode, run FROM runs"))
    served = {
        mode: rows(f"SELECT model FROM models_served WHERE run = '{run}' ORDER BY seq")
        for mode, run in modes.items()
    }
    assert served["live"] == [(first,), (second,), (third,), (second,)]
    assert served["challenger"] == [(first,), (second,), (third,)]
    own = rows(f"SELECT count() FROM executions WHERE run = '{modes['challenger']}'")
    assert own[0][0] > 10, "it trades, in its own book"


def left(process):
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0, process.communicate()


def test_without_its_books_it_says_how_to_start_them(run, home):
    said = run("challenge", "once=true", "champion=ml")
    _, error = said.communicate(200)
    assert said.returncode == 1
    assert "no book 'ml' runs here: python runners/live.py strategy=ml_direction" in error
    with lock(home / "data" / "challenges" / "ml_direction"):
        said = run("challenge", "once=true")
        assert f"in use by process {os.getpid()}; stop it, one compares" in said.communicate(200)[1]
    assert said.returncode == 1
    said = run("challenge", "lineage=../x")
    assert "a lineage is named by small letters" in said.communicate(200)[1]
    said = run("challenge", "once=true")
    assert "name champion=..., of the books that run here: none" in said.communicate(200)[1]


def test_a_promotion_that_the_champion_refuses_is_told_once_and_not_at_every_look(
    home, dsn, client
):
    text = "model 3 has served already: go back to 2 instead"
    alerts, said, names = [], [], ("000003-ab", "000002-cd")

    class Line:
        def ask(self, command):
            said.append(command)
            return Answer("1", False, text)

    sides = tuple(Side(Line(), f"book{n}", f"run{n}", name) for n, name in enumerate(names))
    for side in sides:
        row = model_served(side.run, 1, 10**9, "ml", side.model, "")
        insert(client, "models_served", row, side.run)
    client.command(
        "INSERT INTO challenges (lineage, champion, challenger, verdict) VALUES "
        f"('ml', '{names[0]}', '{names[1]}', 'better')"
    )
    challenge = Challenge(
        "ml", (None, None), Rule(), auto=True, opened=partial(connect, dsn), tell=alerts.append
    )
    challenge._sides = lambda: sides
    challenge.look()
    challenge.look()
    assert [(one.kind, one.detail) for one in alerts] == [("refused", f"book0: {text}")]
    assert said == [Promote("ml", 2, "cd")]
    rows = client.query("SELECT verdict, why FROM challenges ORDER BY ts").result_rows
    assert rows[1:] == [("refused", f"book0: {text}")]
