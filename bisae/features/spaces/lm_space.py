"""The space of an LM's own activations."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from bisae.features.measures.clusters import centred
from bisae.features.spaces.space import VectorSpace, same_vocabulary
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Index, NotNegative

BATCH = 1024  # tokens a pass


@runtime_checkable
class Model(Protocol):
    """The interface of config group `model`."""

    def checkpoint(self, step: object) -> Checkpoint: ...


class LMSpace(VectorSpace):
    """A token's vector is the LM's residual stream at `layer` after BOS and that token. Layer 0: its embedding.

    A word's vector is the mean over its tokens' streams.
    """

    name = "lm"

    def __init__(self, model: Model, checkpoint: object, layer: Index, clustering: str, distance: NotNegative) -> None:
        super().__init__(clustering, distance)
        self._model, self._step, self._layer = model, checkpoint, layer

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The LM, fetched when first needed. Refused if there is none, or if it has no such layer."""
        checkpoint = self._model.checkpoint(self._step)
        if not 0 <= self._layer <= checkpoint.layers:
            raise Refused("layer", self._layer, f"{checkpoint.model} has the layers 0 to {checkpoint.layers}")
        return checkpoint

    @property
    def source(self) -> dict[str, object]:
        lm = self.checkpoint
        return {"model": lm.model, "step": lm.step, "weights": lm.weights, "layer": self._layer}

    def vectors(self, tokenizer: Any, words: Sequence[str] = ()) -> Float32[np.ndarray, "token dimension"]:
        import torch

        lm = self.checkpoint
        if not same_vocabulary(tokenizer, lm.load_tokenizer()):
            remedy = "has another vocabulary than the LM analysed; choose that LM, use or sentence_transformers"
            raise Refused("model", lm.model, remedy)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if (most := lm.embeddings) is not None and most < len(tokenizer):
            names = ", ".join(tokenizer.convert_ids_to_tokens(list(range(most, len(tokenizer))))[:3])
            remedy = f"has {most} embeddings, its tokenizer {len(tokenizer)} ids (as {names}); choose another space"
            raise Refused("model", lm.model, remedy)
        reader = lm.reader([self._layer], torch.float32, device)
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

        def streams(ids: torch.Tensor) -> np.ndarray:
            after = torch.cat([torch.tensor([bos] * len(ids), dtype=torch.long), ids], 1)
            return reader.read(after)[self._layer][:, len(bos) :].mean(1).cpu().numpy()

        vocabulary = np.concatenate([streams(part) for part in torch.arange(len(tokenizer))[:, None].split(BATCH)])
        spaced = [f" {word}" if word.isascii() else word for word in words]  # as in running text
        ids = [tokenizer(word, add_special_tokens=False).input_ids for word in spaced]
        further = [streams(torch.tensor([word])) for word in ids]
        return centred(np.concatenate([vocabulary, *further]), vocabulary.mean(0))
