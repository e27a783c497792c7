"""Which tests stay together in one worker of pytest-xdist, and which of them come first.

A pytest plugin, a refinement of `--dist loadfile`. A file stays together: its tests share fixtures
and what was compiled for them. So do all files that ask for the broker, in two halves,
and those in which vectorbt compiles for a minute; of a few files each test goes by itself.
The longest come first: none is left over for one worker at the end.
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest first, in a worker, and hold the table of the broker's files complete."""
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
