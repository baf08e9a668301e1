import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import DictConfig

from bisae.cells.cell import Cell
from bisae.grid.cost import Cost
from bisae.grid.device import Device
from bisae.grid.job_record import FOLDER, JobRecord
from bisae.grid.ladders import Ladder, PlannedCell
from bisae.grid.progress import GridProgress, progress_of
from bisae.grid.progress_page import html, summary, text
from bisae.runtime.atomic import write_json
from bisae.sae import TopK
from tests.conftest import ROOT, TINY, run
from tests.grid.ladders import composed

Config = Callable[..., DictConfig]
GRID = ["experiment=laptop_grid", "+grid={embedded:[0,512,final]}", "layer=[1,2]"]


def small(config: Config, runs: Path, *overrides: str) -> list[Ladder]:
    return composed(config, *GRID, f"runs={runs}", *overrides, only="embedded_d64")


def write_cell(runs: Path, place: PlannedCell, fvu: float = 0.5) -> None:
    identity = {**place.known, "activations": {**place.known["activations"], "weights": "a checksum"}}
    cell = Cell(runs, "embedded_d64", place.step, place.layer, place.sae, identity)
    cell.write(TopK(4, 8, 2), "", {"val/fvu": fvu}, {})


def write_record(runs: Path, step: int | str, layers: list[int | str], **known: Any) -> Path:
    record = JobRecord("embedded_d64", step, layers, "node7", 123, 100.0, 50.0, 150.0, None)
    file = runs / FOLDER / f"{step}.json"
    write_json(file, {**asdict(record), **known})
    return file


def states(progress: GridProgress) -> list[str]:
    return [cell.state for cell in progress.of["embedded_d64"]]


def test_cells_are_done_running_failed_or_missing(config: Config, tmp_path: Path) -> None:
    ladders = small(config, tmp_path)
    assert states(progress_of(ladders, tmp_path)) == ["missing"] * 6  # steps 0, 512, 2048, layers 1 and 2
    places = list(ladders[0].places())
    write_cell(tmp_path, places[0])
    write_record(tmp_path, 0, [1, 2], error="error: layer 2: <went> wrong")
    running = FileLock(write_record(tmp_path, "final", ["all"], ended=None).with_suffix(".lock"))
    write_record(tmp_path, 512, [2], ended=None)  # its process is gone
    with running:
        progress = progress_of(ladders, tmp_path)
    assert states(progress) == ["done", "failed", "missing", "missing", "running", "running"]
    said = [cell.detail for cell in progress.of["embedded_d64"]]
    assert said[0] == "FVU 0.5" and said[1] == "error: layer 2: <went> wrong" and said[2] == "not started"
    assert said[3].startswith("killed") and said[4] == "process 123 on node7"
    assert progress.failures == {said[1]: ["embedded_d64 step 0 layer 2"]}
    assert states(progress_of(ladders, tmp_path))[4:] == ["missing"] * 2


def test_cells_of_another_config_are_not_the_grids(config: Config, tmp_path: Path) -> None:
    (ladder,) = small(config, tmp_path)
    for place in ladder.places():
        write_cell(tmp_path, place)
    (tmp_path / "embedded_d64" / "damaged").mkdir()
    (tmp_path / "embedded_d64" / "damaged" / "cell.json").write_text("{")
    assert states(progress_of([ladder], tmp_path)) == ["done"] * 6
    for other in ("sae.k=7", "data.epochs=5", "optimizer.warmup=7", "trainer.precision=bf16-mixed", "size.context=64"):
        assert states(progress_of(small(config, tmp_path, other), tmp_path)) == ["missing"] * 6, other


def test_a_cell_from_scratch_does_not_count_for_one_that_starts_from_the_checkpoint_before(
    config: Config, tmp_path: Path
) -> None:
    (plain,), (warm,) = small(config, tmp_path), small(config, tmp_path, "sae.start=previous")
    for place in plain.places():
        write_cell(tmp_path, place)
    assert states(progress_of([warm], tmp_path)) == ["done"] * 2 + ["missing"] * 4  # the first step is from scratch
    for place in warm.places():
        if place.step:
            known = {**place.known, "start": f"hash of step {place.step}"}
            write_cell(tmp_path, place._replace(known=known))
    assert states(progress_of([warm], tmp_path)) == ["done"] * 6


