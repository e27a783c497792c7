"""Tell a running book what to do, and see how it stands.

python runners/control.py status
python runners/control.py stop momentum          # cancel, flatten, cash to the pool
python runners/control.py stop all --symbol SIM:OAK
python runners/control.py weight momentum 0.5
python runners/control.py move-cash momentum pool 1000
python runners/control.py halt                   # no order any more, until: control.py rearm
python runners/control.py rollback ml_direction 3   # ask model 3 again
python runners/control.py promote ml_direction 7    # ask model 7, where models are held
python runners/control.py status --book schedule

Exit codes: 0 done, 1 refused, 2 not understood, 3 no answer, 4 stopped and not flat yet, or still
looking for a model.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import getpass
import math
import re
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from runners.line import Line, NoAnswerError, books, running
from sysquant import control, journal_reader
from sysquant.control import Answer, Command
from sysquant.errors import ControlError, SysquantError
from sysquant.home import home
from sysquant.journal import Journal
from sysquant.locking import holder

ALL, POOL, ADOPT, SCHEDULE = "all", "pool", "adopt", "schedule"
_MODELS = ("refresh", "rollback", "promote")
REFUSED, NO_ANSWER, NOT_DONE = 1, 3, 4
_DEFAULTS = {
    "book": None, "json": False, "timeout": 10.0, "wait": 10.0, "bootstrap": None, "kafka": None,
    "journal": None,
}  # fmt: skip
# Words of commands that take a strategy, or all of them, and perhaps a symbol.
_SCOPED = {
    "start": control.Start, "stop": control.Stop, "drain": control.Drain, "pause": control.Pause,
    "resume": control.Resume,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Send one command, wait for its answer, and print it."""
    said = _parser().parse_args(arguments, argparse.Namespace(**_DEFAULTS))
    try:
        answer, is_done = (_let_adopt(said.book), True) if said.word == ADOPT else _asked(said)
    except SysquantError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_ANSWER if isinstance(error, NoAnswerError) else REFUSED
    if said.json:
        print(msgspec.json.encode(answer).decode())
    elif answer.status is not None:
        _print(_jobs(answer.status) if "jobs" in answer.status else _standing(answer.status))
    else:
        print(answer.text if answer.ok else f"refused: {answer.text}")
    return REFUSED if not answer.ok else 0 if is_done else NOT_DONE


def _asked(said: argparse.Namespace) -> tuple[Answer, bool]:
    # The answer, and whether there is nothing that is still waited for.
    line = _line(said)
    answer = line.ask(_command(said))
    wait = {"stop": _left, **dict.fromkeys(_MODELS, _looked)}.get(said.word)
    if not answer.ok or wait is None or said.wait <= 0:
        return answer, True
    until = time.monotonic() + said.wait
    while True:
        found = wait(line.ask(control.Status()).status or {}, said)
        if found.is_done or time.monotonic() >= until:
            is_said = found.told == f": {answer.text}"  # of a book that holds what it has
            text = answer.text if is_said else f"{answer.text}{found.told}"
            return msgspec.structs.replace(answer, ok=found.is_right, text=text), found.is_done
        time.sleep(0.2)


class _Waited(NamedTuple):
    # What a status says of what is waited for.
    is_done: bool
    told: str
    is_right: bool = True


def _left(status: dict[str, Any], said: argparse.Namespace) -> _Waited:
    # Stop is done when nothing is held any more; until then, what still is.
    held = {
        f"{name} {symbol} {quantity:g}"
        for name, one in status["strategies"].items()
        for symbol, quantity in one["positions"].items()
        if said.strategy in (ALL, name) and said.symbol in (None, symbol)
    }
    return _Waited(not held, f"; it still holds {', '.join(sorted(held))}" if held else ": flat")


def _looked(status: dict[str, Any], said: argparse.Namespace) -> _Waited:
    # A look for a model is done when it tells what it came to.
    model = status["strategies"][said.strategy]["model"]
    told = model["said"]
    serves = bool(model["model"]) and told.startswith(model["model"])
    return _Waited(bool(told), f": {told}" if told else "; it is still looking", serves or not told)


