"""Words of check.py about a recorded session: its live twin, and why one of its orders was sent.

python runners/check.py twin strategy=momentum                        # the words of live.py
python runners/check.py twin strategy=momentum feed=kafka every=1h    # beside it, until it is ended
python runners/check.py why order=momentum:17 strategy=momentum

A session has its twin made every `runtime.twin_s` by itself. Exit codes of `twin`: 0 all is
explained, 1 something is not, or it failed, 2 not understood, 3 there is nothing to compare with.
"""

import json
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runners import compose
from runners.recordings import Recording, arrived, recording_of, stored
from sysquant.alerts import Alert, Courier, Webhook
from sysquant.audit import NOTHING
from sysquant.errors import ConfigError, NotRecordedError, StoreAwayError
from sysquant.inputs import Inputs
from sysquant.inspection import iso
from sysquant.keys import check_kind
from sysquant.outcome import OrderKey, recorded_outcome
from sysquant.provenance import explain
from sysquant.rows import event
from sysquant.session import newest, recorded
from sysquant.store import insert
from sysquant.times import interval_ns
from sysquant.twin import Book, Tolerance, Twin, compare

_SAID: dict[str, str] = {}  # keys of these words alone, which no configuration has
_ALERT_S = 10.0  # that an alert may be on its way in the end


def own(*keys: str) -> dict[str, str]:
    """Take `key=value` of these keys off the command line: the rest is live.py's."""
    found = dict[str, str]()
    for word in list(sys.argv[1:]):
        key, is_given, said = word.partition("=")
        if is_given and key in keys:
            found[key] = said
            sys.argv.remove(word)
    return found


def flag(said: str) -> bool:
    """Whether `json=...` is true.

    Raises
    ------
    ConfigError
        If it is neither true nor false.
    """
    if said not in ("true", "false"):
        raise ConfigError(f"json must be true or false, was {said!r}")
    return said == "true"


def twin() -> None:
    """Live minus backtest P&L of a recorded session, split into causes; rows go to `twin`."""
    _SAID.clear()
    _SAID.update(own("every", "json"))
    _twin()


@compose.main("config")
def _twin(cfg: DictConfig) -> None:
    every = _SAID.get("every")
    period_s = None if every is None else interval_ns(every, "every") / 1e9
    as_json = flag(_SAID.get("json", "false"))
    check_kind("promotion.twin", cfg.promotion.twin, DictConfig, "a group of keys")
    limits: Tolerance = compose.build(cfg.promotion.twin)
    with _alerting() as tell:
        while period_s is not None:
            began = time.monotonic()
            try:
                _once(cfg, limits, as_json=as_json, tell=tell)
            except (StoreAwayError, NotRecordedError) as error:
                print(f"not compared this time: {error}", file=sys.stderr)
            time.sleep(max(0.0, period_s - (time.monotonic() - began)))
        try:
            failures = _once(cfg, limits, as_json=as_json, tell=tell)
        except NotRecordedError as error:
            print(f"error: {compose.sentence(error)}", file=sys.stderr)
            raise SystemExit(NOTHING) from None
    if failures:
        raise SystemExit(1)


def _once(
    cfg: DictConfig, limits: Tolerance, *, as_json: bool, tell: Callable[[Alert], None]
) -> list[str]:  # fmt: skip
    # One twin: compared, kept, told.
    with recording_of(cfg) as recording:
        found = twin_of(cfg, recording)
        failures = found.failures(limits)
        insert(recording.client, "twin", found.table(), f"twin-{secrets.token_hex(8)}")
        for failure in failures:
            row = event(recording.run, found.ts, "alert", f"twin: {failure}")
            insert(recording.client, "events", row, f"twin-{secrets.token_hex(8)}")
            tell(Alert(recording.book, "unexplained", failure, time.time_ns()))
    _show(found, failures, as_json=as_json)
    return failures


def twin_of(cfg: DictConfig, recording: Recording) -> Twin:
    """The twin of a session at its last snapshot whose rows are in the store."""
    last = newest(recording.directory)
    arrived(recording, last)
    inputs = Inputs.of(recorded(recording.directory, recording.files, 0, last))
    told = recorded_outcome(recording.client, recording.run, last)
    history = None
    if inputs.history is not None:
        end = recording.make().warmup_end(inputs.events[:1])
        history = recording.history(end, inputs.first_offsets)
    events = stored(recording, cfg, inputs, told.ts)
    book = Book(recording.make, inputs, told, events, history)
    if recording.differs:
        said = ", ".join(recording.differs)
        book.notes.append(f"configured otherwise than the session was: {said}")
    return compare(book, recording.run)


