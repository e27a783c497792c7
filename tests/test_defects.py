"""Seeded defects at their small size, and what tells a defect that is caught from one that is not.

`make defects` seeds all of them; here a few are, of layers that compile in seconds.
"""

import ast
import re

import pytest

from tests.conftest import REPOSITORY
from tests.defects import NotShownError, first_sentence, replaced, shared
from tests.defects.seeding import kinds, load, run, show
from tests.defects.shared import DEFECTS, SMALL, Defect, Told

BY_NAME = {defect.name: defect for defect in DEFECTS}


@pytest.mark.parametrize("name", BY_NAME)
def test_each_defect_exchanges_one_piece_of_the_source_that_there_is(name):
    one = BY_NAME[name]
    source = (REPOSITORY / one.file).read_text()
    wrong = replaced(name, source, one.old, one.new)
    assert ast.dump(ast.parse(wrong)) != ast.dump(ast.parse(source))


@pytest.mark.parametrize("name", BY_NAME)
def test_each_defect_names_a_test_that_there_is(name):
    for test in BY_NAME[name].tests:
        path, function = re.fullmatch(r"(.*)::(\w+)(?:\[.*\])?", test).groups()
        assert f"\ndef {function}(" in (REPOSITORY / path).read_text()


def test_a_piece_of_source_that_has_changed_is_an_error_that_names_the_defect():
    with pytest.raises(NotShownError, match="fee_halved: its piece of source is there 0 times"):
        replaced("fee_halved", "a + b", "a - b", "a + b")
    with pytest.raises(NotShownError, match="is there 2 times, not once: 'a'"):
        replaced("fee_halved", "a + a", "a", "b")


def test_there_are_thirty_defects_of_both_kinds_with_names_of_their_own():
    names = [one.name for kind in kinds() for one in kind.DEFECTS]
    assert len(set(names)) == len(names) == len(load())
    assert len(DEFECTS) >= 16
    assert len({one.where for one in DEFECTS}) >= 6
    assert len(kinds()) == 1 or len(names) >= 30


@pytest.mark.timeout(300)
def test_defects_are_caught_by_assertions_that_the_tree_as_it_is_passes(capsys):
    rows, control = run(SMALL, {}, is_kept=False)
    assert [row["defect"] for row in rows] == list(SMALL)
    for row in rows:
        one = BY_NAME[row["defect"]]
        assert row["caught"], row
        assert (row["where"], row["cause"]) == (one.where, "") and row["check"] in one.tests
        assert row["said"] and row["took_s"] > 0
    assert control["passes"]
    assert control["said"] == f"the tree as it is passes the same {len(SMALL)} tests"
    show(rows)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["defect", "where", "check", "cause", "seconds"]
    for line, row in zip(printed[1:], rows, strict=True):
        assert line.split() == [
            row["defect"], row["where"], row["check"], f"{row['took_s']:.1f}",
        ]  # fmt: skip


OLD = "    return _cut_down(value, step, per_unit(step))\n"


@pytest.mark.timeout(300)
def test_what_does_not_compile_is_not_caught(tmp_path):
    wrong = OLD.replace("value", "valeu")
    one = Defect("misspelt", "steps", "sysquant/steps.py", OLD, wrong, (shared.LOTS,))
    with pytest.raises(NotShownError, match=r"misspelt: .*: TypingError: "):
        shared.caught(one, tmp_path)


def test_only_an_assertion_of_a_test_catches(tmp_path, monkeypatch):
    one = DEFECTS[0]
    said = [Told("first", "passed", "", "")]
    monkeypatch.setattr(shared, "tested", lambda tree, tests: said)
    assert shared.caught(one, tmp_path / "passed") is None
    for kind in ("Skipped", "Failed", "ValueError"):
        said[1:] = [Told("second", "skipped" if kind == "Skipped" else "failed", kind, "so")]
        with pytest.raises(NotShownError, match=f"second: {kind}: so"):
            shared.caught(one, tmp_path / kind)
        with pytest.raises(NotShownError, match="without any defect: second"):
            shared.control(tmp_path / f"{kind} of the control", one.tests)
    said[1:] = [Told("second", "failed", "AssertionError", "\n1 is not 2\n")]
    found = shared.caught(one, tmp_path / "failed")
    assert found[:5] == (one.name, one.where, "second", "", "1 is not 2")


def test_the_first_sentence_is_the_first_line_that_says_something():
    said = "Not equal to tolerance rtol=1e-12"
    assert first_sentence(f"\n\n  {said}\nx") == said
    assert first_sentence("0.0\nassert 0 == 1\nmore") == "0.0: assert 0 == 1"
    assert first_sentence("") == ""
