from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import Tensor

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import ActivationBatch, Feed
from bisae.activations.order import ReadingOrder
from bisae.cli.train import train
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint
from bisae.sae import TopK
from bisae.sae.architectures.raw import RawInputs
from bisae.training.module import SAETraining


def test_training_is_the_plain_loop_of_the_method(
    config: Callable[..., DictConfig], step512: Checkpoint, tmp_path: Path
) -> None:
    """Geometric-median start, Adam with warm-up, unit decoder after every step, two epochs in their own order."""
    cfg = config("layer=3", "sae.lr=0.003", "sae.seed=5", "data.seed=2")
    (cell,) = train(cfg)

    settings = dict(cfg.activations["pass"])
    cache = ActivationCache(tmp_path / "other", disk_gib=1, evict=False, verify=True)
    rows = cache.prepare(LMPass(step512, EmbeddedCorpus("embedded", 0), "sae", **settings), [3], 6000)
    feed = Feed(
        rows, [3], ReadingOrder(seed=2, tokens=6000, batch=250, block=16, pool_batches=5, window_pools=9), epochs=1
    )
    sae = TopK(d_model=128, latents=64, k=4, seed=5)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.003, eps=6.25e-10, fused=True)
    sae.initialize_b_pre(sae.normalize(feed.batch(0, 0).activations[3])[0])
    for step in range(48):
        x, _ = sae.normalize(feed.batch(*divmod(step, 24)).activations[3])
        optimizer.param_groups[0]["lr"] = 0.003 * min(1.0, (step + 1) / 5)
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
    batch = ActivationBatch({2: rows}, torch.zeros(3, dtype=torch.uint8), torch.arange(3))
    saes = [TopK(4, 8, 2), Times(1.0), Times(3.0), TopK(4, 8, 2)]
    module: Any = SimpleNamespace(members=[SimpleNamespace(layer=2)] * 4, saes=saes, failed={})
    inputs = [x[0, 0].item() for _, _, x, _ in SAETraining._healthy(module, batch)]
    assert inputs == [0.5, 1.0, 3.0, 0.5]
