"""A day of a live session, walked again: its models come out once more, id by id, signal by signal.

A process trades ticks of a broker, another writes them to the store; at the hours of a timetable
`runners/retrain.py` trains two families on what is known by then. Afterwards `walk_forward` is
given the bars of the store and the same timetable, and nothing else of the session.
"""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from runners.retrain import CODES
from sysquant import history
from sysquant.activity import closed_bars
from sysquant.feeds.publish import Publisher
from sysquant.home import home as home_of
from sysquant.journal_reader import positions
from sysquant.models.manifest import Manifest
from sysquant.models.registry import MANIFEST, PREDICTED, Registry
from sysquant.retraining import Recipe
from sysquant.store import insert
from sysquant.strategies.ml_direction import MlDirection
from sysquant.tables import bar_table
from sysquant.types import SECOND, Instrument, Ticks
from sysquant.walk import walk_forward
from tests.sessions import ended, server, store, until
from tests.sessions import forked as run
from tests.test_retrain import written

__all__ = ["run", "server", "store"]  # fixtures

MINUTE = 60 * SECOND
EVERY = 480  # minutes from training to training, and of a training's window
BEGIN = 58_334 * EVERY * MINUTE  # of the history
DAY = BEGIN + EVERY * MINUTE  # of the session
MINUTES = EVERY + 1_020  # of history and session
SYMBOLS = [Instrument(f"SIM:{name}", 1e-6, 1e-6) for name in "ABC"]
NAMES = [one.symbol for one in SYMBOLS]
LISTED = ", ".join(f"{{symbol: '{name}', tick_size: 1e-6, lot_size: 1e-6}}" for name in NAMES)
UNIVERSE = ("universe=crypto", f"universe.instruments=[{LISTED}]")
RECIPE = Recipe(
    family="logistic_regression", settings={"c": 1.0, "most_iterations": 1000},
    label_settings={"horizon": "10m", "low": 0.3, "high": 0.7}, train="200m", test="100m",
    embargo="10m",
)  # fmt: skip
TREES = msgspec.structs.replace(
    RECIPE, family="gradient_boosting",
    settings={"rounds": 20, "rate": 0.05, "leaves": 7, "least_leaf": 30, "seed": 0},
)  # fmt: skip
RECIPES = {"ml_direction": RECIPE, "trees": TREES}  # by lineage
RUNS = "SELECT * FROM model_runs WHERE lineage = {lineage:String} ORDER BY made"
SIGNALS = """SELECT toUnixTimestamp64Nano(ts) AS at, symbol, target, model FROM signals
WHERE strategy = {lineage:String} ORDER BY ts, symbol"""
# What the runner's own notebook does, without its pictures, which take most of its time.
TRAINS = """
import msgspec
from pathlib import Path
from sysquant import history_file, publishing
from sysquant.retraining import Recipe, train

trader = publishing.strategy_of(strategy, parameters)
serves = publishing.serving(Path(before)) if before else None
made = train(msgspec.convert(recipe, Recipe), trader, history_file.load(history), serves)
publishing.write(made, Path(candidate))
"""


def closes(seed: int = 2) -> np.ndarray:
    """(minutes, symbols); what a minute did tells of the tenth after; otherwise every 8 hours."""
    steps = np.random.default_rng(seed).normal(0, 1e-3, (MINUTES, len(SYMBOLS)))
    for at in range(10, MINUTES):
        side = -1 if at // EVERY % 2 else 1
        steps[at] += 0.8 * side * steps[at - 10]
    return 100 * np.exp(np.cumsum(steps, axis=0))


