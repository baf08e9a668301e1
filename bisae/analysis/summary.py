"""The metrics of one cell: shares and means over its features, with intervals and their values by chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bisae.analysis.feature_table import Described, Resampled
from bisae.analysis.rules import Rules
from bisae.features.measures.bilingual import bilingual_by_chance
from bisae.features.measures.language import DEAD, MIXED, class_names, classes
from bisae.metrics.intervals import Interval, resampled_interval, share_interval, t_interval

Metrics = dict[str, float | None]
ALIGNED_AT = (0.3, 0.4)  # higher correlations at which aligned features are counted too: aligned_30, aligned_40
LEAST_DOCUMENTS = 20  # for an interval over them: that of a mean of n is too narrow by 1 / (2 n), here 2.5 %


def summarize(described: Described, languages: Sequence[str], rules: Rules) -> Metrics:
    """Sum up the features of one cell.

    Returns:
        For each metric m: `m` (a share is one of the alive features), `m_low` and `m_high` (95 % interval over
        features), `m_doc_low` and `m_doc_high` (95 % interval over documents), and `m_null` (by chance). None if there
        is nothing to measure.
    """
    features = described.features
    names = list(class_names(languages).values())
    alive = features[features["class"] != DEAD]
    found: Metrics = {
        "features": float(len(features)),
        "alive": float(len(alive)),
        "dead": 1 - len(alive) / len(features),
        "bilingual_count": float(alive["bilingual"].sum()),
        **shares_and_means(alive, languages),
    }
    for name, samples in _in_resamples(described.resampled, names, rules).items():
        if (value := found[name]) is not None and described.resampled.documents >= LEAST_DOCUMENTS:
            interval = resampled_interval(value, samples)
            found[f"{name}_doc_low"], found[f"{name}_doc_high"] = _pair(Interval(*np.clip(interval, 0, 1).tolist()))
    if described.jaccard is not None:
        found["jaccard"], found["jaccard_null"] = described.jaccard
    return found | _by_chance(described, names, rules)


def shares_and_means(alive: pd.DataFrame, languages: Sequence[str]) -> Metrics:
    """Shares among alive features and means over them, each with its interval over features."""
    names = list(class_names(languages).values())
    many = alive[~alive["single_token"]]
    found: Metrics = {}
    shares = {
        **{name: alive["class"] == name for name in (*names, MIXED)},
        **{f"firing_{name}": alive["class_firings"] == name for name in (*names, MIXED)},
        "single_token": alive["single_token"],
        "bilingual": alive["bilingual"],
        "random_mixed": (alive["class"] == MIXED) & ~alive["bilingual"],
        "contextual": alive["contextual"],
        **(_aligned(alive, "aligned", "alignment") if alive["alignment"].notna().any() else {}),
    }
    for name, share in shares.items():
        found[name] = float(share.mean()) if len(share) else None
        found[f"{name}_low"], found[f"{name}_high"] = _pair(share_interval(int(share.sum()), len(share)))
    means = {
        "monosemanticity": many["monosemanticity"],
        "monosemanticity_all": alive["monosemanticity"],
        **{f"monosemanticity_{name}": many.loc[many["class"] == name, "monosemanticity"] for name in (*names, MIXED)},
        "cross": alive["cross"],
        "alignment": alive["alignment"],
        "by_token": alive["by_token"],
        "by_previous": alive["by_previous"],
        "by_next": alive["by_next"],
    }
    for name, values in means.items():
        values = values.dropna()
        found[name] = float(values.mean()) if len(values) else None
        found[f"{name}_low"], found[f"{name}_high"] = _pair(t_interval(values.to_numpy(float)))
    return found


def _aligned(alive: pd.DataFrame, aligned: str, correlation: str) -> dict[str, pd.Series]:
    """Which features are aligned, and which of them at higher correlations; `aligned`, `correlation`: their columns."""
    higher = {f"aligned_{round(100 * at)}": alive[aligned] & (alive[correlation] >= at) for at in ALIGNED_AT}
    return {"aligned": alive[aligned], **higher}


def _in_resamples(resampled: Resampled, names: list[str], rules: Rules) -> dict[str, Float64[np.ndarray, " resample"]]:
    """Shares and monosemanticity in resamples of the documents; NaN where no feature has them."""
    classed = np.stack([classes(counted, rules.threshold, names) for counted in resampled.counted])
    alive = np.count_nonzero(classed != DEAD, axis=1)
    many = np.count_nonzero(~np.isnan(resampled.score), axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0
        found = {name: np.count_nonzero(classed == name, axis=1) / alive for name in (*names, MIXED)}
        return found | {"monosemanticity": np.nansum(resampled.score, axis=1) / many}


def _by_chance(described: Described, names: list[str], rules: Rules) -> Metrics:
    """The metrics by chance: with the languages of contexts, the clusters, or the sentence pairs shuffled."""
    features: pd.DataFrame = described.features
    shuffled = np.random.default_rng(rules.seed).permutation(described.peak_language)
    size = len(features) * len(names)
    counted = np.bincount(described.contexts.latent * len(names) + shuffled, minlength=size)
    classed = classes(counted.reshape(len(features), -1), rules.threshold, names)
    alive = classed[classed != DEAD]
    found: Metrics = {f"{name}_null": float(np.mean(alive == name)) if len(alive) else None for name in (*names, MIXED)}
    living = features[features["class"] != DEAD]
    many = living[~living["single_token"]]
    for name, chosen in {"": many, **{f"_{name}": many[many["class"] == name] for name in (*names, MIXED)}}.items():
        found[f"monosemanticity{name}_null"] = _mean(chosen["monosemanticity_null"])
    found["monosemanticity_all_null"] = _mean(living["monosemanticity_null"])
    found["alignment_null"] = _mean(living["alignment_shuffled"])
    if living["alignment"].notna().any():
        shuffled_pairs = _aligned(living, "aligned_shuffled", "alignment_shuffled")
        found |= {f"{name}_null": float(share.mean()) for name, share in shuffled_pairs.items()}
    found["bilingual_null"] = _mean(bilingual_by_chance(living, rules.bilingual))
    return found


def _mean(values: pd.Series) -> float | None:
    values = values.dropna()
    return float(values.mean()) if len(values) else None


def _pair(interval: tuple[float, float]) -> tuple[float | None, float | None]:
    low, high = (None if np.isnan(value) else float(value) for value in interval)
    return low, high