def test_the_time_left_follows_from_the_cells_done_and_the_jobs_that_run(config: Config, tmp_path: Path) -> None:
    ladders = small(config, tmp_path)
    places = list(ladders[0].places())
    assert progress_of(ladders, tmp_path).seconds is None
    for place in places[:2]:
        write_cell(tmp_path, place)
    write_record(tmp_path, 0, ["all"])  # two cells in 50 seconds
    assert progress_of(ladders, tmp_path).seconds == pytest.approx(100)
    locks = [
        FileLock(write_record(tmp_path, s, [1, 2], seconds=0.0, ended=None).with_suffix(".lock")) for s in (512, 2048)
    ]
    with locks[0], locks[1]:
        progress = progress_of(ladders, tmp_path)
    assert progress.running == 2 and progress.seconds == pytest.approx(50)
    assert summary(progress) == ("6 cells: 2 done, 4 running, 0 failed, 0 missing (33.3%); 2 jobs running; left: 50 s")
    for place in places[2:]:
        write_cell(tmp_path, place)
    assert progress_of(ladders, tmp_path).seconds == 0


def test_text_and_page_show_every_cell_and_what_failed(config: Config, tmp_path: Path) -> None:
    ladders = small(config, tmp_path)
    write_cell(tmp_path, next(ladders[0].places()))
    write_record(tmp_path, 0, [1, 2], error="error: layer 2: <went> wrong")
    progress = progress_of(ladders, tmp_path)
    lines = text(progress).splitlines()
    assert lines[2:6] == ["embedded_d64, layers 1 to 2", "         0  #!", "       512  ..", "      2048  .."]
    assert lines[-2:] == ["error: layer 2: <went> wrong", "  embedded_d64 step 0 layer 2"]
    page = html(progress, "runs/<mine>")
    assert "<title>runs/&lt;mine&gt;</title>" in page and "&lt;went&gt;" in page and "<went>" not in page
    assert page.count('<td class="done"') == 1 and page.count('<td class="failed"') == 1
    assert page.count('<td class="missing"') == 4 and "http" not in page and "src=" not in page


@pytest.mark.slow
def test_a_grid_is_planned_run_side_by_side_and_looked_at(config: Config, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    overrides = ["experiment=laptop_grid", *(one for one in TINY if not one.startswith("checkpoint"))]
    overrides += ["grid.embedded_d64=[512,7]", "model=embedded_d64", "layer=[1,2]"]
    figures = ["machine.lm_tflops=0.01", "machine.sae_tflops=0.01", "machine.disk_gbs=1", "write=grid.sh"]
    planned = run(["-m", "bisae", "plan", *overrides, *figures], tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith("4 cells: 2 checkpoints, their layers in 2 passes") and "FLOP" in planned.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["grid.sh"]

    script = (tmp_path / "grid.sh").read_text().replace("python train.py", f"{sys.executable} {ROOT}/train.py")
    (tmp_path / "grid.sh").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["bash", "grid.sh", "hydra/launcher=processes"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "1 of 2 jobs failed" in done.stderr, done.stderr

    seen = run(["-m", "bisae", "status", *overrides, "html=status.html"], tmp_path)
    assert seen.returncode == 0 and "Traceback" not in seen.stderr, seen.stderr
    assert seen.stdout.startswith("4 cells: 2 done, 0 running, 2 failed, 0 missing (50.0%); 0 jobs running; left: ")
    assert "error: checkpoint=7: embedded_d64 has the steps [0, 512, 2048]" in seen.stdout
    assert (tmp_path / "status.html").read_text().count('<td class="done"') == 2

    (ladder,) = composed(config, *overrides, "grid.embedded_d64=[512]", only="embedded_d64")
    cost = Cost(ladder, "cached", Device("node", 1, 10, 10, 1, 1, 1, 10, 1), None)
    weights = sum(file.stat().st_size for file in tmp_path.rglob("sae.safetensors"))
    assert 0 < weights - cost.result_bytes < 2000  # headers
    cached = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("layer*/*.bin"))
    whole_shards = cached - cost.activation_bytes
    assert 0 <= whole_shards < 2 * 4 * 6 * 128 * 64 * 2 * 2  # of two texts: lm_batch, shard_batches, context, bytes