def ticks(close: np.ndarray) -> Ticks:
    """Three trades a minute and symbol, the last at its close."""
    minutes, symbols = close.shape
    drawn = np.random.default_rng(7)
    paths = close[:, :, None] * np.exp(drawn.normal(0, 4e-4, (minutes, symbols, 3)))
    paths[:, :, 2] = close
    seconds = np.array([2, 31, 58]) + np.arange(symbols)[:, None] / 10
    starts = BEGIN + np.arange(minutes) * MINUTE
    ts = starts[:, None, None] + (seconds * SECOND).round().astype(np.int64)
    order = np.argsort(ts.ravel(), kind="stable")
    count = ts.size
    columns = {name: np.zeros(count, of.dtype) for name, of in Ticks.empty().columns()}
    number = np.broadcast_to(np.arange(symbols, dtype=np.int32)[:, None], (symbols, 3))
    columns["symbol"] = np.broadcast_to(number, ts.shape).ravel()[order].copy()
    columns |= {"ts": ts.ravel()[order], "price": np.round(paths.ravel()[order], 6)}
    columns |= {"volume": np.round(drawn.lognormal(0, 1, count), 6)}
    columns |= {"received_at": columns["ts"], "offset": np.arange(count)}
    return Ticks(**columns)


class Session:
    """A live session over a topic, and what is told to it up to a time."""

    def __init__(self, run, broker, topic, store, traded):
        self._store, self._ticks, self._told = store, traded, 0
        self._publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)
        api = ["feed.api_version=[2,3]"] if broker.kind == "mock" else []
        self.words = [
            "book=all", "+strategy@book.strategies.trees=ml_direction", "book.name=day",
            f"book.only=[{','.join(RECIPES)}]", *UNIVERSE, "feed=kafka", f"feed.topic={topic}",
            f"feed.bootstrap={broker.bootstrap}", "runtime.clock=event", *api,
        ]  # fmt: skip
        self._process = run("live", *self.words)

    def go_on(self, end: int):
        """Trade up to a time; it is over when all of it is in the journal, and in the store."""
        last = int(np.searchsorted(self._ticks.ts, end))
        self._publisher.publish(self._ticks[self._told : last], SYMBOLS)
        self._publisher.flush()
        self._told = last
        directory = home_of() / "data" / "journals" / "day"
        until(lambda: sum(positions(directory).values()) == last or self.is_over, timeout=60)
        until(lambda: self.count("ticks") == last or self.is_over, timeout=60)
        assert not self.is_over, self._process.communicate()

    def count(self, table: str) -> int:
        return self._store.query(f"SELECT count() FROM {table}").result_rows[0][0]

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None

    def end(self):
        self._publisher.close()
        self._process.terminate()
        ended(self._process)


