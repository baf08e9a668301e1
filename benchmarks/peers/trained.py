"""SAEs trained by each library's own trainer, as it comes: initial values, auxiliary loss, optimizer, decoder's norms.

Every function gets `x`, "token d_model" of norm sqrt(d_model) in the order of training, and returns `codes`, of which
what is not 0 has fired, and `reconstruction`. A peer is imported where it is used: each has an environment of its own
(make.sh).

python trained.py NAME TRAIN.npy HELD_OUT.npy SETTINGS, as JSON; prints what came out as JSON.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Settings(NamedTuple):
    """What all trainers are told; `warmup` in steps."""

    latents: int
    k: int
    batch: int
    rate: float
    warmup: int
    node: dict[str, Any]  # of an SAE of ours


class Trained(NamedTuple):
    codes: Callable[[Tensor], Tensor]
    reconstruction: Callable[[Tensor], Tensor]


def bisae(x: Tensor, about: Settings) -> Trained:
    """Ours, any architecture."""
    return _ours(x, about)


def dense(x: Tensor, about: Settings) -> Trained:
    """Our TopK by plain dense autograd."""
    return _ours(x, about, dense=True)


def short_encoder(x: Tensor, about: Settings) -> Trained:
    """Ours, with encoder rows as long at first as nn.Linear makes them, as sparsify's and the study's first code."""
    return _ours(x, about, encoder=3**-0.5)


def clipped(x: Tensor, about: Settings) -> Trained:
    """Ours, with all gradients of one norm, as where dictionary_learning and SAELens clip them to 1."""
    return _ours(x, about, norm=1e-3)


def _ours(x: Tensor, about: Settings, dense: bool = False, encoder: float = 1.0, norm: float | None = None) -> Trained:
    from bisae.config.instantiate import instantiate
    from bisae.training.dead import FiringClock

    sae = instantiate({"latents": about.latents, **about.node}, d_model=x.shape[1])
    sae.W_enc.data *= encoder
    adam = torch.optim.Adam(sae.parameters(), lr=about.rate, fused=True)
    clock = FiringClock(("all",), about.latents, 100_000)
    language = torch.zeros(about.batch, dtype=torch.uint8)
    sae.initialize_b_pre(sae.normalize(x[: about.batch])[0])
    for step, batch in enumerate(x.split(about.batch)):
        adam.param_groups[0]["lr"] = about.rate * min(1, (step + 1) / about.warmup)
        adam.zero_grad()
        unit = sae.normalize(batch)[0]
        if dense:
            pre = torch.addmm(sae.b_enc, unit - sae.b_pre, sae.W_enc.T)
            values, indices = pre.topk(about.k, sorted=False)
            x_hat = torch.zeros_like(pre).scatter(-1, indices, values.relu()) @ sae.W_dec + sae.b_pre
            loss = (x_hat - unit).square().sum(1).mean()
        else:
            loss, codes, _ = sae.objective(unit, clock.dead if sae.aux_k else None)
            clock.advance(clock.fired(codes, language), torch.tensor([about.batch]))
        loss.backward()
        if norm:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), norm)
        adam.step()
        sae.normalize_decoder()
    scale = x.shape[1] ** 0.5
    return Trained(lambda x: sae.encode(x).dense(), lambda x: scale * sae.decode(sae.encode(x)))


def sae_lens(x: Tensor, about: Settings) -> Trained:
    """SAELens' SAETrainer and TopKTrainingSAE."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=about.latents, k=about.k, device="cpu"))
    settings = SAETrainerConfig(
        len(x),
        about.batch,
        lr=about.rate,
        lr_end=about.rate,
        lr_warm_up_steps=about.warmup,
        n_batches_for_norm_estimate=1,
    )
    SAETrainer(settings, sae, iter(x.split(about.batch))).fit()
    return Trained(sae.encode, sae)


def sparsify(x: Tensor, about: Settings) -> Trained:
    """sparsify's SparseCoder with its trainer's default optimizer, signum without a schedule."""
    from schedulefree import ScheduleFreeWrapper
    from sparsify.sign_sgd import SignSGD

    def signum(parameters: Iterator[Any]) -> tuple[Any, Callable[[], None]]:
        optimizer = ScheduleFreeWrapper(SignSGD([{"params": parameters, "lr": about.rate}]), momentum=0.95)
        optimizer.train()
        return optimizer, optimizer.eval

    return _sparse_coder(x, about, signum)


def sparsify_adam(x: Tensor, about: Settings) -> Trained:
    """The same with Adam, the trainer's other choice, warmed up and then as high."""

    def adam(parameters: Iterator[Any]) -> tuple[Any, Callable[[], None]]:
        return torch.optim.Adam(parameters, lr=about.rate), lambda: None

    return _sparse_coder(x, about, adam)


def _sparse_coder(
    x: Tensor, about: Settings, make: Callable[[Iterator[Any]], tuple[Any, Callable[[], None]]]
) -> Trained:
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=about.latents, k=about.k))
    optimizer, end = make(coder.parameters())
    with torch.no_grad():
        coder.b_dec.copy_(x[: about.batch].mean(0))  # as its trainer does first
    for step, batch in enumerate(x.split(about.batch)):
        if isinstance(optimizer, torch.optim.Adam):
            optimizer.param_groups[0]["lr"] = about.rate * min(1, (step + 1) / about.warmup)
        coder.set_decoder_norm_to_unit_norm()
        loss = coder(batch).fvu
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
    end()

    def codes(x: Tensor) -> Tensor:
        values, indices, _ = coder.encode(x)
        return torch.zeros(len(x), about.latents).scatter_(1, indices, values)

    return Trained(codes, lambda x: coder(x).sae_out)


def dictionary_learning(x: Tensor, about: Settings) -> Trained:
    """dictionary_learning's TopKTrainer."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer

    batches = x.split(about.batch)
    trainer = TopKTrainer(
        steps=len(batches), activation_dim=x.shape[1], dict_size=about.latents, k=about.k, layer=0, lm_name="",
        dict_class=AutoEncoderTopK, lr=about.rate, warmup_steps=about.warmup, seed=0, device="cpu",
    )  # fmt: skip
    for step, batch in enumerate(batches):
        trainer.update(step, batch)
    return Trained(trainer.ae.encode, trainer.ae)


EVERY = (bisae, short_encoder, clipped, dense, sae_lens, sparsify, sparsify_adam, dictionary_learning)
TRAINERS = {one.__name__: one for one in EVERY}


@torch.no_grad()
def scores(trained: Trained, x: Tensor) -> dict[str, float]:
    """The part of the variance that is not explained, the part of latents that never fire, and how many do a token."""
    fired, error, entries = torch.zeros(0, dtype=torch.long), 0.0, 0
    for batch in x.split(4096):
        codes = trained.codes(batch)
        fired = (codes != 0).sum(0) + (fired if len(fired) else 0)
        error += (trained.reconstruction(batch) - batch).double().square().sum().item()
        entries += int((codes != 0).sum())
    variance = (x - x.double().mean(0)).square().sum().item()
    return {"fvu": error / variance, "dead": (fired == 0).double().mean().item(), "l0": entries / len(x)}


def main() -> None:
    name, train, held_out, settings = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, unseen = (torch.from_numpy(np.load(file)) for file in (train, held_out))
    found = scores(TRAINERS[name](x, Settings(**json.loads(settings))), unseen)
    print("\n" + json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
