"""How much of the LM's predictions is kept if an SAE's reconstruction replaces the LM's activations."""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from bisae.cells.recipe import Recipe
from bisae.corpus.tokens import TokenizedDocument, heads
from bisae.edits.recovered import recovered
from bisae.lm.causal_lm import load_causal_lm
from bisae.metrics.intervals import estimates
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class LossRecovered:
    """Measures on the heads of the first `documents` documents per language, as long as in the SAE's training."""

    recipe: Recipe
    split: str
    documents: int
    tokenizer: Any
    device: torch.device

    def __post_init__(self) -> None:
        self.recipe.checkpoint.check_predicts()

    def of(self, sae: SparseAutoencoder, layer: int, resamples: int, seed: int) -> dict[str, float]:
        """The scores of `bisae.edits.recovered` for one SAE.

        Returns:
            Each score over all languages, and as `<name>_<language>` for each one. `<score>_doc_low` and
            `<score>_doc_high` are its 95 % interval over documents, from `resamples` resamples.
        """
        bos, reading = self.tokenizer.bos_token_id, self.recipe.reading
        languages = tuple(self.recipe.corpus.languages)
        found = recovered(
            self._lm,
            sae,
            layer,
            self._documents,
            languages,
            bos,
            self.tokenizer.all_special_ids,
            reading["context"] + (bos is not None),
            reading["lm_batch"],
            self.recipe.checkpoint.hook,
        )
        metrics: dict[str, float] = {}
        for name, estimate in estimates(found.scores, len(self._documents), resamples, seed).items():
            name = name.replace("/", "_")
            metrics |= {name: estimate.value, f"{name}_doc_low": estimate.low, f"{name}_doc_high": estimate.high}
        return metrics

    @property
    def tokens(self) -> int:
        """The number of tokens of all documents."""
        return sum(len(document.ids) for document in self._documents)

    @cached_property
    def _lm(self) -> PreTrainedModel:
        return load_causal_lm(self.recipe.checkpoint, getattr(torch, self.recipe.reading["lm_dtype"]), self.device)

    @cached_property
    def _documents(self) -> list[TokenizedDocument]:
        corpus, reading, found = self.recipe.corpus, self.recipe.reading, []
        for number, language in enumerate(corpus.languages):
            texts = heads(corpus, self.split, number, self.tokenizer, reading["context"], reading["shortest"])
            mine = list(islice(texts, self.documents))
            if len(mine) < self.documents:
                raise Refused("recovered", self.documents, f"the split has {len(mine)} documents in {language}")
            found += mine
        return found
