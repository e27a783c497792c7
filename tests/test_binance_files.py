"""Files of Binance's archive: what their rows mean, and which cannot be meant."""

from pathlib import Path

import numpy as np
import pytest

from sysquant.binance_files import ArchiveFile, check, read
from sysquant.errors import DataError
from tests.archive_market import (
    BTC,
    KLINES,
    TRADES,
    UNIVERSE,
    csv_of,
    klines_of,
    of,
    trades_of,
    zipped,
)


def content(text: str, kind: str = "trades", name: str = "") -> tuple[ArchiveFile, bytes]:
    file = of(kind, BTC, "2025-01-01")
    return file, zipped(name or f"{file.stem}.csv", text)


GOOD = csv_of(trades_of("2025-01-01", 1, 100, 4), micro=True).splitlines()
BARS = csv_of(klines_of("2025-01-01", 1, 4), micro=True).splitlines()


def cells(line: str, **changed: object) -> str:
    names = (KLINES if line.count(",") > 7 else TRADES).split(",")
    values = dict(zip(names, line.split(","), strict=True)) | {
        k: str(v) for k, v in changed.items()
    }
    return ",".join(values.values())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD[0], cells(GOOD[1], price="nan")], "csv row 1: price must be positive and finite"),
        ([GOOD[0], cells(GOOD[1], price=-1)], "row 1: price must be positive"),
        ([GOOD[0], cells(GOOD[1], qty="")], "row 1: volume must be >= 0, was nan"),
        ([GOOD[0], cells(GOOD[1], price="12x")], "its rows cannot be read: .*12x"),
        ([GOOD[0], cells(GOOD[1], time="")], "row 1: time must be a time"),
        ([GOOD[0], cells(GOOD[1], id="")], "a trade has no id"),
        ([GOOD[0], "1,2,3"], "its rows cannot be read: .*7 columns, got 3"),
        ([GOOD[0], GOOD[1][:30]], "its rows cannot be read"),
        ([GOOD[0], cells(GOOD[1], time=1_735_689_600_000)], "a time from 2000 to tomorrow in us"),
        ([cells(GOOD[0], time=1_735_689_599_999_999)], "a row is of 2024-12-31T23:59:59.999Z"),
        ([cells(GOOD[0], time=1_735_776_000_000_000)], "a row is of 2025-01-02T00:00:00Z"),
        ([GOOD[1], GOOD[0]], "trade 100 comes after trade 101"),
        ([GOOD[0], cells(GOOD[0], qty=7)], "trade 100 comes after trade 100"),
        (["id,prize,qty,quote_qty,time,is_buyer_maker,is_best_match", GOOD[0]], "name its columns"),
        (["nonsense", GOOD[0]], "its first line must be a row or name its columns, was 'nonsense'"),
        ([TRADES], "it has no rows"),
        ([], "it has no rows"),
        ([BARS[0], cells(BARS[1], high=1)], "row 1: high must be >= open and close"),
        ([BARS[0], cells(BARS[1], open_time=1_735_689_600_000_001)], "row 1: time must be a whole"),
        ([BARS[0], cells(BARS[0], close=cells(BARS[0]).split(",")[2])], "are the same bar"),
        ([cells(BARS[0], open_time=1_735_776_000_000_000)], "a row is of 2025-01-02T00:00:00Z"),
        ([BARS[0], BARS[2]], "must hold bars of one minute, were 120 s apart"),
    ],
)  # fmt: skip
def test_file_with_a_row_that_cannot_be_meant_is_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    kind = "klines" if any(line.count(",") > 7 for line in lines) else "trades"
    file, data = content("".join(f"{line}\n" for line in lines), kind)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=message):
        check(file, tmp_path / "a.zip", UNIVERSE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"no zip at all", "its zip cannot be read: File is not a zip file"),
        (lambda data: data[: len(data) // 2], "its zip cannot be read"),
        (lambda data: data.replace(data[80:90], bytes(10), 1), "its zip cannot be read"),
    ],
)
def test_zip_that_cannot_be_read_is_refused(tmp_path: Path, change, message: str) -> None:
    file, data = content("\n".join(GOOD))
    (tmp_path / "a.zip").write_bytes(change(data))
    with pytest.raises(DataError, match=message):
        check(file, tmp_path / "a.zip", UNIVERSE)


def test_zip_of_another_symbol_is_refused(tmp_path: Path) -> None:
    file, data = content("\n".join(GOOD), name="ETHUSDT-trades-2025-01-01.csv")
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"must hold BTCUSDT-trades-2025-01-01\.csv alone, has ETH"):
        check(file, tmp_path / "a.zip", UNIVERSE)


@pytest.mark.parametrize("chunk", [50, 333, 1 << 24])
def test_trade_that_comes_again_as_it_was_counts_once_wherever_blocks_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sysquant.binance_files._CHUNK", chunk)
    lines = [line for line in GOOD for _ in range(3)]
    file, data = content("\ufeff" + TRADES.upper() + "\r\n" + "\r\n".join(lines))
    (tmp_path / "a.zip").write_bytes(data)
    assert check(file, tmp_path / "a.zip", UNIVERSE) == 4
    blocks = list(read(file, tmp_path / "a.zip", UNIVERSE))
    assert np.concatenate([block.offset for block in blocks]).tolist() == [100, 101, 102, 103]
    assert {int(index) for block in blocks for index in block.symbol} == {1}
