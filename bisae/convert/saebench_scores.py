"""The scores of SAELens and SAEBench for an SAE's reconstructions and weights, by their own definitions.

x is the LM's activation, d_model wide; e = x - x_hat; means are over all tokens. The definitions are those of SAEBench
0.6 `evals/core/main.py`, with the whole text as one batch, and of SAELens 6.54 where the table says so:

| name                           | definition                                                                      |
|--------------------------------|---------------------------------------------------------------------------------|
| `l2_norm_in`, `l2_norm_out`    | mean ||x||, mean ||x_hat||                                                      |
| `l2_ratio`                     | mean ||x_hat|| / ||x||; below 1: shrinkage                                      |
| `relative_reconstruction_bias` | mean ||x_hat||^2 / mean x . x_hat                                               |
| `l0`, `l1`                     | mean number of latents that are not 0, mean sum of the codes                    |
| `explained_variance`           | 1 - mean ||e||^2 / (d_model m - m^2), m the mean square of x's elements         |
| `explained_variance_legacy`    | mean of 1 - ||e||^2 / ||x - mean x||^2                                          |
| `mse`                          | mean ||e||^2 (SAELens; SAEBench also divides by the tokens of a batch)          |
| `cossim`                       | mean cosine of x and x_hat                                                      |
| `r2`                           | 1 - sum ||e||^2 / sum ||x - mean x||^2: ours, and SAELens' `explained_variance` |
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from bisae.sae import SparseAutoencoder
from bisae.sae.encoder import DENSE

GROUPS = {
    "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse", "cossim"),
    "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
    "sparsity": ("l0", "l1"),
}


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Sums from which the scores follow.

    `rows` holds for each token ||x||, ||x_hat||, x . x_hat, ||e||^2, l0, l1, ||x - mean x||^2. `tokens` and `sequences`
    hold for each latent the number of tokens, and of sequences, on which it fires.
    """

    rows: Float64[np.ndarray, "token 7"]
    tokens: Int64[np.ndarray, " latent"]
    sequences: Int64[np.ndarray, " latent"]
    d_model: int

    @classmethod
    @torch.no_grad()
    def of(
        cls, sae: SparseAutoencoder, stream: Float[Tensor, "token d_model"], sequence: Int[Tensor, " token"]
    ) -> "TokenScores":
        """Encode and decode a residual stream; `sequence` is the number of each token's sequence."""
        mean = stream.double().mean(0)
        size = max(1, DENSE // sae.latents)
        parts, fired, seen = [], torch.zeros(sae.latents, dtype=torch.int64), []
        for rows, number in zip(stream.split(size), sequence.split(size), strict=True):
            unit, norm = sae.normalize(rows)
            codes = sae.encode_unit(unit)
            x, x_hat = rows.double(), (sae.decode(codes) * norm[:, None]).double()
            token, on = codes.token_of_entry(), codes.values > 0
            l1 = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, token, codes.values.double())
            columns = (
                *(x.norm(dim=1), x_hat.norm(dim=1), (x * x_hat).sum(1), (x - x_hat).square().sum(1)),
                *(codes.l0().double(), l1, (x - mean).square().sum(1)),
            )
            parts.append(torch.stack(columns, 1))
            latent = codes.indices[on].long()
            fired += torch.bincount(latent, minlength=sae.latents)
            seen.append(torch.unique(torch.stack([number[token[on]], latent]), dim=1))
        sequences = torch.bincount(torch.unique(torch.cat(seen, 1), dim=1)[1], minlength=sae.latents)
        return cls(torch.cat(parts).numpy(), fired.numpy(), sequences.numpy(), sae.d_model)

    def scores(self) -> dict[str, float]:
        """The scores of the table above, by name."""
        with np.errstate(invalid="ignore", divide="ignore"):
            norm, norm_hat, dot, error, l0, l1, deviation = self.rows.T
            m = (norm**2).mean() / self.d_model
            return {
                "l2_norm_in": float(norm.mean()),
                "l2_norm_out": float(norm_hat.mean()),
                "l2_ratio": float((norm_hat / np.where(norm < 1e-4, 1, norm)).mean()),
                "relative_reconstruction_bias": float((norm_hat**2).mean() / dot.mean()),
                "l0": float(l0.mean()),
                "l1": float(l1.mean()),
                "explained_variance": float(1 - error.mean() / (self.d_model * m - m**2)),
                "explained_variance_legacy": float((1 - error / deviation).mean()),
                "mse": float(error.mean()),
                "cossim": float((dot / (norm * norm_hat)).mean()),
                "r2": float(1 - error.sum() / deviation.sum()),
            }

    def densities(self) -> Float64[np.ndarray, " latent"]:
        """The share of tokens on which each latent fires."""
        return self.tokens / len(self.rows)


def density_scores(density: Float64[np.ndarray, " latent"]) -> dict[str, float]:
    """SAEBench's `misc_metrics` of densities: shares of latents, and (`normalized_`) shares of all firing."""
    scores = {"frac_alive": float((density > 0).mean())}
    for percent in (1, 10):
        often = density > percent / 100
        scores[f"freq_over_{percent}_percent"] = float(often.mean())
        scores[f"normalized_freq_over_{percent}_percent"] = float(density[often].sum() / max(density.sum(), 1e-30))
    return scores


@torch.no_grad()
def weight_scores(sae: SparseAutoencoder) -> dict[str, Float64[np.ndarray, " latent"]]:
    """For each latent: encoder bias and norm, cosine of encoder and decoder, largest cosine to another latent."""
    W_enc, b_enc, W_dec, _ = (tensor.float().cpu() for tensor in sae.weights)
    measures = {
        "encoder_bias": b_enc,
        "encoder_norm": W_enc.norm(dim=1),
        "encoder_decoder_cosine_sim": cosine_similarity(W_enc, W_dec, dim=1),
        "max_encoder_cosine_sim": largest_cosine(W_enc),
        "max_decoder_cosine_sim": largest_cosine(W_dec),
    }
    return {name: values.double().numpy() for name, values in measures.items()}


def largest_cosine(vectors: Float[Tensor, "latent d_model"]) -> Float[Tensor, " latent"]:
    """For each vector its largest cosine with any other vector."""
    unit = normalize(vectors, dim=1)
    largest = []
    for start, part in zip(range(0, len(unit), 1024), unit.split(1024), strict=True):
        cosine = part @ unit.T
        cosine[torch.arange(len(part)), start + torch.arange(len(part))] = -torch.inf
        largest.append(cosine.amax(1))
    return torch.cat(largest)
