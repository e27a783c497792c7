"""When a position is left without being told: stop loss, take profit, trailing stop, age, drawdown.

Input: the keys of `conf/exits/`. Output: rules of a strategy; the engine's loop acts on them, by
rule after each event or by orders that lie at the broker.
"""

import math
from dataclasses import dataclass
from typing import Any

from sysquant.errors import ConfigError
from sysquant.keys import Spelled, check_choice, check_number
from sysquant.records import NEVER

HOW = ("rule", "bracket")
REARM = ("signal", "bars")
_MOST_S = 1e9
_RANGES: dict[str, dict[str, Any]] = {
    "stop_loss": {"above": 0, "below": 1},
    "take_profit": {"above": 0},
    "trailing_stop": {"above": 0, "below": 1},
    "max_hold_s": {"above": 0, "most": _MOST_S},
    "flatten_drawdown": {"above": 0, "most": 1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exits(Spelled):
    """What ends a position besides its target; None for what does not.

    Parameters
    ----------
    stop_loss : loss from the entry, a fraction of its price.
    take_profit : gain from the entry, a fraction of its price.
    trailing_stop : loss from the best price since the entry, a fraction of it.
    max_hold_s : age of the position, s.
    flatten_drawdown : drawdown of the strategy at which it leaves everything, a fraction.
    how : `rule` watches prices and sends market orders; `bracket` leaves a stop and a limit order
        at the broker (age and drawdown act by rule in both).
    rearm : what lets the strategy back into the side that was left: `signal`, a target of 0 or of
        the other side; `bars`, that or a number of bars.
    rearm_bars : that number.

    Raises
    ------
    ConfigError
        If a value lies outside its range, or means nothing beside the others.
    """

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None
    max_hold_s: float | None = None
    flatten_drawdown: float | None = None
    how: str = "rule"
    rearm: str = "signal"
    rearm_bars: int = 0

    def __post_init__(self) -> None:
        """Refuse keys that cannot be meant, alone or together."""
        for key, range_ in _RANGES.items():
            if getattr(self, key) is not None:
                check_number(f"exits.{key}", getattr(self, key), **range_)
        check_choice("exits.how", self.how, HOW)
        check_choice("exits.rearm", self.rearm, REARM)
        check_number("exits.rearm_bars", self.rearm_bars, least=0, most=10**12, whole=True)
        if (self.rearm == "bars") != (self.rearm_bars > 0):
            raise ConfigError(
                "exits.rearm_bars must be >= 1 with rearm 'bars' and 0 with 'signal', was "
                f"{self.rearm_bars} with {self.rearm!r}"
            )
        if self.how == "bracket":
            self._check_bracket()

    def _check_bracket(self) -> None:
        if self.stop_loss is not None and self.trailing_stop is not None:
            raise ConfigError(
                f"exits.stop_loss {self.stop_loss} and trailing_stop {self.trailing_stop} are one "
                "order in a bracket: set one of them to null, or how to rule"
            )
        if self.stop_loss is self.take_profit is self.trailing_stop is None:
            raise ConfigError(
                "exits.how 'bracket' needs a stop_loss, trailing_stop or take_profit; all were null"
            )

    def rules(self) -> dict[str, float]:
        """Fields of `records.RULES` that the exits decide: inf and `NEVER` for none."""
        levels = ("stop_loss", "take_profit", "trailing_stop", "flatten_drawdown")
        found = {key: getattr(self, key) for key in levels}
        return {
            **{key: math.inf if value is None else value for key, value in found.items()},
            "max_hold_ns": NEVER if self.max_hold_s is None else round(self.max_hold_s * 1e9),
            "bracket": HOW.index(self.how),
            "rearm_bars": self.rearm_bars if self.rearm == "bars" else NEVER,
        }
