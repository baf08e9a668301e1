from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import ActivationBatch, Feed
from bisae.activations.order import ReadingOrder
from bisae.cells.cell import Cell
from bisae.cli.train import train
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint
from bisae.sae import TopK
from bisae.sae.architectures.raw import RawInputs
from bisae.sae.objective import Average, alone
from bisae.training.job import Member
from bisae.training.module import Reports, SAETraining
from bisae.training.saves import Saves
from bisae.training.schedule import constant, schedule_of
from tests.activations.fake_source import D_MODEL
from tests.training.test_data import activations, trainer


@pytest.mark.parametrize(
    ("recipe", "length", "begin", "decay"),
    [
        ([], 1.0, 24, 1.0),
        (["sae/recipe=study"], 1.0, 24, 0.0),
        (["scheduler=linear", "scheduler.final=0.25", "sae.encoder_norm=0.5"], 0.5, 5, 0.75),
    ],
)
@pytest.mark.slow
def test_training_is_the_plain_loop_of_the_method(
    config: Callable[..., DictConfig],
    step512: Checkpoint,
    tmp_path: Path,
    recipe: list[str],
    length: float,
    begin: int,
    decay: float,
) -> None:
    """Geometric-median start, Adam with warm-up, unit decoder after every step, two epochs in their own order."""
    cfg = config("layer=3", "sae.lr=0.003", "sae.seed=5", "data.seed=2", *recipe)
    (cell,) = train(cfg)

    settings = dict(cfg.activations["pass"])
    cache = ActivationCache(tmp_path / "other", disk_gib=1, evict=False, verify=True)
    rows = cache.prepare(LMPass(step512, EmbeddedCorpus("embedded", 0), "sae", **settings), [3], 6000)
    feed = Feed(
        rows, [3], ReadingOrder(seed=2, tokens=6000, batch=250, block=16, pool_batches=5, window_pools=9), epochs=1
    )
    sae = TopK(d_model=128, latents=64, k=4, seed=5)
    assert torch.equal(sae.W_enc, sae.W_dec)
    sae.W_enc.data *= length
    betas = (0.9, 0.95 if decay else 0.999)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.003, betas=betas, eps=6.25e-10, fused=True)
    sae.initialize_b_pre(sae.normalize(feed.batch(0, 0).activations[3])[0])
    for step in range(48):
        x, _ = sae.normalize(feed.batch(*divmod(step, 24)).activations[3])
        after = 1 - max(0, step - begin) / (48 - begin)
        optimizer.param_groups[0]["lr"] = 0.003 * (min(1.0, (step + 1) / 5) * (1 - decay + decay * after))
        optimizer.zero_grad()
        sae.objective(x).loss.backward()
        optimizer.step()
        sae.normalize_decoder()
    trained = load_file(cell.folder / "sae.safetensors")
    assert all(torch.equal(trained[name], value) for name, value in sae.state_dict().items())


class Times(RawInputs, TopK):
    """Whose inputs are as many times as large as a setting says."""

    architecture = "times"

    def __init__(self, scale: float) -> None:
        super().__init__(d_model=4, latents=8, k=2)
        self.scale = scale

    def normalize(
        self, activation: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " token"]]:
        x, norm = super().normalize(activation)
        return self.scale * x, norm / self.scale


def test_members_whose_class_normalises_by_settings_of_its_own_do_not_share_inputs() -> None:
    rows = torch.ones(3, 4, dtype=torch.bfloat16)
    batch = ActivationBatch({2: rows}, torch.zeros(3, dtype=torch.uint8), torch.arange(3), lambda rows: [])
    saes = [TopK(4, 8, 2), Times(1.0), Times(3.0), TopK(4, 8, 2)]
    module: Any = SimpleNamespace(members=[SimpleNamespace(layer=2)] * 4, saes=saes, failed={})
    inputs = [x[0, 0].item() for _, _, x, _ in SAETraining._healthy(module, batch)]
    assert inputs == [0.5, 1.0, 3.0, 0.5]


class Hooked(TopK):
    """Whose hooks note when they are called, and which counts its steps."""

    architecture = "hooked"

    def __init__(self) -> None:
        super().__init__(d_model=D_MODEL, latents=16, k=4)
        self.steps, self.started, self.loaded = 0, [], []  # type: ignore[var-annotated]

    def objective(self, *arguments: Any) -> Any:
        self.steps += 1
        return super().objective(*arguments)

    def on_start(self, x: Float[Tensor, "token d_model"], average: Average = alone) -> None:
        self.started.append((len(x), bool(self.b_pre.any())))

    def extra_metrics(self) -> dict[str, float]:
        return {"steps": float(self.steps)}

    def extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.loaded.append(dict(state))
        self.steps = state["steps"]


