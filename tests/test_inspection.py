"""What is odd about history; its kinds are tested where files are imported."""

import pytest

from sysquant.inspection import Inspection
from sysquant.types import Bars, Rates, Ticks


@pytest.mark.parametrize("kind", [Ticks, Bars, Rates])
def test_a_block_without_rows_has_nothing_odd(kind):
    inspection = Inspection(["SIM:A"])
    inspection.take(kind.empty())
    assert (inspection.rows, inspection.findings, inspection.counts) == (0, [], {})
