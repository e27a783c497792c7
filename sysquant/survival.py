"""Whether a universe was chosen by who is still there: symbols that died are no part of it.

Input: when each symbol of the store was traded first and last, a universe, a window. Output: what
is wrong, a sentence with the way out. An instrument says nothing of its listing: the store's own
bars are the record.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sysquant.answers import ask
from sysquant.times import DAY
from sysquant.types import Instrument

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_LIVES_SQL = """
SELECT symbol, toUnixTimestamp64Nano(min(ts)) AS first, toUnixTimestamp64Nano(max(ts)) AS last
FROM (SELECT symbol, ts FROM bars_1m UNION ALL SELECT symbol, ts FROM bars_imported)
GROUP BY symbol ORDER BY symbol
"""


class Life(NamedTuple):
    """Closes of a symbol's first and last minute bar, ns UTC."""

    first: int
    last: int


def lives(client: "Client") -> dict[str, Life]:
    """Of every symbol that the store has bars of.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    rows = ask(client, _LIVES_SQL, {}).to_pylist()
    return {str(row["symbol"]): Life(int(row["first"]), int(row["last"])) for row in rows}


def survivors_only(
    known: Mapping[str, Life], universe: Sequence[Instrument], start: int, end: int,
    *, quiet_ns: int = 2 * DAY, left_out: Collection[str] = (),
) -> list[str]:  # fmt: skip
    """What is wrong with a universe that leaves out what died in the history, of its own venues.

    Parameters
    ----------
    known : of `lives`.
    universe : what is traded.
    start, end : the window of the history, ns UTC.
    quiet_ns : without a bar before the end of the window, after which a symbol counts as dead.
    left_out : symbols that are left out on purpose.
    """
    own = {one.symbol for one in universe}
    venues = {_venue(symbol) for symbol in own}
    dead = {
        symbol: life
        for symbol, life in known.items()
        if start < life.last < end - quiet_ns and _venue(symbol) in venues
    }
    missing = sorted(dead.keys() - own - set(left_out))
    if not missing:
        return []
    last = np.datetime64(dead[missing[0]].last, "ns").astype("M8[m]")
    more = f", and {len(missing) - 1} more," if len(missing) > 1 else ""
    return [
        f"the universe holds survivors alone: {missing[0]}{more} stopped trading inside the "
        f"history, at {last}Z, and is no part of it; add what could be chosen then to "
        "universe.instruments, or name it in promotion.causality.left_out with your reason"
    ]


def _venue(symbol: str) -> str:
    return symbol.partition(":")[0] if ":" in symbol else ""
