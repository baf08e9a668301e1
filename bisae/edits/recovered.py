"""Loss recovered: how well an LM predicts when the SAE's reconstruction replaces its residual stream.

Definitions of SAELens and SAEBench, over all tokens and per language:

| name            | definition                                               |
|-----------------|----------------------------------------------------------|
| `ce_loss_score` | (CE_zero - CE_sae) / (CE_zero - CE_original)             |
| `kl_div_score`  | (KL_zero - KL_sae) / KL_zero, with KL(original, changed) |

As in these libraries, special tokens keep their activation when the reconstruction replaces the stream, and
predictions at special tokens are not counted; zeros replace the stream at all tokens, special ones too.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Num
from torch import Tensor
from transformers import PreTrainedModel

from bisae.corpus import tokens
from bisae.edits.operation import StreamPair, pieces
from bisae.edits.patched_lm import patched
from bisae.lm.batches import batches
from bisae.metrics.intervals import Statistics
from bisae.sae import SparseAutoencoder


@dataclass(frozen=True)
class ReconstructionEdit:
    """Edit that replaces the stream by its reconstruction ||h|| x_hat; with its `error` added it is h, rounded."""

    sae: SparseAutoencoder
    error: bool

    def __call__(self, streams: StreamPair) -> Float[Tensor, "token d_model"]:
        stream = streams.recipient.to(self.sae.W_dec.dtype)
        rebuilt = torch.cat([self.sae.reconstruct(rows).activation for rows in pieces(self.sae, stream)])
        return rebuilt + (stream - rebuilt) if self.error else rebuilt


def zeros(streams: StreamPair) -> Float[Tensor, "token d_model"]:
    """Edit that replaces the stream by zeros."""
    return torch.zeros_like(streams.recipient)


CE = ("ce_loss_without_sae", "ce_loss_with_sae", "ce_loss_with_ablation")
KL = ("kl_div_with_sae", "kl_div_with_ablation")


@dataclass(frozen=True, eq=False)
class Recovered:
    """Sums over each document; columns: predictions, 3 losses in nats (`CE`), positions, 2 divergences (`KL`)."""

    languages: tuple[str, ...]
    language: Int64[np.ndarray, " document"]
    sums: Float64[np.ndarray, "document 7"]

    def scores(self, weights: Num[np.ndarray, "resample document"]) -> Statistics:
        """Scores and means by name, and by `name/language`.

        Args:
            weights: how often each resample counts each document.

        Returns:
            For each name an array [resample]; NaN for a resample without tokens.
        """
        statistics = _scores(weights @ self.sums)
        for number, language in enumerate(self.languages):
            spoken = self.language == number
            scores = _scores(weights[:, spoken] @ self.sums[spoken])
            statistics |= {f"{name}/{language}": values for name, values in scores.items()}
        return statistics


def _scores(sums: Float64[np.ndarray, "resample 7"]) -> Statistics:
    with np.errstate(invalid="ignore"):  # NaN without tokens
        ce, kl = (sums[:, 1:4] / sums[:, :1]).T, (sums[:, 5:] / sums[:, 4:5]).T
        (plain, sae, zero), (kl_sae, kl_zero) = ce, kl
        scores = {"ce_loss_score": (zero - sae) / (zero - plain), "kl_div_score": (kl_zero - kl_sae) / kl_zero}
    return {**scores, **dict(zip((*CE, *KL), (*ce, *kl), strict=True))}


@torch.no_grad()
def recovered(
    lm: PreTrainedModel,
    sae: SparseAutoencoder,
    layer: int,
    documents: Sequence[tokens.TokenizedDocument],
    languages: tuple[str, ...],
    bos: int | None,
    special: Collection[int],
    context: int,
    batch: int,
    hook: str | None = None,
) -> Recovered:
    """Run the LM plain, with the SAE's reconstruction and with zeros at `layer`, on the beginning of each document.

    Args:
        layer: of the residual stream; with `hook`, of that part's output.
        documents: token ids without BOS.
        languages: codes, in the order of the documents' language numbers.
        bos: id put before each document, or None.
        special: ids of tokens that keep their activation and are not counted (BOS, EOS and the like).
        context: tokens read of a document at most, BOS included.
        batch: documents read at a time.
    """
    prefix = [] if bos is None else [bos]
    heads = [[*prefix, *document.ids[: context - len(prefix)].tolist()] for document in documents]
    sums = np.zeros((len(documents), 7))
    for numbers, ids, mask in batches(heads, batch, lm.device):
        logits = [lm(input_ids=ids, attention_mask=mask, use_cache=False).logits]
        for edit, left_alone in ((ReconstructionEdit(sae, error=False), special), (zeros, ())):
            with patched(lm, {layer: edit}, None, left_alone, hook):
                logits.append(lm(input_ids=ids, attention_mask=mask, use_cache=False).logits)
        kept = mask.bool() & ~torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype, device=ids.device))
        for row, number in enumerate(numbers):
            length = len(heads[number])
            read = _sums(ids[row, :length], kept[row, :length], [scores[row, :length] for scores in logits])
            sums[number] = read.cpu().numpy()
    return Recovered(languages, np.array([document.language for document in documents], np.int64), sums)


def _sums(
    ids: Int[Tensor, " position"], kept: Bool[Tensor, " position"], logits: list[Float[Tensor, "position vocabulary"]]
) -> Float64[Tensor, " 7"]:
    """The row of `Recovered.sums` of one document."""
    plain, *changed = log_ps = [scores.float().log_softmax(-1) for scores in logits]
    nats = [-log_p[:-1].gather(-1, ids[1:, None])[kept[:-1]].double().sum() for log_p in log_ps]
    divergence = [(plain.exp() * (plain - log_p)).sum(-1)[kept].double().sum() for log_p in changed]
    return torch.stack([kept[:-1].sum().double(), *nats, kept.sum().double(), *divergence])