@contextmanager
def _alerting() -> Iterator[Callable[[Alert], None]]:
    # By the webhook that the environment names, as the watchdog's.
    channel = Webhook(url=os.environ.get("SYSQUANT_WEBHOOK_URL") or None)
    if not channel.is_on:
        yield lambda _: None
        return
    courier = Courier(channel)
    try:
        yield courier.send
    finally:
        courier.close(_ALERT_S)


def _show(found: Twin, failures: list[str], *, as_json: bool) -> None:
    # JSON; or a table at a terminal, plain lines when piped.
    if as_json:
        print(json.dumps(_plain(found, failures), indent=1))
        return
    for name, causes in found.causes.items():
        gap = found.live[name] - found.backtest[name]
        said = (
            f"{name} at {iso(found.ts)}: live {found.live[name]:+,.2f}, backtest "
            f"{found.backtest[name]:+,.2f}, live minus backtest {gap:+,.2f}"
        )
        rows = [(cause, f"{one.pnl:+,.2f}", one.differing, one.first) for cause, one in
                causes.items()]  # fmt: skip
        rows.append(("unexplained", f"{found.unexplained[name]:+,.8f}", 0, ""))
        if sys.stdout.isatty():
            _table(said, rows)
            continue
        print(said)
        for cause, pnl, count, first in rows:
            print(f"  {cause:13} {pnl:>16}{f'  {count:,}: {first}' if count else ''}")
    if found.wall_bars:
        print(f"{found.wall_bars:,} bars were decided on at a mark of the wall's clock")
    for note in found.notes:
        print(f"note: {note}")
    for failure in failures:
        print(f"failed: {failure}")


def _table(title: str, rows: list[tuple[str, str, int, str]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("cause")
    for name in ("P&L", "differ"):
        table.add_column(name, justify="right")
    table.add_column("first")
    for cause, pnl, count, first in rows:
        table.add_row(
            cause, pnl, f"{count:,}" if count else "", escape(first),
            style="" if count else "dim",
        )  # fmt: skip
    Console().print(table)


def _plain(found: Twin, failures: list[str]) -> dict[str, Any]:
    strategies = {
        name: {
            "live": found.live[name], "backtest": found.backtest[name],
            "causes": {cause: one._asdict() for cause, one in causes.items()},
            "unexplained": found.unexplained[name],
        }
        for name, causes in found.causes.items()
    }  # fmt: skip
    return {
        "run": found.run, "ts": iso(found.ts), "strategies": strategies,
        "wall_bars": found.wall_bars, "notes": list(found.notes), "failures": failures,
    }  # fmt: skip


# -- why


def why() -> None:
    """Why an order of a session was sent or refused, and what it did: order=NAME:NUMBER."""
    _SAID.clear()
    _SAID.update(own("order", "json"))
    _why()


@compose.main("config")
def _why(cfg: DictConfig) -> None:
    key, as_json = _order_of(_SAID.get("order", "")), flag(_SAID.get("json", "false"))
    with recording_of(cfg) as recording:
        arrived(recording, newest(recording.directory))
        found = explain(recording.session(), recording.client, recording.run, key)
    if as_json:
        print(json.dumps(_finite(found._asdict()), indent=1))
        return
    for name, section in found._asdict().items():
        if section:
            _tell(name, section)


def _finite(value: Any) -> Any:
    # As JSON has it: no number that is none, or infinite.
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _order_of(said: str) -> OrderKey:
    strategy, _, number = said.rpartition(":")
    if not strategy or not number.isdigit():
        raise ConfigError(f"order must be like order=momentum:17, was {said!r}")
    return OrderKey(strategy, int(number))


def _tell(name: str, section: Any) -> None:
    # One section: a table at a terminal, plain lines when piped.
    rows: list[dict[str, Any]] = (
        section if isinstance(section, list)
        else [section if isinstance(section, dict) else {name: section}]
    )  # fmt: skip
    listed = isinstance(section, list)
    if sys.stdout.isatty():
        table = Table(title=name, title_justify="left", show_header=listed)
        for column in rows[0] if listed else ("", " "):
            table.add_column(column)
        for cells in (
            [[_value(v) for v in row.values()] for row in rows] if listed
            else [[key, _value(value)] for key, value in rows[0].items()]
        ):  # fmt: skip
            table.add_row(*map(escape, cells))
        Console().print(table)
        return
    print(name)
    for row in rows:
        told = (f"{key} {_value(value)}" for key, value in row.items())
        for line in [", ".join(told)] if listed else told:
            print(f"  {line}")


def _value(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, float) else str(value)