def _parser() -> argparse.ArgumentParser:
    # Options may stand before the command or after it.
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument(
        "--book", help=f"name of the book, needed where several run; or {SCHEDULE}"
    )
    options.add_argument("--json", action="store_true", help="the answer as JSON")
    options.add_argument("--timeout", type=_seconds, help="s to wait for an answer, 10")
    options.add_argument(
        "--wait",
        type=_seconds,
        help="s that stop, refresh, rollback, promote wait until it is done, 10",
    )
    options.add_argument("--bootstrap", help="host:port of Kafka, for a book on another machine")
    options.add_argument(
        "--kafka", metavar="FILE",
        help="YAML with bootstrap, api_version, security as of feed=kafka, and control_topic",
    )  # fmt: skip
    options.add_argument("--journal", help="id of that book's journal, as its rows name it")
    parser = argparse.ArgumentParser(
        prog="control.py", description=__doc__, parents=[options],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    words = parser.add_subparsers(dest="word", required=True, metavar="command")

    def word(name: str, kind: type, **arguments: Any) -> None:
        own = words.add_parser(name, help=kind.__doc__, description=kind.__doc__, parents=[options])
        for argument, settings in arguments.items():
            own.add_argument(argument.replace("__", "--"), **settings)

    strategy, every = {"help": "its name"}, {"help": f"its name, or {ALL}"}
    for name, kind in _SCOPED.items():
        word(name, kind, strategy=every, __symbol={"help": "in this symbol alone"})
    word("status", control.Status)
    word("halt", control.Halt)
    one = {"nargs": "?", "help": "one that repeated itself; none: the halt ends"}
    word("rearm", control.Rearm, strategy=one)
    word("weight", control.Weight, strategy=every, weight={"type": _number})
    place = {"help": f"a strategy, or {POOL}"}
    word("move-cash", control.MoveCash, source=place, target=place, amount={"type": _number})
    word("refresh", control.Refresh, strategy=strategy)
    number = {"type": _model, "help": "or name of the model, as status and model_runs name it"}
    word("rollback", control.Rollback, strategy=strategy, number=number)
    word("promote", control.Promote, strategy=strategy, number=number)
    word("retrain", control.Retrain, job={"help": "its name in the schedule"})
    words.add_parser(ADOPT, parents=[options], help=_let_adopt.__doc__)
    return parser


def _seconds(word: str) -> float:
    value = float(word)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"seconds from 0 to 1e6, was {word}")
    return value


