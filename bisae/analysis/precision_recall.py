"""How often each label of a feature is right, where it is known what the features are (`bisae.planted`).

A latent is the planted feature with which it is matched, one to one, if their directions have a cosine of at least
`RECOVERED`; then the feature is recovered. An *item* is a latent that fires, a planted feature that fires on the text,
or the two together. A label is right if a latent has it and the latent's feature should have it. So a labelled latent
that is no planted feature is a false one, and a feature without a latent is missed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import linear_sum_assignment

from bisae.analysis.lineage import AnalysedCell, Followed, with_axes
from bisae.analysis.rules import Rules
from bisae.features.measures.alignment import aligned
from bisae.features.measures.bilingual import is_bilingual
from bisae.features.measures.contextual import is_contextual
from bisae.features.measures.language import DEAD, MIXED, class_names, classes
from bisae.features.measures.lineage import appears
from bisae.metrics.intervals import share_interval
from bisae.planted.truth import CODES, KINDS, Truth

RECOVERED = 0.9  # cosine
LEVELS = ORACLE, TRAINED, FOUND = "oracle", "trained", "recovered"
APPEARS = "appears"
PLANTED = "bisae.planted.model.PlantedModel"


class Rule(NamedTuple):
    """A label by one rule, as a function of one of the rule's thresholds.

    `key`: of the threshold; "" if the config has none. `found`: at a threshold, which latents have the label; of
    `APPEARS` the rung of the ladder, NaN for latents that do not fire.
    """

    label: str
    name: str
    key: str
    default: float
    thresholds: Float64[np.ndarray, " threshold"]
    found: Callable[[float], np.ndarray]


def label_rules(features: pd.DataFrame, rules: Rules, languages: Sequence[str]) -> Iterator[Rule]:
    """Every label of a cell's features by every rule that gives it, but `APPEARS`."""
    names, shares = class_names(languages), np.linspace(0.5, 0.99, 50)
    for view, prefix in (("contexts", "share_"), ("firings", "firing_share_")):
        counts = features[[prefix + code for code in names]].fillna(0).to_numpy()
        for label in (*names.values(), MIXED):
            is_class = partial(_is_class, counts, [*names.values()], label)
            yield Rule(label, view, "threshold", rules.threshold, shares, is_class)
    r, p = (features[column].to_numpy() for column in ("alignment", "alignment_p"))
    least = "alignment.least", rules.alignment.least, np.linspace(0, 0.95, 96)
    is_aligned = partial(aligned, r, p, level=rules.alignment.level)
    yield from (Rule("bilingual", "alignment", *least, is_aligned), Rule("aligned", "alignment", *least, is_aligned))
    levels, margins = np.linspace(0, 0.5, 101), np.linspace(-0.2, 0.8, 101)
    yield Rule("bilingual", "cross", "cross.level", rules.cross.level, levels, partial(_is_cross, features))
    yield Rule("bilingual", "monosemantic", "", 0.0, margins, partial(_is_monosemantic, features))
    by_token, by_previous, by_next = (features[name].to_numpy() for name in ("by_token", "by_previous", "by_next"))
    token, context, cuts = rules.contextual.token, rules.contextual.context, np.linspace(0, 1, 101)
    for name, default, found in (
        ("token", token, lambda cut: is_contextual(by_token, by_previous, by_next, cut, context)),
        ("context", context, lambda cut: is_contextual(by_token, by_previous, by_next, token, cut)),
    ):
        yield Rule("contextual", name, f"contextual.{name}", default, cuts, found)
    distinct = features["distinct_tokens"].to_numpy()
    yield Rule(
        "single_token", "contexts", "", 1.0, np.arange(1.0, 11), lambda most: (distinct > 0) & (distinct <= most)
    )


def _is_class(counts: np.ndarray, names: Sequence[str], label: str, threshold: float) -> Bool[np.ndarray, " latent"]:
    return classes(counts, threshold, names) == label


def _is_cross(features: pd.DataFrame, level: float) -> Bool[np.ndarray, " latent"]:
    return is_bilingual(features, "cross", level).to_numpy(bool)


def _is_monosemantic(features: pd.DataFrame, margin: float) -> Bool[np.ndarray, " latent"]:
    """The bilingual latents, if the monosemanticity must be above its null's high quantile by `margin`."""
    high = features["monosemanticity_null_high"] + margin
    again = features.assign(monosemanticity_null_high=high)
    return is_bilingual(again, "monosemantic", 0.0).to_numpy(bool)


