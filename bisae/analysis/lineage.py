"""Follow features over the checkpoints of one LM: each one's match at the next and at the last checkpoint, and the
step since which a final feature exists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64, Int64

from bisae.analysis.checkpoint import CheckpointCells
from bisae.analysis.folder import Analysis
from bisae.analysis.traced import Checkpointed, Traced, is_warm, trace
from bisae.cells.find import FoundCell
from bisae.features.codes import Firings
from bisae.features.measures.lineage import (
    appears,
    coactivation_both_ways,
    coactivation_matches,
    coactivation_null,
    decoder_cosine,
)
from bisae.runtime.atomic import atomic_file
from bisae.runtime.lock import sole_writer
from bisae.runtime.naming import name_of
from bisae.runtime.progress import tokens_bar
from bisae.sae import load


@dataclass(frozen=True)
class AnalysedCell:
    """An analysed cell, with the checkpoint that can read its codes again."""

    analysis: Analysis
    checkpoint: CheckpointCells

    @property
    def cell(self) -> FoundCell:
        return self.analysis.cell

    def directions(self) -> Float32[np.ndarray, "latent d_model"]:
        """The decoder's directions, of norm 1."""
        sae = load(self.cell.folder, classes=self.checkpoint.text.classes)
        return torch.nn.functional.normalize(sae.W_dec.detach(), dim=1).float().numpy()

    def delete_codes(self) -> None:
        """Delete the codes; they are computed again if something else is to be known of them."""
        codes = self.checkpoint.codes(self.cell)
        with sole_writer(codes.folder):
            codes.delete()

    def firings(self, tokens: int) -> Firings:
        """All firings on the first `tokens` tokens."""
        with self.checkpoint.encoded(self.cell, stop=tokens) as codes:
            return codes.block(0, codes.latents, tokens)


def ladder_of(cell: FoundCell) -> str:
    """A name that cells share if they differ only in the LM's step."""
    read = {key: value for key, value in cell.identity["activations"].items() if key != "weights"}
    identity = {key: value for key, value in cell.identity.items() if key != "imported"}  # the weights' checksum
    return name_of({"model": cell.model, "layer": cell.layer, **identity, "activations": read})


def ladders(places: Sequence[AnalysedCell]) -> list[list[AnalysedCell]]:
    """Group the cells that differ only in the LM's step, in the order of steps. Groups of one cell are left out.

    Cells of which each starts from the one before (warm starts) are a group, with the first one's start unless it is in
    another group.
    """
    found: dict[str, list[AnalysedCell]] = {}
    for place in sorted(places, key=lambda place: place.cell.step):
        found.setdefault(ladder_of(place.cell), []).append(place)
    groups = [ladder for ladder in found.values() if len(ladder) > 1]
    grouped = {place.cell.hash for ladder in groups for place in ladder}
    by_hash = {place.cell.hash: place for place in places if place.cell.hash not in grouped}
    starts = {place.cell.identity.get("start") for place in by_hash.values()}
    for place in (place for hash, place in by_hash.items() if hash not in starts):
        chain = [place]
        while (before := by_hash.get(chain[-1].cell.identity.get("start", ""))) is not None:
            chain.append(before)
        groups.append(sorted(chain, key=lambda one: one.cell.step))
    return [ladder for ladder in groups if len({place.cell.step for place in ladder}) == len(ladder) > 1]


@dataclass(frozen=True, eq=False)
class Followed:
    """The features of a ladder of checkpoints.

    `lineage`: for each cell but the last one, by its hash, a table with one row per feature. `emergence`: one row per
    final feature that is alive. `about`: the co-activation by chance, from the last two checkpoints, one of them
    shifted by half the text. `coactivation`: of each final feature with its best match at each of the earlier `steps`.
    `traced`: the latents by their index, where each SAE started from the one before.
    """

    lineage: Mapping[str, pd.DataFrame]
    emergence: pd.DataFrame
    about: Mapping[str, Any]
    steps: Int64[np.ndarray, " step"]
    coactivation: Float64[np.ndarray, "step feature"]
    traced: Traced | None = None


