"""A rehearsal of the live runner on a real broker: as undisturbed as it is, and with a defect."""

import pytest

from sysquant.errors import FeedError
from tests.defects import live
from tests.defects.seeds import DEFECTS, MOMENTUM

BY_NAME = {defect.name: defect for defect in DEFECTS}


@pytest.mark.timeout(600)
def test_parity_refuses_a_defect_that_only_live_has_and_the_twin_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SYSQUANT_HOME", str(tmp_path))  # is changed, and put back
    try:
        usual = live.undisturbed(tmp_path / "undisturbed", MOMENTUM)
    except FeedError as error:
        pytest.skip(f"no broker can be started here, parity is not shown: {error}")
    assert usual.said == "" and usual.differing["capital"] == 6, "it was paused and went on"
    found = live.caught(BY_NAME["first_of_a_batch_lost"], tmp_path)
    assert found is not None and found.cause == "data" and found.said.startswith("ticks: ")


def test_defects_are_in_all_that_only_a_live_session_has():
    assert {defect.where for defect in DEFECTS} == {
        "decode", "deduplication", "batch cut", "bar clock", "journal", "recovery", "model swap",
        "control", "store writer", "configuration", "other code", "other CPU",
    }  # fmt: skip
