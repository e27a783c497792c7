"""Notebook-first research-to-live toolkit for trading: what you promoted is what trades."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sysquant.backtesting import backtest
    from sysquant.retrieval import history
    from sysquant.strategy import Strategy
    from sysquant.sweeping import sweep
    from sysquant.walk import walk_forward

__version__ = "0.1.0"
__all__ = ["Strategy", "backtest", "history", "sweep", "walk_forward"]

# What a notebook starts with is imported when it is asked for: nothing else needs all of it.
_PLACES = {
    "Strategy": "sysquant.strategy",
    "backtest": "sysquant.backtesting",
    "history": "sysquant.retrieval",
    "sweep": "sysquant.sweeping",
    "walk_forward": "sysquant.walk",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
