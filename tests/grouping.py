"""Which tests stay together in one worker of pytest-xdist, which come first, and which are long.

A pytest plugin, a refinement of `--dist loadfile`. A file stays together: its tests share fixtures
and what was compiled for them. So do all files that ask for the broker, in two halves,
and those in which vectorbt compiles for a minute; of a few files each test goes by itself.
The longest come first: none is left over for one worker at the end.

What takes minutes and shows once more, or at length, what quicker tests show, is `LONG`: it runs by
`make test-long` alone, or when it is asked for by its name.
"""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "broker": (
        "test_bench_kafka", "test_broker", "test_chain", "test_conf", "test_kafka_engine",
        "test_kafka_feed", "test_marks", "test_operate", "test_secrets", "test_session_kafka",
        "test_stream", "test_stream_live", "test_twin_kafka",
    ),
    "broker of models": (
        "test_challenge", "test_hands_off", "test_promote", "test_readme", "test_recorded_day",
    ),
    "vectorbt": ("test_bench", "test_screening"),
}  # fmt: skip
ALONE = ("test_notebook", "test_style", "test_session", "test_start", "test_oracle", "test_setup")
LONGEST = ("broker", "broker of models", "test_chaos", "test_notebook", "test_style", "vectorbt")
LONGEST += ("test_session", "test_start", "test_oracle", "test_setup", "test_compiled")
GROUP_OF = {file: group for group, files in GROUPS.items() for file in files}

LONG = {
    "test_bench": (
        "test_features_are_measured_against_every_peer",
        "test_sweep_does_the_work_that_its_figure_is_for",
        "test_engine_does_the_work_that_its_figure_is_for[bars_vs_vectorbt]",
    ),
    "test_chaos": tuple(
        f"test_scenario_holds_at_its_small_size[{name}]"
        for name in ("swaps_killed", "endurance", "leader_moves", "long_journal", "kills_wall")
    ),
    "test_recorded_day": ("test_a_walk_makes_the_models_of_a_recorded_day_again",),
    "test_retention": ("test_run_killed_after_any_step_is_finished_by_the_next[with late ticks]",),
    "test_retrain": (
        "test_rows_that_were_skewed_in_the_notebook_are_refused",
        "test_what_earns_no_more_than_the_model_that_serves_is_kept_back",
        "test_a_notebook_that_takes_too_long_is_killed_with_all_it_started",
        "test_a_training_that_does_not_end_is_not_waited_for_for_ever",
        "test_a_notebook_ends_with_its_runner_and_the_training_is_a_row[SIGINT]",
    ),
    "test_setup": ("test_pins_resolve[3.12]", "test_pins_resolve[3.13]"),
    "test_skew": (
        "test_what_was_served_by_other_code_than_now_is_refused",
        "test_a_column_that_is_served_otherwise_is_found[scaled]",
        "test_a_column_that_is_served_otherwise_is_found[shifted]",
    ),
    "test_swapping": (
        "test_every_order_has_one_whole_model_over_many_swaps_and_is_the_same_again",
        "test_how_far_the_market_has_moved_from_training_is_told",
    ),
    "test_timetable": (
        "test_a_bar_after_a_training_changes_nothing_of_it", "test_workers_change_nothing",
    ),
}  # fmt: skip


class InGroups(LoadScopeScheduling):
    """Hands out groups, in the order in which their tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).stem
        return nodeid if file in ALONE else GROUP_OF.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> InGroups | None:
    """Take the place of `--dist loadfile`."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return InGroups(config, log)  # pyright: ignore[reportArgumentType]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`."""
    parser.addoption("--long", action="store_true", help="what LONG of tests/grouping.py names")


def _leave_long(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Either what is long, or what is not; a test that was named runs however long it takes.
    wants = config.getoption("--long")
    if not wants and any("::" in given for given in config.args):
        return
    there = {item.path.stem for item in items}
    long = {f"{file}.py::{name}" for file in there for name in LONG.get(file, ())}
    is_long = {item: item.nodeid.rpartition("/")[2] in long for item in items}
    if not config.option.keyword and (gone := long - {i.nodeid.rpartition("/")[2] for i in items}):
        raise pytest.UsageError(f"LONG of {__file__} names what is not there: {sorted(gone)[0]}")
    config.hook.pytest_deselected(items=[item for item in items if is_long[item] != wants])
    items[:] = [item for item in items if is_long[item] == wants]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest first, in a worker, and hold the table of the broker's files complete."""
    _leave_long(config, items)
    for item in items:
        group = GROUP_OF.get(item.path.stem, "")
        if "broker" in getattr(item, "fixturenames", ()) and not group.startswith("broker"):
            raise pytest.UsageError(
                f"{item.nodeid} asks for the broker: name its file in {__file__}"
            )
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        files = {item: GROUP_OF.get(item.path.stem, item.path.stem) for item in items}
        items.sort(key=lambda item: places.get(files[item], len(places)))
