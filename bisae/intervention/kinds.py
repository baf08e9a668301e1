"""Kinds of features, by the columns of a cell's `features.parquet`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from bisae.corpus.languages import code_of
from bisae.features.measures.language import DEAD, MIXED, class_names
from bisae.runtime.errors import Refused

NONE, ALL, BILINGUAL, ALIGNED = "none", "all", "bi", "aligned"
EVERY = "languages"  # each language of the corpus
STREAM = "stream"  # no features, but the whole stream: the positive control of a swap


def kind_of(name: str) -> str:
    """The name of a kind in tables: a language becomes its code (`bisae.corpus.languages`), others stay as they are."""
    try:
        return name if name in (NONE, ALL, BILINGUAL, ALIGNED, MIXED.lower()) else code_of(name)
    except ValueError:  # `feature_set` refuses it, and lists the kinds
        return name


def feature_set(
    features: pd.DataFrame, kind: str | Sequence[int], languages: Sequence[str]
) -> Bool[np.ndarray, " latent"]:
    """The features of one kind; may be none.

    Args:
        features: table with one row for each latent, in order, and the columns `class`, `bilingual` and `aligned`.
        kind: `none`, a language's code, `mixed`, `bi`, `aligned`, `all` (that fire), or a list of feature numbers.
        languages: codes of the corpus' languages.

    Raises:
        Refused: the kind is unknown, or a number is no feature.
    """
    if not isinstance(kind, str):
        if wrong := [number for number in kind if not 0 <= number < len(features)]:
            raise Refused("kind", list(kind), f"{wrong[0]} is no feature: they are numbered 0 to {len(features) - 1}")
        return np.isin(np.arange(len(features)), list(kind))
    named = {**class_names(languages), MIXED.lower(): MIXED}
    classes = features["class"].to_numpy()
    if kind in named:
        return classes == named[kind]
    if kind in (BILINGUAL, ALIGNED):
        return features["bilingual" if kind == BILINGUAL else kind].to_numpy(dtype=bool)
    if kind in (NONE, ALL):
        return (classes != DEAD) & (kind == ALL)
    known = (NONE, *named, EVERY, BILINGUAL, ALIGNED, ALL)
    raise Refused("kind", kind, f"choose one of {', '.join(known)}, or give a list of features")