@dataclass(frozen=True)
class Lineage:
    """Matches features over the first `tokens` tokens of the text; from `least` co-activation on they are the same."""

    tokens: int
    least: float

    def follow(self, ladder: Sequence[AnalysedCell]) -> Followed:
        """Match each checkpoint's features with the next and the last one's, and the last one's with each."""
        final = ladder[-1]
        lineage: dict[str, pd.DataFrame] = {}
        since = []
        with tokens_bar(f"lineage, layer {final.cell.layer}", "checkpoints") as progress:
            for number, (here, following) in enumerate(zip(ladder[:-1], ladder[1:], strict=True), start=1):
                to_final, from_final = self.match_both(here, final)
                onward = self.match(here, following)
                table = pd.concat([onward.add_prefix("next_"), to_final.add_prefix("final_")], axis=1)
                table.insert(0, "feature", np.arange(len(table), dtype=np.int32))
                table.insert(1, "next_step", following.cell.step)
                lineage[here.cell.hash] = with_axes(table, here)
                since.append(from_final["coactivation"].to_numpy(np.float64))
                progress(number, len(ladder) - 1)
        features = final.analysis.features()
        alive = (features["class"] != "dead").to_numpy()
        steps = np.array([place.cell.step for place in ladder[:-1]])
        emergence = features[["feature", "class", "bilingual", "monosemanticity"]].copy()
        emergence["appears"] = appears(steps, coactivation := np.stack(since), self.least)
        chance = self.match(final, ladder[-2], chance=True)["coactivation"].to_numpy()[alive]
        about = {**_axes(final), "least": self.least, "tokens": self.tokens}
        if len(chance):
            about |= {"chance_median": float(np.median(chance)), "chance_99": float(np.quantile(chance, 0.99))}
        traced = self.trace(ladder) if is_warm([place.cell for place in ladder]) else None
        return Followed(lineage, with_axes(emergence[alive], final), about, steps, coactivation, traced)

    def trace(self, ladder: Sequence[AnalysedCell]) -> Traced:
        """Follow the latents of a warm-started ladder by their index."""
        tokens = min(self._tokens(place) for place in ladder)
        latents = (
            Checkpointed(place.cell.step, place.firings(tokens), place.directions(), place.analysis.features())
            for place in ladder
        )
        return trace(list(latents), tokens, self.least)

    def match(self, here: AnalysedCell, there: AnalysedCell, chance: bool = False) -> pd.DataFrame:
        """For each feature of `here` its best match in `there`, kept beside the analyses of `here`.

        It depends on both SAEs, the text and the number of tokens only: further steps and other rules match only what
        was not matched yet.
        """
        path = self._kept(here, there, chance)
        if not path.exists():
            _keep(path, self._chance(here, there) if chance else self._match(here, there)[0])
        return pd.read_parquet(path)

    def match_both(self, here: AnalysedCell, there: AnalysedCell) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`match` of `here` in `there` and of `there` in `here`, which are found together if neither is kept."""
        ways = (here, there), (there, here)
        paths = [self._kept(*way) for way in ways]
        if not any(path.exists() for path in paths) and self._tokens(here) == self._tokens(there):
            for path, table in zip(paths, self._match(here, there, both=True), strict=True):
                _keep(path, table)
        one, other = (self.match(*way) for way in ways)
        return one, other

    def _kept(self, here: AnalysedCell, there: AnalysedCell, chance: bool = False) -> Path:
        codes = [place.checkpoint.codes(place.cell).folder.name for place in (here, there)]  # say SAE and text
        made_from = {"codes": codes, "tokens": self.tokens, "chance": chance}
        return here.cell.folder / "analysis" / "matches" / f"{name_of(made_from)}.parquet"

    def _match(self, here: AnalysedCell, there: AnalysedCell, both: bool = False) -> list[pd.DataFrame]:
        """The match of `here` in `there`, and with `both` that of `there` in `here` too."""
        tokens = self._tokens(here)
        firings = here.firings(tokens), there.firings(tokens), tokens
        found = coactivation_both_ways(*firings) if both else [coactivation_matches(*firings)]
        classes = here.checkpoint.text.classes
        decoders = [load(place.cell.folder, classes=classes).W_dec.detach() for place in (here, there)]
        tables = []
        for (best, overlap), (a, b) in zip(found, (decoders, decoders[::-1]), strict=False):
            about = {"feature": best.astype(np.int32), "coactivation": overlap.astype(np.float32)}
            tables.append(pd.DataFrame({**about, "cosine": decoder_cosine(a, b, best)}))
        return tables

    def _chance(self, here: AnalysedCell, there: AnalysedCell) -> pd.DataFrame:
        tokens = self._tokens(here)
        return pd.DataFrame({"coactivation": coactivation_null(here.firings(tokens), there.firings(tokens), tokens)})

    def _tokens(self, place: AnalysedCell) -> int:
        return min(self.tokens, place.analysis.read()["tokens"])


def _keep(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        table.to_parquet(temporary)


def _axes(place: AnalysedCell) -> dict[str, Any]:
    cell = place.cell
    about = {"model": cell.model, "layer": cell.layer, "sae": cell.sae, "seed": cell.identity["sae"]["seed"]}
    return {**about, "step": cell.step, "hash": cell.hash}


def with_axes(table: pd.DataFrame, place: AnalysedCell) -> pd.DataFrame:
    """Add columns, in front, that name the cell."""
    axes = pd.DataFrame(_axes(place), index=table.index)
    words = axes.select_dtypes(exclude="number").columns
    return pd.concat([axes.astype(dict.fromkeys(words, "category")), table], axis=1)
