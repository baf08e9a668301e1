import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

import bisae.training.fit
from bisae.cells.cell import Cell
from bisae.cli.train import train
from bisae.lm.lm_pass import LMPass
from bisae.metrics.reconstruction import ReconstructionMetrics
from bisae.runtime.errors import ConfigError, TrainingFailed
from bisae.sae import load
from bisae.training.module import SAETraining
from tests.conftest import ROOT, TINY, run

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]


def weights(cell: Cell) -> dict[str, torch.Tensor]:
    return load_file(cell.folder / "sae.safetensors")


def same(one: Cell, other: Cell) -> bool:
    left, right = weights(one), weights(other)
    equal = all(torch.equal(left[name], right[name]) for name in left)
    return equal and one.read()["metrics"] == other.read()["metrics"]


def test_a_finished_cell_holds_the_sae_its_config_its_provenance_and_finite_metrics(config: Config) -> None:
    (cell,) = train(config())
    assert cell.folder.relative_to(cell.runs).parts[:3] == ("embedded", "step0000512", "layer02")
    assert sorted(f.name for f in cell.folder.iterdir()) == ["cell.json", "config.yaml", "sae.json", "sae.safetensors"]
    about = cell.read()
    assert about["provenance"]["lm_tokens_seen"] == 512 * 2048
    assert about["provenance"]["sae_tokens"] == 2 * 6000
    languages = {f"val/{m}/{la}" for m in ("fvu", "r2", "fvu_raw", "l0", "cosine", "dead") for la in ("en", "ja")}
    assert languages < set(about["metrics"])
    assert 0 < about["metrics"]["val/fvu"] < 1 and about["metrics"]["val/l0"] <= 4
    sae = load(cell.folder)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(64), atol=1e-6)


def test_the_config_in_a_cell_is_of_that_cell_alone_and_names_it_again(config: Config) -> None:
    cells = train(config("layer=[1,2]", "sae.k=[2,4]"))
    for cell in cells:
        (again,) = train(OmegaConf.load(cell.folder / "config.yaml"))
        assert again.hash == cell.hash
    assert len({cell.hash for cell in cells}) == 4