def training(run, lineage, recipe, end, notebook):
    """The runner, at a moment of the timetable."""
    told = datetime.fromtimestamp(end // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    settings = [f"model.settings.{name}={value}" for name, value in recipe.settings.items()]
    labels = [f"labels.label_settings.{k}={v}" for k, v in recipe.label_settings.items()]
    return run(
        "retrain", *UNIVERSE, f"model={recipe.family}", *settings, *labels, f"lineage={lineage}",
        f"training.train={recipe.train}", f"training.test={recipe.test}",
        f"training.embargo={recipe.embargo}", f"days={EVERY / 1440}", f"end={told}", notebook,
    )  # fmt: skip


def is_published(process) -> bool:
    out, err = process.communicate(timeout=200)
    assert process.returncode in CODES.values(), out + err
    return process.returncode == CODES["published"]


def asked(store, question: str, lineage: str) -> list[dict]:
    return list(store.query(question, {"lineage": lineage}).named_results())


def published(lineage: str) -> dict[str, Manifest]:
    """What the models of a lineage say of themselves, oldest first, by their names."""
    paths = Registry(home_of() / "data" / "models").numbers(lineage).values()
    return {p.name: msgspec.json.decode((p / MANIFEST).read_bytes(), type=Manifest) for p in paths}


@pytest.mark.timeout(400)
def test_a_walk_makes_the_models_of_a_recorded_day_again(
    run, home, store, broker, topic, tmp_path, monkeypatch
):
    traded, made = ticks(closes()), 0
    first = int(np.searchsorted(traded.ts, DAY))
    old = closed_bars([traded[: first + 1]], SYMBOLS, MINUTE)
    insert(store, "bars_imported", bar_table(old, NAMES, "x"), "old")
    notebook = written(tmp_path / "trains.ipynb", TRAINS)
    session = Session(run, broker, topic, store, traded[first:])
    moments = [DAY + n * EVERY * MINUTE for n in range(3)]
    for at in moments:
        session.go_on(at + 40 * SECOND)  # a minute that is not over lies in the store
        trainings = [training(run, *each, at, notebook) for each in RECIPES.items()]
        made += sum(map(is_published, trainings))
        until(lambda made=made: session.count("models_served") == made or session.is_over)
    session.go_on(int(traded.ts[-1]) + 1)
    session.end()

    bars = history(SYMBOLS, BEGIN, BEGIN + MINUTES * MINUTE, client=store)
    monkeypatch.setenv("SYSQUANT_CACHE", str(tmp_path))  # where no training is kept
    told = []
    for lineage, recipe in RECIPES.items():
        walked = walk_forward(
            MlDirection, bars, retrain="8h", window="8h", recipe=recipe, progress=False
        )
        assert [one.at for one in walked.trainings] == moments
        hold_to_record(walked, asked(store, RUNS, lineage), published(lineage))
        told.append(hold_to_use(walked, asked(store, SIGNALS, lineage), published(lineage)))
    assert min(told) >= 2, "of each family several models served"
    print(f"{sum(told)} models of a recorded day made again: the same content ids")

    said = ended(run("check", "skew", *session.words))
    rows, asked_of = (MINUTES - 1 - EVERY) * len(SYMBOLS), (MINUTES - 1 - 2 * EVERY) * len(SYMBOLS)
    assert said.splitlines() == [
        f"{lineage}: {rows:,} of {rows:,} rows that were served are those of training, byte for "
        f"byte; a model was asked of {asked_of:,}"
        for lineage in RECIPES
    ]
    other = run("check", "skew", *session.words, "book.capital=5")
    assert "the session's book differs: allocations; give the words" in other.communicate(200)[1]


def hold_to_record(walked, rows, manifests):
    """Trainings are those that the runner recorded, and the published ones the registry's."""
    for one, row in zip(walked.trainings, rows, strict=True):
        facts = one.facts
        assert (facts.id, facts.trained.hash) == (row["id"], row["data_hash"])
        assert facts.trained.rows == row["rows"] > PREDICTED
        assert ("published" if one.model else "kept", list(one.reasons)) == (
            row["verdict"], row["reasons"],
        )  # fmt: skip
        figures = {"pnl": facts.earned} | dict(walked_scores(facts.scores))
        if not np.isnan(one.earned_before):
            figures["pnl_before"] = one.earned_before
        assert figures == row["scores"]
    again = [(one.facts.id, one.facts.trained) for one in walked.trainings if one.model]
    assert again == [(one.id, one.trained) for one in manifests.values()]
    assert {one.verdict.partition(":")[0] for one in walked.trainings} == {"published", "kept back"}


def walked_scores(scores):
    for name, one in scores.items():
        yield from zip((name, f"{name}_low", f"{name}_high"), one, strict=True)


def hold_to_use(walked, signals, manifests) -> int:
    """Each signal of the session is the walk's, and no model was asked before its rows were known;
    how many models were asked.
    """
    found = walked.result.table("signals")
    again = [
        (ts.value, symbol, target)
        for ts, symbol, target in zip(found["ts"], found["symbol"], found["target"], strict=True)
    ]
    assert [(row["at"], row["symbol"], row["target"]) for row in signals] == sorted(again)
    first = {}
    for row in signals:
        first.setdefault(row["model"], row["at"])
    assert list(first) == list(manifests)
    for one, (name, at) in zip(
        (one for one in walked.trainings if one.model), first.items(), strict=True
    ):
        about = manifests[name].trained
        assert about.last < about.known <= one.at < one.serves == at
    return len(first)
