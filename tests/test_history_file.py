"""A history comes back from its file to the last bit, or the file says that it holds none."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from sysquant import history_file
from sysquant.errors import DataError
from sysquant.past import History
from sysquant.types import Bars, Gaps, Instrument

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
POSITIVE = st.floats(1e-12, 1e12)
WHOLE = st.integers(-(2**63), 2**63 - 1)
KINDS = {"i8": WHOLE, "i4": st.integers(-(2**31), 2**31 - 1), "f8": NUMBERS}


def rows(draw, kind):
    count = draw(st.integers(0, 20))
    listed = {
        name: draw(st.lists(KINDS[of], min_size=count, max_size=count))
        for name, of in kind.DTYPES.items()
    }
    return kind(**{name: np.array(listed[name], of) for name, of in kind.DTYPES.items()})


@st.composite
def histories(draw):
    names = draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3, unique=True))
    universe = tuple(
        Instrument(
            name, tick_size=draw(POSITIVE), lot_size=draw(POSITIVE),
            max_position=draw(POSITIVE | st.just(math.inf)),
            quality=draw(st.floats(0, 1) | st.just(math.nan)), shortable=draw(st.booleans()),
        )
        for name in names
    )  # fmt: skip
    span = [draw(WHOLE) for _ in range(3)]
    inferred = frozenset(draw(st.sets(st.sampled_from(names))))
    return History(rows(draw, Bars), universe, *span, rows(draw, Gaps), inferred)


def bits(batch):
    return [(name, column.dtype, column.tobytes()) for name, column in batch.columns()]


@given(histories())
def test_a_history_comes_back_to_the_last_bit(tmp_path_factory, history):
    path = tmp_path_factory.mktemp("history") / "history.parquet"
    found = history_file.load(history_file.save(history, path))
    assert bits(found.bars) == bits(history.bars) and bits(found.gaps) == bits(history.gaps)
    assert all(column.flags.writeable for _, column in found.bars.columns())
    assert [repr(asdict(one)) for one in found.universe] == [
        repr(asdict(one)) for one in history.universe
    ]
    told = ("interval", "start", "end", "inferred")
    assert [getattr(found, name) for name in told] == [getattr(history, name) for name in told]
    assert [left.name for left in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "history.parquet"
    path.write_bytes(b"before")
    monkeypatch.setattr("sysquant.history_file.sync", lambda path: 1 / 0)
    empty = History(Bars.empty(), (Instrument("A"),), 1, 0, 1, Gaps.empty())
    with pytest.raises(ZeroDivisionError):
        history_file.save(empty, path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["gone", "text", "other"])
def test_a_file_that_holds_no_history_is_refused_with_the_way_out(tmp_path: Path, what):
    path = tmp_path / "history.parquet"
    if what == "text":
        path.write_text("close")
    elif what == "other":
        parquet.write_table(pa.table({"close": [1.0]}), path)
    with pytest.raises(DataError, match=r"holds no history .* history_file\.save"):
        history_file.load(path)
