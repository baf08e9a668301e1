"""Measuring what has not been measured: one LM after the other, each under all its interventions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from bisae.edits.patched_lm import DonorReader, Patch, patched
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.measures import Measure, PerplexityText
from bisae.intervention.results import InterventionResult
from bisae.intervention.specs import SHUFFLED, InterventionSpec
from bisae.intervention.strength import Strength
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.generation import CausalLM
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.lock import sole_writer
from bisae.runtime.progress import tokens_bar


@dataclass(frozen=True, eq=False)
class InterventionWork:
    """`rows` by recipient, with the setting of each; `measures` are taken of every row."""

    rows: Sequence[tuple[Checkpoint, Sequence[tuple[InterventionSpec, InterventionResult]]]]
    measures: Sequence[Measure]
    text: PerplexityText
    donor: Checkpoint
    layers: Mapping[int, LayerFeatures]
    tokenizer: Any
    batch: int
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        if any(setting.control == SHUFFLED for _, rows in self.rows for setting, _ in rows):
            for measure in self.measures:
                if (texts := measure.texts()) < 2:
                    remedy = f"needs two texts or more in a batch, {measure.name} has {texts}"
                    raise Refused("shuffled", True, remedy)

    def do(self) -> None:
        """Measure what is missing; what another process measures meanwhile is waited for. Refused if the shuffled
        control has nothing to shuffle."""
        missing = [
            (recipient, [(setting, row) for setting, row in rows if not all(map(row.has, self._asked(setting, row)))])
            for recipient, rows in self.rows
        ]
        total, done = sum(len(rows) for _, rows in missing), 0
        with tokens_bar("interventions", "rows") as progress:
            for recipient, rows in missing:
                if not rows:
                    continue
                progress(done, total)
                lm = CausalLM(load_causal_lm(recipient, self.dtype, self.device), self.tokenizer, self.batch)
                for setting, row in rows:
                    self._measure(lm, setting, row)
                    done += 1
                    progress(done, total)

    def _asked(self, setting: InterventionSpec, row: InterventionResult) -> Sequence[Measure]:
        return self.measures if setting.generates else row.measures(self.measures)

    @cached_property
    def _reader(self) -> DonorReader:
        return DonorReader(self.donor, list(self.layers), self.dtype, self.device)

    @cached_property
    def _strength(self) -> Strength:
        text, bos = self.text, self.tokenizer.bos_token_id
        return Strength(self._reader, self.layers, text.sequences, bos, text.context, self.batch)

    def _measure(self, lm: CausalLM, setting: InterventionSpec, row: InterventionResult) -> None:
        edits = setting.edits(self.layers, lambda layer, chosen: self._strength.of(layer, chosen))
        donor = self._reader if edits and not setting.alone else None
        # Not the padding: before a prompt the mask leaves it out, and what follows an answer's end lends its codes to
        # `shuffled` neighbours, with and without a cache.
        special = {one for one in [self.tokenizer.bos_token_id] if one is not None}
        with sole_writer(row.folder):
            for measure in self._asked(setting, row):
                if not row.has(measure):
                    with patched(lm.model, edits, donor, special, self.donor.hook) as patch:
                        table = measure.of(lm)
                    row.keep(measure, table, mean_change(patch))


def mean_change(patch: Patch) -> dict[str, float]:
    """How much of the stream was changed, and on what share of tokens: the mean over the edited layers."""
    changes = [patch.change(layer)._asdict() for layer in patch.edits]
    return {name: sum(one[name] for one in changes) / len(changes) for name in (changes or [{}])[0]}
