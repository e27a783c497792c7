"""Whether what is about to trade is what was promoted.

Input: the book as it is configured, and the records of `data/promotions`. Output: the ids of the
promotions of those strategies that have one, said at the start; a strategy that is not what was
promoted is refused with the first difference. Nothing is promoted here.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from runners import compose
from sysquant import promotions
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError, ModelError
from sysquant.home import home
from sysquant.models.loader import ModelLoader
from sysquant.models.manifest import Manifest
from sysquant.models.registry import name_of
from sysquant.promotions import Promotion
from sysquant.proof import Proof
from sysquant.runtime import Runtime
from sysquant.types import Bars

Records = Mapping[str, Promotion]
# What says where a strategy trades, and not what it is.
ELSEWHERE = {"feed", "store", "journal", "ingest", "runtime", "promotion", "hydra"}


def directory() -> Path:
    """Of the records."""
    return home() / "data" / "promotions"


def records_of(names: Iterable[str]) -> Records:
    """The records of those strategies that have one.

    Raises
    ------
    ConfigError
        If one was changed after it was written.
    """
    found = ((name, promotions.read(directory(), name)) for name in names)
    return {name: record for name, record in found if record is not None}


def refuse_others(
    records: Records, engine: Engine, models: ModelLoader, runtime: Runtime
) -> None:  # fmt: skip
    """Refuse to trade what is not what was promoted.

    Parameters
    ----------
    records : of the book's strategies.
    engine : as it would trade.
    models : that would serve.
    runtime : which may refuse one without a record as well.

    Raises
    ------
    ConfigError
        With the first difference and the way out.
    """
    for name in engine.strategies:
        record = records.get(name)
        if record is not None:
            _refuse_other(record, engine, models)
            if runtime.warmup_bars < record.warmup:
                raise ConfigError(
                    f"{name} decides as promoted after {record.warmup:,} bars of history, "
                    f"runtime.warmup_bars was {runtime.warmup_bars:,}: set it to as many at least"
                )
        elif runtime.require_promotion:
            raise ConfigError(
                f"{name} was not promoted, and runtime.require_promotion is true: promote it, "
                f"python runners/promote.py strategy={name}"
            )


def named(fingerprint: Mapping[str, str]) -> list[str]:
    """Strategies of a recorded session that traded as promoted."""
    return [name for name in fingerprint.get("promoted", "").split(", ") if name]


def record_of(
    engine: Engine, models: ModelLoader, *,
    span: tuple[int, int] = (0, 0), warmup: int = 0, proofs: Sequence[Proof] = (),
) -> Promotion:  # fmt: skip
    """The record of the one strategy of a book, as it would trade.

    Parameters
    ----------
    engine : of the book.
    models : that would serve.
    span : of the history that it was judged on, ns UTC.
    warmup : bars, as measured.
    proofs : the parts of the gate.
    """
    (name,) = engine.strategies
    model = _newest(name, models)
    return Promotion(
        name=name, terms=promotions.terms_of(engine, name, model),
        allocation=engine.accounts()[name]["allocation"], environment=promotions.environment(),
        model=name_of(model) if model else "", warmup=warmup, start=span[0], end=span[1],
        proofs=tuple(proofs), words=tuple(compose.words(without=ELSEWHERE)), made=time.time_ns(),
    )  # fmt: skip


def differences(record: Promotion, engine: Engine, models: ModelLoader) -> Iterator[str]:
    """In what a strategy that would trade is not the one that was promoted, the gravest first.

    Raises
    ------
    ConfigError
        If its newest model may not be served.
    """
    model = _newest(record.name, models)
    terms = promotions.terms_of(engine, record.name, model)
    if model is None:  # none yet: each one is held against the record when it comes
        terms["model"] = record.terms["model"]
    allocation = engine.accounts()[record.name]["allocation"]
    yield from promotions.differences(record, terms, allocation)


def _newest(name: str, models: ModelLoader) -> Manifest | None:
    if name not in models.strategies:
        return None
    try:
        return models.newest(name)
    except ModelError as error:
        raise ConfigError(f"the newest model of {name} may not be served: {error}") from error


def _refuse_other(record: Promotion, engine: Engine, models: ModelLoader) -> None:
    for said in differences(record, engine, models):
        raise ConfigError(
            f"{record.name} is not what was promoted: {said}; set it back, or promote it as it is: "
            f"python runners/promote.py strategy={record.name}"
        )
    for said in promotions.moved(directory(), record):
        raise ConfigError(
            f"{record.name} was promoted on another engine: {said}; show parity again: "
            f"python runners/check.py parity strategy={record.name}"
        )


def warmed(
    history: Callable[[int, Mapping[int, int]], Bars], records: Records, symbols: Sequence[str]
) -> Callable[[int, Mapping[int, int]], Bars]:
    """The history of a session, of which promoted strategies must have all that they need.

    Before that much of it their decisions depend on where it begins.
    """
    need = {name: record.warmup for name, record in records.items()}

    def before(end: int, first: Mapping[int, int]) -> Bars:
        bars = history(end, first)
        counts = np.bincount(bars.symbol, minlength=len(symbols))
        for name, least in need.items():
            if counts.min() < least:
                short = symbols[int(counts.argmin())]
                raise DataError(
                    f"{name} decides as promoted after {least:,} bars of history, of {short} there "
                    f"are {counts.min():,}: import more with runners/backfill.py, and set "
                    f"runtime.warmup_bars to {least} at least"
                )
        return bars

    return before


def announce(records: Records, engine: Engine) -> None:
    """Say which strategies trade as promoted, and which do not."""
    for name in engine.strategies:
        record = records.get(name)
        if record is not None:
            print(f"{name} is promoted: {record.id}, of {record.day}", flush=True)
        else:
            print(f"UNPROMOTED: {name} trades small, and every row says so", flush=True)
