"""The rule for *bilingual* features, and how often a feature is bilingual by chance.

| rule           | a feature is bilingual if                                                                       |
|----------------|-------------------------------------------------------------------------------------------------|
| `cross`        | it is Mixed, and words of one language mean what words of the other do (`measures.cross`)       |
| `monosemantic` | it is Mixed, has more than one token, and its monosemanticity is above the null's high quantile |
| `alignment`    | it is aligned (`bisae.features.measures.alignment.aligned`)                                     |
"""

import pandas as pd

from bisae.features.measures.language import MIXED

RULES = ("cross", "monosemantic", "alignment")


def is_bilingual(features: pd.DataFrame, rule: str, level: float) -> pd.Series:
    """Which features are bilingual.

    Args:
        features: One row per feature, with the columns `class`, `single_token`, `monosemanticity`,
            `monosemanticity_null_high`, `cross_q` and `aligned`.
        rule: One of `RULES`.
        level: The largest false discovery rate `cross_q` of the rule `cross`.

    Returns:
        A boolean per feature, with the index of `features`.
    """
    if rule == "alignment":
        return features["aligned"]
    if rule == "cross":
        return features["cross_q"] <= level
    return _can_be(features) & (features["monosemanticity"] > features["monosemanticity_null_high"])


def bilingual_by_chance(features: pd.DataFrame, rule: str) -> pd.Series:
    """For each feature the chance, 0 to 1, to be bilingual with exchanged halves, shuffled meanings or shuffled pairs.

    `features` has the columns `class`, `single_token`, `cross_null`, `monosemanticity_null_above`, `alignment` and
    `aligned_shuffled`. Empty if the rule is `alignment` and no feature has an alignment.
    """
    if rule == "alignment":
        tested = features["alignment"].notna().any()
        return features["aligned_shuffled"].astype(float) if tested else pd.Series(dtype=float)
    if rule == "cross":
        return features["cross_null"].fillna(0.0)
    return features["monosemanticity_null_above"].where(_can_be(features), 0.0)


def _can_be(features: pd.DataFrame) -> pd.Series:
    """Features of both languages; a feature of a single token has a monosemanticity by convention only."""
    return (features["class"] == MIXED) & ~features["single_token"]
