"""The `price_ticks` contract: what is a tick, what is a dead letter, and that nothing raises."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.feeds.decode import LAST_MS, MALFORMED, TickDecoder, encode, iso_text, parse_iso
from sysquant.types import Instrument, Ticks

UNIVERSE = [Instrument("BINANCE:BTCUSDT"), Instrument("BINANCE:ETHUSDT")]
GOOD = {
    "timestamp": "2025-05-19T03:56:12+00:00",
    "timestamp_ms": 1747608972480,
    "symbol": "BINANCE:ETHUSDT",
    "price": 2446.59,
    "volume": 0.0124,
    "received_at": "2025-05-19T03:56:11+00:00",
}
DECODER = TickDecoder(UNIVERSE)


def decode(*values):
    return DECODER.decode(values, 3, np.arange(100, 100 + len(values), dtype=np.int64))


def changed(**fields):
    return json.dumps(GOOD | fields).encode()


def without(name):
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def test_record_of_the_contract_is_a_tick_and_its_milliseconds_are_what_counts():
    ticks, dead = decode(changed())
    assert not dead
    assert ticks.ts.tolist() == [1747608972480 * 1_000_000]  # `timestamp` says five hours later
    assert ticks.symbol.tolist() == [1]
    assert (ticks.price[0], ticks.volume[0]) == (2446.59, 0.0124)
    assert ticks.received_at[0] == np.datetime64("2025-05-19T03:56:11", "ns").astype(np.int64)
    assert (ticks.partition.tolist(), ticks.offset.tolist()) == ([3], [100])
    assert {n: c.dtype.str[1:] for n, c in ticks.columns()} == dict(Ticks.DTYPES)


@pytest.mark.parametrize(
    "value",
    [
        changed(exchange="binance", nested={"a": [1, 2]}),
        changed(price=5, volume=0),
        changed(timestamp="yesterday"),
        changed(timestamp_ms=LAST_MS),
        without("timestamp"),
        b" \n" + changed() + b"\n",
    ],
    ids=["extra", "integers", "timestamp", "last", "no_timestamp", "spaces"],
)
def test_what_the_contract_leaves_open_is_a_tick(value):
    ticks, dead = decode(value)
    assert (len(ticks), dead) == (1, ())


MALFORMED_RECORDS = {
    "null": (None, "empty"),
    "empty": (b"", "empty"),
    "cut_off": (changed()[:-7], "truncated"),
    "no_json": (b"\x00\x01", "malformed"),
    "not_utf8": (changed().replace(b"ETH", b"\xff\xfe"), "utf-8"),
    "two_in_one": (changed() + changed(), "trailing"),
    "array": (b"[]", "array"),
    "deep": (b"[" * 100_000, "object"),
    "deep_extra": (changed()[:-1] + b', "x": ' + b"[" * 100_000, "recursion"),
    "price_nan": (changed(price=float("nan")), "malformed"),
    "price_infinite": (changed(price=float("inf")), "malformed"),
    "price_overflow": (changed().replace(b"2446.59", b"1e400"), "range"),
    "price_zero": (changed(price=0), "price"),
    "price_vanishing": (changed().replace(b"2446.59", b"1e-400"), "price"),
    "price_negative": (changed(price=-1.5), "price"),
    "price_text": (changed(price="2446.59"), "price"),
    "price_true": (changed(price=True), "price"),
    "price_null": (changed(price=None), "price"),
    "price_missing": (without("price"), "price"),
    "volume_negative": (changed(volume=-0.1), "volume"),
    "volume_nan": (changed(volume=float("nan")), "malformed"),
    "volume_missing": (without("volume"), "volume"),
    "symbol_unknown": (changed(symbol="BINANCE:ETHUSD"), "unknown symbol"),
    "symbol_empty": (changed(symbol=""), "unknown symbol"),
    "symbol_number": (changed(symbol=7), "symbol"),
    "symbol_missing": (without("symbol"), "symbol"),
    "time_missing": (without("timestamp_ms"), "timestamp_ms"),
    "time_zero": (changed(timestamp_ms=0), "timestamp_ms"),
    "time_negative": (changed(timestamp_ms=-1), "timestamp_ms"),
    "time_text": (changed(timestamp_ms="1747608972480"), "timestamp_ms"),
    "time_fraction": (changed(timestamp_ms=1747608972480.5), "timestamp_ms"),
    "time_in_nanoseconds": (changed(timestamp_ms=1747608972480 * 10**6), "timestamp_ms"),
    "time_huge": (changed(timestamp_ms=10**30), "timestamp_ms"),
    "received_missing": (without("received_at"), "received_at"),
    "received_null": (changed(received_at=None), "received_at"),
    "received_words": (changed(received_at="just now"), "received_at"),
    "received_day": (changed(received_at="2025-02-29T00:00:00Z"), "received_at"),
    "received_surrogate": (changed(received_at="2025é05-19T03:56:11"), "received_at"),
}


@pytest.mark.parametrize(("value", "reason"), MALFORMED_RECORDS.values(), ids=MALFORMED_RECORDS)
def test_malformed_record_is_a_dead_letter_with_its_place_and_reason(value, reason):
    ticks, dead = decode(changed(), value, changed(price=7.0))
    assert ticks.offset.tolist() == [100, 102]
    assert ticks.price.tolist() == [2446.59, 7.0]
    (letter,) = dead
    assert (letter.topic, letter.partition, letter.offset) == ("price_ticks", 3, 101)
    assert letter.payload == (value or b"")
    assert reason in letter.reason.lower()
    assert "\n" not in letter.reason


def test_every_kind_of_malformed_record_at_once_keeps_its_own_reason():
    values = [value for value, _ in MALFORMED_RECORDS.values()]
    ticks, dead = decode(*values, changed())
    assert len(ticks) == 1
    assert [letter.offset for letter in dead] == list(range(100, 100 + len(values)))
    alone = [decode(value)[1][0].reason for value in values]
    assert [letter.reason for letter in dead] == alone


def test_no_records_give_no_ticks():
    ticks, dead = decode()
    assert (len(ticks), dead) == (0, ())


pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"{", b"}", b'"', b",", b"1e999", b"NaN", b"null", b"\\ud800", b"-", b"9" * 30]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(pieces, st.integers(0, 200), st.integers(0, 30)), max_size=8))
def test_mutated_records_never_raise_and_none_is_lost(cuts):
    whole = changed()
    values = [whole[:at] + piece + whole[at + length :] for piece, at, length in cuts]
    ticks, dead = decode(*values)
    places = sorted([*ticks.offset.tolist(), *(letter.offset for letter in dead)])
    assert places == list(range(100, 100 + len(values)))
    assert np.isfinite(ticks.price).all()
    assert (ticks.price > 0).all()
    assert (ticks.volume >= 0).all()
    assert (ticks.ts > 0).all()
    assert set(ticks.symbol.tolist()) <= {0, 1}


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(list(GOOD)), json_values, max_size=6))
def test_any_json_in_any_field_is_a_tick_or_a_dead_letter(fields):
    ticks, dead = decode(json.dumps(GOOD | fields).encode())
    assert len(ticks) + len(dead) == 1


moments = st.datetimes(
    min_value=datetime(1970, 1, 3),  # noqa: DTZ001
    max_value=datetime(2199, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)


@settings(max_examples=300, deadline=None)
@given(moments, st.sampled_from("T "), st.sampled_from(["auto", "minutes", "milliseconds"]))
def test_iso_text_of_python_is_read_as_python_reads_it(moment, separator, precision):
    text = moment.isoformat(sep=separator, timespec=precision)
    expected = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_iso([text])[0] == expected // timedelta(microseconds=1) * 1000


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(alphabet="0123456789-+:.TZ tzé", max_size=36), max_size=5))
def test_texts_that_are_no_time_are_malformed_and_do_not_touch_their_neighbours(texts):
    good = "2025-05-19T03:56:11.123456789Z"
    out = parse_iso([good, *texts, good])
    assert out[0] == out[-1] == 1747626971123456789
    assert ((out == MALFORMED) | (out >= 0)).all()


ticks_of_any_kind = st.lists(
    st.tuples(
        st.integers(1, LAST_MS),
        st.integers(0, 1),
        st.floats(min_value=5e-324, allow_infinity=False),
        st.floats(min_value=0, allow_infinity=False),
        st.integers(0, LAST_MS * 1_000_000 - 1),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(ticks_of_any_kind)
def test_encoded_ticks_decode_to_the_same_bits(rows):
    ms, symbol, price, volume, received = (np.array(column) for column in zip(*rows, strict=True))
    ticks = Ticks(
        ts=ms * 1_000_000,
        symbol=symbol.astype(np.int32),
        price=price,
        volume=volume,
        received_at=received,
        partition=np.full(len(rows), 3, np.int32),
        offset=np.arange(100, 100 + len(rows)),
    )
    again, dead = decode(*encode(ticks, UNIVERSE))
    assert not dead
    for name, column in ticks.columns():
        assert getattr(again, name).tobytes() == column.tobytes(), name


def test_encoded_tick_has_the_fields_of_the_contract_and_readable_times():
    ticks, _ = decode(changed())
    (value,) = encode(ticks, UNIVERSE)
    fields = msgspec.json.decode(value)
    assert set(fields) == set(GOOD)
    assert fields["timestamp"] == "2025-05-18T22:56:12.480000+00:00"
    assert fields["received_at"] == GOOD["received_at"]


def test_iso_text_keeps_nanoseconds():
    moments = np.array([0, 1747626971123456789], np.int64)
    assert parse_iso(iso_text(moments)).tolist() == moments.tolist()


def test_decoding_is_fast_enough_to_be_no_part_of_the_path():
    values = [
        changed(price=1.0 + i, received_at=f"2025-05-19T03:56:11.{i:06d}+00:00")
        for i in range(5000)
    ]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        ticks, _ = decode(*values)
        took.append(time.perf_counter() - began)
        assert len(ticks) == 5000
    assert 5000 / min(took) > 200_000  # measured over 2 M/s on two quiet cores
