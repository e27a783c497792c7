"""Which tests stay together in one worker of pytest-xdist, and which of them come first.

A pytest plugin, for `--dist loadgroup --no-loadscope-reorder`. A file stays together: its tests
share fixtures and what was compiled for them. Of the files named here each test goes by itself; all
that ask for the broker stay together, so that one broker is started; a test may name its group with
`pytest.mark.xdist_group`. The longest come first: none is left over for one worker at the end.
"""

import pytest

LONGEST = (
    "broker", "test_style", "test_session", "test_notebook", "test_start", "vectorbt",
    "test_oracle", "test_conf", "test_setup", "test_compiled",
)  # fmt: skip
ALONE = {"test_style", "test_session", "test_notebook", "test_start", "test_oracle", "test_setup"}


def name_of(item: pytest.Item) -> str:
    """Of the group that an item belongs to."""
    if "broker" in getattr(item, "fixturenames", ()):
        return "broker"
    marked = item.get_closest_marker("xdist_group")
    return str(marked.args[0]) if marked else item.path.stem


@pytest.hookimpl(tryfirst=True)  # the plugin reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the items of a worker with their groups, and put the longest first."""
    if not hasattr(config, "workerinput"):
        return
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(name_of(item), len(places)))
    for item in items:
        if (name := name_of(item)) not in ALONE:
            item.add_marker(pytest.mark.xdist_group(name))
