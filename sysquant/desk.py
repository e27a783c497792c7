"""Where an operator's messages meet a running book: heard, carried out, recorded, answered.

Input: letters of the mailboxes. Output: operations as inputs of the journal, in the sequence where
they took effect, with their answers in the same commit; events of what was refused. What the runner
itself must do to the book (give cash back, stop entries) goes the same way.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from sysquant import control
from sysquant.control import Answer, Command, Keys, request_id, write_answer
from sysquant.effects import Effects
from sysquant.engine import Engine
from sysquant.errors import ConfigError, ControlError
from sysquant.gate import Gate
from sysquant.journal import Batch, Journal
from sysquant.mailbox import Letter, Mailbox
from sysquant.models.loader import Look
from sysquant.operation import Hold, Move, Operation, Rearm, Release, State, Switch, Weigh
from sysquant.recovery import Carried, carry_out
from sysquant.rows import event
from sysquant.swapping import Swapper

log = logging.getLogger(__name__)

RUNNER = "runner"
_STATE_OF: dict[type, State] = {
    control.Start: "active", control.Stop: "off", control.Drain: "reducing",
    control.Pause: "paused",
}  # fmt: skip
# States that it is said of: `stop` of all, and twice is no fault.
_FROM = {
    control.Start: ("off", "active"), control.Stop: ("off", "active", "reducing", "paused"),
    control.Drain: ("active", "paused", "reducing"),
    control.Pause: ("active", "paused", "reducing"),
}  # fmt: skip
_ENTRIES_STOP, _ENTRIES_BEGIN = 0.8, 0.5  # of the rows that the outbox may hold
_TOLD = 100  # refusals at a time that get a row of their own


class Recorder(Protocol):
    """Writes one input of the journal, with what came of it; returns its sequence number."""

    def __call__(
        self, kind: str, payload: bytes, effects: Effects, *, tables: Mapping[str, pa.Table],
        notes: Mapping[str, str], answers: Mapping[str, bytes], waits: bool = True,
    ) -> int: ...  # fmt: skip


class Desk:
    """The operator's desk of one book.

    Parameters
    ----------
    book : its name.
    engine, journal : what commands change, and where they are kept.
    keys : of those who may command.
    mailboxes : where messages arrive.
    send : is given the batches that a commit sealed, as `Outbox.send`.
    models : which the strategies ask.
    age_s : how old one may be.
    """

    def __init__(
        self,
        *,
        book: str,
        engine: Engine,
        journal: Journal,
        keys: Keys,
        mailboxes: Sequence[Mailbox],
        send: Callable[[list[Batch]], None],
        models: Swapper,
        age_s: float = 30.0,
    ) -> None:
        self._book, self._engine, self._journal, self._keys = book, engine, journal, keys
        self._mailboxes = tuple(mailboxes)
        used = msgspec.json.decode(journal.meta("nonces") or "{}", type=dict[str, int])
        self._gate = Gate(keys, book=book, journal=journal.id, age_s=age_s, nonces=used)
        self._send, self._models = send, models
        for mailbox in self._mailboxes:
            mailbox.seek(journal.meta(f"mailbox/{mailbox.name}"))

    # -- what operators say

    def attend(self, record: Recorder) -> None:
        """Hear every letter that has arrived; each takes effect before the next is heard."""
        for mailbox in self._mailboxes:
            letters = mailbox.take()
            if letters:
                self._hear(letters, mailbox, record)
        self.swap(record)

    def _hear(self, letters: Sequence[Letter], mailbox: Mailbox, record: Recorder) -> None:
        answers, refused = dict[str, bytes](), list[str]()
        for letter in letters:
            request = request_id(letter.raw)
            answer = self._answered(letter, mailbox, record, answers, refused)
            # What was accepted was answered in its commit; what comes once more is told the same.
            given = answers.get(request) or self._journal.answer(request)
            answers[request] = given or write_answer(answer, self._keys, letter.raw)
        rows = self._refusals(refused)
        tables = {"events": pa.concat_tables(rows)} if rows else {}
        notes = self._notes(mailbox, letters[-1])
        self._send(self._journal.commit(None, tables, notes=notes, answers=answers))
        mailbox.answer(answers)

    def _answered(
        self, letter: Letter, mailbox: Mailbox, record: Recorder, answers: Mapping[str, bytes],
        refused: list[str],
    ) -> Answer:  # fmt: skip
        # A command is journaled with what was answered before it, and with those that were refused.
        request, now = request_id(letter.raw), time.time_ns()
        try:
            message = self._gate.admit(letter.raw, letter.arrived or now, now)
            if isinstance(message.command, control.Status):
                return Answer(request, True, "", status=self.status())
            operations, text = self._plan(message.command)
            effects = carry_out(self._engine, operations)
        except (ControlError, ConfigError) as error:
            log.warning("refused message reason=%s", error)
            refused.append(str(error))
            return Answer(request, False, str(error))
        seq = self._journal.last_seq + 1
        answer = Answer(request, True, text, seq)
        said = control.command_bytes(message.command).decode()
        carried = Carried(message.issuer, operations, message.nonce, said)
        log.warning("command %s issuer=%s seq=%d: %s", said, message.issuer, seq, text)
        kind = message.command.word()
        detail = f"{message.issuer}: {text}"
        row = self._event(kind, detail, seq, getattr(message.command, "strategy", None) or "")
        record(
            "command", msgspec.json.encode(carried), effects,
            tables={"events": pa.concat_tables([*self._refusals(refused), row])},
            notes=self._notes(mailbox, letter),
            answers={**answers, request: write_answer(answer, self._keys, letter.raw)},
        )  # fmt: skip
        refused.clear()
        return answer

    def _notes(self, mailbox: Mailbox, letter: Letter) -> dict[str, str]:
        used = msgspec.json.encode(self._gate.nonces(time.time_ns())).decode()
        return {"nonces": used, f"mailbox/{mailbox.name}": letter.mark}

    def _event(self, kind: str, detail: str, seq: int, strategy: str = "") -> pa.Table:
        at = self._engine.engine_ts or time.time_ns()
        return event(self._journal.id, at, kind, detail, seq=seq, strategy=strategy)

    def _refusals(self, refused: Sequence[str]) -> list[pa.Table]:
        told = list(refused[:_TOLD])
        if len(refused) > _TOLD:
            told.append(f"and {len(refused) - _TOLD:,} more messages")
        return [self._event("refused_command", text, 0) for text in told]

    # -- what it comes to

    def _plan(self, command: Command) -> tuple[tuple[Operation, ...], str]:
        # Operations, and what to answer.
        match command:
            case control.Start() | control.Stop() | control.Drain() | control.Pause():
                return self._switched(command, _STATE_OF[type(command)])
            case control.Resume():
                return self._resumed(command)
            case control.Weight():
                whom = [command.strategy] if command.strategy else self._engine.strategies
                text = f"{command.strategy or 'every strategy'} has weight {command.weight:g}"
                return tuple(Weigh(name, command.weight) for name in whom), text
            case control.MoveCash():
                move = Move(command.source, command.target, command.amount)
                names = [name or "the pool" for name in (command.source, command.target)]
                return (move,), f"{command.amount:,.2f} moved from {names[0]} to {names[1]}"
            case control.Halt():
                return (Hold("halt", True),), "halted: no order is sent until it is re-armed"
            case control.Rearm():
                if command.strategy is not None:
                    return (Rearm(command.strategy),), f"{command.strategy} is re-armed"
                return self._rearmed()
            case control.Refresh() | control.Rollback() | control.Promote():
                number, content = (getattr(command, name, None) for name in ("number", "id"))
                is_newer = isinstance(command, control.Promote)
                return (), self._models.ask(
                    command.strategy, number, content=content or "", is_newer=is_newer
                )
            case control.Status() | control.Retrain():
                raise ControlError(f"{command.word()} is not for a book")

    def _switched(self, command: Any, state: State) -> tuple[tuple[Operation, ...], str]:
        # What is off is only started, which takes its cash back; what is paused, only resumed.
        cells = self._named(command)
        found = [place for place, was in cells.items() if was in _FROM[type(command)]]
        if cells and not found:
            way = "what is paused or drained is resumed" if state == "active" else "start it first"
            raise ControlError(f"{'nothing of it is' if state == 'active' else 'it is'} off: {way}")
        if len(found) == len(cells):  # a name that is not known is the engine's to refuse
            return (Switch(state, command.strategy, command.symbol),), self._told(command, state)
        return tuple(Switch(state, *place) for place in found), self._told(command, state)

    def _named(self, command: Any) -> dict[tuple[str, str], str]:
        # (strategy, symbol) -> state, of what a command means.
        wanted, states = (command.strategy, command.symbol), self._engine.operator.states()
        return {
            (strategy, symbol): state
            for strategy, row in states.items()
            for symbol, state in row.items()
            if wanted[0] in (None, strategy) and wanted[1] in (None, symbol)
        }

    def _resumed(self, command: control.Resume) -> tuple[tuple[Operation, ...], str]:
        cells = self._named(command).items()
        operations: list[Operation] = [
            Switch("active", *place) for place, was in cells if was in ("paused", "reducing")
        ]
        if (command.strategy, command.symbol) == (None, None):
            held = self._engine.operator.holds
            operations += [Hold(why, False) for why in ("operator", "gap") if why in held]
        if not operations:
            raise ControlError("nothing of it is paused or drained; what is off is started")
        return tuple(operations), self._told(command, "active")

    def _rearmed(self) -> tuple[tuple[Operation, ...], str]:
        holds = self._engine.operator.holds
        if "halt" not in holds:
            raise ControlError("the book is not halted: there is nothing to re-arm")
        others = ", ".join(hold for hold in holds if hold != "halt")
        does = f"entries stay stopped ({others})" if others else "the book trades again"
        return (Hold("halt", False),), f"re-armed: {does}"

    def _told(self, command: Any, state: str) -> str:
        whom = command.strategy or "every strategy"
        where = f" in {command.symbol}" if command.symbol else ""
        does = {
            "active": "trades again", "off": "leaves what it holds as it trades",
            "reducing": "only reduces", "paused": "keeps what it holds",
        }[state]  # fmt: skip
        holds = ", ".join(self._engine.operator.holds)
        stopped = f"; entries stay stopped ({holds})" if holds and state == "active" else ""
        return f"{whom}{where} {does}{stopped}"

    def status(self) -> dict[str, object]:
        """How the book stands."""
        engine = self._engine
        states, positions = engine.operator.states(), engine.positions()
        strategies = {
            name: {
                "state": _state_of(states[name], failed=account["failed"] > 0),
                "symbols": states[name],
                "equity": account["equity"],
                "pnl": account["equity"] - account["allocation"],
                "drawdown": account["drawdown"],
                "weight": account["scale"],
                "orders": int(account["orders"]),
                "positions": positions[name],
                "model": self._models.status(name),
            }
            for name, account in engine.accounts().items()
        }
        return {
            "book": self._book, "journal": self._journal.id, "seq": self._journal.last_seq,
            "engine_ts": engine.engine_ts, "holds": list(engine.operator.holds),
            "pool": engine.operator.pool, "strategies": strategies,
        }  # fmt: skip

    # -- what the runner itself does to the book

    def swap(self, record: Recorder, at: int = 0) -> None:
        """Let strategies ask the models that were found for them; `at` as of `Swapper.due`."""
        for one in self._models.due(at):
            if isinstance(one, Look):
                log.warning("model refused strategy=%s: %s", one.strategy, one.said)
                row = self._event("model_refused", one.said, 0, one.strategy)
                self._send(self._journal.commit(None, {"events": row}))
            else:
                began, worked = time.perf_counter(), time.thread_time()
                self.operate(
                    record, one.text, one.operation, kind=one.kind, tables=one.tables,
                    notes=one.notes, waits=False,
                )  # fmt: skip
                took, cpu = time.perf_counter() - began, time.thread_time() - worked
                log.info("swapped took_ms=%.2f cpu_ms=%.2f", 1e3 * took, 1e3 * cpu)

    def drift(self) -> dict[str, pa.Table]:
        """Rows of how far the models' world has moved."""
        return self._models.drift()

    def operate(
        self, record: Recorder, text: str, *operations: Operation, kind: str = RUNNER,
        tables: Mapping[str, pa.Table] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}), waits: bool = True,
    ) -> None:  # fmt: skip
        """Carry operations of the runner out, as one input; `waits` as of `Journal.commit`."""
        seq = self._journal.last_seq + 1
        effects = carry_out(self._engine, operations)
        log.warning("%s seq=%d", text, seq)
        record(
            "command", msgspec.json.encode(Carried(RUNNER, operations)), effects,
            tables={"events": self._event(kind, text, seq), **tables}, notes=notes, answers={},
            waits=waits,
        )  # fmt: skip

    def settle(self, record: Recorder) -> None:
        """Give the cash of strategies that have become flat back to the pool."""
        for name in self._engine.operator.flat():
            if self._engine.accounts()[name]["cash"] > 0:
                self.operate(record, f"{name} is flat; its cash is in the pool", Release(name))

    def watch_outbox(self, record: Recorder, most: int) -> None:
        """Stop entries before it is full, and begin again when the store has taken half of it."""
        waiting = self._journal.outbox_rows
        held = "outbox" in self._engine.operator.holds
        if not held and waiting >= _ENTRIES_STOP * most:
            text = f"entries stopped: {waiting:,} rows wait for the store, at most {most:,} may"
            self.operate(record, text, Hold("outbox", True))
        elif held and waiting <= _ENTRIES_BEGIN * most:
            text = f"entries begin again: {waiting:,} rows wait for the store"
            self.operate(record, text, Hold("outbox", False))

    def leave(self, record: Recorder, flatten: Sequence[str]) -> None:
        """Stop entries and cancel orders, for the process ends; switch off what is to be flat."""
        states = self._engine.operator.states()
        were = {name: states[name] for name in flatten if {"off"} != set(states[name].values())}
        self._journal.remember(flattening=msgspec.json.encode(were).decode())
        wishes = Hold("stop", True), *(Switch("off", name) for name in were)
        self.operate(record, "leaving the market", *wishes)

    def unflat(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """What those of some strategies still hold that are not flat."""
        held, flat = self._engine.positions(), self._engine.operator.flat()
        return {name: held[name] for name in names if name not in flat}

    def enter(self, record: Recorder, say: Callable[[str], None]) -> None:
        """Go on with what the last end stopped; what it could not flatten is left to go flat."""
        self._models.begin()
        operator, wishes = self._engine.operator, list[Operation]()
        if "stop" in operator.holds:
            wishes.append(Hold("stop", False))
        left = self._journal.meta("flattening") or "{}"
        for name, were in msgspec.json.decode(left, type=dict[str, dict[str, State]]).items():
            if {"off"} != set(operator.states()[name].values()):
                continue  # it died before it was switched off, or after it was back
            if name in operator.flat():
                wishes += [Switch(state, name, symbol) for symbol, state in were.items()]
            else:
                say(f"{name} goes on flattening, and stays off then: control.py start {name}")
        if wishes:
            self.operate(record, "back in the market", *wishes)
        self._journal.remember(flattening="{}")

    def close(self) -> None:
        """Let go of the mailboxes, and of the loader of models."""
        for mailbox in self._mailboxes:
            mailbox.close()
        self._models.close()


def _state_of(symbols: Mapping[str, str], *, failed: bool) -> str:
    # Of a strategy, in a word.
    states = sorted(set(symbols.values()))
    if failed:
        return "failed"
    return states[0] if len(states) == 1 else ", ".join(states)
