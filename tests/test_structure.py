"""The plan of the house: which package may import which."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.structure import ORDER, arrows, circles, classes, described, module_arrows, modules

ENTRIES = {"__init__", "__main__"}


def test_every_room_has_its_place_in_the_order() -> None:
    assert set(modules(ROOT)) - ENTRIES == set(ORDER)


def test_no_room_imports_one_that_comes_after_it() -> None:
    upward = [(room, other) for room, other in arrows(ROOT) if room in ORDER and ORDER.index(other) > ORDER.index(room)]
    assert upward == []
    assert circles(arrows(ROOT)) == [] and circles(module_arrows(ROOT)) == []


def test_runtime_imports_no_other_room_and_no_room_imports_the_commands() -> None:
    assert [arrow for arrow in arrows(ROOT) if arrow[0] == "runtime" or (arrow[1] == "cli" and arrow[0] in ORDER)] == []


def test_at_most_two_modules_lie_outside_the_rooms() -> None:
    assert {path.stem for path in (ROOT / "bisae").glob("*.py")} <= ENTRIES


def test_no_two_public_classes_share_a_name() -> None:
    assert {name: places for name, places in classes(ROOT).items() if len(places) > 1} == {}


@pytest.mark.parametrize(("second", "found"), [("import bisae.a.x", [{"a", "b"}]), ("import json", [])])
def test_a_circle_is_found(tmp_path: Path, second: str, found: list[set[str]]) -> None:
    for room, text in (("a", "def f():\n    from bisae.b.x import Thing\n"), ("b", f"{second}\nclass Thing: ...\n")):
        (tmp_path / "bisae" / room).mkdir(parents=True)
        (tmp_path / "bisae" / room / "x.py").write_text(text)
    assert circles(arrows(tmp_path)) == found
    assert ("circles: none" in described(tmp_path)) == (not found)
