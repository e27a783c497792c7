"""Going on where a journal stands: the newest snapshot, then its inputs, replayed and compared.

Input: a journal, and an engine and feed that are new. Output: the engine as it was at the journal's
last input. Another book, another feed or another build over unfinished inputs is refused.
"""

import ast
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from sysquant.compiled import machine, source_hash
from sysquant.effects import Effects
from sysquant.engine import Engine
from sysquant.errors import FeedError, JournalError, ModelError
from sysquant.failpoints import Point, reached
from sysquant.journal import Input, Journal
from sysquant.operation import Operation
from sysquant.packed import unpack, unpack_batch
from sysquant.strategy import sources_of
from sysquant.types import Feed

log = logging.getLogger(__name__)

FRESH = "begin anew with journal=fresh (positions are given up, the old journal is kept)"


def ways_out(book: str) -> str:
    """What else than to go on with what it was, as the end of a sentence."""
    return (
        f"or let this one adopt cash and positions (python runners/control.py adopt --book {book}, "
        f"then start again), or {FRESH}"
    )


class Carried(msgspec.Struct, frozen=True):
    """What is journaled of a command: the operations it came to, who said it and what.

    Parameters
    ----------
    issuer, nonce : of the message; of the runner's own operations its name, and nothing.
    said : the command as it was signed, JSON.
    """

    issuer: str
    operations: tuple[Operation, ...]
    nonce: str = ""
    said: str = ""


_decode = msgspec.json.Decoder(Carried).decode


def carry_out(engine: Engine, operations: tuple[Operation, ...]) -> Effects:
    """Do operations one after the other; what they caused at once."""
    return Effects.join([engine.operate(one) for one in operations])


def recover(journal: Journal, engine: Engine, feed: Feed) -> None:
    """Bring an engine to where the journal stands, and the feed to its position.

    After `check_book`.

    Raises
    ------
    JournalError
        If a replay does not do what was recorded, every snapshot is damaged, or a model that the
        book asks may not be served.
    """
    replayed = 0
    seq, state = newest(journal)
    try:
        if state:
            engine.restore(state)
        reached(Point.RECOVERING)
        for entry in journal.inputs(after=seq):
            replay(engine, entry)
            replayed += 1
    except ModelError as error:
        raise JournalError(
            f"this journal's book asks a model that may not be served: {error}; put it back as it "
            f"was, with the packages it was made with, {ways_out(journal.directory.name)}"
        ) from error
    engine.faults.clear()  # they were told when they happened
    if journal.last_seq:
        log.info("recovered snapshot=%d inputs_replayed=%d", seq, replayed)
    reached(Point.RECOVERED)
    epoch = str(int(journal.meta("epoch") or 0) + 1)
    # Leave to adopt is for one start, also where there was nothing to adopt.
    journal.remember(epoch=epoch, feed=feed.name, adopt="", **marks(engine))
    feed.seek(journal.positions())


def newest(journal: Journal) -> tuple[int, dict[str, np.ndarray]]:
    """The newest snapshot's sequence number and state; 0 and nothing before the first.

    Raises
    ------
    JournalError
        If there was one, and it is damaged.
    """
    found = journal.snapshot()
    if found is None and journal.trimmed:
        raise JournalError(
            f"both snapshots of the journal {journal.path} are damaged, and inputs up to "
            f"{journal.trimmed} are sealed elsewhere; restore the file from a copy, or {FRESH}"
        )
    return found or (0, {})


def marks(engine: Engine) -> dict[str, str]:
    """What a journal remembers of who goes on with it: build and configuration."""
    return {"build": _build(engine), "fingerprint": json.dumps(engine.fingerprint())}


def is_ours(journal: Journal, engine: Engine) -> bool:
    """Whether this build and configuration wrote a journal last, or nobody did."""
    return all(journal.meta(name) in (None, said) for name, said in marks(engine).items())


def changed(journal: Journal, engine: Engine) -> Iterator[tuple[str, str | None, str]]:
    """What is configured otherwise than for who wrote a journal last: name, was, is."""
    written = json.loads(journal.meta("fingerprint") or "{}")
    for name, now in engine.fingerprint().items():
        if written and written.get(name, "") != now:
            yield name, written.get(name), now


def check_feed(journal: Journal, feed: Feed) -> None:
    """Refuse to go on with what was read from another feed.

    Raises
    ------
    FeedError
        If it was.
    """
    if journal.meta("feed") not in (None, feed.name):
        raise FeedError(
            f"this journal was read from {journal.meta('feed')}, the feed now is {feed.name}; go "
            f"on with what it was, or {FRESH}"
        )


def read_command(entry: Input) -> Carried:
    """What is journaled of a command."""
    return _decode(entry.payload)


def replay(engine: Engine, entry: Input) -> None:
    """Take one journaled input again.

    Raises
    ------
    JournalError
        If it does not do what was recorded.
    """
    if entry.kind == "history":
        bars: Any = unpack_batch("bars", entry.payload)
        engine.warm(bars)
        return
    if entry.kind == "adopted":
        engine.restore(unpack(entry.payload))
        return
    if entry.kind == "command":
        effects = carry_out(engine, read_command(entry).operations)
    else:
        effects = engine.step(unpack_batch(entry.kind, entry.payload))
    if effects.hash() != entry.effects_hash:
        raise JournalError(
            f"replaying input {entry.seq} of the journal gives other effects than it recorded; "
            f"the state is not what it was: finish with the build that wrote it, {ways_out('NAME')}"
        )


def check_book(journal: Journal, engine: Engine, feed: Feed) -> None:
    """Refuse another configuration, another feed, and another build unless all is in a snapshot.

    Raises
    ------
    JournalError, FeedError
        With what differs, and the ways out.
    """
    written = journal.meta("fingerprint")
    if written is None:
        return
    check_feed(journal, feed)
    for name, *values in changed(journal, engine):
        was, now = _apart(*values)
        raise JournalError(
            f"this journal's book differs: {name} was {was}, is {now}; go on with what it was, "
            f"{ways_out(journal.directory.name)}"
        )
    found = journal.snapshot()
    whole = found is not None and found[0] == journal.last_seq
    if journal.meta("build") != _build(engine) and not whole:
        raise JournalError(
            "this journal has inputs after its last snapshot and was written by another build; "
            f"finish with that build, {ways_out(journal.directory.name)}"
        )


def _apart(was: str | None, now: str | None) -> tuple[str | None, str | None]:
    # Of two dictionaries, or lists of them, written out, what is not the same in both.
    try:
        old, new = (listed(said or "") for said in (was, now))
        pairs = [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]
        names = {name for one, other in pairs for name in other if one.get(name) != other[name]}
    except (ValueError, SyntaxError, AttributeError, TypeError):  # others
        return was, now
    told = [{name: side.get(name) for name in sorted(names)} for side in pairs[0]]
    return str(told[0]), str(told[1])


def listed(said: str) -> list[Any]:
    """The dictionaries that a part of a fingerprint is, written out.

    Raises
    ------
    ValueError, SyntaxError
        If it is something else.
    """
    found = ast.literal_eval(re.sub(r"\bnan\b", "None", re.sub(r"\binf\b", "1e999", said)))
    return found if isinstance(found, list) else [found]


def _build(engine: Engine) -> str:
    # Of what this book runs: a strategy that was written for another one changes nothing here.
    sources = [sources_of(one) for one in engine.strategies.values()]
    own = hashlib.sha256(repr(sources).encode()).hexdigest()[:16]
    engines = source_hash(strategies=False)[:16]
    return json.dumps({"source": engines, "strategies": own, **machine()})
