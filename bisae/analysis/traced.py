"""Trace the latents of a warm-started ladder: the same latent index is the same feature while its firings stay alike.

An SAE that starts from that of the checkpoint before keeps its latents. So a feature needs no match: it lives while its
latent fires and co-activates with itself at the next checkpoint.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from bisae.cells.find import FoundCell
from bisae.features.codes import Firings
from bisae.features.measures.language import DEAD
from bisae.features.measures.lineage import coactivation_of_same, shifted


class Checkpointed(NamedTuple):
    """The latents of one checkpoint: their firings on the compared tokens, decoder directions of norm 1, and labels."""

    step: int
    firings: Firings
    directions: Float32[np.ndarray, "latent d_model"]
    features: pd.DataFrame


class Traced(NamedTuple):
    """The latents of a warm-started ladder.

    Attributes:
        table: a row for each latent and checkpoint: feature, step, class, bilingual, `same` (co-activation with the
            same index at the next checkpoint), `chance` (the same with the text shifted by half), `cosine` of the two
            decoder directions, `life`, the number of the feature's life, 0 where the latent does not fire, and `drift`
            (1 - cosine of its direction now and at the life's birth) with `drift_chance`, the latent before it now.
        lives: a row for each life: feature, life, birth (its first checkpoint), death (the first one without it; NaN:
            none), checkpoints, drift (1 - cosine of the decoder directions at birth and at the end), classes over time.
        same: `same` as an array, without the last checkpoint.
    """

    table: pd.DataFrame
    lives: pd.DataFrame
    same: Float64[np.ndarray, "step feature"]


def is_warm(cells: Sequence[FoundCell]) -> bool:
    """True if each cell's SAE started from the one before."""
    return all(later.identity.get("start") == cell.hash for cell, later in zip(cells[:-1], cells[1:], strict=True))


def trace(ladder: Sequence[Checkpointed], tokens: int, least: float) -> Traced:
    """Follow each latent index over the checkpoints, in order; from `least` co-activation on it is the same feature."""
    pairs = list(zip(ladder[:-1], ladder[1:], strict=True))
    same = np.stack([coactivation_of_same(one.firings, other.firings, tokens) for one, other in pairs])
    chance = np.stack(
        [coactivation_of_same(one.firings, shifted(other.firings, tokens), tokens) for one, other in pairs]
    )
    cosine = np.stack([(one.directions * other.directions).sum(1) for one, other in pairs])
    alive = np.stack([(one.features["class"] != DEAD).to_numpy() for one in ladder])
    begins = alive.copy()
    begins[1:] &= ~(alive[:-1] & (same >= least))
    life = np.where(alive, begins.cumsum(0), 0)
    unknown = np.full((1, life.shape[1]), np.nan)
    parts, drifts, born = [], [], ladder[0].directions
    for number, one in enumerate(ladder):
        born = np.where(begins[number][:, None], one.directions, born)
        turned = [1 - (born * now).sum(1) for now in (one.directions, np.roll(one.directions, 1, axis=0))]
        drifts.append(np.where(alive[number], turned, np.nan))
        about = one.features[["feature", "class", "bilingual"]].reset_index(drop=True)
        found = {
            name: np.concatenate([values, unknown])[number] for name, values in (("same", same), ("chance", chance))
        }
        found["cosine"] = np.concatenate([cosine, unknown])[number]
        found |= {"life": life[number], "drift": drifts[-1][0], "drift_chance": drifts[-1][1]}
        parts.append(about.assign(**found).astype({"class": str}))
        parts[-1].insert(1, "step", one.step)
    return Traced(pd.concat(parts, ignore_index=True), _lives(ladder, life, np.stack(drifts)[:, 0]), same)


def _lives(
    ladder: Sequence[Checkpointed], life: Int64[np.ndarray, "step feature"], drift: Float32[np.ndarray, "step feature"]
) -> pd.DataFrame:
    steps = [one.step for one in ladder]
    classes = [one.features["class"].astype(str).to_numpy() for one in ladder]
    rows = []
    for feature in range(life.shape[1]):
        for number in range(1, life[:, feature].max(initial=0) + 1):
            at = np.flatnonzero(life[:, feature] == number)
            first, last = int(at[0]), int(at[-1])
            ways = [classes[place][feature] for place in at]
            changes = [name for place, name in enumerate(ways) if place == 0 or name != ways[place - 1]]
            death = steps[last + 1] if last + 1 < len(steps) else np.nan
            turned = float(drift[last, feature])
            rows.append((feature, number, steps[first], death, len(at), turned, " > ".join(changes)))
    return pd.DataFrame(rows, columns=["feature", "life", "birth", "death", "checkpoints", "drift", "classes"])
