"""SAEs of which one matrix stays at its draw, in whole jobs of the embedded LM."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bisae.cells.cell import Cell
from bisae.cli.train import train
from bisae.runtime.errors import ConfigError
from bisae.sae import SparseAutoencoder, TopK
from bisae.sae.architectures.batch_topk import BatchTopK
from bisae.sae.architectures.jump_relu import JumpReLU
from bisae.sae.architectures.matryoshka import Matryoshka
from bisae.sae.architectures.relu_l1 import ReLUL1
from bisae.training.baselines import DRAWN, LEAST, hold_near
from bisae.training.job import Member, cell_identity
from bisae.training.module import SAETraining
from bisae.training.schedule import constant, schedule_of
from tests.activations.fake_source import D_MODEL
from tests.training.stopped import assert_same, stop_at, weights
from tests.training.test_data import activations, trainer

Config = Callable[..., DictConfig]
ALL = "sae.baseline=[null,frozen_decoder,soft_frozen_decoder,frozen_encoder]"


def by_baseline(cells: list[Cell]) -> dict[str | None, Cell]:
    return {cell.identity["sae"].get("baseline"): cell for cell in cells}


@pytest.mark.parametrize("recipe", [[], ["optimizer=blocked", "sae=topk_candidates", "sae.candidates=8"]])
@pytest.mark.slow
def test_what_is_frozen_stays_at_its_draw_also_when_a_stopped_job_goes_on_and_alone(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: list[str]
) -> None:
    keys = [*recipe, "layer=3", "sae.lr=0.004", "sae.encoder_norm=0.5"]
    undisturbed = train(config(*keys, ALL))
    draw = TopK(d_model=128, latents=64, k=4, seed=0).W_dec.detach()
    for baseline, cell in by_baseline(undisturbed).items():
        found = weights(cell)
        near = (found["W_dec"] * draw).sum(1)
        assert torch.equal(found["W_dec"], draw) == (baseline == "frozen_decoder")
        assert torch.equal(found["W_enc"], 0.5 * draw) == (baseline == "frozen_encoder")
        torch.testing.assert_close(found["W_dec"].norm(dim=1), torch.ones(64))
        assert found["b_enc"].any()
        if baseline == "soft_frozen_decoder":
            assert near.min() > LEAST - 1e-6 and near.max() < 1 and (near < LEAST + 1e-6).any()
        elif baseline != "frozen_decoder":
            assert near.min() < LEAST - 0.05

    stop_at(
        30, config(*keys, ALL, f"runs={tmp_path}/stopped"), monkeypatch
    )  # of 48 steps, after the saves of steps 7, 14, 21 and 28
    gone_on = train(config(*keys, ALL, f"runs={tmp_path}/stopped"))
    for one, other in zip(undisturbed, gone_on, strict=True):
        assert_same(one, other)
    (alone,) = train(config(*keys, "sae.baseline=soft_frozen_decoder", f"runs={tmp_path}/alone"))
    assert_same(by_baseline(undisturbed)["soft_frozen_decoder"], alone)


@pytest.mark.slow
def test_every_architecture_has_baselines_and_they_share_a_job(tmp_path: Path) -> None:
    size: dict[str, Any] = {"d_model": D_MODEL, "latents": 16, "seed": 0}
    top: dict[str, Any] = {**size, "k": 4, "threshold_rate": 0.1, "aux_k": 4, "aux_coefficient": 0.1}
    makers: dict[str, Callable[[], SparseAutoencoder]] = {
        "batch_topk": partial(BatchTopK, **top),
        "matryoshka": partial(Matryoshka, groups="1/4+3/4", **top),
        "jump_relu": partial(JumpReLU, l0=0.01, initial_threshold=0.1, bandwidth=0.05, **size),
        "relu_l1": partial(ReLUL1, l1=0.01, encoder_bias=True, **size),
    }
    pairs = [(name, baseline) for name in makers for baseline in (None, *DRAWN)]
    saes = [makers[name]() for name, _ in pairs]
    draw = saes[0].W_dec.detach().clone()
    members = [
        Member(2, 0.05, {"dead_after": 50, "baseline": baseline}, Cell(tmp_path, "tiny", 1, 2, name, {"of": baseline}))
        for name, baseline in pairs
    ]
    schedule = schedule_of(constant, 5)
    module = SAETraining(members, saes, ("en", "fr"), partial(torch.optim.Adam, fused=True), schedule, lambda *_: None)
    trainer(tmp_path).fit(module, datamodule=activations(tmp_path))
    assert not module.failed
    for (_, baseline), sae in zip(pairs, saes, strict=True):
        assert torch.equal(sae.W_dec, draw) == (baseline == "frozen_decoder")
        assert torch.equal(sae.W_enc, draw) == (baseline == "frozen_encoder")
        near = (sae.W_dec * draw).sum(1).min() > LEAST - 1e-6
        assert near == (baseline in ("frozen_decoder", "soft_frozen_decoder"))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["sae.start=here"], "random draw"),
        (["sae=relu_l1"], "encoder_bias"),
    ],
)
def test_a_baseline_that_cannot_be_one_is_refused(config: Config, keys: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"sae.baseline=frozen_encoder: .*{reason}"):
        train(config(*keys, "logger=none", "sae.baseline=frozen_encoder", tiny=False))


def test_a_cell_without_a_baseline_has_the_name_that_it_had_before_there_were_any() -> None:
    settings = {"name": "topk", "latents": 4, "start": None, "encoder_norm": 1.0}
    shared = {"data": {"tokens": 1}}
    assert cell_identity(1, {**settings, "baseline": None}, shared) == cell_identity(1, settings, shared)
    assert cell_identity(1, {**settings, "baseline": "frozen_decoder"}, shared)["sae"]["baseline"] == "frozen_decoder"


def test_rows_are_held_at_the_nearest_unit_vector_of_the_cosine() -> None:
    draw, rows = torch.nn.functional.normalize(torch.randn(2, 500, 6, dtype=torch.float64), dim=2)
    held = rows.clone()
    hold_near(held, draw)
    cosine = (held * draw).sum(1)
    torch.testing.assert_close(held.norm(dim=1), torch.ones(500, dtype=torch.float64))
    moved = (rows * draw).sum(1) < LEAST
    torch.testing.assert_close(cosine[moved], torch.full((int(moved.sum()),), LEAST, dtype=torch.float64))
    assert torch.equal(held[~moved], rows[~moved]) and (cosine > LEAST - 1e-12).all()
    others = torch.nn.functional.normalize(held + 0.01 * torch.randn(500, 6, dtype=torch.float64), dim=1)
    allowed = moved & ((others * draw).sum(1) >= LEAST)  # none of them is nearer
    assert allowed.any() and ((rows * others).sum(1) <= (rows * held).sum(1))[allowed].all()
