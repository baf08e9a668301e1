"""Concept swap: what becomes of a word's translation when another word's part of the stream takes its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64

from bisae.edits.operation import StreamPair
from bisae.edits.swap import CounterpartReader, FeatureSwap, SwapTexts
from bisae.intervention.layer_features import LayerFeatures
from bisae.lm.batches import batches
from bisae.lm.generation import CausalLM
from bisae.metrics.intervals import document_weights
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.translation.word_swaps import SwapPrompt

CONTRAST = {False: "contrast", True: "contrast_shared"}  # columns, of words apart and of shared ones


@dataclass(frozen=True, eq=False)
class SwappedWords:
    """How probable the translations of two words are where that of one is predicted: a row for each prompt.

    `nats` and `nats_other` are the losses of the word's translation and of the other word's. The *contrast* of a prompt
    is nats - nats_other, log p(other's translation) - log p(word's); its change under an edit is the effect.

    Attributes:
        prompts: by direction, `<source>_<target>`.
        batch: texts read at a time.
    """

    name: ClassVar[str] = "swap"
    prompts: Mapping[str, Sequence[SwapPrompt]]
    batch: int

    def texts(self) -> int:
        return min(self.batch, 2 * len(self.all))

    @property
    def unwritten(self) -> "SwappedWords":
        return self

    @cached_property
    def made_from(self) -> Mapping[str, Any]:
        contents = {
            way: [[one.pair, one.texts, one.swap, one.word.shared] for one in prompts]
            for way, prompts in self.prompts.items()
        }
        return {"prompts": name_of(contents), "batch": self.batch}

    def check(self, positions: int | None) -> None:
        """Refuse texts longer than `positions`, which the LM can read."""
        longest = max(len(text) for prompt in self.all for text in prompt.texts)
        if positions is not None and longest > positions:
            raise Refused(
                "tasks", f"texts of {longest} tokens", f"the LM can read at most {positions}; give shorter ones"
            )

    @cached_property
    def all(self) -> list[SwapPrompt]:
        return [prompt for prompts in self.prompts.values() for prompt in prompts]

    @cached_property
    def swaps(self) -> SwapTexts:
        return SwapTexts({text: prompt.swap for prompt in self.all for text in prompt.texts})

    def of(self, lm: CausalLM) -> pd.DataFrame:
        texts = [text for prompt in self.all for text in prompt.texts]
        starts = [len(prompt.ids) for prompt in self.all for _ in prompt.texts]
        nats = [float(loss.sum()) for loss in lm.token_losses(texts, starts)]
        ways = [way for way, prompts in self.prompts.items() for _ in prompts]
        rows = [
            (way, prompt.pair, prompt.word.shared, prompt.word.text, prompt.other.text)
            for way, prompt in zip(ways, self.all, strict=True)
        ]
        table = pd.DataFrame(rows, columns=["way", "pair", "shared", "word", "other"])
        return table.assign(nats=nats[::2], nats_other=nats[1::2])

    def contrasts(self, table: pd.DataFrame, resamples: int, seed: int) -> dict[str, Float64[np.ndarray, " resample"]]:
        """The mean contrast by `contrast_<way>`: first over all pairs of words, then over each resample of the pairs.

        Every pair counts the same, however many prompts it has; those of shared words are `contrast_shared_<way>`.
        """
        table = table.assign(contrast=table["nats"] - table["nats_other"])
        means = {}
        for (way, shared), rows in table.groupby(["way", "shared"], sort=False):
            pairs = rows.groupby("pair")["contrast"].mean().to_numpy()
            weights = document_weights(len(pairs), resamples, seed).astype(float)
            with np.errstate(invalid="ignore"):  # a resample may hold no pair at all
                drawn = weights @ pairs / weights.sum(1)
            means[f"{CONTRAST[bool(shared)]}_{way}"] = np.array([pairs.mean(), *drawn])
        return means


@dataclass(frozen=True, eq=False)
class SwapStrength:
    """Measures how much the swap of a set of features changes the stream at the words, on the plain LM."""

    reader: CounterpartReader
    layers: Mapping[int, LayerFeatures]
    words: SwappedWords
    batch: int

    def of(self, layer: int, chosen: Bool[np.ndarray, " latent"]) -> float:
        """Mean L2 norm of the change, over all positions of words."""
        features, streams = self.layers[layer], self._streams[layer]
        swapped = FeatureSwap(features.sae, features.tensor(chosen), 1.0, features.codes)(streams)
        change = swapped - streams.recipient.to(swapped.dtype)
        return torch.linalg.vector_norm(change, dim=1).mean().item()

    @cached_property
    @torch.no_grad()
    def _streams(self) -> dict[int, StreamPair]:
        """At each layer the streams of the words, and of those that take their place, in every prompt."""
        swaps = self.words.swaps
        parts: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {layer: [] for layer in self.layers}
        once = list(dict.fromkeys(prompt.texts[0] for prompt in self.words.all))
        for _, ids, mask in batches(once, self.batch, self.reader.device):
            places = swaps.places(ids, mask)
            own, other = self.reader.read(ids), self.reader.read(swaps.others(ids, mask))
            for layer, rows in parts.items():
                rows.append((own[layer][places], other[layer][places]))
        streams = {}
        for layer, rows in parts.items():
            own_rows, other_rows = (torch.cat(side) for side in zip(*rows, strict=True))
            streams[layer] = StreamPair(own_rows, other_rows, torch.ones(1, len(own_rows), dtype=torch.bool))
        return streams
