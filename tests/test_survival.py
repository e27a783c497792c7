"""When symbols of the store lived: of its minute bars, from ticks and imported alike."""

from sysquant.survival import Life, lives, survivors_only
from sysquant.times import DAY
from sysquant.types import Instrument
from tests.sessions import server, store
from tests.test_quality import MIDNIGHT, MINUTE, a_day, put

__all__ = ["server", "store"]  # fixtures


def test_lives_are_those_of_the_stored_bars(store):
    put(store, a_day())
    early = a_day(seed=2)
    put(store, early[early.ts < MIDNIGHT + 600 * MINUTE], symbol="SIM:DEAD", token="b")
    found = lives(store)
    assert found == {
        "SIM:A": Life(MIDNIGHT + MINUTE, MIDNIGHT + DAY),
        "SIM:DEAD": Life(MIDNIGHT + MINUTE, MIDNIGHT + 600 * MINUTE),
    }
    universe = [Instrument("SIM:A")]
    window = MIDNIGHT, MIDNIGHT + DAY
    assert survivors_only(found, universe, *window) == []  # it was quiet for half a day alone
    (failure,) = survivors_only(found, universe, *window, quiet_ns=60 * MINUTE)
    assert "SIM:DEAD stopped trading inside the history, at 2024-03-04T10:00Z" in failure


def test_an_empty_store_knows_nobody(store):
    assert lives(store) == {}
