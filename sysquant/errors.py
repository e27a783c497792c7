"""Errors of the package; every message says what is wrong, what it was, and the way out.

SysquantError
├── ConfigError      a key, parameter or limit that cannot be meant
├── DataError        history or a record that cannot be meant
│   └── NotRecordedError  it is not there, or not yet
├── StoreError       ClickHouse: locked, of a newer schema
│   └── StoreAwayError   it cannot be reached
├── FeedError        the tick feed: unreachable, a gap, an impossible position
├── JournalError     the journal: locked, full, damaged, of another build
├── ControlError     a message to a running book that does not count
├── StrategyError    a strategy that breaks its contract
├── ModelError       a model that cannot be served
├── PromotionError   a strategy that does not pass the gate
└── AlertError       an alert that its receiver refuses for good
"""

import difflib
from collections.abc import Iterable


class SysquantError(Exception):
    """Base of every error that a person can act on."""


class ConfigError(SysquantError):
    """A key, parameter or limit that cannot be meant."""


class DataError(SysquantError):
    """History or a record that cannot be meant."""


class NotRecordedError(DataError):
    """What is asked for was not recorded, so far."""


class StoreError(SysquantError):
    """ClickHouse cannot be reached, is locked, or holds a newer schema."""


class StoreAwayError(StoreError):
    """ClickHouse does not answer."""


class FeedError(SysquantError):
    """The tick feed cannot be reached or cannot stand where it must."""


class JournalError(SysquantError):
    """The journal is locked, full, damaged, or was written by another build."""


class ControlError(SysquantError):
    """A message to a running book does not count, or cannot be sent."""


class StrategyError(SysquantError):
    """A strategy breaks its contract."""


class ModelError(SysquantError):
    """A model cannot be trained, trusted or served."""


class PromotionError(SysquantError):
    """A strategy does not pass the promotion gate."""


class AlertError(SysquantError):
    """An alert is refused for good by whom it should reach."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what there is, to end an error message with."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(choices)}"
