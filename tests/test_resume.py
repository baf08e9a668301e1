"""Real commands killed at chosen places, and run again."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, run

pytestmark = pytest.mark.slow

STORES = ("cached", "rolling", "streaming")


def test_the_same_command_twice_at_once_trains_once_and_both_answer(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum("SAEs trained:" in out for out, _ in printed) == 1
    assert all("topk-" in out for out, _ in printed)


@pytest.mark.parametrize(("save_every", "place", "call"), [(24, "step", 26), (8, "step", 50), (8, "at-cell", 1)])
def test_a_kill_about_an_epochs_end_loses_no_epoch(tmp_path: Path, save_every: int, place: str, call: int) -> None:
    overrides = [*TINY, f"save_every={save_every}", "data.epochs=3"]  # 24 steps an epoch
    for folder, point in (("undisturbed", "never"), ("killed", place)):
        (tmp_path / folder).mkdir()
        run(["-m", "tests.killed", "train", point, str(call), *overrides], tmp_path / folder)
        again = run([str(ROOT / "train.py"), *overrides], tmp_path / folder)
        assert again.returncode == 0, again.stderr
    one, other = (next((tmp_path / f).rglob("sae.safetensors")).read_bytes() for f in ("undisturbed", "killed"))
    assert one == other


def test_a_killed_job_goes_on_rightly_with_its_members_named_in_another_order(tmp_path: Path) -> None:
    for folder in ("undisturbed", "killed"):
        (tmp_path / folder).mkdir()
    done = run([str(ROOT / "train.py"), *TINY, "sae.k=[2,4]"], tmp_path / "undisturbed")
    assert done.returncode == 0, done.stderr
    assert (
        run(["-m", "tests.killed", "train", "step", "30", *TINY, "sae.k=[2,4]"], tmp_path / "killed").returncode == -9
    )
    done = run([str(ROOT / "train.py"), *TINY, "sae.k=[4,2]"], tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "undisturbed").rglob("sae.safetensors"):
        same_place = tmp_path / "killed" / file.relative_to(tmp_path / "undisturbed")
        assert file.read_bytes() == same_place.read_bytes()


def test_a_killed_job_goes_on_rightly_wherever_its_activations_are_kept(tmp_path: Path) -> None:
    overrides = [*TINY, "data.window_pools=2"]  # 3 windows an epoch, a save every 7 steps
    for store in STORES:
        (tmp_path / store).mkdir()
        command = [*overrides, f"activations={store}"]
        if store != "cached":  # in the second epoch, a window after its save
            assert run(["-m", "tests.killed", "train", "step", "46", *command], tmp_path / store).returncode == -9
        done = run([str(ROOT / "train.py"), *command], tmp_path / store)
        assert done.returncode == 0, done.stderr
    expected, *found = ((next((tmp_path / store).rglob("sae.safetensors"))).read_bytes() for store in STORES)
    assert found == [expected, expected]
    assert not list((tmp_path / "rolling").rglob("*.bin"))


def contents(folder: Path) -> dict[str, bytes]:
    kept = (f for f in folder.rglob("*") if f.is_file() and f.name not in ("used", ".lock"))
    return {str(f.relative_to(folder)): f.read_bytes() for f in kept}


def test_killed_again_and_again_while_the_lm_works_ahead_a_job_ends_bit_for_bit_as_without_threads(
    tmp_path: Path,
) -> None:
    # Held-out text is read in two windows too.
    more = ["layer=[1,2]", "activations=streaming", "data.window_pools=2", "data.validation_tokens=6000"]
    overrides = [*TINY, *more]
    for folder in ("undisturbed", "killed"):
        (tmp_path / folder).mkdir()
    done = run([str(ROOT / "train.py"), *overrides], tmp_path / "undisturbed")
    assert done.returncode == 0, done.stderr
    drawn = random.Random(26)
    for place, most in (("lm-thread", 2), ("step", 20), ("lm-thread", 2), ("step", 12), ("lm-thread", 1)):
        point = place, str(drawn.randint(1, most))
        killed = run(["-m", "tests.killed", "ahead", *point, *overrides], tmp_path / "killed")
        assert killed.returncode == -9, (point, killed.stderr)
    resumed = run(["-m", "tests.killed", "ahead", "never", "0", *overrides], tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def kill_points(count: int) -> list[tuple[str, int]]:
    """Three that always matter, then seeded ones. Renames 1-10: unpacked LM, shards; later: saves, cells."""
    chosen = [("before-rename", 5), ("after-rename", 27), ("resumed-step", 1)]
    drawn = random.Random(20)
    while len(chosen) < count:
        place, most = drawn.choice([("before-rename", 32), ("after-rename", 32), ("step", 48), ("resumed-step", 20)])
        chosen.append((place, drawn.randint(1, most)))
    return chosen[:count]


def test_killed_at_any_point_the_same_command_ends_bit_for_bit_as_undisturbed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    overrides = [*TINY, "layer=[1,2]"]
    (tmp_path / "undisturbed").mkdir()
    done = run([str(ROOT / "train.py"), *overrides], tmp_path / "undisturbed")
    assert done.returncode == 0, done.stderr
    expected = contents(tmp_path / "undisturbed")
    assert sum(name.endswith("cell.json") for name in expected) == 2
    for number, (place, call) in enumerate(kill_points(request.config.getoption("--kill-points"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        if place == "resumed-step":  # needs a save to go on from
            assert run(["-m", "tests.killed", "train", "step", "30", *overrides], folder).returncode == -9
        killed = run(["-m", "tests.killed", "train", place, str(call), *overrides], folder)
        assert killed.returncode in (-9, 0), killed.stderr  # 0: the job has fewer calls than that
        resumed = run([str(ROOT / "train.py"), *overrides], folder)
        assert resumed.returncode == 0, resumed.stderr
        assert contents(folder) == expected, (place, call)