def planted_labels(truth: Truth) -> dict[str, Bool[np.ndarray, " feature"]]:
    """Which planted features should have each label; docs/planted.md says why."""
    names, several = class_names(truth.languages), truth.of_language.sum(1) > 1
    found = {name: ~several & truth.of_language[:, number] for number, name in enumerate(names.values())}
    owner = np.repeat(np.arange(truth.features), np.diff(truth.offsets))
    means = np.stack([owner, truth.token_meaning[truth.tokens], truth.token_language[truth.tokens]])
    (owner, _), spoken = np.unique(np.unique(means, axis=1)[:2], axis=1, return_counts=True)
    lacking = np.bincount(owner, spoken < truth.of_language.sum(1)[owner], truth.features)  # meanings
    bilingual = several & (lacking == 0)
    single = (np.diff(truth.offsets) == 1) & (truth.lag == 0)
    found |= {MIXED: several, "bilingual": bilingual, "aligned": bilingual, "contextual": truth.lag > 0}
    return found | {"single_token": single}


class Items(NamedTuple):
    """Latents and planted features, matched; -1 where an item is only one of the two."""

    latent: Int64[np.ndarray, " item"]
    feature: Int64[np.ndarray, " item"]

    @classmethod
    def of(
        cls,
        cosine: np.ndarray,
        present: Bool[np.ndarray, " feature"],
        alive: Bool[np.ndarray, " latent"],
    ) -> "Items":
        """Match features that are `present` with latents that are `alive`: pairs of the largest sum of cosines.

        `cosine`: [feature, latent].
        """
        features, latents = np.flatnonzero(present), np.flatnonzero(alive)
        near = cosine[np.ix_(features, latents)]
        near = np.where(near >= RECOVERED, near, 0)
        row, column = linear_sum_assignment(near, maximize=True)  # Hungarian
        found = near[row, column] > 0
        latent = np.full(len(features), -1)
        latent[row[found]] = latents[column[found]]
        rest = np.setdiff1d(latents, latent)
        return cls(np.append(latent, rest), np.append(features, np.full(len(rest), -1)))

    @property
    def both(self) -> Bool[np.ndarray, " item"]:
        return (self.latent >= 0) & (self.feature >= 0)

    def of_latents(self, values: np.ndarray) -> np.ndarray:
        """Values of the items' latents; False or NaN without one."""
        return _taken(values, self.latent)

    def of_features(self, values: np.ndarray) -> np.ndarray:
        """Values of the items' features; False or NaN without one."""
        return _taken(values, self.feature)


def _taken(values: np.ndarray, at: Int64[np.ndarray, " item"]) -> np.ndarray:
    return np.append(values, values.dtype.type(False if values.dtype == bool else np.nan))[at]


