"""The risk chain of a book, and how good the data is that it is asked to hold to.

Input: a composed configuration. Output: a `RiskChain`; scores of the store's data, put into the
configuration before a session, which then records them.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from runners.compose import build, value
from sysquant import quality
from sysquant.feeds.replay import ReplayFeed
from sysquant.keys import check_number
from sysquant.risk import RiskChain
from sysquant.times import interval_ns
from sysquant.types import Feed

Connect = Callable[[], Any]
_QUALITY, _UNPROMOTED = "data_quality", "not_promoted"  # checks


def risk_of(cfg: DictConfig) -> RiskChain:
    """The risk chain of `cfg`, with the checks that other keys ask for.

    With a threshold of data quality the check that holds to it is in every chain; so is the one
    that holds a strategy that was not promoted to a small share.
    """
    checks = value(cfg, "risk.checks", list[dict[str, object]])
    least, most = _least_quality(cfg), _most_unpromoted(cfg)
    if least is not None:
        others = [check for check in checks if check.get("check") != _QUALITY]
        checks = [*others, {"check": _QUALITY, "limit": least}]
    if most is not None and not any(check.get("check") == _UNPROMOTED for check in checks):
        checks = [*checks, {"check": _UNPROMOTED, "limit": most}]
    return build(cfg.risk, risk_bar=interval_of(cfg, "risk.risk_bar"), checks=checks)


def interval_of(cfg: DictConfig, key: str) -> int:
    """A length of time, ns; a number without a unit could be meant in several."""
    return interval_ns(str(OmegaConf.select(cfg, key)), key)


def _most_unpromoted(cfg: DictConfig) -> float | None:
    most = value(cfg, "book.unpromoted", float | None)
    if most is not None:
        check_number("book.unpromoted", most, least=0)
    return most


def _least_quality(cfg: DictConfig) -> float | None:
    least = value(cfg, "quality.least", float | None)
    if least is not None:
        check_number("quality.least", least, least=0, most=1)
    return least


def rate(cfg: DictConfig, connect: Connect, feed: Feed | None, known: str = "") -> str:
    """Put into `cfg.universe` how good the store's data of each symbol is, where that is asked for.

    Read once, before a session: it is part of the configuration that the session records. A symbol
    that was not measured gets NaN, which the check `data_quality` refuses.

    Parameters
    ----------
    cfg : of which `universe` is changed, if `quality.least` is set.
    connect : to the store.
    feed : scores count that were known when it starts: at its first event, or now.
    known : what this returned when the session began; the store is not asked then.

    Returns
    -------
    JSON, symbol -> score; empty where it is not asked for.
    """
    least, days = _least_quality(cfg), value(cfg, "quality.days", int)
    check_number("quality.days", days, least=1, whole=True)
    if least is None:
        return ""
    symbols = [str(keys.symbol) for keys in cfg.universe.instruments]
    if not known:
        at = feed.span[0] if isinstance(feed, ReplayFeed) else time.time_ns()
        with closing(connect()) as client:
            known = json.dumps(quality.scores(client, symbols, at, days))
    found: dict[str, float] = json.loads(known)
    for symbol, keys in zip(symbols, cfg.universe.instruments, strict=True):
        with open_dict(keys):
            keys.quality = found.get(symbol, math.nan)
        if not keys.quality >= least:
            said = f"is {keys.quality:.3f}" if symbol in found else f"was not told in {days} days"
            print(
                f"{symbol} is not entered: the score of its data {said}, quality.least is {least}"
            )
    return known
