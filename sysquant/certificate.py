"""A promotion record for people: one page, and the row of the store.

Input: a record, and why it was refused where it was. Output: HTML that needs no network and no
script; an Arrow row of `promotions`. Nothing is judged here.
"""

import html
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sysquant import page
from sysquant.promotions import Promotion, written
from sysquant.proof import Proof

_NS = pa.timestamp("ns", "UTC")
_FIGURES = pa.map_(pa.string(), pa.float64())


def card(record: Promotion, failures: Sequence[str]) -> str:
    """The page of a record; with failures, of one that was refused."""
    verdict = "refused" if failures else "promoted"
    span = f"{verdict} {record.day}, judged on {_iso(record.start)} to {_iso(record.end)} UTC"
    lines = [
        ("record", record.id or "none"), ("strategy", record.strategy),
        ("model", record.model or "none"), ("allocation, at most", f"{record.allocation:,.2f}"),
        ("warm-up", f"{record.warmup:,} bars"),
        ("goes live by", record.command),
    ]  # fmt: skip
    parts = [page.table([{"": name, "value": value} for name, value in lines])]
    if failures:
        said = "".join(f"<li><b>refused</b>: {html.escape(one)}</li>" for one in failures)
        parts.append(f'<ul class="findings">{said}</ul>')
    parts += [markup for proof in record.proofs for markup in _proof(proof)]
    parts.append("<h2>What must be the same when it trades</h2>")
    parts += [
        page.table([{group: name, "value": value} for name, value in terms.items()])
        for group, terms in record.terms.items()
        if terms
    ]
    parts.append("<h2>Engine and machine on which parity was shown</h2>")
    parts.append(page.table([{"": n, "value": v} for n, v in record.environment.items()]))
    return page.document(f"{record.name}: {verdict}", span, parts)


def _proof(proof: Proof) -> list[str]:
    verdict = "passes" if proof.passes else "fails"
    parts = [f"<h2>{html.escape(proof.name)} {verdict}</h2>"]
    if proof.notes:
        parts.append(page.printed(proof.notes))
    if proof.figures:
        parts.append(page.table([{"figure": n, "value": v} for n, v in proof.figures.items()]))
    return parts


def row(record: Promotion, failures: Sequence[str]) -> pa.Table:
    """The row of `promotions`."""
    figures = [
        (f"{one.name}.{name}", float(value))
        for one in record.proofs
        for name, value in one.figures.items()
        if isinstance(value, int | float)
    ]
    words = {
        "id": record.id, "name": record.name, "verdict": "refused" if failures else "promoted",
        "strategy": record.strategy, "model": record.model,
        "build": json.dumps(record.environment), "record": written(record).decode(),
    }  # fmt: skip
    times = {"start": record.start, "end": record.end, "made": record.made}
    return pa.table(
        {name: pa.array([value], pa.string()) for name, value in words.items()}
        | {name: pa.array(np.array([value], "M8[ns]"), _NS) for name, value in times.items()}
        | {"failures": pa.array([list(failures)], pa.list_(pa.string()))}
        | {"figures": pa.array([figures], _FIGURES), "allocation": pa.array([record.allocation])}
    )


def _iso(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("M8[s]"))
