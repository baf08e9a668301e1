import json
import subprocess
import sys
from pathlib import Path

import pytest

from bisae.runtime.atomic import atomic_file, atomic_folder, write_json
from tests.conftest import ROOT


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "cell"
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:
        (temporary / "a").write_text("a")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("a")
        (temporary / "deep").mkdir()
        (temporary / "deep" / "b").write_text("b")
        assert not path.exists()
    assert (path / "deep" / "b").read_text() == "b"


def test_a_folder_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cell"
    path.mkdir()
    (path / "kept").write_text("kept")
    with pytest.raises(OSError), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert [f.name for f in path.iterdir()] == ["kept"]


def test_what_a_killed_process_left_is_removed_by_the_next_write_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    script = "import os, sys; from pathlib import Path; from bisae.runtime.atomic import *; p = Path(sys.argv[1])\n"
    for end, write in (("a", "atomic_file"), ("b", "atomic_folder")):
        killed = (
            script + f"with {write}(p / '{end}') as t: (t / 'x' if t.is_dir() else t).touch(); os.kill(os.getpid(), 9)"
        )
        assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], cwd=ROOT).returncode == -9
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second, atomic_folder(tmp_path / "b"):
        first.write_text("first")
        second.write_text("second")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b"]


def test_json_keeps_japanese_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"語": "犬"})
    assert "犬" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"語": "犬"}
