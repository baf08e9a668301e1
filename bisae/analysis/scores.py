"""Score cells without training: how well their SAEs reconstruct an LM's activations on any text."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import BFloat16, UInt8
from rich.table import Table
from rich.text import Text
from torch import Tensor

from bisae.activations.store import Progress, computed, too_few
from bisae.cells.find import FoundCell
from bisae.cells.recipe import Recipe
from bisae.lm.lm_pass import LMPass
from bisae.metrics.reconstruction import ReconstructionMetrics
from bisae.runtime.atomic import atomic_file
from bisae.runtime.console import wide
from bisae.runtime.device import torch_device
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.sae import SparseAutoencoder, load

BATCH = 4096  # tokens that an SAE encodes at once, as in validation


@dataclass(frozen=True)
class ScoredText:
    """The text that cells are scored on.

    `split`: of the corpus. `tokens`: how many, all languages together; None: as many as the cell was validated on.
    `take_short`: accept a split that holds fewer. `device`: auto, cpu or cuda, of LM and SAEs.
    """

    split: str
    tokens: int | None
    take_short: bool
    device: str

    def tokens_for(self, cell: FoundCell) -> int:
        """How many tokens `cell` is scored on. Raises Refused (`tokens`) if neither the cell nor the user says."""
        tokens = self.tokens or cell.identity.get("data", {}).get("validation_tokens")
        if not isinstance(tokens, int):
            raise Refused("tokens", None, f"give it: {cell.folder} was imported and does not say")
        return tokens


@dataclass(frozen=True, eq=False)
class Scoring:
    """Cells that read the same `tokens` tokens of `source`: one LM pass scores them all, and keeps nothing on disk."""

    source: LMPass
    text: ScoredText
    tokens: int
    cells: Sequence[FoundCell]

    @classmethod
    def plan(
        cls, cells: Sequence[FoundCell], text: ScoredText, model: Any, corpus: Any, checkpoint: object, cache: Path
    ) -> "list[Scoring]":
        """Group cells by what they read; loads no LM.

        Args:
            cells: to score.
            text: what they are scored on.
            model, corpus: config nodes that replace the cells' own; None to use those.
            checkpoint: a step of the LM, or `final`; None: the one that each SAE was trained on.
            cache: folder of unpacked LMs and of findings about tokenizers.

        Raises:
            Refused: a cell's SAE cannot read the LM, or the LM cannot be had; `tokens`: see `ScoredText`.
        """
        groups: dict[str, Scoring] = {}
        for cell in cells:
            recipe, tokens = Recipe.of(cell, model, corpus, cache), text.tokens_for(cell)
            other = None if checkpoint is None else recipe.other_checkpoint(checkpoint)
            source = recipe.lm_pass(text.split, text.device, other)
            key = name_of({"lm": source.checkpoint.model, "read": source.fingerprint, "tokens": tokens})
            group = groups.get(key, cls(source, text, tokens, []))
            groups[key] = replace(group, cells=[*group.cells, cell])
        return list(groups.values())

    def scores(self, classes: Collection[type[SparseAutoencoder]], progress: Progress) -> list[dict[str, Any]]:
        """A row for each cell: what it is, what it was scored on, and its metrics.

        Args:
            classes: SAE classes of the user's own that cells may be of.
            progress: is told (tokens done, tokens in all).

        Raises:
            Refused: the split holds fewer `tokens`.
            ValueError: an SAE cannot be read (see `bisae.sae.load`).
        """
        device, languages = torch_device(self.text.device), self.source.corpus.languages
        saes = [load(cell.folder, str(device), classes) for cell in self.cells]
        metrics = [ReconstructionMetrics(languages, sae.d_model, sae.latents).to(device) for sae in saes]
        layers, done, shard = sorted({cell.layer for cell in self.cells}), 0, 0
        while done < self.tokens:
            found = self.source.tokens(shard)
            if found is None:
                if not (self.text.take_short and done):
                    raise too_few("tokens", self.tokens, done, self.source)
                break
            streams, left = computed(self.source, shard, found.tokens, layers), self.tokens - done
            language = torch.from_numpy(found.language[:left]).to(device)
            for cell, sae, measured in zip(self.cells, saes, metrics, strict=True):
                add(measured, sae, streams[cell.layer][:left].to(device), language)
            self.source.forget(shard)
            done, shard = done + len(language), shard + 1
            progress(done, self.tokens)
        self.source.release()
        rows = zip(self.cells, metrics, strict=True)
        return [self._about(cell, done) | measured.compute() for cell, measured in rows]

    def _about(self, cell: FoundCell, tokens: int) -> dict[str, Any]:
        on, trained_on = self.source.checkpoint, cell.identity["activations"].get("weights")
        return {
            "model": cell.model,
            "step": cell.step,
            "layer": cell.layer,
            "sae": f"{cell.sae}-{cell.hash}",
            "on_model": on.model,
            "on_step": on.step,
            "same_lm": on.weights == trained_on,
            "split": self.text.split,
            "text": self.source.corpus.checksum(self.text.split),
            "tokens": tokens,
        }


@torch.no_grad()
def add(
    metrics: ReconstructionMetrics,
    sae: SparseAutoencoder,
    activations: BFloat16[Tensor, "token d_model"],
    language: UInt8[Tensor, " token"],
) -> None:
    """Add tokens to an SAE's metrics, `BATCH` of them at a time."""
    for rows, spoken in zip(activations.split(BATCH), language.split(BATCH), strict=True):
        x, norm = sae.normalize(rows)
        codes = sae.encode_unit(x)
        metrics.update(x, norm, sae.decode(codes), codes, spoken)


def show_scores(table: pd.DataFrame) -> None:
    """Print rows of `Scoring.scores`: what was scored on what, and the metrics over all languages."""
    columns = [name for name in table if "/" not in name and name not in ("same_lm", "text", "r2")]
    shown = Table(*columns, box=None, header_style="bold")
    for row in table[columns].itertuples(index=False):
        shown.add_row(*(Text(f"{value:.4g}" if isinstance(value, float) else str(value)) for value in row))
    wide().print(shown)


def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write rows of `Scoring.scores` as JSON if `path` ends so, else as CSV."""
    with atomic_file(path) as temporary:
        if path.suffix == ".json":
            table.to_json(temporary, orient="records", indent=1, force_ascii=False, double_precision=15)
        else:
            table.to_csv(temporary, index=False)
