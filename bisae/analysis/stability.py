"""Stability: the features of each cell matched with those of the cells that differ from it in `sae.seed` only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from bisae.analysis.lineage import AnalysedCell
from bisae.analysis.summary import Metrics, shares_and_means
from bisae.cells.find import FoundCell
from bisae.features.measures.language import DEAD
from bisae.features.measures.stability import correlation, cosine_by_chance, one_to_one
from bisae.metrics.intervals import share_interval
from bisae.runtime.atomic import atomic_file
from bisae.runtime.naming import name_of
from bisae.runtime.progress import tokens_bar
from bisae.sae import load

FOUND = 0.7  # least decoder cosine, and least correlation of activations, of a feature that is found again
REPORTED = (0.5, FOUND, 0.9)
STABLE = 0.5  # least share of the other seeds in which a stable feature is found again


def reseeded(cell: FoundCell) -> str:
    """A name that cells share if they differ in `sae.seed` only."""
    sae = {key: value for key, value in cell.identity["sae"].items() if key != "seed"}
    return name_of({"model": cell.model, "step": cell.step, "layer": cell.layer, **cell.identity, "sae": sae})


@dataclass(frozen=True, eq=False)
class Found:
    """The features of a cell in the cells of other seeds.

    `features`: a row per feature: `stability` and `stability_activation`, the means over other seeds of the decoder
    cosine and of the correlation of activations with the match (0 where either is silent), and `found_again`, the share
    of other seeds in which both are at least `FOUND`. `metrics`: of the cell, for the table of cells. `others`: the
    hashes of the other cells.
    """

    features: pd.DataFrame
    metrics: Metrics
    others: Sequence[str]


@dataclass(frozen=True)
class Stability:
    """Matches features over the first `tokens` tokens of the text."""

    tokens: int

    def of(self, places: Sequence[AnalysedCell]) -> dict[str, Found]:
        """For each cell that has cells of other seeds beside it, by its hash, how its features are found there."""
        groups: dict[str, list[AnalysedCell]] = {}
        for place in places:
            groups.setdefault(reseeded(place.cell), []).append(place)
        several = [group for group in groups.values() if len(group) > 1]
        total, done = sum(len(group) * (len(group) - 1) // 2 for group in several), 0
        found: dict[str, Found] = {}
        with tokens_bar("SAE seeds", "pairs") as progress:
            for group in several:
                matches: dict[int, dict[str, pd.DataFrame]] = {number: {} for number in range(len(group))}
                for one, other in combinations(range(len(group)), 2):
                    there = self.match(group[one], group[other])
                    matches[one][group[other].cell.hash] = there
                    back = there.assign(back=np.arange(len(there))).sort_values("feature", ignore_index=True)
                    matches[other][group[one].cell.hash] = back.assign(feature=back.pop("back"))
                    progress(done := done + 1, total)
                found |= {place.cell.hash: _found(place, matches[number]) for number, place in enumerate(group)}
        return found

    def match(self, here: AnalysedCell, there: AnalysedCell) -> pd.DataFrame:
        """For each feature of `here` its match in `there`, by their decoders; kept in the analysis of `here`."""
        tokens = min(self.tokens, here.analysis.read()["tokens"])
        made_from = {"codes": [place.checkpoint.codes(place.cell).folder.name for place in (here, there)]}
        path = here.analysis.folder / f"seeds-{name_of({**made_from, 'tokens': tokens})}.parquet"
        if not path.exists():
            classes = here.checkpoint.text.classes
            a, b = (load(place.cell.folder, classes=classes).W_dec.detach() for place in (here, there))
            match, cosine = one_to_one(a, b)
            r = np.nan_to_num(correlation(here.firings(tokens), there.firings(tokens), match, tokens))
            table = pd.DataFrame({"feature": match.astype(np.int32), "cosine": cosine, "r": r.astype(np.float32)})
            with atomic_file(path) as temporary:
                table.to_parquet(temporary)
        return pd.read_parquet(path)


def _found(place: AnalysedCell, matches: Mapping[str, pd.DataFrame]) -> Found:
    cosine, r = (np.stack([match[name].to_numpy(float) for match in matches.values()]) for name in ("cosine", "r"))
    least = np.minimum(cosine, r)
    columns = {"stability": cosine.mean(0), "stability_activation": r.mean(0), "found_again": (least >= FOUND).mean(0)}
    found = pd.DataFrame(columns)
    features = pd.concat([place.analysis.features(), found], axis=1)
    alive = (features["class"] != DEAD).to_numpy()
    analysis = place.analysis.read()
    by_chance = cosine_by_chance(len(features), analysis["lm"]["d_model"])
    metrics: Metrics = {"pw_mcc": float(cosine.mean()), "pw_mcc_null": by_chance}
    for at in REPORTED:
        name, again = f"found_{round(100 * at)}", (least >= at).mean(0)[alive]
        metrics[name] = float(again.mean()) if len(again) else None
        low, high = share_interval(round(float(again.sum())), len(again))
        metrics |= {f"{name}_low": low, f"{name}_high": high}
    stable = features[alive & (features["found_again"] >= STABLE).to_numpy()]
    metrics["stable"] = float(len(stable))
    for name, value in shares_and_means(stable, analysis["languages"]).items():
        metric, *end = name.rsplit("_", 1) if name.endswith(("_low", "_high")) else [name]
        if not metric.startswith("firing_"):  # by which reports know the classes
            metrics["_".join([f"{metric}_stable", *end])] = value
    return Found(found, metrics, list(matches))


def with_stability(cells: pd.DataFrame, places: Sequence[AnalysedCell], found: Mapping[str, Found]) -> pd.DataFrame:
    """The table of cells, with the metrics of each `Found` and, for each share and mean, `<metric>_reseed`.

    That is the standard deviation over the seeds of a cell, of which each cell has the same.
    """
    if not found:
        return cells
    added = pd.DataFrame({hash: one.metrics for hash, one in found.items()}).T.astype(float)
    table = cells.join(added, on="hash")
    group = table["hash"].map({place.cell.hash: reseeded(place.cell) for place in places})
    names = ["fvu", *(name for name in cells if f"{name}_low" in cells)]
    spread: Any = cells.groupby(group)[names].transform("std")
    return pd.concat([table, spread.add_suffix("_reseed")], axis=1)
