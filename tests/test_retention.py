"""Old ticks in files: history is the same, whatever was moved, killed on the way, or came since."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from pyarrow import parquet

from sysquant import archive, backfill, history, retention
from sysquant.backtesting import backtest
from sysquant.errors import ConfigError, DataError, JournalError
from sysquant.feeds.replay import ReplayFeed
from sysquant.mapping import FileMapping
from sysquant.months import place_of
from sysquant.retention import Moved, retain
from sysquant.store import connect, insert, migrate
from sysquant.strategies.momentum import Momentum
from sysquant.tables import tick_table
from sysquant.times import instant
from sysquant.types import SECOND, Bars, Instrument, Ticks
from tests import forked

pytest_plugins = ["tests.served"]

DAY = 86_400 * SECOND
UNIVERSE = [Instrument("SIM:A"), Instrument("SIM:B/c.d"), Instrument("SIM:Ü")]
NAMES = [i.symbol for i in UNIVERSE]
NOW = instant("2024-05-15T00:00:00Z")  # with keep=30d, March and before are old
MARCH, APRIL = instant("2024-03-01T00:00:00Z"), instant("2024-04-01T00:00:00Z")


def market(rows: int, seed: int, *, start: int = MARCH - 2 * DAY, end: int = APRIL + 2 * DAY):
    """Ticks in two partitions, of which one has two symbols; a twentieth comes hours late."""
    rng = np.random.default_rng(seed)
    ts = np.sort(rng.integers(start, end, rows)) // 1_000_000 * 1_000_000
    ts = np.where(rng.random(rows) < 0.05, ts - rng.integers(0, 9, rows) * 3600 * SECOND, ts)
    ts = np.maximum(ts, start)
    symbol = rng.integers(0, 3, rows).astype(np.int32)
    partition = (symbol // 2).astype(np.int32)
    return Ticks(
        ts, symbol, rng.integers(80, 120, rows) / 7,
        rng.integers(1, 99, rows) / 8,  # of others a sum has other last bits from query to query
        ts + 5, partition, 3 * np.arange(rows),
    )  # fmt: skip


def fill(client: Client, *, epochs: int = 2) -> None:
    for number in range(epochs):
        table = tick_table(market(4_000, number), NAMES, f"file:{'ba'[number]}")
        insert(client, "ticks", table, f"fill {number}")


def moved(client: Client, export: Path | str, **more: object) -> list[Moved]:
    return retain(client, "30d", str(export), now=NOW, **more)  # pyright: ignore


@dataclass
class Seen:
    """All that history says, to be compared byte by byte."""

    columns: dict[str, bytes]

    def others(self, than: "Seen") -> list[str]:
        """Names of the columns that differ."""
        return [name for name, said in self.columns.items() if said != than.columns[name]]

    @classmethod
    def of(cls, client: Client) -> "Seen":
        found = dict[str, Ticks | Bars]()
        for name, (start, end) in RANGES.items():
            found[f"ticks {name}"] = archive.ticks(client, UNIVERSE, start, end)
            for interval in ("1s", "7s", "90s", "1m", "1h"):
                found[f"{interval} {name}"] = archive.bars(client, UNIVERSE, start, end, interval)
        one = UNIVERSE[1:2]
        found["one"] = archive.ticks(client, one, "-10d")
        found["source"] = archive.ticks(client, UNIVERSE[::-1], source="file:b")
        blocks = archive.iter_ticks(client, UNIVERSE, first_row=1234, block_rows=300)
        found["blocks"] = Ticks.join(list(blocks))
        found["history"] = history(NAMES, "-9d", interval="10s", client=client).bars
        assert all(len(each) > 50 for each in found.values()), {n: len(f) for n, f in found.items()}
        return cls({f"{n}.{c}": a.tobytes() for n, f in found.items() for c, a in f.columns()})


RANGES = {
    "all": (None, None),
    "to the end of a month": (MARCH - DAY, APRIL),
    "from the start of a month": (APRIL, None),
    "over an edge": (APRIL - 40 * 3600 * SECOND + 7, APRIL + 31 * 3600 * SECOND + 11),
    "over two edges": (MARCH - 30 * 3600 * SECOND, APRIL + 30 * 3600 * SECOND),
    "within": (MARCH + 5 * DAY, MARCH + 9 * DAY),
}


def stored(client: Client) -> list[tuple]:
    sql = "SELECT toYYYYMM(ts), count() FROM ticks FINAL GROUP BY 1 ORDER BY 1"
    return list(client.query(sql).result_rows)


def files(export: Path) -> dict[str, int]:
    return {
        str(path.relative_to(export)): parquet.read_metadata(path).num_rows
        for path in sorted(export.rglob("*.parquet"))
    }


def test_history_is_the_same_before_and_after_months_are_moved(
    client: Client, tmp_path: Path
) -> None:
    fill(client)
    before, rows = Seen.of(client), dict(stored(client))
    assert set(rows) == {202402, 202403, 202404}
    bars = client.query("SELECT count(), sum(volume) FROM bars").result_rows
    done = moved(client, tmp_path)
    assert [(each.month, each.left) for each in done] == [(202402, 0), (202403, 0)]
    assert dict(stored(client)) == {202404: rows[202404]}
    there = files(tmp_path)
    assert sum(there.values()) == rows[202402] + rows[202403]
    assert set(there) == {
        f"ticks/{name}/2024-0{month}.parquet"
        for name in ("SIM%3AA", "SIM%3AB%2Fc%2Ed", "SIM%3A%C3%9C")
        for month in (2, 3)
    }
    assert not Seen.of(client).others(before)
    assert client.query("SELECT count(), sum(volume) FROM bars").result_rows == bars
    assert not moved(client, tmp_path), "nothing is left to move"


def test_files_are_sorted_compressed_and_what_their_index_says(
    client: Client, tmp_path: Path
) -> None:
    fill(client)
    moved(client, tmp_path)
    rows = client.query(
        "SELECT symbol, month, path, rows, toUnixTimestamp64Nano(first), "
        "toUnixTimestamp64Nano(last), version FROM archived FINAL"
    ).result_rows
    assert len(rows) == 6
    for symbol, month, path, count, first, last, version in rows:
        file = parquet.ParquetFile(path)
        assert file.metadata.row_group(0).column(2).compression == "ZSTD"
        table = file.read()
        assert (table.num_rows, version) == (count, 1)
        keys = [table[name].to_pylist() for name in ("epoch", "partition", "offset")]
        ts = table["ts"].cast(pa.int64()).to_pylist()
        order = list(zip(ts, *keys, strict=True))
        assert order == sorted(set(order))
        assert (ts[0], ts[-1], set(table["symbol"].to_pylist())) == (first, last, {symbol})
        assert {str(np.datetime64(each, "ns"))[:7].replace("-", "") for each in ts} == {str(month)}


def test_replay_and_backtest_are_the_same(client: Client, dsn: str, tmp_path: Path) -> None:
    fill(client, epochs=1)
    start, end = APRIL - DAY, APRIL + DAY

    def seen() -> list[object]:
        found = list[object]()
        for kind, interval in (("ticks", "1m"), ("bars", "1s")):
            feed = ReplayFeed(
                UNIVERSE, lambda: connect(dsn), kind=kind, interval=interval,
                start=str(np.datetime64(start, "ns")), end=str(np.datetime64(end, "ns")), batch=77,
            )  # fmt: skip
            feed.seek({0: 40})
            poll = feed.poll(0)
            while not poll.ended:
                found += [array.tobytes() for _, array in poll.events.columns()]
                poll = feed.poll(0)
            feed.close()
        ticks = archive.ticks(client, UNIVERSE, start, end)
        result = backtest(Momentum(fast=2, slow=4), ticks, UNIVERSE, interval="15m")
        orders, fills = result.table("orders"), result.table("executions")
        assert len(fills) > 3
        decided = [c for c in orders.columns if c not in ("run", "seq")]
        return [*found, orders[decided].to_csv(), fills["price"].tolist(), result.equity.tolist()]

    before = seen()
    moved(client, tmp_path)
    assert seen() == before


def test_ticks_that_come_after_the_move_are_in_history_and_then_in_a_new_file(
    client: Client, tmp_path: Path
) -> None:
    fill(client, epochs=1)
    before = archive.ticks(client, UNIVERSE)
    moved(client, tmp_path)
    late = market(30, 9, start=MARCH + DAY, end=MARCH + 3 * DAY)
    for token in ("late", "again"):
        insert(client, "ticks", tick_table(late, NAMES, "late"), token)
    want = archive.ticks(client, UNIVERSE)
    assert len(want) == len(before) + 30
    seen = archive.bars(client, UNIVERSE, MARCH, APRIL, "1s")
    assert len(moved(client, tmp_path)) == 1
    assert [month for month, _ in stored(client)] == [202404]
    for name, column in archive.ticks(client, UNIVERSE).columns():
        assert column.tobytes() == getattr(want, name).tobytes(), name
    for name, column in archive.bars(client, UNIVERSE, MARCH, APRIL, "1s").columns():
        assert column.tobytes() == getattr(seen, name).tobytes(), name
    there = files(tmp_path)
    assert [name for name in there if name.endswith(".2.parquet")] == [
        f"ticks/{name}/2024-03.2.parquet" for name in ("SIM%3A%C3%9C", "SIM%3AA", "SIM%3AB%2Fc%2Ed")
    ]
    assert len(there) == 6, "the files before them are gone"


# -- cut off


def _retain_until(dsn: str, export: str, step: int) -> None:
    passed = 0

    def tell(said: str) -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with connect(dsn) as client:
        moved(client, export, tell=tell)


def killed(dsn: str, export: Path, step: int) -> bool:
    process = forked.CONTEXT.Process(target=_retain_until, args=(dsn, str(export), step))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("has_late", [False, True], ids=["first move", "with late ticks"])
def test_run_killed_after_any_step_is_finished_by_the_next(
    served: str, tmp_path: Path, has_late: bool
) -> None:
    universe, step = UNIVERSE[:2], 0
    while True:
        step += 1
        dsn, export = f"{served}/killed_{has_late}_{step}", tmp_path / str(step)
        with connect(dsn) as client:
            migrate(client)
            ticks = market(1_500, 1, start=MARCH + DAY)  # of one old month
            insert(client, "ticks", tick_table(ticks, NAMES, "e"), "fill")
            if has_late:
                moved(client, export)
                late = market(20, 9, start=MARCH + DAY, end=MARCH + 3 * DAY)
                insert(client, "ticks", tick_table(late, NAMES, "late"), "late")
            want = archive.ticks(client, universe)
            bars = archive.bars(client, universe, MARCH, None, "1s")
            was_killed = killed(dsn, export, step)
            for _ in range(2):  # as it was left, and after the next run
                for name, column in archive.ticks(client, universe).columns():
                    assert column.tobytes() == getattr(want, name).tobytes(), (step, name)
                got = archive.bars(client, universe, MARCH, None, "1s")
                assert got.close.tobytes() == bars.close.tobytes()
                moved(client, export)
            count = sum(rows for _, rows in stored(client)) + sum(files(export).values())
            total = 1_500 + (20 if has_late else 0)
            assert ([month for month, _ in stored(client)], count) == ([202404], total), step
            assert not [path for path in export.rglob("*") if path.suffix == ".unfinished"]
        with connect(f"{served}/default") as client:
            client.command("DROP DATABASE {name:Identifier}", {"name": dsn.rpartition("/")[2]})
        if not was_killed:
            break
    assert step > 3 * 4


# -- what cannot be


def one_file(export: Path) -> Path:
    return export / "ticks" / "SIM%3AA" / "2024-03.parquet"


@pytest.mark.parametrize("fault", ["missing", "cut", "another", "a bit"])
def test_file_that_is_missing_or_changed_is_refused_by_its_name(
    client: Client, tmp_path: Path, fault: str
) -> None:
    fill(client, epochs=1)
    moved(client, tmp_path)
    archive.ticks(client, UNIVERSE)  # it was read before
    path = one_file(tmp_path)
    kept = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "another":
        shutil.copy(path.with_name("2024-02.parquet"), path)
    else:
        middle = len(kept) // 2
        path.write_bytes(
            kept[:middle]
            + (bytes([kept[middle] ^ 1]) + kept[middle + 1 :] if fault == "a bit" else b"")
        )
    said = "is missing, with" if fault == "missing" else "was changed since"
    reads = (
        lambda: archive.ticks(client, UNIVERSE),
        lambda: archive.bars(client, UNIVERSE, MARCH, APRIL, "1s"),
        lambda: list(archive.iter_ticks(client, UNIVERSE[:1], MARCH + DAY, MARCH + 2 * DAY)),
        lambda: history(NAMES[0], MARCH, APRIL, "10s", client=client),
    )
    for read in reads:
        with pytest.raises(DataError, match=f"SIM%3AA/2024-03.parquet {said}.*put it back"):
            read()
    assert len(archive.ticks(client, UNIVERSE[1:])), "other symbols are read"
    assert len(archive.ticks(client, UNIVERSE, APRIL)), "and other months"
    path.write_bytes(kept)
    assert len(archive.ticks(client, UNIVERSE)) == 4_000


def test_export_of_another_store_is_left_alone(client: Client, tmp_path: Path) -> None:
    fill(client, epochs=2)
    moved(client, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    client.command("TRUNCATE TABLE archived")
    insert(client, "ticks", tick_table(market(500, 5), NAMES, "other"), "other")
    with pytest.raises(DataError, match="is there already, with ticks that this store does not"):
        moved(client, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before
    assert len(stored(client)) == 3, "nothing was dropped"


def test_what_was_written_wrong_is_not_dropped(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, epochs=1)
    rows = stored(client)
    right = retention.ticks_of

    def wrong(*given: object) -> pa.Table:
        table = right(*given)  # pyright: ignore
        price = table.column("price").to_numpy().copy()
        price[:2] = price[:2][::-1]  # the same sum
        at = table.schema.get_field_index("price")
        return table.set_column(at, "price", pa.array(price))

    monkeypatch.setattr(retention, "ticks_of", wrong)
    with pytest.raises(DataError, match=r"was read back with .* nothing was dropped"):
        moved(client, tmp_path)
    assert stored(client) == rows
    assert not client.query("SELECT path FROM archived").result_rows


def test_ticks_that_come_while_a_month_is_moved_stay(client: Client, tmp_path: Path) -> None:
    fill(client, epochs=1)
    late = tick_table(market(10, 9, start=MARCH + DAY, end=MARCH + 2 * DAY), NAMES, "late")

    def tell(said: str) -> None:
        if said.startswith("indexed"):
            insert(client, "ticks", late, "late")

    moved(client, tmp_path, tell=tell)
    assert len(archive.ticks(client, UNIVERSE)) == 4_010
    moved(client, tmp_path)
    assert len(archive.ticks(client, UNIVERSE)) == 4_010
    assert [month for month, _ in stored(client)] == [202404]


def test_two_at_once_are_one_and_a_refusal(client: Client, tmp_path: Path) -> None:
    fill(client)
    tried = list[str]()

    def again(step: str) -> None:
        with pytest.raises(JournalError, match="one moves ticks at a time"):
            moved(client, tmp_path)
        tried.append(step)

    before = stored(client)
    moved(client, tmp_path, tell=again)
    assert tried and len(stored(client)) < len(before)


def test_values_that_cannot_be_meant_are_refused(client: Client, tmp_path: Path) -> None:
    for keep, export, said in (
        ("soon", str(tmp_path), "keep must be like"),
        ("30d", "", "export was empty"),
    ):
        with pytest.raises(ConfigError, match=said):
            retain(client, keep, export)
    fill(client, epochs=1)
    with pytest.raises(DataError, match=r"nosuch://bucket/path.* cannot be opened"):
        moved(client, "nosuch://bucket/path")
    assert len(stored(client)) == 3


def test_folder_may_be_a_url(client: Client, tmp_path: Path) -> None:
    fill(client)
    before = Seen.of(client)
    moved(client, f"file://{tmp_path}/a%20folder/")
    assert len(files(tmp_path)) == 6
    assert not Seen.of(client).others(before)
    paths = {row[0] for row in client.query("SELECT path FROM archived").result_rows}
    assert all(path.startswith(f"file://{tmp_path}/a%20folder/ticks/SIM%3A") for path in paths)


def test_options_of_a_url_stand_behind_the_path_of_each_file() -> None:
    options = "?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:1/x"
    for version, name in ((1, "2024-03"), (2, "2024-03.2")):
        found = retention._path(
            f"s3://bucket/a b/ticks/S%3AA/2024-03.parquet{options}", 202403, version
        )
        assert found == f"s3://bucket/a b/ticks/S%3AA/{name}.parquet{options}"
    filesystem, place = place_of(found.replace("a b", "a%20b").replace("/x", ""))
    assert filesystem.type_name == "s3"
    assert place == "bucket/a b/ticks/S%3AA/2024-03.2.parquet"


# -- around it


def test_store_of_an_older_schema_is_read(client: Client) -> None:
    fill(client, epochs=1)
    client.command("DROP TABLE archived")
    assert len(archive.ticks(client, UNIVERSE)) == 4_000
    assert len(history(NAMES, MARCH, APRIL, "1s", client=client)) > 1_000


def test_store_whose_ticks_are_all_archived_still_knows_them(
    client: Client, tmp_path: Path
) -> None:
    insert(client, "ticks", tick_table(market(900, 1, end=APRIL), NAMES, "topic"), "one")
    before = archive.span(client, UNIVERSE), archive.ticks(client, UNIVERSE)
    offsets = {0: 600, 1: 2400}
    earliest = archive.earliest(client, UNIVERSE, ["topic"], offsets)
    moved(client, tmp_path)
    assert stored(client) == []
    assert archive.span(client, UNIVERSE) == before[0]
    assert archive.ticks(client, UNIVERSE).ts.tobytes() == before[1].ts.tobytes()
    assert archive.earliest(client, UNIVERSE, ["topic"], offsets) == earliest
    assert archive.earliest(client, UNIVERSE, ["other"], offsets) is None
    with pytest.raises(DataError, match="no ticks of 'SIM:a'; did you mean 'SIM:"):
        history("SIM:a", MARCH, APRIL, "1s", client=client)
    assert backfill.sample(client, UNIVERSE) is None


def test_file_of_archived_ticks_is_not_imported_twice(client: Client, tmp_path: Path) -> None:
    columns = {"ts": "timestamp_ms", "symbol": "symbol", "price": "price", "volume": "volume"}
    how = FileMapping(kind="ticks", columns={**columns, "received_at": None}, unit="ms")
    table = {
        "timestamp_ms": [(MARCH + at * DAY) // 1_000_000 for at in range(40)],
        "symbol": ["SIM:A"] * 40, "price": [1.0 + at for at in range(40)], "volume": [1.0] * 40,
    }  # fmt: skip
    whole, more = tmp_path / "whole.parquet", tmp_path / "more.parquet"
    parquet.write_table(pa.table(table), whole)
    parquet.write_table(pa.table(table | {"volume": [2.0] * 40}), more)
    backfill.import_file(client, UNIVERSE, whole, how)
    moved(client, tmp_path / "export")
    bars = archive.bars(client, UNIVERSE)
    again = backfill.import_file(client, UNIVERSE, whole, how)
    assert (again.rows, again.added) == (40, 0)
    with pytest.raises(DataError, match=r"more\.parquet has ticks of a month that is archived"):
        backfill.import_file(client, UNIVERSE, more, how, overlap=True)
    assert len(archive.ticks(client, UNIVERSE)) == 40
    assert archive.bars(client, UNIVERSE).volume.tobytes() == bars.volume.tobytes()


def test_runner_moves_what_is_old_and_keeps_all_by_default(
    home: Path, client: Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, epochs=1)
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    words = ["store=clickhouse"]
    said = forked.run("retain", *words, cwd=home)
    assert (said.returncode, said.stderr, said.stdout) == (
        0,
        "",
        "keep is null: all ticks stay in the store\n",
    )
    before = archive.ticks(client, UNIVERSE)
    said = forked.run("retain", *words, "keep=30d", cwd=home)
    assert said.returncode == 0, said.stderr
    assert "2024-03: " in said.stdout and " ticks of 3 symbols in files\n" in said.stdout
    assert stored(client) == [] and len(files(home / "data" / "archive")) == 9
    assert archive.ticks(client, UNIVERSE).price.tobytes() == before.price.tobytes()
    said = forked.run("retain", *words, "keep=30d", cwd=home)
    assert said.stdout == "no month of ticks is wholly older than 30d: nothing was moved\n"
