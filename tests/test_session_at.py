"""A recorded session at any moment: the state is the one that the live runner had."""

import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest

from sysquant import control
from sysquant.errors import ConfigError, DataError, JournalError
from sysquant.journal import Journal
from sysquant.packed import pack, unpack
from sysquant.session import Session, recorded, state_hash
from sysquant.types import SECOND
from tests.market import Flip, Hold, engine, ticks
from tests.test_desk import commanded
from tests.test_live import MemoryFeed

MARKET = ticks(4_000, disorder=True)
SAID = (
    (388, control.Weight("flip", 0.5)), (970, control.Pause("hold")), (1_455, control.Stop("flip")),
    (1_940, control.Start("flip")), (2_425, control.Resume("hold")),
)  # fmt: skip


def book():
    return engine(strategies={"flip": Flip(), "hold": Hold(weight=0.4)})


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A session with its states, as the checksums of the snapshots that it took at each input."""
    directory = tmp_path_factory.mktemp("at")
    hashes = {}
    with pytest.MonkeyPatch.context() as patch:
        keep = Journal._keep_snapshot

        def told(journal, payload):
            hashes[journal.last_seq] = hashlib.sha256(payload).hexdigest()
            keep(journal, payload)

        patch.setattr(Journal, "_keep_snapshot", told)
        feed = MemoryFeed(MARKET, size=23)
        runner, _, _ = commanded(directory, *SAID, feed=feed, book=book(), least=20)
        runner.run()
    return directory, hashes, runner.engine


def opened(live, make=book, **more):
    return Session(live[0], live[0] / "sealed", make, **more)


def test_at_random_inputs_the_state_is_the_one_recorded_live(live):
    session = opened(live, most=4)
    seqs = np.random.default_rng(1).permutation([*live[1]] * 2)[:100].tolist()
    assert session.last > 170 and len(set(seqs)) > 60
    assert {seq: session.after(seq).hash for seq in seqs} == {seq: live[1][seq] for seq in seqs}
    assert len(list((live[0] / "sealed").glob("*.parquet"))) > 3, "many lie in files alone"


def test_a_moment_is_everything_up_to_it_and_goes_on_to_the_same_end(live):
    session = opened(live)
    clock = np.maximum.accumulate(MARKET.ts)
    for row in (1, 700, 1_333, 2_900):
        found = session.at(int(clock[row]))
        taken = int(np.searchsorted(clock, clock[row], side="right"))
        assert found.ts == clock[row]
        if found.rest is not None:
            found.engine.step(found.rest)
            taken += len(found.rest)
        whole = session.after(found.seq + (found.rest is not None))
        assert state_hash(found.engine.state()) == whole.hash, row
        assert whole.engine.accounts() == found.engine.accounts()
    assert session.at().hash == live[1][session.last] == state_hash(live[2].state())


def test_a_moment_can_be_said_in_every_way(live):
    session = opened(live)
    at = int(MARKET.ts.max()) - 60 * SECOND
    same = session.at(at)
    said = str(np.datetime64(at, "ns"))
    assert session.at(said[:26]).hash == same.hash
    assert session.at("-1m").hash == same.hash
    moment = datetime.fromtimestamp(at // SECOND, UTC)
    assert session.at(moment).ts <= same.ts < session.at().ts
    assert session.at("2020-01-01").ts == 0, "before its first event nothing was taken"
    with pytest.raises(ConfigError, match="moment must be like"):
        session.at("yesterday")
    with pytest.raises(DataError, match="was asked for 99999"):
        session.after(99_999)


def test_features_are_those_of_the_last_closed_bars(live):
    found = opened(live).at(int(MARKET.ts[2_000]))
    bar = found.features["flip"]["SIM:A"]
    assert set(bar) == {"close", "before"} and bar["close"] != bar["before"]
    assert found.bars["SIM:A"]["close"] == bar["close"] and found.bars["SIM:A"]["ts"] <= found.ts
    own = np.flatnonzero((MARKET.symbol == 0) & (MARKET.price == bar["close"]))
    assert (own < 2_000).any()
    assert "hold" in found.features and "SIM:B" in found.features["hold"]
    text = str(found)
    assert f"input {found.seq}" in text and "flip: equity" in text and "hold: equity" in text
    assert set(found.strategies) == {"flip", "hold"}


def test_the_newest_moment_is_taken_up_from_the_snapshot_that_the_session_kept(live):
    session = opened(live)
    replayed = [one.seq for one in session.inputs(session._points[-1].seq)]
    assert len(replayed) < 3, "nothing but what came after the snapshot is taken again"
    assert session.at().seq == session.last


def test_a_session_of_other_code_than_now_is_refused(live):
    def other():
        return engine(strategies={"flip": Flip(weight=0.9), "hold": Hold(weight=0.4)})

    with pytest.raises(JournalError, match="gives other effects than it recorded"):
        opened(live, other).after(60)


def test_a_snapshot_that_differs_from_its_inputs_is_refused(live, tmp_path):
    directory = tmp_path / "book"
    directory.mkdir()
    with (
        closing(sqlite3.connect(live[0] / "journal.db")) as db,
        closing(sqlite3.connect(directory / "journal.db")) as copy,
    ):
        db.backup(copy)
        seq, payload = copy.execute("SELECT seq, payload FROM snapshots").fetchone()
        state = unpack(payload)
        state["accounts"]["cash"][0] += 1.0
        packed = pack(state)
        checksum = hashlib.sha256(packed).digest()
        copy.execute(
            "UPDATE snapshots SET payload=?, checksum=? WHERE seq=?", [packed, checksum, seq]
        )
        copy.commit()
    session = Session(directory, live[0] / "sealed", book)
    session._points = session._points[:1]
    with pytest.raises(JournalError, match="the state is not that of the snapshot"):
        session.after(seq)


def test_a_part_of_the_inputs_is_read_from_where_it_lies(live):
    sealed = live[0] / "sealed"
    everything = list(recorded(live[0], sealed))
    for after, last in ((0, 30), (25, 61), (90, None), (len(everything), None)):
        part = [one.seq for one in recorded(live[0], sealed, after, last)]
        assert part == list(range(after + 1, (last or len(everything)) + 1))


def test_a_session_that_was_never_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="no journaled session"):
        Session(tmp_path, tmp_path, book)
