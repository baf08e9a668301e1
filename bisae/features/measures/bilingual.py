"""The rule for *bilingual* features, and how often a feature is bilingual by chance.

| rule           | a feature is bilingual if                                                                       |
|----------------|-------------------------------------------------------------------------------------------------|
| `monosemantic` | it is Mixed, has more than one token, and its monosemanticity is above the null's high quantile |
| `alignment`    | it is aligned (`bisae.features.measures.alignment.aligned`)                                     |
"""

import pandas as pd

from bisae.features.measures.language import MIXED

RULES = ("monosemantic", "alignment")


def is_bilingual(features: pd.DataFrame, rule: str) -> pd.Series:
    """Which features are bilingual.

    Args:
        features: One row per feature, with the columns `class`, `single_token`, `monosemanticity`,
            `monosemanticity_null_high` and `aligned`.
        rule: One of `RULES`.

    Returns:
        A boolean per feature, with the index of `features`.
    """
    if rule == "alignment":
        return features["aligned"]
    return _can_be(features) & (features["monosemanticity"] > features["monosemanticity_null_high"])


def bilingual_by_chance(features: pd.DataFrame, rule: str) -> pd.Series:
    """For each feature the chance, 0 to 1, to be bilingual with shuffled meanings (or shuffled sentence pairs).

    `features` has the columns `class`, `single_token`, `monosemanticity_null_above`, `alignment` and
    `aligned_shuffled`. Empty if the rule is `alignment` and no feature has an alignment.
    """
    if rule == "alignment":
        tested = features["alignment"].notna().any()
        return features["aligned_shuffled"].astype(float) if tested else pd.Series(dtype=float)
    return features["monosemanticity_null_above"].where(_can_be(features), 0.0)


def _can_be(features: pd.DataFrame) -> pd.Series:
    """Features of both languages; a feature of a single token has a monosemanticity by convention only."""
    return (features["class"] == MIXED) & ~features["single_token"]
