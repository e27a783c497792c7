"""What models are asked live is what they are trained on: shown of sessions, found where not."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from runners import check
from sysquant import archive, journal_reader
from sysquant.activity import closed_bars
from sysquant.control import Refresh
from sysquant.errors import DataError, JournalError
from sysquant.journal import Input
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES, QuantileLabels
from sysquant.models.loader import ModelLoader
from sysquant.models.manifest import public_key, signing_key
from sysquant.models.registry import Registry
from sysquant.models.serving import ServedModel
from sysquant.models.training import training_set
from sysquant.serve import ensure_server
from sysquant.session import recorded
from sysquant.skew import Witness, compare
from sysquant.store import connect, insert, migrate
from sysquant.tables import tick_table
from sysquant.types import SECOND, Bars
from tests.market import UNIVERSE, Flip, engine, ticks
from tests.published import Prompt, publish
from tests.test_desk import commanded
from tests.test_swapping import Publishing
from tests.test_training import Two

NAMES = [one.symbol for one in UNIVERSE]
MARKET = ticks(4_000)
FIRST = int(np.searchsorted(MARKET.ts, MARKET.ts[500] // SECOND * SECOND))  # of the session
PAST = closed_bars([MARKET[: FIRST + 1]], UNIVERSE, SECOND)
LIVE = replace(MARKET[FIRST:], offset=np.arange(len(MARKET) - FIRST))
STRATEGIES = {"two": Two(), "flip": Flip()}


class Desk:
    """A registry, and sessions of a book whose `two` asks its models."""

    def __init__(self, directory):
        self.directory = directory
        self.registry = Registry(directory / "models")
        self.key = signing_key(directory / "keys")

    def publish(self, seed):
        x = np.random.default_rng(seed).normal(0, 1e-3, (120, 2))
        y = np.array(CLASSES)[np.digitize(x[:, 0] - x[:, 1], [-3e-4, 3e-4])]
        publish(
            self.registry, self.key, pipeline_of("logistic_regression").fit(x, y), x,
            lineage="two", strategy=repr(Two()), features=("fast", "slow"),
        )  # fmt: skip

    def loader(self, kind):
        return kind(self.registry, lambda: public_key(self.directory / "keys"), STRATEGIES)

    def trade(self, **more):
        """A session that warms up, begins without a model and takes two."""
        loader = self.loader(Prompt)
        done = {300: lambda: self.publish(0), 1_000: lambda: self.publish(1)}
        runner, _, _ = commanded(
            self.directory / "book", (582, Refresh("two")), (1_261, Refresh("two")),
            feed=Publishing(LIVE, done), book=engine(strategies=STRATEGIES, models=loader),
            loader=loader, history=lambda _end, _first: PAST, **more,
        )  # fmt: skip
        runner.run()

    def served(self, *more):
        """What its replay shows."""
        witness = Witness(self.loader(ModelLoader))
        book = engine(strategies=STRATEGIES, models=witness)
        book_files = self.directory / "book", self.directory / "book" / "sealed"
        return witness.replay(book, [*recorded(*book_files), *more])["two"]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """A session, whose inputs are in its files and its journal."""
    desk = Desk(tmp_path_factory.mktemp("traded"))
    desk.trade(least=5)
    return desk


@pytest.fixture(scope="module")
def served(traded):
    return traded.served()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of all ticks of the market."""
    dsn = f"chdb:{tmp_path_factory.mktemp('skew') / 'store'}"
    _, server = ensure_server(dsn)
    with closing(connect(dsn)) as client:
        migrate(client)
        insert(client, "ticks", tick_table(MARKET, NAMES, "topic"), "market")
        yield client
    server.terminate()
    server.wait(10)


def stored(client, served) -> Bars:
    past = served.past
    return archive.bars(client, past.universe, past.start, past.end, past.interval)


@pytest.fixture(scope="module")
def kept(store, served):
    """The store's bars, before one is corrected."""
    return stored(store, served)


def test_rows_that_were_served_are_the_training_rows_of_the_stores_bars(kept, served):
    found = compare(served, kept)
    assert (found.data, found.columns, found.moved) == ((), {}, 0)
    assert found.equal == found.rows == len(kept) - len(PAST) > 600
    assert 0.5 * found.rows < found.asked < found.rows, "before the first model nobody was asked"
    told = training_set(Two(), kept, QuantileLabels(horizon="30s"))
    at = {key: row for row, key in enumerate(zip(kept.ts, kept.symbol, strict=True))}
    rows = [at[key] for key in zip(told.ts, told.symbol, strict=True)]
    assert told.x.tobytes() == served.rows[rows].tobytes()
    assert served.asked[rows].sum() > 400


