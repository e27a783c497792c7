"""How a live session runs, as configured by `conf/runtime`."""

from dataclasses import dataclass
from typing import Any, Literal

from sysquant.keys import check_choice, check_flag, check_number

CLOCKS = ("event", "wall")
_RANGES: dict[str, dict[str, Any]] = {
    "grace_ms": {"least": 0, "whole": True},
    "warmup_bars": {"least": 0, "whole": True},
    "snapshot_s": {"least": 0},
    "outbox_rows": {"least": 1, "whole": True},
    "stop_after_idle_s": {"least": 0},
    "deadline_s": {"least": 0},
    "report_s": {"least": 0.01},
    "control_age_s": {"above": 0},
    "start_s": {"above": 0},
    "hung_s": {"above": 0},
    "lost_s": {"above": 0},
    "silent_s": {"above": 0},
    "health_port": {"least": 0, "most": 65_535, "whole": True},
    "twin_s": {"least": 1},
}
OPEN = ("stop_after_idle_s", "silent_s", "health_port", "twin_s")  # None: never, or off


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a live session runs; none of it changes what is decided on a given sequence.

    Parameters
    ----------
    clock : `event`: bars close by ticks alone; `wall`: a timer may close them sooner.
    grace_ms : wall time that other partitions, and the wall's mark, are waited for.
    warmup_bars : bars of history that features and statistics see before the first event;
        0 for none.
    snapshot_s : wall time between two snapshots of the state.
    outbox_rows : rows waiting for the store at which the feed is held back.
    stop_after_idle_s : end when nothing came for so long; None never.
    deadline_s : from the request to stop to the exit.
    report_s : wall time between two reports, and two rows of `runtime_metrics`.
    control_age_s : how old an operator's command may be.
    control_topic : Kafka topic of commands.
    start_s, hung_s : without a heartbeat it counts as hung, at the start and later.
    lost_s : so long without a connection, the feed counts as lost.
    silent_s : so long without a record though connected, the feed counts as silent; None never.
    health_port : of `/healthz` and `/metrics` on 127.0.0.1; 0 a free one, None for not at all.
    twin_s : wall time between two comparisons of the session with its backtest; None never.
    require_promotion : whether a strategy that was not promoted is refused at the start.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    clock: Literal["event", "wall"] = "event"
    grace_ms: int = 100
    warmup_bars: int = 1000
    snapshot_s: float = 10.0
    outbox_rows: int = 2_000_000
    stop_after_idle_s: float | None = None
    deadline_s: float = 3.0
    report_s: float = 2.0
    control_age_s: float = 30.0
    control_topic: str = "sysquant.control"
    start_s: float = 120.0
    hung_s: float = 10.0
    lost_s: float = 5.0
    silent_s: float | None = 60.0
    health_port: int | None = None
    twin_s: float | None = 3600.0
    require_promotion: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_choice("runtime.clock", self.clock, CLOCKS)
        for name, range_ in _RANGES.items():
            value = getattr(self, name)
            if not (value is None and name in OPEN):
                check_number(f"runtime.{name}", value, **range_)
        check_flag("runtime.require_promotion", self.require_promotion)