def compared(found: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Count items: those that have the label (`found`), that should have it (`true`), and both (`right`).

    `chance` is how many would be right, on average, with the truth shuffled among the items.

    Args:
        found: Which items have the label; or the rung on which each appears, NaN without a latent.
        true: Which should have it; or the true rung, NaN without a feature. A rung beside it is right too.
    """
    if found.dtype == bool:
        counts = int(found.sum()), int(true.sum()), int((found & true).sum())
        chance = counts[0] * counts[1] / max(len(true), 1)
    else:
        near = np.abs(found[:, None] - true) <= 1
        counts = int((~np.isnan(found)).sum()), int((~np.isnan(true)).sum()), int(np.trace(near))
        chance = near.sum() / max(len(true), 1)
    return {"items": len(true), **dict(zip(("found", "true", "right"), counts, strict=True)), "chance": float(chance)}


def measured(counts: Mapping[str, Any]) -> dict[str, float]:
    """Precision, recall and F1 from what `compared` counts, each by chance too; NaN where there is nothing."""
    right, chance = counts["right"], counts["chance"]
    result: dict[str, float] = {}
    for name, n in (("precision", counts["found"]), ("recall", counts["true"])):
        low, high = share_interval(int(right), int(n))
        values = (right / n, chance / n) if n else (np.nan, np.nan)
        result |= dict(zip((name, f"{name}_null", f"{name}_low", f"{name}_high"), (*values, low, high), strict=True))
    both = counts["found"] + counts["true"]
    f1 = (2 * right / both, 2 * chance / both) if counts["true"] else (np.nan, np.nan)
    return {**result, "f1": f1[0], "f1_null": f1[1]}


COUNTS = ["items", "found", "true", "right", "chance"]
RULE = ["level", "label", "rule", "key"]


def best(labels: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Shares of counts pooled over cells, per level, label and rule at its threshold; and the threshold of the best F1.

    Of thresholds that are equally good it is the one nearest to the rule's. The order is that of `labels`.
    """
    pooled = (table.groupby([*RULE, "threshold"], sort=False)[COUNTS].sum().reset_index() for table in (labels, curves))
    at_rules, at_all = pooled
    rows = []
    for row in at_rules.to_dict("records"):
        curve = at_all[(at_all[RULE] == [row[name] for name in RULE]).all(axis=1)]
        f1 = (2 * curve["right"] / (curve["found"] + curve["true"]).clip(lower=1)).to_numpy()
        first = np.lexsort((np.abs(curve["threshold"] - row["threshold"]), -f1))[0]
        chosen = {"best_threshold": curve["threshold"].iloc[first], "best_f1": f1[first]}
        rows.append({**row, **measured(row), **chosen})
    return pd.DataFrame(rows)


class Scored(NamedTuple):
    """`labels` has a row per cell, level, label and rule; `curves` a row per threshold of each.

    `items` has a row per item of a cell: the feature's kind, what it should be (`true_*`), what its latent is.
    """

    labels: pd.DataFrame
    curves: pd.DataFrame
    items: pd.DataFrame


def score(places: Sequence[AnalysedCell], followed: Sequence[Followed]) -> Scored:
    """Score the labels of the cells whose LM is planted; the tables are empty without any.

    Levels: `oracle` (the cell reads the true codes), `trained` (all items of another cell), `recovered` (of these, the
    planted features that have a latent).
    """
    ladders = {ladder.about["hash"]: ladder for ladder in followed}
    found: dict[str, list[pd.DataFrame]] = {name: [pd.DataFrame()] for name in Scored._fields}
    for place in places:
        if place.checkpoint.recipe.model["_target_"] == PLANTED:
            truth = place.checkpoint.recipe.checkpoint.truth  # type: ignore[attr-defined]
            for name, table in _of_cell(place, truth, ladders.get(place.cell.hash))._asdict().items():
                found[name].append(with_axes(table, place))
    return Scored(**{name: pd.concat(tables, ignore_index=True) for name, tables in found.items()})


def _of_cell(place: AnalysedCell, truth: Truth, followed: Followed | None) -> Scored:
    cell, features, tokens = place.cell, place.analysis.features(), place.checkpoint.tokens
    codes, oracle = truth.codes(tokens.token_ids, tokens.position, cell.step, cell.layer), cell.hook == CODES
    planted = np.eye(truth.features, dtype=np.float32) if oracle else truth.directions
    alive, present = (features["class"] != DEAD).to_numpy(), np.bincount(codes.indices, minlength=truth.features) > 0
    items = Items.of(planted @ place.directions().T, present, alive)
    everything = np.ones(len(items.latent), bool)
    levels = {ORACLE: everything} if oracle else {TRAINED: everything, FOUND: items.both}
    labels: dict[str, np.ndarray] = {**planted_labels(truth)}
    rules = [*label_rules(features, place.checkpoint.rules, truth.languages)]
    if followed is not None:
        there = np.stack([truth.there(step, cell.layer) for step in (*followed.steps.tolist(), cell.step)])
        labels[APPEARS] = rungs(there)
        rules.append(_appears("lineage", followed, followed.coactivation, alive))
        if followed.traced is not None:
            rules.append(_appears("traced", followed, followed.traced.same, alive))
    kinds = np.array([*KINDS, ""])[np.append(truth.kind, len(KINDS))[items.feature]]
    table = {"latent": items.latent, "feature": items.feature, "kind": kinds}
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for rule in rules:
        true, found = items.of_features(labels[rule.label]), items.of_latents(rule.found(rule.default))
        table |= {f"true_{rule.label}": true, f"{rule.label}_{rule.name}": found}
        again = {threshold: items.of_latents(rule.found(threshold)) for threshold in rule.thresholds.tolist()}
        for level, here in levels.items():
            about = dict(zip(RULE, (level, rule.label, rule.name, rule.key), strict=True))
            rows.append(about | {"threshold": rule.default} | compared(found[here], true[here]))
            curves += [about | {"threshold": t} | compared(label[here], true[here]) for t, label in again.items()]
    counted = pd.DataFrame(curves)
    return Scored(best(pd.DataFrame(rows), counted), counted, pd.DataFrame(table))


def rungs(there: Bool[np.ndarray, "rung feature"]) -> Float64[np.ndarray, " feature"]:
    """The rung from which on each feature is there until the last one; NaN if it is not there at the last."""
    since = len(there) - np.logical_and.accumulate(there[::-1]).sum(0).astype(np.float64)
    return np.where(there[-1], since, np.nan)


def _appears(
    name: str, followed: Followed, coactivation: Float64[np.ndarray, "step feature"], alive: Bool[np.ndarray, " latent"]
) -> Rule:
    """The rung on which lineage lets each feature of the last checkpoint appear; the last one if on none before it."""
    steps, least = followed.steps, float(followed.about["least"])

    def found(at_least: float) -> Float64[np.ndarray, " latent"]:
        step = appears(steps, coactivation, at_least)
        return np.where(alive, np.searchsorted(steps, step), np.nan)

    return Rule(APPEARS, name, "lineage.least", least, np.linspace(0.02, 0.98, 49), found)
