"""A market of two symbols as the public archive of Binance has it: rows, and the files of them."""

import io
import zipfile

import numpy as np
import pandas as pd

from sysquant.binance_files import ArchiveFile
from sysquant.types import Instrument

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
UNIVERSE = [Instrument("BTC-PERP"), Instrument(BTC), Instrument(ETH)]
KLINES = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_base,"
    "taker_buy_quote,ignore"
)
TRADES = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match"
PRICES = ("open", "high", "low", "close", "volume")


def klines_of(day: str, seed: int, minutes: int = 90) -> pd.DataFrame:
    """A day's last minutes; `open_time` in ms."""
    random = np.random.default_rng(seed)
    end = pd.Timestamp(day, tz="UTC") + pd.Timedelta("1D")
    price = 100 * np.exp(np.cumsum(random.normal(0, 1e-3, (minutes, 4)).ravel())).round(4)
    price = price.reshape(minutes, 4)
    opened = end.value // 10**6 - 60_000 * np.arange(minutes, 0, -1)
    columns = {"open_time": opened, "open": price[:, 0], "high": price.max(1)}
    columns |= {"low": price.min(1), "close": price[:, 3]}
    return pd.DataFrame(columns | {"volume": random.integers(1, 10**6, minutes) / 1000})


def trades_of(day: str, seed: int, first: int, rows: int = 600) -> pd.DataFrame:
    """Trades of a day, many of them at one time; `time` in ms."""
    random = np.random.default_rng(seed)
    start = pd.Timestamp(day, tz="UTC").value // 10**6
    at = np.sort(random.integers(0, 3 * 3_600_000, rows))
    at[rows // 2 :] += 86_400_000 - 3 * 3_600_000
    at[1::5] = at[0::5][: len(at[1::5])]
    columns = {"id": first + np.arange(rows), "price": 100 + random.integers(0, 900, rows) / 100}
    columns |= {"qty": random.integers(1, 10**6, rows) / 1000, "time": start + at}
    return pd.DataFrame(columns)


def csv_of(frame: pd.DataFrame, *, header: bool = False, micro: bool = False) -> str:
    scale = 1000 if micro else 1
    if "open_time" in frame:
        full = frame.assign(
            open_time=frame.open_time * scale, close_time=(frame.open_time + 60_000) * scale - 1,
            quote_volume=1.0, count=5, taker_buy_base=0.5, taker_buy_quote=0.5, ignore=0,
        )  # fmt: skip
    else:
        full = frame.assign(quote_qty=frame.price * frame.qty, time=frame.time * scale)
        full = full.assign(is_buyer_maker="True", is_best_match="True")
        full = full[TRADES.split(",")]
    return full.to_csv(index=False, header=header)


def zipped(name: str, text: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, text)
    return sink.getvalue()


def of(kind: str, symbol: str, label: str) -> ArchiveFile:
    """A month, as 2024-12, or a day."""
    is_month = len(label) == 7
    first = pd.Timestamp(label).date()
    return ArchiveFile(symbol.removeprefix("BINANCE:"), kind, first, is_month)


def days_of(label: str) -> list[str]:
    """A day, or those of a month."""
    periods = pd.Period(label).days_in_month if len(label) == 7 else 1
    return [f"{day:%Y-%m-%d}" for day in pd.date_range(label, periods=periods)]


class Market:
    """Every row of two symbols, and files made of them."""

    def __init__(self, kind: str, first: str, last: str) -> None:
        self.kind, self.rows = kind, dict[tuple[str, str], pd.DataFrame]()
        for symbol in (BTC, ETH):
            for number, at in enumerate(pd.date_range(first, last)):
                day, seed = f"{at:%Y-%m-%d}", number + 1000 * (symbol == ETH)
                self.rows[symbol, day] = (
                    klines_of(day, seed) if kind == "klines" else trades_of(day, seed, 600 * number)
                )

    def frame(self, symbol: str, *labels: str) -> pd.DataFrame:
        return pd.concat([self.rows[symbol, day] for label in labels for day in days_of(label)])

    def file(self, symbol: str, label: str, **how: bool) -> tuple[str, bytes]:
        file = of(self.kind, symbol, label)
        return file.path, zipped(f"{file.stem}.csv", csv_of(self.frame(symbol, label), **how))
