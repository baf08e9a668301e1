"""Take the measures that are missing: one LM after the other, each under all its interventions."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from bisae.edits.patched_lm import DonorReader, Patch, patched
from bisae.edits.resumed import ResumedLM
from bisae.edits.swap import CounterpartReader
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.measures import Measure, PerplexityText
from bisae.intervention.results import InterventionResult
from bisae.intervention.specs import SHUFFLED, InterventionSpec
from bisae.intervention.strength import Strength
from bisae.intervention.swap import SwappedWords, SwapStrength
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.generation import CausalLM
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.lock import sole_writer
from bisae.runtime.progress import tokens_bar


@dataclass(frozen=True, eq=False)
class InterventionWork:
    """The interventions on each recipient with their results, and the `measures` to take of each.

    Attributes:
        rows: the recipients, each with its interventions and their results.
        text: measures strengths of features too; None if the measures are `swapped` words.
        swapped: the words of a concept swap, which alone are edited.
        layers: the donor's features at each layer.
        batch: texts read at a time.
        dtype: of the LMs' weights.
    """

    rows: Sequence[tuple[Checkpoint, Sequence[tuple[InterventionSpec, InterventionResult]]]]
    measures: Sequence[Measure]
    text: PerplexityText | None
    swapped: SwappedWords | None
    donor: Checkpoint
    layers: Mapping[int, LayerFeatures]
    tokenizer: Any
    batch: int
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        if any(spec.control == SHUFFLED for _, pairs in self.rows for spec, _ in pairs):
            for measure in self.measures:
                if (texts := measure.texts()) < 2:
                    remedy = f"needs two texts or more in a batch; {measure.name} has {texts}"
                    raise Refused("shuffled", True, remedy)

    def do(self) -> None:
        """Take the missing measures. A result that another process is measuring is waited for."""
        missing = [
            (
                recipient,
                [(spec, result) for spec, result in pairs if not all(map(result.has, self._asked(spec, result)))],
            )
            for recipient, pairs in self.rows
        ]
        total, done = sum(len(pairs) for _, pairs in missing), 0
        with tokens_bar("interventions", "rows") as progress:
            for recipient, pairs in missing:
                if not pairs:
                    continue
                progress(done, total)
                lm = CausalLM(load_causal_lm(recipient, self.dtype, self.device), self.tokenizer, self.batch)
                below, counterparts = self._resumed(lm), self._counterparts(recipient)
                for spec, result in pairs:
                    self._measure(lm, below, counterparts, spec, result)
                    done += 1
                    progress(done, total)

    def _asked(self, spec: InterventionSpec, result: InterventionResult) -> Sequence[Measure]:
        return self.measures if spec.generates else result.measures(self.measures)

    @cached_property
    def _reader(self) -> DonorReader:
        return DonorReader(self.donor, list(self.layers), self.dtype, self.device)

    @cached_property
    def _strength(self) -> Strength:
        text, bos = self.text, self.tokenizer.bos_token_id
        assert text is not None
        return Strength(self._reader, self.layers, text.sequences, bos, text.context, self.batch)

    def _resumed(self, lm: CausalLM) -> ResumedLM | None:
        """What lets the recipient resume at the edited layer, if this is the output of a block, and the only one."""
        (layer, *others) = self.layers
        return None if others or layer == 0 or self.donor.hook else ResumedLM(lm.model, layer)

    def _counterparts(self, recipient: Checkpoint) -> SwapStrength | None:
        """What reads the recipient's streams with the other words in place."""
        if self.swapped is None:
            return None
        reader = CounterpartReader(recipient, list(self.layers), self.dtype, self.device, self.swapped.swaps)
        return SwapStrength(reader, self.layers, self.swapped, self.batch)

    def _measure(
        self,
        lm: CausalLM,
        below: ResumedLM | None,
        counterparts: SwapStrength | None,
        spec: InterventionSpec,
        result: InterventionResult,
    ) -> None:
        edits = spec.edits(self.layers, lambda layer, chosen: (counterparts or self._strength).of(layer, chosen))
        donor, places = self._reader if edits and not spec.alone else None, None
        if counterparts and edits:
            donor, places = counterparts.reader, counterparts.words.swaps.places
        # The padding token is not special: the mask leaves it out before a prompt, and after the end of an answer
        # `shuffled` takes its codes, with and without a cache.
        special = {bos for bos in [self.tokenizer.bos_token_id] if bos is not None}
        with sole_writer(result.folder):
            for measure in self._asked(spec, result):
                if not result.has(measure):
                    with (
                        below.reading() if below and edits else nullcontext(),
                        patched(lm.model, edits, donor, special, self.donor.hook, places) as patch,
                    ):
                        table = measure.of(lm)
                    result.keep(measure, table, mean_change(patch))


def mean_change(patch: Patch) -> dict[str, float]:
    """Mean over the edited layers of `StreamChange`, by name; empty without edits."""
    changes = [patch.change(layer)._asdict() for layer in patch.edits]
    return {name: sum(change[name] for change in changes) / len(changes) for name in (changes or [{}])[0]}
