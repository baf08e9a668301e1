"""Which features are put in: the kinds of a cell's `features.parquet`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from bisae.corpus.languages import code_of
from bisae.features.measures.language import DEAD, MIXED, class_names
from bisae.runtime.errors import Refused

NONE, ALL, BILINGUAL, ALIGNED = "none", "all", "bi", "aligned"


def kind_of(name: str) -> str:
    """A kind by the one name it has here: languages by their code (`bisae.corpus.languages`)."""
    try:
        return name if name in (NONE, ALL, BILINGUAL, ALIGNED, MIXED.lower()) else code_of(name)
    except ValueError:  # refused with what there is to choose from, by `feature_set`
        return name


def feature_set(
    features: pd.DataFrame, kind: str | Sequence[int], languages: Sequence[str]
) -> Bool[np.ndarray, " latent"]:
    """The features of a kind: `none`, a language's code, `mixed`, `bi`, `aligned`, `all` alive ones, or those numbered.

    `features` has the columns `class`, `bilingual` and `aligned`, one row a latent in order; of `languages` it was
    made. The set may be empty. Refused for another kind or number.
    """
    if not isinstance(kind, str):
        if wrong := [number for number in kind if not 0 <= number < len(features)]:
            raise Refused("kind", list(kind), f"{wrong[0]} is no feature: there are 0 to {len(features) - 1}")
        return np.isin(np.arange(len(features)), list(kind))
    named = {**class_names(languages), MIXED.lower(): MIXED}
    found = features["class"].to_numpy()
    if kind in named:
        return found == named[kind]
    if kind in (BILINGUAL, ALIGNED):
        return features["bilingual" if kind == BILINGUAL else kind].to_numpy(dtype=bool)
    if kind in (NONE, ALL):
        return (found != DEAD) & (kind == ALL)
    known = (NONE, *named, BILINGUAL, ALIGNED, ALL)
    raise Refused("kind", kind, f"choose one of {', '.join(known)}, or give a list of features")
