"""The work all contenders of benchmarks/sae_step.py do: shapes, and data on which an SAE looks trained."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

K, BATCHES, NOISE, ZIPF = 32, 4, 0.1, 0.7
LEAST_TOUCHED = 0.4  # of the latents, by one batch: on data that use few latents every sparse stage looks cheap


class Shape(NamedTuple):
    d_model: int
    latents: int
    batch: int


SHAPES = {
    "smoke": Shape(256, 4096, 1024),
    "A": Shape(512, 8192, 4096),
    "B": Shape(768, 32768, 2048),
    "C": Shape(2048, 32768, 1024),
    "paper": Shape(2048, 32768, 32768),  # for a GPU
    "paper_8192": Shape(2048, 32768, 8192),
}


def work(shape: Shape, seed: int, device: str = "cpu") -> tuple[Tensor, list[Tensor]]:
    """(directions "latent d_model" of norm 1, batches "token d_model" of norm 1), drawn on `device`.

    A token is a sum of K directions of Zipf-distributed frequency and noise, without the common mean.
    """
    g = torch.Generator(device).manual_seed(seed)
    directions = normalize(torch.randn(shape.latents, shape.d_model, generator=g, device=device), dim=1)
    frequency = torch.arange(1, shape.latents + 1, device=device).double() ** -ZIPF
    batches = []
    for _ in range(BATCHES):
        of_token = torch.multinomial(frequency, shape.batch * K, replacement=True, generator=g).view(-1, K)
        strength = 0.5 + torch.rand(of_token.shape, generator=g, device=device)
        noise = (
            NOISE * math.sqrt(K / shape.d_model) * torch.randn(shape.batch, shape.d_model, generator=g, device=device)
        )
        batches.append(embedding_bag(of_token, directions, mode="sum", per_sample_weights=strength) + noise)
    mean = torch.stack([x.mean(0) for x in batches]).mean(0)
    batches = [normalize(x - mean, dim=1) for x in batches]
    touched = len((batches[0] @ directions.T).topk(K)[1].unique())
    if touched < LEAST_TOUCHED * shape.latents:
        raise RuntimeError(f"only {touched} of {shape.latents} latents are touched by a batch")
    return directions, batches
