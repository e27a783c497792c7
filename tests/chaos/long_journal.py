"""A journal as long sessions leave it, made in minutes: one tick an input, no row for the store."""

import sqlite3
from contextlib import closing

from sysquant.engine import Engine
from sysquant.journal import Input, Journal
from sysquant.packed import pack_batch
from tests.chaos.rows import engine_of
from tests.chaos.session import Session, market

PUT = "INSERT INTO inputs VALUES (?, ?, ?, ?)"


def lengthen(session: Session, inputs: int, replayed: int) -> float:
    """Go on with an ended session's journal until it has so many; its size in MB.

    Parameters
    ----------
    session : ended in order, its topic that of `market()`, at least one tick an input.
    replayed : how many inputs come after the last snapshot.
    """
    engine, at = engine_of(session.words), session.positions()[0]
    with closing(Journal(session.directory)) as journal:
        found = journal.snapshot()
        assert found is not None and found[0] == journal.last_seq
        engine.restore(found[1])
    at = _put(session, engine, at, inputs - replayed)
    with closing(Journal(session.directory)) as journal:
        journal.commit(None, {}, positions={0: at}, snapshot=engine.state())
    at = _put(session, engine, at, inputs)
    with closing(Journal(session.directory)) as journal:
        journal.commit(None, {}, positions={0: at})
        return journal.path.stat().st_size / 1e6


def _put(session: Session, engine: Engine, at: int, last: int) -> int:
    # Inputs up to number `last`, from the tick at offset `at` on; the offset after them.
    seq, entries, passed = session.inputs(), [], 0
    with closing(sqlite3.connect(session.directory / "journal.db")) as db:
        for block in market():
            for row in range(max(0, at - passed), len(block)):
                if seq == last:
                    break
                tick = block[row : row + 1]
                seq, at = seq + 1, at + 1
                entry = Input(seq, "ticks", pack_batch(tick), engine.step(tick).hash())
                entries.append((entry.seq, entry.kind, entry.payload, entry.effects_hash))
            passed += len(block)
            if len(entries) > 50_000 or seq == last:
                db.executemany(PUT, entries)
                db.commit()
                entries.clear()
            if seq == last:
                return at
    raise AssertionError("the market ended")