def trained(folder: Path, goes_on: bool = False, **settings: Any) -> tuple[Hooked, list[dict[str, float]]]:
    """A `Hooked` after its training, and all that was logged."""
    sae, logged = Hooked(), []
    members = [Member(2, 0.01, {"dead_after": 50}, Cell(folder, "tiny", 1, 2, "hooked", {}))]
    optimizer, schedule = partial(torch.optim.Adam, fused=True), schedule_of(constant, 5)
    module = SAETraining(
        members,
        [sae],
        ("en", "fr"),
        optimizer,
        schedule,
        lambda _, metrics, tokens: logged.append({**metrics, "at": tokens}),
    )
    save = folder / "save.ckpt"
    callbacks = Reports(module.report, 4), Saves(save, 5, module.gather)
    ckpt_path = save if goes_on else None
    trainer(folder, *callbacks, **settings).fit(
        module, datamodule=activations(folder), ckpt_path=ckpt_path, weights_only=True
    )
    return sae, logged


def test_what_is_special_about_an_sae_is_said_by_its_hooks_and_goes_on_from_a_save(tmp_path: Path) -> None:
    undisturbed, logged = trained(tmp_path / "undisturbed")
    assert undisturbed.started == [(12, True)] and undisturbed.loaded == []  # after b_pre, on the first batch
    assert [at["train/steps"] for at in logged if "train/steps" in at] == [4, 8, 12, 16, 20]
    assert [at["at"] for at in logged if "val/fvu" in at] == [120, 240]
    trained(tmp_path / "stopped", max_steps=13)
    again, logged = trained(tmp_path / "stopped", goes_on=True)
    assert again.started == [] and again.loaded == [{"steps": 11}] and again.steps == 20
    assert [at["train/steps"] for at in logged if "train/steps" in at] == [12, 16, 20]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in undisturbed.state_dict().items())


def test_a_save_made_before_there_were_hooks_is_read() -> None:
    saes = [TopK(4, 8, 2), TopK(4, 8, 2)]
    module: Any = SimpleNamespace(saes=saes)
    SAETraining.on_load_checkpoint(module, {"failed": {0: "why"}, "candidates": {1: 6}})
    assert saes[1].extra_state()["candidates"] == 6 and module.failed == {0: "why"}


class Clipped:
    """SAEs with made-up gradients, as `SAETraining` would clip them."""

    def __init__(self, count: int, failed: tuple[int, ...] = ()) -> None:
        self.saes = [TopK(4, 8, 2, seed=seed) for seed in range(count)]
        self.failed = dict.fromkeys(failed, "why")
        for sae in self.saes:
            generator = torch.Generator().manual_seed(sae.seed)
            for parameter in sae.parameters():
                parameter.grad = 10.0**sae.seed * torch.randn(parameter.shape, generator=generator)

    def clip(self, value: float, algorithm: str | None = None) -> "Clipped":
        module: Any = self
        SAETraining.configure_gradient_clipping(module, torch.optim.SGD(self.saes[0].parameters()), value, algorithm)
        return self

    def gradients(self, index: int) -> list[Tensor]:
        return [parameter.grad for parameter in self.saes[index].parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("algorithm", "torchs"), [(None, clip_grad_norm_), ("value", clip_grad_value_)])
def test_gradients_are_clipped_member_by_member_as_torch_clips_one_model(algorithm: str | None, torchs: Any) -> None:
    together, alone = Clipped(3).clip(0.5, algorithm), Clipped(3)
    for index, sae in enumerate(alone.saes):
        torchs(sae.parameters(), 0.5)
        assert all(map(torch.equal, together.gradients(index), alone.gradients(index)))
    norms = [torch.stack([part.norm() for part in together.gradients(index)]).norm() for index in range(3)]
    if algorithm is None:
        torch.testing.assert_close(torch.stack(norms), torch.full((3,), 0.5))


def test_a_failed_member_and_a_clip_of_nothing_are_left_alone() -> None:
    module, untouched = Clipped(2, failed=(1,)).clip(0.5), Clipped(2)
    assert all(map(torch.equal, module.gradients(1), untouched.gradients(1)))
    assert not torch.equal(module.gradients(0)[0], untouched.gradients(0)[0])
    assert torch.equal(Clipped(1).clip(0).gradients(0)[0], untouched.gradients(0)[0])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_member_that_is_clipped_equals_the_same_cell_alone_and_no_cell_that_is_not(
    config: Callable[..., DictConfig], tmp_path: Path, algorithm: str
) -> None:
    value = {"norm": 0.05, "value": 0.001}[algorithm]
    clips = [f"+trainer.gradient_clip_val={value}", f"+trainer.gradient_clip_algorithm={algorithm}"]
    together = train(config(*clips, "sae.lr=[0.001,0.02]", "sae.k=[2,8]"))
    member = next(one for one in together if one.identity["sae"]["lr"] == 0.001 and one.identity["sae"]["k"] == 2)
    (alone,) = train(config(*clips, "sae.lr=0.001", "sae.k=2", f"runs={tmp_path}/alone"))
    (free,) = train(config("sae.lr=0.001", "sae.k=2", f"runs={tmp_path}/alone"))
    assert alone.name == member.name != free.name
    weights = [load_file(cell.folder / "sae.safetensors") for cell in (member, alone, free)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["W_enc"], weights[2]["W_enc"])