def test_the_inputs_of_a_session_are_found_in_its_files_and_its_journal(traded, served, tmp_path):
    sealed = traded.directory / "book" / "sealed"
    files = sorted(sealed.glob("inputs-*.parquet"))
    journal = journal_reader.ask(traded.directory / "book", "SELECT min(seq), max(seq) FROM inputs")
    inputs = list(recorded(traded.directory / "book", sealed))
    assert files and journal[0][0] > 1, "some of them lie in files alone"
    assert [one.seq for one in inputs] == list(range(1, journal[0][1] + 1))
    with pytest.raises(JournalError, match="lacks input 1"):
        list(recorded(traded.directory / "book", tmp_path))


def test_a_bar_that_was_corrected_later_is_told_as_data_and_not_as_skew(store, kept, served):
    late = MARKET[2_000:2_001]
    close = int(late.ts[0]) // SECOND * SECOND + SECOND
    more = replace(
        late, ts=np.array([close - 1]), price=late.price * 1.01, offset=np.array([9_999])
    )
    insert(store, "ticks", tick_table(more, NAMES, "topic"), "late")
    found = compare(served, stored(store, served))
    (place,) = found.data
    assert (place.symbol, place.ts, place.column) == (NAMES[late.symbol[0]], close, "close")
    assert place.other == more.price[0] != place.session
    assert found.columns == {} and found.equal == found.rows
    assert found.moved == 3, "its own row, and those of the second and the fifteenth after it"


def test_a_bar_that_only_one_of_both_has_is_told_as_data(kept, served):
    lacking = compare(served, kept[np.arange(len(kept)) != 500])
    (place,) = lacking.data
    assert (place.ts, place.column, place.session) == (kept.ts[500], "", kept.close[500])
    assert np.isnan(place.other) and lacking.columns == {} and lacking.moved > 3
    nothing = compare(served, kept[:0])
    assert len(nothing.data) == len(kept) and nothing.equal == nothing.rows


SKEWS = {
    "scaled": ({"fast"}, lambda f: {"fast": f["fast"] * (1 + 1e-12), "slow": f["slow"]}),
    "shifted": ({"slow"}, lambda f: {"fast": f["fast"], "slow": f["slow"] + 1e-15}),
    "swapped": ({"fast", "slow"}, lambda f: {"fast": f["slow"], "slow": f["fast"]}),
}


@pytest.fixture(params=SKEWS)
def skew(request, monkeypatch):
    """Columns that models are asked otherwise, live and when it is replayed."""
    columns, change = SKEWS[request.param]
    honest = ServedModel.proba
    monkeypatch.setattr(ServedModel, "proba", lambda self, f: honest(self, change(f)))
    return columns


def test_a_column_that_is_served_otherwise_is_found(desk, kept, skew):
    desk.trade()
    served = desk.served()
    found = compare(served, kept)
    assert set(found.columns) == skew and found.data == ()
    first = int(np.flatnonzero(served.asked[len(PAST) :])[0]) + len(PAST)
    for name, (count, place) in found.columns.items():
        assert place.column == name and place.session != place.other
        assert 0.9 * found.asked < count <= found.asked
        assert place.ts >= served.past.bars.ts[first]
    assert found.rows - found.asked <= found.equal < found.rows
    said = list(check.failures_of("two", found))
    assert [one.split("'")[1] for one in said] == [n for n in Two().frame(PAST) if n in skew]


def test_what_was_served_by_other_code_than_now_is_refused(desk, monkeypatch):
    honest = ServedModel.proba
    with monkeypatch.context() as patch:
        change = SKEWS["swapped"][1]
        patch.setattr(ServedModel, "proba", lambda self, f: honest(self, change(f)))
        desk.trade()
    with pytest.raises(JournalError, match="gives other effects than it recorded"):
        desk.served()


def test_a_session_that_went_on_with_another_book_is_refused(traded):
    with pytest.raises(DataError, match="what its features had seen by then is not recorded"):
        traded.served(Input(9_999, "adopted", b"", b""))