@pytest.mark.parametrize("store", ["cached", "streaming"])
def test_on_the_cpu_of_a_machine_with_a_gpu_no_memory_is_pinned_and_no_thread_works_ahead(
    config: Config, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    threads: set[str] = set()
    original = SAETraining.training_step

    def step(self: SAETraining, *arguments: Any) -> torch.Tensor:
        threads.update(thread.name for thread in threading.enumerate())
        return original(self, *arguments)

    monkeypatch.setattr(SAETraining, "training_step", step)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # without one, pinning memory is an error
    (cell,) = train(config("trainer.accelerator=cpu", "activations.pass.device=cpu", f"activations={store}"))
    assert cell.finished and threads
    assert not [name for name in threads if name.startswith(("batch-ahead", "activation-lm"))]


def test_training_reconstructs_better_than_the_initialisation(config: Config) -> None:
    (short,) = train(config("data.epochs=1", "data.tokens=1000"))
    (long,) = train(config("data.epochs=20", "data.tokens=6000"))
    assert long.read()["metrics"]["val/fvu"] < 0.7 * short.read()["metrics"]["val/fvu"]


def test_a_finished_cell_is_not_trained_again_but_force_moves_it_aside(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = train(config())
    with monkeypatch.context() as patched:
        patched.setattr(bisae.training.fit, "fit", lambda *_, **__: pytest.fail("trained again"))
        patched.setattr(LMPass, "activations", lambda *_: pytest.fail("ran the LM again"))
        train(config())
    before = weights(first)
    (again,) = train(config("force=true"))
    old = again.folder.with_name(again.folder.name + ".old1")
    assert (old / "cell.json").exists()
    assert all(torch.equal(before[name], weights(again)[name]) for name in before)


def test_every_member_equals_the_same_cell_trained_alone(config: Config, tmp_path: Path) -> None:
    together = train(config("layer=[0,2,4]", "sae.lr=[0.001,0.004]", "sae.k=[2,4]", "sae.seed=[0,3]"))
    assert len(together) == 24 and len({cell.hash for cell in together}) == 24
    for cell in random.Random(0).sample(together, 3):
        sae = cell.identity["sae"]
        chosen = [f"layer={cell.layer}", *(f"sae.{key}={sae[key]}" for key in ("lr", "k", "seed"))]
        (alone,) = train(config(*chosen, f"runs={tmp_path}/alone"))
        assert alone.name == cell.name and same(alone, cell)


def test_all_layers_come_from_one_lm_pass_and_a_cache_grows_by_layers_and_tokens(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, int, tuple[int, ...]]] = []
    original = LMPass.activations

    def counted(self: LMPass, shard: int, layers: Any) -> Any:
        calls.append((self.split, shard, tuple(layers)))
        return original(self, shard, layers)

    monkeypatch.setattr(LMPass, "activations", counted)
    train(config("layer=[1,2]", "data.tokens=4000"))
    assert {layers for _, _, layers in calls} == {(1, 2)}
    assert len(calls) == len({(split, shard) for split, shard, _ in calls})
    calls.clear()
    (grown,) = train(config("layer=4", "data.tokens=6000"))
    assert {layers for _, _, layers in calls} == {(4,)}
    calls.clear()
    train(config("layer=1", "data.tokens=6000"))
    assert {split for split, _, _ in calls} == {"sae"}  # only the shards beyond the first 4000 tokens
    (fresh,) = train(config("layer=4", f"cache={tmp_path}/other", f"runs={tmp_path}/other"))
    assert same(grown, fresh)


def test_a_member_whose_loss_explodes_fails_by_name_and_the_others_go_on(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"embedded/step0000512/layer02/topk-\w+: .*sae.lr.* shards \[.*\] of"):
        train(config("sae.lr=[0.002,1e38]"))
    cells = list((tmp_path / "runs").rglob("cell.json"))
    assert len(cells) == 1
    (alone,) = train(config("sae.lr=0.002", f"runs={tmp_path}/alone"))
    assert json.loads(cells[0].read_text())["metrics"] == alone.read()["metrics"]


def test_a_job_without_a_member_left_fails_by_name_and_leaves_no_cell(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"no SAE of the job is left:\n.*topk-\w+: loss is not finite"):
        train(config("sae.lr=1e38"))
    assert not list((tmp_path / "runs").rglob("cell.json"))


def test_a_job_whose_members_all_fail_in_validation_ends_with_their_names(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ReconstructionMetrics.compute
    monkeypatch.setattr(ReconstructionMetrics, "compute", lambda self: {**original(self), "fvu": float("nan")})
    with pytest.raises(TrainingFailed, match=r"no SAE of the job is left:\n.*val/fvu is not finite"):
        train(config("data.epochs=2"))


def test_non_finite_activations_fail_the_members_of_their_layer_and_name_the_shard(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = LMPass.activations

    def poisoned(self: LMPass, shard: int, layers: Any) -> Any:
        found = original(self, shard, layers)
        if self.split == "sae" and shard == 1:
            found[2][3, 5] = torch.inf
        return found

    monkeypatch.setattr(LMPass, "activations", poisoned)
    with pytest.raises(TrainingFailed, match=r"layer02/.*non-finite activations in shards \[1\] of layer 2"):
        train(config("layer=[1,2]"))
    assert [f.parent.parent.name for f in (tmp_path / "runs").rglob("cell.json")] == ["layer01"]


@pytest.mark.parametrize(
    "variant",
    [
        *("sae=relu_l1 ~sae.k sae.latents=64", "sae.aux_k=8 sae.dead_after=500", "sae.k=64"),
        *("trainer.precision=bf16-mixed", "trainer.precision=16-mixed"),
    ],
)
def test_other_architectures_and_precisions_train(config: Config, variant: str) -> None:
    overrides = variant.replace(" ~sae.k", "").split()
    tiny = [o for o in TINY if not (o.startswith("sae.k") and "relu_l1" in variant)]
    (cell,) = train(config(*tiny, *overrides, tiny=False))
    assert 0 < cell.read()["metrics"]["val/fvu"] < 1


def test_the_paper_experiment_holds_the_studys_values(config: Config) -> None:
    cfg = config("experiment=paper", tiny=False)
    assert (cfg.sae.latents, cfg.sae.k, cfg.sae.aux_k, cfg.layer) == (32768, 32, 0, "all")
    assert (cfg.data.batch, cfg.data.tokens, cfg.optimizer.warmup) == (32768, 132_000_000, 1000)
    assert (cfg.optimizer.partial.eps, cfg.activations["pass"].context, cfg.data.epochs) == (6.25e-10, 64, 1)
    assert cfg.trainer.precision == "bf16-mixed" and config(tiny=False).trainer.precision == "32-true"


@pytest.mark.slow
def test_a_short_split_is_taken_whole_by_choice_recorded_and_not_passed_off_as_what_was_asked_for(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["data.split=shots", "data.tokens=60000", "data.epochs=1"]
    with pytest.raises(ConfigError, match=r"data.tokens=60000: the corpus split holds only \d+ tokens: \w\w ran out"):
        train(config(*short))
    (cell,) = train(config(*short, "data.short_split=take"))
    used = cell.read()["provenance"]["tokens"]
    assert 1000 < used["training"] < 60000 and used["validation"] == 1000
    with pytest.raises(ConfigError, match=rf"data.tokens=60000: .*was made with all {used['training']} there are"):
        train(config(*short))
    (enough,) = train(config("data.short_split=take"))
    assert enough.folder == train(config())[0].folder  # the same result, the same cell
    assert config("experiment=paper", tiny=False).data.short_split == "take"


WITHOUT_SLOW_IMPORTS = """
import runpy, sys
sys.argv = {!r}
runpy.run_path(sys.argv[0], run_name="__main__")
slow = {{"torch", "transformers", "pandas", "datasets", "lightning", "wandb", "matplotlib", "scipy"}} & set(sys.modules)
assert not slow, slow
"""


def test_the_real_command_trains_logs_offline_and_answers_a_rerun_from_the_cell(tmp_path: Path) -> None:
    command = [str(ROOT / "train.py"), *TINY[:-1]]
    first = run(command, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "W&B offline" in first.stdout and "FVU" in first.stdout
    (cell,) = (tmp_path / "runs").rglob("cell.json")
    run_id = json.loads(cell.read_text())["provenance"]["wandb_run"]
    assert list((tmp_path / "runs" / "wandb").glob(f"offline-run-*-{run_id}"))
    stamp = cell.stat().st_mtime_ns
    again = run(command, tmp_path)
    assert again.returncode == 0 and cell.stat().st_mtime_ns == stamp and "W&B" not in again.stdout
    assert again.stdout.startswith("SAEs trained before: 1 (force=true trains them again)\n")
    quick = run(["-c", WITHOUT_SLOW_IMPORTS.format(command)], tmp_path)
    assert quick.returncode == 0, quick.stderr
    refused = run([*command, "layer=9"], tmp_path)
    assert refused.returncode == 1 and refused.stderr.strip().startswith("error: layer=9: choose layers within 0..4")


def test_a_sweep_trains_one_job_a_checkpoint(tmp_path: Path) -> None:
    sweep = run([str(ROOT / "train.py"), "-m", *TINY[:-1], "checkpoint=0,512", "layer=1", "sae.k=2,4"], tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    steps = {json.loads(f.read_text())["step"] for f in (tmp_path / "runs").rglob("cell.json")}
    assert steps == {0, 512}
    media = [file for file in (tmp_path / "runs" / "wandb").rglob("media/table/*.table.json")]
    (cells,) = (json.loads(file.read_text()) for file in media if file.name.startswith("cells_"))
    rows = [dict(zip(cells["columns"], row, strict=True)) for row in cells["data"]]
    assert {(row["step"], row["sae.k"]) for row in rows} == {(0, 2), (0, 4), (512, 2), (512, 4)}
    lines = json.loads(next((tmp_path / "runs" / "wandb").rglob("media/table/over_step/val/fvu_table*")).read_text())
    expected = {(row["step"], f"layer 1 k={row['sae.k']}", row["val/fvu"]) for row in rows}
    assert {tuple(row) for row in lines["data"]} == expected
