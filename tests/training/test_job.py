import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from bisae.cli.train import train
from bisae.config.moved import with_current_paths
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.sae import TopK
from bisae.training.job import Job, cell_identity, plan_members
from tests.conftest import ROOT

SAE: dict[str, Any] = {"_target_": "bisae.sae.TopK", "name": "topk", "lr": 0.01, "k": 4, "dead_after": 9, "seed": 0}


def checkpoint(name: str = "tiny") -> Checkpoint:
    return Checkpoint(name, 512, Path("unused"), "w", "t", None, layers=4, d_model=6)


def make_job(runs: Path, **settings: Any) -> Job:
    return Job(runs, plan_members(runs, checkpoint(), [1, 2], {**SAE, **settings}, {"data": {"seed": 0}}))


def test_one_member_a_layer_and_setting_each_with_its_own_cell(tmp_path: Path) -> None:
    job = make_job(tmp_path, lr=[0.1, 0.2])
    assert sorted((m.layer, m.lr) for m in job.members) == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    assert len({m.cell.hash for m in job.members}) == 4
    assert job.members[0].architecture == {"_target_": "bisae.sae.TopK", "k": 4, "seed": 0}


def test_a_layer_with_a_k_of_its_own_becomes_the_cell_that_this_k_alone_gives(tmp_path: Path) -> None:
    shared = {"data": {"seed": 0}}
    mixed = plan_members(tmp_path, checkpoint(), [1, 2], SAE, shared, k_by_layer={2: 8})
    alone = [plan_members(tmp_path, checkpoint(), [layer], {**SAE, "k": k}, shared) for layer, k in ((1, 4), (2, 8))]
    assert [member.cell for member in mixed] == [members[0].cell for members in alone]


def test_the_save_and_the_order_in_it_depend_on_the_set_of_members_only(tmp_path: Path) -> None:
    job = make_job(tmp_path, lr=[0.1, 0.2])
    assert Job(tmp_path, job.members[::-1]).members == job.members
    assert Job(tmp_path, job.members[::-1]).save == job.save
    assert Job(tmp_path, job.members[:-1]).save != job.save


def test_only_unfinished_members_remain_and_with_a_save_all_of_them(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.members[0].cell.write(TopK(d_model=6, latents=20, k=4), "", {}, {})
    assert [m.layer for m in job.remaining(force=False).members] == [2]
    assert job.remaining(force=False).layers == [2]
    assert job.remaining(force=True) == replace(job, anew=True)
    job.folder.mkdir(parents=True)
    job.save.touch()
    assert job.remaining(force=False) == job and job.going_on


def test_finished_cells_make_way_but_not_those_a_killed_job_has_just_written(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    first, second = (member.cell for member in job.members)
    first.write(TopK(d_model=6, latents=20, k=4), "", {}, {})
    job.folder.mkdir(parents=True)
    job.save.touch()
    job.begin()
    assert first.finished and job.save.exists()
    second.write(TopK(d_model=6, latents=20, k=4), "", {}, {})
    replace(job, anew=True).begin()
    assert not first.finished and not second.finished and not job.save.exists()


def test_a_folder_in_a_cells_place_that_is_no_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / make_job(tmp_path).members[0].cell.name).mkdir(parents=True)
    with pytest.raises(Refused, match="holds no cell.json"):
        make_job(tmp_path)


def test_a_job_whose_rest_is_another_job_holds_both(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.members[0].cell.write(TopK(d_model=6, latents=20, k=4), "", {}, {})
    with job.hold(force=False) as rest:
        assert rest.members == job.members[1:]
        for folder in (job.folder, rest.folder):
            with pytest.raises(Timeout):
                FileLock(folder / ".lock").acquire(timeout=0)
    job.members[1].cell.write(TopK(d_model=6, latents=20, k=4), "", {}, {})
    with job.hold(force=False) as rest:
        assert not rest.members


# Cells trained by earlier versions: their names must stay, else all of a user's work is done again.
RECIPE = [  # the default once
    *("sae/recipe=study", "size.latents=1024", "size.k=16", "sae.lr=2e-3", "data.epochs=2", "size.dead_after=100_000"),
]
SHORT = [
    *RECIPE,
    *("layer=3", "data.tokens=6000", "data.validation_tokens=1000", "data.batch=250", "data.pool_batches=5"),
    *("sae.latents=64", "optimizer.warmup=5", "logger=none"),
]
NAMES = {
    (): "layer02/topk-eae766510476",  # the default job
    (*RECIPE,): "layer02/topk-85246d033c6c",
    (*SHORT,): "layer03/topk-a79c88e8cc4f",
    (*SHORT, "optimizer=blocked"): "layer03/topk-2a8590f5a0cf",
    (*SHORT, "sae=topk_candidates", "sae.candidates=8", "sae.k=4"): "layer03/topk-d59f088f3bc5",
    (*SHORT, "sae=jump_relu"): "layer03/jump_relu-ff2bf16997c5",
    (*SHORT, "sae=batch_topk"): "layer03/batch_topk-ac4a566235d8",
    (*SHORT, "sae=matryoshka"): "layer03/matryoshka-5f5ea387e550",
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", NAMES, ids=NAMES.values())
def test_the_same_settings_have_the_cell_they_had_in_earlier_versions(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    asked: list[str] = []

    @contextmanager
    def hold(job: Job, force: bool) -> Iterator[Job]:
        asked.extend(member.cell.name for member in job.members)
        yield Job(job.runs, [])

    monkeypatch.setattr(Job, "hold", hold)
    train(config(*overrides, tiny=False))
    assert asked == [f"embedded/step0002048/{NAMES[overrides]}"]


def test_a_cell_trained_before_classes_moved_keeps_its_identity_wherever_they_lie() -> None:
    (file,) = (ROOT / "tests/fixtures/before_moves").rglob("cell.json")
    before: dict[str, Any] = json.loads(file.read_text())["identity"]
    layer, sae = before["layer"], before["sae"]
    shared = {key: before[key] for key in before.keys() - {"layer", "sae"}}
    moved = with_current_paths(before)
    assert moved != before  # its optimizer lies elsewhere now
    for settings, others in ((sae, shared), (moved["sae"], {key: moved[key] for key in shared})):
        assert cell_identity(layer, {**settings, "name": "any"}, others) == before
