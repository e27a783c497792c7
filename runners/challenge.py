"""Let a challenger's model trade the champion's ticks in a paper book of its own, until Ctrl-C.

Two books of one strategy run here: one with serving=holds, one with serving=challenger. The newest
model goes to the challenger's; after so many snapshots of both the better one is promoted. The new
champion goes back to the one before by itself when it breaches the limits of its book.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from sysquant.stop import StopRequest

STOP = StopRequest(4.5) if __name__ == "__main__" else None  # before what is slow to import

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from runners import compose, parts
from runners.couriers import couriers_of
from runners.line import SHADOW, Line, running
from sysquant import challenging, control
from sysquant.alerts import Alert
from sysquant.challenging import Comparison, Record, Rule, Verdict
from sysquant.control import Command
from sysquant.errors import ControlError, SysquantError
from sysquant.home import home
from sysquant.keys import check_number
from sysquant.locking import lock
from sysquant.models.loader import number_of
from sysquant.models.registry import Registry
from sysquant.store import insert

log = logging.getLogger("challenge")

_TURN_S = 0.2
_ANSWER_S = 10.0
_LOOKED_S = 30.0  # that a book may take to read and check a model


class Side(NamedTuple):
    """One of the two books, as it stands."""

    line: Line
    book: str
    run: str
    model: str

    def say(self, command: Command) -> None:
        """Say a command.

        Raises
        ------
        ControlError
            If it is refused.
        """
        answer = self.line.ask(command)
        if not answer.ok:
            raise ControlError(f"{self.book}: {answer.text}")


class Challenge:
    """A champion and its challenger.

    Parameters
    ----------
    lineage : whose models.
    books : of champion and challenger, by name; None for the champion's: found.
    rule : when a challenger is better.
    auto : whether it is promoted then.
    opened : opens the store.
    tell : is given what people should know.
    """

    def __init__(
        self, lineage: str, books: tuple[str | None, str | None], rule: Rule, *, auto: bool,
        opened: Callable[[], Client], tell: Callable[[Alert], None],
    ) -> None:  # fmt: skip
        self._lineage, self._books, self._rule, self._auto = lineage, books, rule, auto
        self._opened, self._tell = opened, tell
        self._registry = Registry(home() / "data" / "models")
        self._said, self._given = "", 0

    def look(self) -> None:
        """Compare once, and do what is due.

        Raises
        ------
        SysquantError
            If a book or the store does not answer.
        """
        champion, challenger = self._sides()
        newest = max(self._registry.numbers(self._lineage), default=0)
        with closing(self._opened()) as client:
            names = champion.model, challenger.model
            verdict = challenging.verdict_of(client, self._lineage, *names)
            todo, why = challenging.todo(*names, newest, verdict)
            match todo:
                case "compare":
                    self._compare(client, champion, challenger)
                case "challenge" if newest != self._given:  # one that it refuses is given once
                    self._given = newest
                    challenger.say(control.Promote(self._lineage, newest))
                    self._say(f"{challenger.book} is given model {newest}")
                case "promote" if self._auto:
                    self._promote(client, champion, challenger)
                case "promote":
                    self._say(
                        f"{why}: python runners/control.py promote {self._lineage} "
                        f"{number_of(challenger.model)} --book {champion.book}"
                    )
                case _:
                    self._say(why)

    def _sides(self) -> tuple[Side, Side]:
        up = running()
        first = self._books[0] or self._champion(list(up))
        names = first, self._books[1] or f"{first}{SHADOW}"
        found = list[Side]()
        for name, serving in zip(names, ("holds", "challenger"), strict=True):
            if name not in up:
                raise ControlError(
                    f"no book {name!r} runs here: python runners/live.py "
                    f"strategy={self._lineage} serving={serving}"
                )
            line = Line.to(up[name], _ANSWER_S)
            status: Any = line.ask(control.Status()).status or {}
            if self._lineage not in status["strategies"]:
                raise ControlError(f"book {name!r} has no strategy {self._lineage!r}")
            model = status["strategies"][self._lineage]["model"]
            found.append(Side(line, name, status["journal"], model.get("model", "")))
        return found[0], found[1]

    def _champion(self, up: list[str]) -> str:
        found = [name[: -len(SHADOW)] for name in up if name.endswith(SHADOW)]
        if len(found) != 1:
            raise ControlError(
                f"name champion=..., of the books that run here: {', '.join(sorted(up)) or 'none'}"
            )
        return found[0]

    def _records(
        self, client: Client, champion: Side, challenger: Side
    ) -> tuple[Record, Record] | None:
        # None as long as rows of the models that serve are on their way to the store.
        second = challenging.record(client, challenger.run, self._lineage)
        since = int(second.ts[0]) if len(second.ts) else 0
        first = challenging.record(client, champion.run, self._lineage, since)
        is_there = (first.model, second.model) == (champion.model, challenger.model)
        return (first, second) if is_there else None

    def _compare(self, client: Client, champion: Side, challenger: Side) -> None:
        sides = self._records(client, champion, challenger)
        if sides is None:
            return
        found = challenging.compare(*sides)
        verdict, why = challenging.judge(found, self._rule)
        self._record(client, sides, found, verdict, why)
        show(self._lineage, sides, found, f"{verdict}: {why}")
        if verdict != "early":
            self._alert(verdict, f"{challenger.model} against {champion.model}: {why}")

    def _promote(self, client: Client, champion: Side, challenger: Side) -> None:
        # The row comes last: what died before it finds both with one model, and nothing to do.
        sides = self._records(client, champion, challenger)
        if sides is None:
            return
        number, _, content = challenger.model.partition("-")
        answer = champion.line.ask(control.Promote(self._lineage, int(number), content))
        if answer.ok:
            said = self._looked(champion)
            why = said or f"{champion.book} did not tell what came of it"
        else:  # as of one that has served already: told once, and not at every look
            said, why = "", f"{champion.book}: {answer.text}"
        verdict = "promoted" if said.startswith(challenger.model) else "refused"
        self._record(client, sides, challenging.compare(*sides), verdict, why)
        self._alert(verdict, why)

    def _looked(self, champion: Side) -> str:
        # What the champion's look for the model came to; empty when that is not told.
        until = time.monotonic() + _LOOKED_S
        said = ""
        while not said and time.monotonic() < until:
            time.sleep(_TURN_S)
            status: Any = champion.line.ask(control.Status()).status
            said = status["strategies"][self._lineage]["model"]["said"]
        return said

    def _record(
        self, client: Client, sides: tuple[Record, Record], found: Comparison, verdict: Verdict,
        why: str,
    ) -> None:  # fmt: skip
        row = challenging.row_of(self._lineage, *sides, found, verdict, why)
        insert(client, "challenges", row, f"challenge {secrets.token_hex(8)}")

    def _alert(self, verdict: str, detail: str) -> None:
        log.warning("%s lineage=%s: %s", verdict, self._lineage, detail)
        self._tell(Alert(self._lineage, verdict, detail, time.time_ns()))

    def _say(self, text: str) -> None:
        # Once, however often it is so.
        if text != self._said:
            log.info("%s", text)
        self._said = text


def show(lineage: str, sides: tuple[Record, Record], found: Comparison, said: str) -> None:
    """Print how two models compare."""
    table = Table(title=f"{lineage}, {found.snapshots:,} snapshots", caption=said)
    for name in ("", "model", "return", "drawdown", "ahead per snapshot"):
        table.add_column(name, justify="left" if name in ("", "model") else "right")
    ahead = ("", f"{found.edge:+.2e} ({found.low:+.2e} to {found.high:+.2e})")
    for place, (name, side) in enumerate(zip(("champion", "challenger"), sides, strict=True)):
        table.add_row(
            name, side.model, f"{found.returns[place]:+.3%}", f"{found.drawdowns[place]:.3%}",
            ahead[place],
        )  # fmt: skip
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


@compose.main("challenge")
def main(cfg: DictConfig) -> None:
    """Compose the challenge, and look again and again."""
    compose.start_log()
    stop = STOP or StopRequest()
    look_s = compose.value(cfg, "look_s", float)
    check_number("look_s", look_s, above=0)
    once = compose.value(cfg, "once", bool)
    lineage = compose.value(cfg, "lineage", str)
    Registry(home() / "data" / "models").numbers(lineage)  # a name, before it is a directory's
    _, opened = parts.store_of(cfg, stop)
    opened().close()
    where = home() / "data" / "challenges" / lineage
    try:
        # Two would have the verdict of the one that needs fewer snapshots.
        with couriers_of(cfg) as tell, lock(where, "one compares the models of a lineage"):
            challenge = Challenge(
                lineage,
                (
                    compose.value(cfg, "champion", str | None),
                    compose.value(cfg, "challenger", str | None),
                ),
                compose.build(cfg.rule), auto=compose.value(cfg, "auto", bool), opened=opened,
                tell=tell,
            )  # fmt: skip
            _go_on(challenge, stop, look_s, once=once)
    finally:
        stop.end_children()


def _go_on(challenge: Challenge, stop: StopRequest, look_s: float, *, once: bool) -> None:
    while not stop.reason:
        try:
            challenge.look()
        except SysquantError as error:  # a book is being started again, or the store is away
            if once:
                raise
            log.warning("%s", error)
        until = time.monotonic() + look_s
        while not once and not stop.reason and time.monotonic() < until:
            time.sleep(_TURN_S)
        if once:
            return


if __name__ == "__main__":
    main()
