"""What a person sees of a session: a live table at a terminal, plain lines when piped."""

import math
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sysquant.engine import Engine
from sysquant.tally import Tally


class Screen:
    """Shows counts and accounts; call `show` now and then, and `close` with the last word.

    Parameters
    ----------
    title : first line of the table.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._live: Live | None = None
        if sys.stdout.isatty():
            self._live = Live(console=Console(), auto_refresh=False)
            self._live.start()

    def show(self, engine: Engine, tally: Tally, *, lag_ms: float, waiting: int) -> None:
        """Redraw the table, or print one line."""
        if self._live is not None:
            self._live.update(self._table(engine, tally, lag_ms, waiting), refresh=True)
        else:
            print(_line(engine, tally, lag_ms, waiting), flush=True)

    def close(self) -> None:
        """Leave the table as it stands."""
        if self._live is not None:
            self._live.stop()

    def _table(self, engine: Engine, tally: Tally, lag_ms: float, waiting: int) -> Table:
        table = Table(title=self._title, title_justify="left")
        for name in ("strategy", "equity", "P&L", "drawdown", "positions"):
            table.add_column(name, justify="left" if name in ("strategy", "positions") else "right")
        for name, account in engine.accounts().items():
            gain = account["equity"] - account["allocation"]
            held = engine.positions()[name]
            table.add_row(
                name,
                f"{account['equity']:,.2f}",
                f"[{'green' if gain >= 0 else 'red'}]{gain:+,.2f}[/]",
                f"{account['drawdown']:.2%}",
                ", ".join(f"{symbol} {quantity:g}" for symbol, quantity in held.items()) or "flat",
            )
        table.caption = "\n".join(f"{k}: {v}" for k, v in _facts(engine, tally, lag_ms, waiting))
        table.caption_justify = "left"
        return table


def _facts(engine: Engine, tally: Tally, lag_ms: float, waiting: int) -> list[tuple[str, str]]:
    at = datetime.fromtimestamp(engine.engine_ts / 1e9, UTC)
    return [
        ("engine time", f"{at:%Y-%m-%d %H:%M:%S} UTC"),
        ("lag", "-" if math.isnan(lag_ms) else f"{lag_ms:,.0f} ms"),
        ("events", f"{tally.events:,} (late {engine.late:,}, dead letters {tally.dead:,})"),
        ("bars", f"{engine.bars:,}"),
        ("signals", f"{tally.signals:,}"),
        (
            "orders",
            f"approved {tally.approved:,}, refused {tally.refused:,} ({tally.top_reasons()})",
        ),
        ("fills", f"{tally.fills:,}"),
        ("rows waiting for the store", f"{waiting:,}"),
    ]


def _line(engine: Engine, tally: Tally, lag_ms: float, waiting: int) -> str:
    facts = " | ".join(f"{k} {v}" for k, v in _facts(engine, tally, lag_ms, waiting))
    accounts = " | ".join(
        f"{name} equity {a['equity']:,.2f} P&L {a['equity'] - a['allocation']:+,.2f} "
        f"drawdown {a['drawdown']:.2%}"
        for name, a in engine.accounts().items()
    )
    return f"{facts} | {accounts}"
