"""One training step of each contender: forward, backward, optimizer, and its own way to keep the decoder's norms.

Every function gets the directions both matrices start from and returns `step(x) -> loss`. A peer is imported where it
is used: each has an environment of its own (make.sh).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from work import K

Step = Callable[[Tensor], Tensor]
ADAM: dict[str, Any] = {"lr": 1e-4, "eps": 6.25e-10}


def _bisae(
    directions: Tensor,
    optimizer: Callable[..., torch.optim.Optimizer],
    k: int = K,
    kind: Any = None,
    candidates: int | str = "auto",
) -> Step:
    from bisae.sae import TopK

    latents, d_model = directions.shape
    sae = (kind or TopK)(d_model, latents, k).to(directions.device)
    sae.set_candidates(candidates)
    with torch.no_grad():
        sae.W_enc.copy_(directions)
        sae.W_dec.copy_(directions)
    adam = optimizer(sae.parameters(), **ADAM)
    take = getattr(adam, "take", None)

    def step(x: Tensor) -> Tensor:
        adam.zero_grad()
        loss = sae.objective(x, take=take).loss
        loss.backward()
        adam.step()
        if not take:
            sae.normalize_decoder()
        return loss.detach()

    return step


def default(directions: Tensor) -> Step:
    """Ours as a job with the default config does it on one device of this kind."""
    from bisae.training.blocked_adam import blocked_form

    adam = partial(torch.optim.Adam, fused=True)
    return _bisae(directions, (directions.device.type == "cpu" and blocked_form(adam)) or adam)


def autograd(directions: Tensor, k: int = K) -> Step:
    """Ours, with the plain product and ordinary gradients: sae.candidates=none optimizer.by_block=false."""
    return _bisae(directions, partial(torch.optim.Adam, fused=True), k, candidates="none")


def blocked(directions: Tensor) -> Step:
    """Ours, with the plain product."""
    from bisae.training.blocked_adam import BlockedAdam

    return _bisae(directions, partial(BlockedAdam, fused=True), candidates="none")


def candidates_96(directions: Tensor) -> Step:
    """Ours, with 96 candidates a token."""
    from bisae.training.blocked_adam import BlockedAdam

    return _bisae(directions, partial(BlockedAdam, fused=True), candidates=96)


def triton(directions: Tensor) -> Step:
    """Ours by block, with Triton kernels: for a GPU."""
    from bisae.sae.architectures.triton_topk import TritonTopK
    from bisae.training.blocked_adam import BlockedAdam

    return _bisae(directions, partial(BlockedAdam, fused=True), kind=TritonTopK)


def study(directions: Tensor) -> Step:
    """The structure of the study's published code: dense layers, the decoder stored [d_model, latent], default Adam."""
    latents, d_model = directions.shape
    encoder = nn.Linear(d_model, latents, device=directions.device)
    decoder = nn.Linear(latents, d_model, bias=False, device=directions.device)
    b_dec = nn.Parameter(torch.zeros(d_model, device=directions.device))
    with torch.no_grad():
        encoder.weight.copy_(directions)
        encoder.bias.zero_()
        decoder.weight.copy_(directions.T)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), b_dec], **ADAM)

    def step(x: Tensor) -> Tensor:
        positive = encoder(x - b_dec).relu()
        values, indices = positive.topk(K, sorted=False)
        x_hat = decoder(torch.zeros_like(positive).scatter_(-1, indices, values)) + b_dec
        loss = (x_hat - x).square().sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            decoder.weight /= decoder.weight.norm(dim=0, keepdim=True) + torch.finfo(torch.float32).eps
        return loss.detach()

    return step


def dense(directions: Tensor) -> Step:
    """The best plain dense autograd can do: both matrices latent-major, fused Adam."""
    W_enc, W_dec = (nn.Parameter(directions.clone()) for _ in range(2))
    b_enc = nn.Parameter(directions.new_zeros(len(directions)))
    b_dec = nn.Parameter(directions.new_zeros(directions.shape[1]))
    adam = torch.optim.Adam([W_enc, W_dec, b_enc, b_dec], fused=True, **ADAM)

    def step(x: Tensor) -> Tensor:
        pre = torch.addmm(b_enc, x - b_dec, W_enc.T)
        values, indices = pre.topk(K, sorted=False)
        x_hat = torch.zeros_like(pre).scatter(-1, indices, values.relu()) @ W_dec + b_dec
        loss = (x_hat - x).square().sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        return loss.detach()

    return step


def sparsify(directions: Tensor) -> Step:
    """eai-sparsify, its sparse decoder and decoder projection."""
    from sparsify import SparseCoder, SparseCoderConfig

    latents, d_model = directions.shape
    coder = SparseCoder(d_model, SparseCoderConfig(num_latents=latents, k=K), device=directions.device)
    with torch.no_grad():
        coder.encoder.weight.copy_(directions)
        coder.W_dec.copy_(directions)
    adam = torch.optim.Adam(coder.parameters(), **ADAM)

    def step(x: Tensor) -> Tensor:
        loss = coder(x).fvu
        adam.zero_grad()
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        coder.set_decoder_norm_to_unit_norm()
        return loss.detach()

    return step


def sae_lens(directions: Tensor) -> Step:
    """SAELens with its defaults."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    latents, d_model = directions.shape
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d_model, d_sae=latents, k=K, device=str(directions.device)))
    with torch.no_grad():
        sae.W_enc.copy_(directions.T)
        sae.W_dec.copy_(directions)
    adam = torch.optim.Adam(sae.parameters(), **ADAM)

    def step(x: Tensor) -> Tensor:
        given = TrainStepInput(
            sae_in=x, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
        )
        loss = sae.training_forward_pass(given).loss
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()
        return loss.detach()

    return step


def dictionary_learning(directions: Tensor) -> Step:
    """dictionary_learning's TopK trainer."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer

    latents, d_model = directions.shape
    settings = {"steps": 10**6, "activation_dim": d_model, "dict_size": latents, "k": K, "layer": 0, "lm_name": ""}
    trainer = TopKTrainer(dict_class=AutoEncoderTopK, lr=1e-4, device=str(directions.device), **settings)
    with torch.no_grad():
        trainer.ae.encoder.weight.copy_(directions)
        trainer.ae.decoder.weight.copy_(directions.T)
    steps = iter(range(1, 10**6))  # from 1: step 0 sets b_dec

    def step(x: Tensor) -> Tensor:
        return torch.as_tensor(trainer.update(next(steps), x))

    return step


OWN = (default, blocked, autograd, candidates_96, triton, dense, study)
STEPS = {f.__name__: f for f in (*OWN, sparsify, sae_lens, dictionary_learning)}