def _number(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a finite number, was {word}")
    return value


def _model(word: str) -> tuple[int, str]:
    # Number, and the id of its content where that is said.
    found = re.fullmatch(r"(\d+)(?:-([0-9a-f]+))?", word)
    if not found:
        raise argparse.ArgumentTypeError(
            f"the number of a model, as 7, or its name, as 000007-2f0e6c1d9a3b, was {word}"
        )
    return int(found[1]), found[2] or ""


def _command(said: argparse.Namespace) -> Command:
    name = None if getattr(said, "strategy", ALL) == ALL else said.strategy
    if said.word in _SCOPED:
        return _SCOPED[said.word](name, said.symbol)
    match said.word:
        case "status":
            return control.Status()
        case "halt":
            return control.Halt()
        case "rearm":
            return control.Rearm(name)
        case "weight":
            return control.Weight(name, said.weight)
        case "refresh":
            return control.Refresh(said.strategy)
        case "rollback":
            return control.Rollback(said.strategy, *said.number)
        case "promote":
            return control.Promote(said.strategy, *said.number)
        case "retrain":
            return control.Retrain(said.job)
        case _:
            places = ["" if name == POOL else name for name in (said.source, said.target)]
            return control.MoveCash(places[0], places[1], said.amount)


def _line(said: argparse.Namespace) -> Line:
    topic = _topic(said)
    if not topic and (said.word == "retrain" or said.book == SCHEDULE):
        return Line.to(_schedule(), said.timeout)
    if not topic:
        return Line.to(_running(said.book), said.timeout)
    if not (said.book and said.journal):
        raise ControlError("another machine's book needs --book and --journal, see its rows")
    return Line({"book": said.book, "id": said.journal}, said.timeout, topic=topic)


def _topic(said: argparse.Namespace) -> dict[str, Any]:
    # What `TopicPost` is told of a broker that was named; nothing of none.
    found: dict[str, Any] = {}
    if said.kafka:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            loaded: Any = OmegaConf.to_container(OmegaConf.load(said.kafka), resolve=True)
            found = {k: loaded[k] for k in ("bootstrap", "api_version", "security") if k in loaded}
            found |= {"topic": loaded["control_topic"]} if "control_topic" in loaded else {}
        except (OSError, ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
            first = str(error).splitlines()[0]
            raise ControlError(f"--kafka {said.kafka} cannot be read: {first}") from error
    if said.bootstrap:
        found["bootstrap"] = said.bootstrap
    if found and "bootstrap" not in found:
        raise ControlError(f"--kafka {said.kafka} names no bootstrap, host:port")
    return found


def _schedule() -> Path:
    directory = home() / "data" / SCHEDULE
    if holder(directory) is None:
        raise NoAnswerError("no schedule runs: start it with runners/schedule.py")
    return directory


def _running(book: str | None) -> Path:
    # Of the one that trades now.
    up = running(book)
    if not up:
        names = ", ".join(sorted(books(book))) or "no book"
        raise NoAnswerError(f"nobody trades now ({names}): start it with runners/live.py")
    return _only(up)


def _only(books: dict[str, Path]) -> Path:
    if len(books) != 1:
        names = ", ".join(sorted(books)) or "none has run yet"
        raise ControlError(f"name one book with --book: {names}")
    return next(iter(books.values()))


def _let_adopt(book: str | None) -> Answer:
    """Let the next start go on with what a book holds under another build or configuration."""
    if book == SCHEDULE:
        raise ControlError("adopt is for a book, this is the schedule")
    directory = _only(books(book))
    if "ended" in journal_reader.meta(directory):
        raise ControlError(
            f"the feed of {directory.name} came to its end: its next start is a new run"
        )
    with closing(Journal(directory)) as journal:
        journal.remember(adopt=getpass.getuser())
    text = (
        f"the next start of {directory.name} takes its cash and positions over from the fills that "
        "were recorded, and features from history; orders that worked are ended"
    )
    return Answer("", True, text)


def _model_of(known: dict[str, Any]) -> str:
    drift = f", drift {known['drift']:.2f}" if known.get("drift") is not None else ""
    return f"{known['model']}{drift}" if known.get("model") else known.get("said", "")


def _standing(status: dict[str, Any]) -> Table:
    # Of a book.
    table = Table(title=f"{status['book']}, journal {status['journal']}", title_justify="left")
    columns = ["strategy", "state", "weight", "equity", "P&L", "drawdown", "orders", "positions"]
    has_models = any(one["model"] for one in status["strategies"].values())
    for name in columns + ["model"] * has_models:
        left = ("strategy", "positions", "model")
        table.add_column(name, justify="left" if name in left else "right")
    for name, one in status["strategies"].items():
        held = ", ".join(f"{symbol} {quantity:g}" for symbol, quantity in one["positions"].items())
        table.add_row(
            name, one["state"], f"{one['weight']:g}", f"{one['equity']:,.2f}",
            f"[{'green' if one['pnl'] >= 0 else 'red'}]{one['pnl']:+,.2f}[/]",
            f"{one['drawdown']:.2%}", str(one["orders"]), held or "flat",
            *[_model_of(one["model"])] * has_models,
        )  # fmt: skip
    holds = status["holds"]
    stopped = "every order is stopped: halt" if "halt" in holds else "entries are stopped"
    table.caption = "\n".join(
        [f"pool {status['pool']:,.2f}, inputs {status['seq']:,}"]
        + ([f"[red]{stopped} ({', '.join(holds)})[/]"] if holds else [])
    )
    table.caption_justify = "left"
    return table


def _jobs(status: dict[str, Any]) -> Table:
    # Of the schedule.
    table = Table(title=f"{status['book']}, journal {status['journal']}", title_justify="left")
    for name in ("job", "state", "began last", "took", "next by the clock"):
        table.add_column(name, justify="right" if name == "took" else "left")
    for name, one in status["jobs"].items():
        state = "trains now" if one["running"] else one["wanted"] or "waits"
        took = (
            f"{(one['ended'] - one['began']) / 1e9:,.0f} s" if one["ended"] > one["began"] else ""
        )
        table.add_row(
            name, state, _moment(one["began"]) if took or one["running"] else "not yet", took,
            _moment(one["next"]) if one.get("next") else "",
        )  # fmt: skip
    return table


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _print(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
