"""How far definitions of a feature's language agree: equal labels, and Cohen's kappa."""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from bisae.features.measures.language import DEAD, MIXED, agreement
from bisae.report.markup import Piece, Table

COLUMNS = {  # the column of each definition's labels
    "script": "class_script",
    "document": "class_document",
    "firings": "class_firings",
    "monolinguality": "class_monolinguality",
    "SAE-LAPE": "class_lape",
}
FILTERED = "SAE-LAPE, filtered"
PLACE = ("setting", "model", "step", "layer", "SAE", "seed")
ABOUT = (
    "The share of alive features with the same label by two definitions, and Cohen's kappa in brackets (– where all "
    "labels are one), in each cell of an LM's last step. Script, document: by the peaks of contexts; firings, "
    "monolinguality: by the firing rate and the mean activation on each language; SAE-LAPE: by a firing rate of twice "
    "that of others, filtered: in nearly all sequences and on many tokens of a language, all others being Mixed."
)


def labels(features: pd.DataFrame) -> dict[str, np.ndarray]:
    """The labels of the alive features by each definition that the text allows."""
    alive = features[features["class"] != DEAD]
    found = {name: alive[column].to_numpy(str) for name, column in COLUMNS.items() if column in alive}
    return found | {FILTERED: np.where(alive["lape_kept"], found["SAE-LAPE"], MIXED)}


def agreements(labelled: pd.DataFrame, read: Callable[[str, str], pd.DataFrame]) -> tuple[pd.DataFrame, Table]:
    """A row for each cell and pair of definitions, with the shares of the classes by the first, and the table to print.

    Args:
        labelled: The table of cells with the columns of `Bins.label`.
        read: `read(folder, name)` gives the cell's table `name`.
    """
    rows = []
    for cell in labelled.to_dict("records"):
        found = labels(read(cell["folder"], "features"))
        names, numbers = np.unique(np.stack(list(found.values())), return_inverse=True)  # numbers compare fast
        coded = dict(zip(found, numbers.reshape(len(found), -1), strict=True))
        for one, other in combinations_with_replacement(found, 2):
            same, kappa = agreement(coded[one], coded[other])
            shares = {str(name): float(np.mean(coded[one] == number)) for number, name in enumerate(names)}
            pair = {"features": len(coded[one]), "definition": one, "other": other, "same": same, "kappa": kappa}
            rows.append({**{name: cell[name] for name in PLACE}, "final": cell["final"], **pair, **shares})
    tidy = pd.DataFrame(rows)
    classes = list(tidy.columns[tidy.columns.get_loc("kappa") + 1 :])
    tidy.loc[tidy["features"] > 0, classes] = tidy[classes].fillna(0)
    return tidy.drop(columns="final"), _table(tidy[tidy["final"]], classes)


def _table(tidy: pd.DataFrame, classes: Sequence[str]) -> Table:
    names = list(tidy["definition"].unique())
    shown = [name for name in PLACE if tidy[name].nunique() > 1]
    rows = []
    for key, group in tidy.groupby([*PLACE, "definition"], sort=False, observed=True):
        place = dict(zip((*PLACE, "definition"), key, strict=True))
        own = group.iloc[0]
        pairs = {
            row.other: f"{_shown(row.same, '.3f')} ({_shown(row.kappa, '.2f')})"
            for row in group.itertuples()
            if row.other != row.definition
        }
        texts = [str(place[name]) for name in (*shown, "definition")]
        texts += [_shown(own[name], ".3f") for name in classes]
        rows.append([[Piece(text)] for text in [*texts, *(pairs.get(name, "") for name in names[1:])]])
    header = [*shown, "definition", *classes, *names[1:]]
    return Table("Languages of features by every definition", header, rows, [ABOUT])


def _shown(value: float, form: str) -> str:
    return "–" if np.isnan(value) else f"{value:{form}}"
