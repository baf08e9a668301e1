"""Cross-entropy of an LM for each token."""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from bisae.corpus import tokens
from bisae.lm.batches import batches
from bisae.runtime.errors import Refused


class TokenLoss(NamedTuple):
    """`nats`: summed cross-entropy of `tokens` predicted tokens (BOS is given, never predicted)."""

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)


@torch.no_grad()
def token_loss(model: PreTrainedModel, sequences: Sequence[Sequence[int]], batch: int = 32) -> TokenLoss:
    """Sum the loss of every token but the first of each sequence, in float64.

    Args:
        sequences: Token ids, one document in each sequence.
        batch: Sequences read at a time.
    """
    was_training = model.training
    model.eval()
    nats, tokens = 0.0, 0
    ordered = sorted(sequences, key=len)  # so that a batch needs little padding
    for start in range(0, len(ordered), batch):
        rows = [torch.tensor(row, dtype=torch.int64, device=model.device) for row in ordered[start : start + batch]]
        # Padding stands behind the text, where a causal LM never looks back from.
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        targets = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)[:, 1:]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100)
        nats += losses.double().sum().item()
        tokens += int((targets != -100).sum())
    model.train(was_training)
    return TokenLoss(nats, tokens)


class Window(NamedTuple):
    """Ids that the LM reads at once: the first `given` are context, the others are predicted in this window only."""

    ids: list[int]
    given: int


def windows(ids: Sequence[int], bos: int | None, context: int, stride: int) -> Iterator[Window]:
    """Yield windows of at most `context` tokens, BOS included, over a document's `ids` without BOS.

    The first window predicts all its tokens. Each later one predicts `stride` tokens (the last perhaps fewer), after as
    much of the document as fits before them. Every window begins with BOS, as the SAEs' training text does; an LM
    without BOS cannot predict a document's first token. Raises Refused (`stride`) if no token of context is left.
    """
    prefix = [] if bos is None else [bos]
    room = context - len(prefix)
    if not 1 <= stride < context:
        raise Refused("stride", stride, f"must be between 1 and {context - 1}, to leave context before a token")
    done = 0
    while done < len(ids):
        stop = min(len(ids), done + (stride if done else room))
        start = max(0, stop - room)
        yield Window([*prefix, *ids[start:stop]], max(1, len(prefix) + done - start))
        done = stop


@torch.no_grad()
def token_losses(
    lm: PreTrainedModel, sequences: Sequence[Sequence[int]], batch: int, starts: Sequence[int] | None = None
) -> list[Float64[np.ndarray, " token"]]:
    """Return the nats of every token of each sequence from place `starts` on; None: of every token but the first.

    `batch` sequences are read at a time. Logits are computed from the first start in a batch on, where the LM can.
    """
    token_nats = [np.zeros(0)] * len(sequences)
    begins = [1] * len(sequences) if starts is None else starts
    for numbers, ids, mask in batches(sequences, batch, lm.device):
        first = min(begins[number] for number in numbers) - 1
        logits = _logits(lm, ids, mask, first)
        # Row by row: all logits of a batch in float32 would be the largest tensor by far.
        rows = zip(logits, ids[:, first + 1 :], strict=True)
        nats = torch.stack([cross_entropy(row.float(), next_ids, reduction="none") for row, next_ids in rows])
        for number, row in zip(numbers, nats.double().cpu().numpy(), strict=True):
            token_nats[number] = row[begins[number] - 1 - first : max(0, len(sequences[number]) - 1 - first)]
    return token_nats


def _logits(
    lm: PreTrainedModel, ids: Int[Tensor, "row position"], mask: Int[Tensor, "row position"], first: int
) -> Float[Tensor, "row some vocabulary"]:
    """The logits from position `first` to the last but one."""
    if first and "logits_to_keep" in inspect.signature(lm.forward).parameters:
        kept = ids.shape[1] - first
        logits: Tensor = lm(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
        return logits[:, -kept:-1]
    return lm(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, first:-1]


@dataclass(frozen=True, eq=False)
class DocumentLosses:
    """Summed nats of each document's `tokens` predicted tokens. `language` is an index into `languages`."""

    languages: tuple[str, ...]
    language: Int64[np.ndarray, " document"]
    nats: Float64[np.ndarray, " document"]
    tokens: Int64[np.ndarray, " document"]


def document_losses(
    lm: PreTrainedModel,
    documents: Sequence[tokens.TokenizedDocument],
    languages: tuple[str, ...],
    bos: int | None,
    context: int,
    stride: int,
    batch: int,
) -> DocumentLosses:
    """Sum the loss of whole documents over windows of `context` tokens (see `windows`).

    A batch holds one language and, where possible, windows of different documents: codes that an intervention shuffles
    between sequences then come from another text of the same language.
    """
    language = np.array([document.language for document in documents], np.int64)
    nats, counts = np.zeros(len(documents)), np.zeros(len(documents), np.int64)
    for number in range(len(languages)):
        members = np.flatnonzero(language == number).tolist()
        placed = [
            (d, n, w) for d in members for n, w in enumerate(windows(documents[d].ids.tolist(), bos, context, stride))
        ]
        placed.sort(key=lambda item: item[1])  # neighbours in a document apart, since batches keep the order of equals
        losses = token_losses(lm, [window.ids for _, _, window in placed], batch)
        for (document, _, window), loss in zip(placed, losses, strict=True):
            nats[document] += loss[window.given - 1 :].sum()
            counts[document] += len(loss[window.given - 1 :])
    return DocumentLosses(languages, language, nats, counts)
