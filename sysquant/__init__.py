"""Notebook-first research-to-live toolkit for trading: what you promoted is what trades."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sysquant.retrieval import history

__version__ = "0.1.0"
__all__ = ["history"]


# What a notebook starts with is imported when it is asked for: nothing else needs all of it.
def __getattr__(name: str) -> Any:
    if name == "history":
        from sysquant.retrieval import history

        return history
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
