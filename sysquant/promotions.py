"""The record of a promotion, and what trades now held against it.

Input: an engine as it is configured, and the files of its strategies. Output: a `Promotion` on
disk, one file a name, or the first way in which what would trade is not what was promoted. What is
the strategy's own is kept apart from the engine and the machine: these ask for parity again, not
for a new promotion. Nothing is judged here.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sysquant.compiled import machine, source_hash
from sysquant.decider import features_of
from sysquant.engine import Engine
from sysquant.errors import ConfigError
from sysquant.home import write_whole
from sysquant.models.manifest import Manifest, recipe
from sysquant.proof import Proof
from sysquant.recovery import listed
from sysquant.runtime import Runtime
from sysquant.strategy import sources_of

FORMAT = 1
Terms = dict[str, dict[str, str]]
_WARMUP_BARS = Runtime().warmup_bars  # where nothing else is said
_APART = {"snapshot_ns"}  # how often rows are written decides nothing
_SAID = {
    "code": "its code {key}", "parameters": "its parameter {key}", "features": "its feature {key}",
    "model": "its model's {key}", "risk": "the risk limit {key}", "rules": "its {key}",
    "terms": "the execution's {key}", "market": "the market's {key}",
}  # fmt: skip

_ORDERED = {"features": "features", "risk": "risk checks"}  # their order decides, too


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was promoted, and what showed that it may be.

    Parameters
    ----------
    name : of the strategy in its book, of its module and of its configuration.
    terms : group -> name -> text: all that must be the same when it trades.
    allocation : of capital, in the book's currency; it may trade less.
    environment : engine and machine under which parity was shown.
    model : `number-id` that served in the gate; empty for a strategy without a model.
    warmup : bars of history after which its decisions do not depend on where it began.
    start, end : of the history it was judged on, ns UTC.
    proofs : the parts of the gate.
    words : of the command that takes it live.
    made : ns UTC.
    id : of all else; empty until it is written.
    """

    format: int = FORMAT
    name: str
    terms: Terms
    allocation: float
    environment: dict[str, str]
    model: str
    warmup: int
    start: int
    end: int
    proofs: tuple[Proof, ...]
    words: tuple[str, ...]
    made: int
    id: str = ""

    @property
    def strategy(self) -> str:
        """Class and parameters, as they are written."""
        said = dict(self.terms["parameters"])
        kind = said.pop("class")
        return f"{kind}({', '.join(f'{name}={value}' for name, value in said.items())})"

    @property
    def command(self) -> str:
        """What takes it live, for a shell."""
        words = [*self.words, "feed=kafka"]
        if self.warmup > _WARMUP_BARS:  # with fewer the live runner refuses to start
            words.append(f"runtime.warmup_bars={self.warmup}")
        return f"python runners/live.py {shlex.join(words)}"

    @property
    def day(self) -> str:
        """When it was made, like 2026-01-31 (UTC)."""
        return str(np.datetime64(self.made, "ns").astype("M8[D]"))


def _id_of(record: Promotion) -> str:
    bare = msgspec.structs.replace(record, id="")
    return hashlib.sha256(msgspec.json.encode(bare)).hexdigest()[:16]


def write(directory: Path, record: Promotion) -> Promotion:
    """Keep a record as that of its name, whole or not at all; with its id."""
    record = msgspec.structs.replace(record, id=_id_of(record))
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / f"{record.name}.json", written(record))
    return record


def written(record: Promotion) -> bytes:
    """A record as its file holds it."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read(directory: Path, name: str) -> Promotion | None:
    """The record of a name, or None.

    Raises
    ------
    ConfigError
        If it is there, and was changed since it was written, or cannot be read.
    """
    path = directory / f"{name}.json"
    if not path.exists():
        return None
    anew = f"promote it anew: python runners/promote.py strategy={name}"
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Promotion)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"the promotion record {path} cannot be read: {error}; {anew}") from error
    if record.format != FORMAT or record.id != _id_of(record) or record.name != name:
        raise ConfigError(f"the promotion record {path} was changed after it was written; {anew}")
    return record


def environment() -> dict[str, str]:
    """What last bits rest on beside the strategy: the engine's source, versions, the CPU."""
    return {"engine": source_hash(strategies=False)[:16], **machine()}


def terms_of(engine: Engine, name: str, model: Manifest | None = None) -> Terms:
    """All that a strategy of a configured book must have in common with its record.

    Parameters
    ----------
    engine : as it would trade.
    name : of the strategy.
    model : that would serve, of a strategy that uses one.
    """
    strategy = engine.strategies[name]
    said = engine.fingerprint()
    (terms,) = listed(said["terms"])
    rules = listed(said["rules"])[list(engine.strategies).index(name)]
    market = {
        f"{symbol} {field}": value
        for symbol, row in zip(engine.symbols, listed(said["instruments"]), strict=True)
        for field, value in row.items()
    }
    return {
        "code": sources_of(strategy),
        "parameters": {"class": type(strategy).__name__} | _texts(strategy.parameters),
        "features": _texts(features_of(strategy)),
        "model": recipe(model) if model else {},
        "risk": _texts(dict(zip(engine.risk.names, engine.risk.limits.tolist(), strict=True))),
        "rules": _texts(rules),
        "terms": _texts(terms) | {"series": said["series"]},
        "market": _texts(market) | {"bars": said["bars"], "symbols": said["symbols"]},
    }


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in values.items() if name not in _APART}


def differences(record: Promotion, terms: Terms, allocation: float) -> Iterator[str]:
    """In what a strategy that would trade is not the one that was promoted, the gravest first.

    Parameters
    ----------
    record : of its name.
    terms : of `terms_of`.
    allocation : that it would have.
    """
    for group, said in _SAID.items():
        was, now = record.terms.get(group, {}), terms[group]
        for key in [*was, *(key for key in now if key not in was)]:
            old, new = was.get(key, "not there"), now.get(key, "not there")
            if old != new:
                yield f"{said.format(key=key)} was {old}, is {new}"
        if group in _ORDERED and list(was) != list(now):
            yield f"its {_ORDERED[group]} were {', '.join(was)}, are {', '.join(now)}"
    if allocation > record.allocation:
        yield f"its allocation was {record.allocation:,.2f}, is {allocation:,.2f}"


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parity of something that was promoted, shown anew on another engine or machine.

    Parameters
    ----------
    promotion : id of the record.
    environment : under which it was shown.
    proof : of it.
    """

    promotion: str
    environment: dict[str, str]
    proof: Proof


def renew(directory: Path, record: Promotion, proof: Proof) -> None:
    """Keep that parity of a promoted strategy was shown on this engine and machine."""
    shown = Parity(promotion=record.id, environment=environment(), proof=proof)
    write_whole(directory / f"{record.name}.parity.json", msgspec.json.encode(shown))


def moved(directory: Path, record: Promotion) -> Iterator[str]:
    """In what engine and machine are not those under which parity was shown last.

    Raises
    ------
    ConfigError
        If what was shown last cannot be read.
    """
    shown, path = record.environment, directory / f"{record.name}.parity.json"
    if path.exists():
        try:
            last = msgspec.json.decode(path.read_bytes(), type=Parity)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} cannot be read: {error}; remove it") from error
        if last.promotion == record.id and last.proof.passes:
            shown = last.environment
    for name, now in environment().items():
        if (was := shown.get(name, "unknown")) != now:
            yield f"{name} was {was}, is {now}"
