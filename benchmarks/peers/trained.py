"""SAEs trained by each library's own trainer, as it comes: initial values, auxiliary loss, optimizer, decoder's norms.

Every function gets `x`, "token d_model" of norm sqrt(d_model) in the order of training, and returns `codes`, of which
what is not 0 has fired, and `reconstruction`. A peer is imported where it is used: each has an environment of its own
(make.sh).

python trained.py NAME TRAIN.npy HELD_OUT.npy DECODER.npy SETTINGS, as JSON; prints what came out as JSON, and writes
the decoder's rows "latent d_model".
"""

import json
import sys
from collections.abc import Callable, Iterator
from time import process_time
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
    epochs: int
    seed: int
    beta2: float = 0.999  # of ours
    decay: float = 1.0  # share of the steps after which the rate falls linearly to 0; 1: never
    dead_after: int = 100_000  # of ours: tokens
    node: dict[str, Any] | None = None  # of an SAE of ours, TopK if None

    def batches(self, x: Tensor) -> Iterator[Tensor]:
        """All batches of all epochs: first in the order given, then shuffled; the same for every trainer and seed."""
        for epoch in range(self.epochs):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
            yield from (x if epoch == 0 else x[order]).split(self.batch)

    def steps(self, x: Tensor) -> int:
        return self.epochs * len(x.split(self.batch))


class Trained(NamedTuple):
    codes: Callable[[Tensor], Tensor]
    reconstruction: Callable[[Tensor], Tensor]
    decoder: Tensor  # "latent d_model"


def bisae(x: Tensor, about: Settings) -> Trained:
    """Ours, any architecture."""
    return _ours(x, about)


def _ours(x: Tensor, about: Settings, dense: bool = False) -> Trained:
    from bisae.config.instantiate import instantiate
    from bisae.training.dead import FiringClock
    from bisae.training.schedule import linear

    topk = {"_target_": "bisae.sae.TopK", "k": about.k}
    sae = instantiate({"latents": about.latents, **(about.node or topk), "seed": about.seed}, d_model=x.shape[1])
    adam = torch.optim.Adam(sae.parameters(), lr=about.rate, betas=(0.9, about.beta2), fused=True)
    schedule = linear(adam, about.warmup, about.steps(x), about.decay, 0)
    clock = FiringClock(("all",), about.latents, about.dead_after)
    language = torch.zeros(about.batch, dtype=torch.uint8)
    sae.initialize_b_pre(sae.normalize(x[: about.batch])[0])
    for batch in about.batches(x):
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
        adam.step()
        schedule.step()
        sae.normalize_decoder()
    scale = x.shape[1] ** 0.5
    return Trained(lambda x: sae.encode(x).dense(), lambda x: scale * sae.decode(sae.encode(x)), sae.W_dec)


def dense(x: Tensor, about: Settings) -> Trained:
    """Our TopK by plain dense autograd."""
    return _ours(x, about, dense=True)


def sae_lens(x: Tensor, about: Settings) -> Trained:
    """SAELens' SAETrainer and TopKTrainingSAE."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=about.latents, k=about.k, device="cpu"))
    settings = SAETrainerConfig(
        about.steps(x) * about.batch,
        about.batch,
        lr=about.rate,
        lr_end=about.rate,
        lr_warm_up_steps=about.warmup,
        lr_decay_steps=round((1 - about.decay) * about.steps(x)),
        n_batches_for_norm_estimate=1,
    )
    SAETrainer(settings, sae, about.batches(x)).fit()
    return Trained(sae.encode, sae, sae.W_dec)


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
    """The same with Adam, the trainer's other choice: warmed up, then down to 0, as its trainer does."""

    def adam(parameters: Iterator[Any]) -> tuple[Any, Callable[[], None]]:
        from transformers import get_linear_schedule_with_warmup

        optimizer = torch.optim.Adam(parameters, lr=about.rate)
        schedule = get_linear_schedule_with_warmup(optimizer, about.warmup, about.steps(x))
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer, lambda: None

    return _sparse_coder(x, about, adam)


def _sparse_coder(
    x: Tensor, about: Settings, make: Callable[[Iterator[Any]], tuple[Any, Callable[[], None]]]
) -> Trained:
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=about.latents, k=about.k))
    optimizer, end = make(coder.parameters())
    with torch.no_grad():
        coder.b_dec.copy_(x[: about.batch].mean(0))  # as its trainer does first
    for batch in about.batches(x):
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

    return Trained(codes, lambda x: coder(x).sae_out, coder.W_dec)


def dictionary_learning(x: Tensor, about: Settings) -> Trained:
    """dictionary_learning's TopKTrainer."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer

    steps = about.steps(x)
    trainer = TopKTrainer(
        steps=steps, activation_dim=x.shape[1], dict_size=about.latents, k=about.k, layer=0, lm_name="",
        dict_class=AutoEncoderTopK, lr=about.rate, warmup_steps=about.warmup, seed=about.seed, device="cpu",
        decay_start=None if about.decay == 1 else max(about.warmup + 1, round(about.decay * steps)),
    )  # fmt: skip
    for step, batch in enumerate(about.batches(x)):
        trainer.update(step, batch)
    return Trained(trainer.ae.encode, trainer.ae, trainer.ae.decoder.weight.T)


EVERY = (bisae, dense, sae_lens, sparsify, sparsify_adam, dictionary_learning)
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
    name, train, held_out, decoder, settings = sys.argv[1:]
    about = Settings(**json.loads(settings))
    torch.set_num_threads(1)
    torch.manual_seed(about.seed)
    x, unseen = (torch.from_numpy(np.load(file)) for file in (train, held_out))
    start = process_time()
    trained = TRAINERS[name](x, about)
    found = {"cpu_s": process_time() - start, **scores(trained, unseen)}
    np.save(decoder, trained.decoder.detach().numpy())
    print("\n" + json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
