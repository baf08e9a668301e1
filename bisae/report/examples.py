"""The table of example features: chosen by a rule, never by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from bisae.report.bins import LAYERS
from bisae.report.markup import Piece, Table
from bisae.runtime.ranges import Count, Index
from bisae.training.baselines import TRAINED

RULE = (
    "Rule: of the largest LM (first name), the last checkpoint of each phase, the first of the middle layers, the "
    "lowest SAE seed; of each class, bilingual features apart and single-token features left out, those whose "
    "monosemanticity is between the class' 40th and 60th percentile; of them those that fire most (lowest number on "
    "ties), with their first contexts as stored."
)


@dataclass(frozen=True)
class Examples:
    """The numbers of features per class and phase, of contexts per feature, and of tokens on each side of a peak."""

    features: Count
    contexts: Count
    window: Index


def example_features(
    cells: pd.DataFrame, read: Callable[[str, str], pd.DataFrame], examples: Examples
) -> tuple[pd.DataFrame, Table]:
    """Choose example features of labelled cells.

    Args:
        cells: The labelled cells (`Bins.label`).
        read: `read(folder, name)` gives the cell's table `name`: features, contexts or sequences.
        examples: How many to choose.

    Returns:
        One row per context, with its text (before, peak, after), and the table to print.
    """
    rows = []
    for cell in _chosen_cells(cells).itertuples():
        chosen = _chosen_features(read(cell.folder, "features"), examples.features)
        contexts = read(cell.folder, "contexts")
        contexts = contexts[contexts["feature"].isin(chosen["feature"]) & (contexts["rank"] < examples.contexts)]
        pieces = read(cell.folder, "sequences").set_index("sequence")["pieces"]
        for feature in chosen.itertuples():
            shown = contexts[contexts["feature"] == feature.feature].sort_values("rank")
            place = {key: getattr(cell, key) for key in ("lm", "setting", "SAE", "phase", "step", "layer")}
            about = {"feature": feature.feature, "language": feature.kind, "score": feature.monosemanticity}
            for context in shown.itertuples():
                text = _around(list(pieces[context.sequence]), context.peak, examples.window)
                rows.append(place | about | {"rank": context.rank} | text)
    found = pd.DataFrame(rows)
    return found, _table(found)


def _chosen_cells(cells: pd.DataFrame) -> pd.DataFrame:
    own = cells[~cells["control"]]
    own = (
        own[(own["lm"] == own.sort_values(["parameters", "lm"], ascending=[False, True])["lm"].iloc[0])]
        if len(own)
        else own
    )
    middle = own[own["part"] == LAYERS[1]]
    last = middle[middle["step"] == middle.groupby(["setting", "SAE", "phase"], observed=True)["step"].transform("max")]
    ordered = last.sort_values(["setting", "SAE", "step", "layer", "seed", "model"])
    return ordered.drop_duplicates(["setting", "SAE", "phase"])


def _chosen_features(features: pd.DataFrame, number: int) -> pd.DataFrame:
    alive = features[(features["class"] != "dead") & ~features["single_token"].astype(bool)]
    kind = alive["class"].where(~alive["bilingual"].astype(bool), "bilingual")
    alive = alive.assign(kind=kind).dropna(subset="monosemanticity")
    low, high = (alive.groupby("kind")["monosemanticity"].transform("quantile", share) for share in (0.4, 0.6))
    near = alive[alive["monosemanticity"].between(low, high)]
    order = near.sort_values(["kind", "firings", "feature"], ascending=[True, False, True])
    return order.groupby("kind").head(number)


def _around(pieces: list[str], peak: int, window: int) -> dict[str, str]:
    """The text around a token. A character of several tokens is the text of its last token."""
    end = next((place for place in range(peak, len(pieces)) if pieces[place]), len(pieces) - 1) + 1
    before, after = pieces[max(0, peak - window) : peak], pieces[end : end + window]
    return {"before": "".join(before), "peak": "".join(pieces[peak:end]), "after": "".join(after)}


def _table(found: pd.DataFrame) -> Table:
    rows = []
    key = ["setting", "SAE", "phase", "language", "feature"]
    for _, contexts in found.groupby(key, sort=False) if len(found) else ():
        text: list[Piece] = []
        for context in contexts.itertuples():
            text += [Piece(" / ")] if text else []
            text += [Piece(context.before.lstrip()), Piece(context.peak, "peak"), Piece(context.after.rstrip())]
        first = contexts.iloc[0]
        place = f"step {first['step']}, layer {first['layer']}, {first['feature']}"
        about = [[Piece(label)] for label in (first["language"], f"{first['score']:.2f}", place)]
        baseline = "" if first["SAE"] == TRAINED else f", {first['SAE']}"
        rows.append([[Piece(f"{first['phase']}{baseline}")], text, *about])
    return Table("Example features", ["phase", "activating tokens", "class", "score", "feature"], rows, [RULE])
