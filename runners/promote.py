"""Promote a strategy: run the gate, write the record, say the command that takes it live.

python runners/promote.py strategy=my_momentum
python runners/promote.py strategy=my_momentum book.fraction=0.1 feed.start=-24h
python runners/promote.py strategy=my_momentum risk=canary promotion.parity.ticks=20000

A strategy that does not pass is not promoted, with the reasons. Each part of the gate is a word of
runners/check.py as well. Exit codes: 0 promoted, 1 refused, 2 not understood.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from contextlib import closing

from omegaconf import DictConfig

from runners import compose, parts, promoted
from runners.causality import causality_proof
from runners.evidence import statistics_proof
from runners.parity import parity_proof
from runners.past import Past, closed, compile_first, events_of, past_of
from runners.risk import risk_proof
from runners.warmup import warmup_proof
from sysquant import certificate, promotions
from sysquant.errors import ConfigError
from sysquant.home import write_whole
from sysquant.promotions import Promotion
from sysquant.proof import Proof
from sysquant.store import insert

GATE = (causality_proof, warmup_proof, statistics_proof, risk_proof, parity_proof)


@compose.main("config")
def main(cfg: DictConfig) -> None:
    """Run every part of the gate; write the record where all pass."""
    if compose.choice("book") != "single":
        raise ConfigError("one strategy is promoted at a time: book=single strategy=...")
    compose.start_log(quiet=True)
    compile_first(cfg)
    past = past_of(cfg, whole=True)
    with closed(past):
        record = _judged(cfg, past)
        failures = [f"{one.name}: {said}" for one in record.proofs for said in one.failures]
        if not failures:
            record = promotions.write(promoted.directory(), record)
        page = _kept(past, record, failures)
    print(f"card {page}")
    if failures:
        print(f"{record.name} is not promoted, {len(failures)} reasons:")
        for said in failures:
            print(f"failed: {said}")
        raise SystemExit(1)
    print(f"{record.name} is promoted, record {record.id}; it goes live by")
    print(f"  {record.command}")


def _judged(cfg: DictConfig, past: Past) -> Promotion:
    # Every part, the failed ones as well: all reasons at once.
    found = list[Proof]()
    for check in GATE:
        proof = check(cfg, past)
        print(proof, flush=True)
        found.append(proof)
    events = events_of(past)
    with closing(parts.models_of(cfg)) as models:
        engine = parts.engine_of(cfg, past.universe, past.funding, contained=True, models=models)
        warmup = next((one.figures["bars"] for one in found if one.name == "warmup"), 0)
        return promoted.record_of(
            engine, models, span=(int(events.ts.min()), int(events.ts.max())),
            warmup=int(warmup or 0), proofs=found,
        )  # fmt: skip


def _kept(past: Past, record: Promotion, failures: list[str]) -> Path:
    # The row of the store, and the card.
    token = f"promotion {record.name} {record.made}"
    insert(past.client, "promotions", certificate.row(record, failures), token)
    path = promoted.directory() / f"{record.name}{'.refused' * bool(failures)}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, certificate.card(record, failures).encode())
    return path


if __name__ == "__main__":
    main()
