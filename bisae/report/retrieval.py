"""Retrieval of translations by layer: retrieval.csv, a table of the LMs' last checkpoints, and a figure for each LM."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bisae.analysis.sentence_pairs import BOTH, STREAM
from bisae.metrics.intervals import t_interval
from bisae.report.figures_panels import Picture, draw_lines
from bisae.report.figures_trends import DASHED, own, with_control
from bisae.report.markup import Piece, Table, latex, markdown
from bisae.report.style import look, save
from bisae.runtime.atomic import write_text
from bisae.training.baselines import TRAINED

LM = ("model", "lm", "control", "step", "phase", "final", "d_model", "depth")
OF_CODES = ("setting", "SAE", "seed")
MEASURED = "retrieval_stream"  # the metric of cells that have been analysed with enough sentence pairs
ABOUT = (
    "Share of held-out sentences whose own translation is the nearest of {candidates} candidates by the cosine, mean "
    "of both directions, at each LM's last checkpoint; {chance:g} by chance. Stream: mean of the residual stream over "
    "the words of a sentence; codes: mean of an SAE's codes; the mean over each language is subtracted. In brackets: "
    "95 % over {pairs} sentence pairs (Wilson) or, of several LM seeds, over these (t distribution)."
)
NOTE = (
    "Own translation nearest of {candidates}, mean of both directions, languages' means removed. Bands: 95 % over "
    "pairs or, where several LM seeds were analysed, over these. Dotted: another pair's translation."
)


def write_retrieval(labelled: pd.DataFrame, read: Callable[[str, str], pd.DataFrame], folder: Path) -> list[Path]:
    """Write retrieval.csv, and the table and figures, into `folder`; nothing if no cell has it.

    Args:
        labelled: The table of cells with the columns of `Bins.label`.
        read: `read(folder, "retrieval")` gives what a cell's analysis found (`bisae.analysis.sentence_pairs`).

    Returns:
        The paths of all files.
    """
    tidy = retrieved(labelled, read)
    if tidy.empty:
        return []
    table = retrieval_table(tidy)
    pictures = [picture for picture in (retrieval_picture(tidy, lm) for lm in own(tidy)) if len(picture.data)]
    texts = {folder / "retrieval.csv": tidy.to_csv(index=False)}
    texts |= {folder / f"tables/retrieval.{end}": text(table) for end, text in (("md", markdown), ("tex", latex))}
    texts |= {folder / f"figures/{picture.name}.csv": picture.data.to_csv(index=False) for picture in pictures}
    for path, content in texts.items():
        write_text(path, content)
    with look():
        drawn = [save(draw_lines(picture), folder / "figures", picture.name) for picture in pictures]
    return [*texts, *(path for paths in drawn for path in paths)]


def retrieved(labelled: pd.DataFrame, read: Callable[[str, str], pd.DataFrame]) -> pd.DataFrame:
    """What each checkpoint's stream, which has no setting, SAE and seed, and each cell's codes retrieve."""
    parts = []
    for cell in labelled.to_dict("records"):
        if pd.notna(cell.get(MEASURED)):
            found = read(cell["folder"], "retrieval")
            about = pd.DataFrame({name: cell[name] for name in (*LM, *OF_CODES)}, index=found.index).astype(object)
            about.loc[found["space"] == STREAM, list(OF_CODES)] = None
            parts.append(pd.concat([about, found], axis=1))
    tidy = pd.concat(parts or [pd.DataFrame()], ignore_index=True).infer_objects()
    return tidy.drop_duplicates([*LM, *OF_CODES, *("layer", "space", "centred", "direction")]) if parts else tidy


def retrieval_picture(tidy: pd.DataFrame, lm: str) -> Picture:
    """Retrieval by layer at the last step of each phase of an LM, beside its control at the same steps."""
    shown = _means(with_control(tidy, lm))
    last = shown["step"] == shown[shown["lm"] == lm].groupby("phase")["step"].max().reindex(shown["phase"]).to_numpy()
    shown = shown[last].sort_values(["dashed", "step"], kind="stable")
    data = shown.assign(
        row="top-1 retrieval", panel="step " + shown["step"].astype(str), x=shown["layer"], null=shown["shuffled"]
    )
    data.loc[data["dashed"], "null"] = np.nan
    note = NOTE.format(candidates=tidy["candidates"].iloc[0])
    name, title = f"retrieval_{lm}", f"{lm}, retrieval of translations by layer"
    return Picture(name, title, note, "layer (0: embeddings)", "linear", data, DASHED)


def retrieval_table(tidy: pd.DataFrame) -> Table:
    """The last checkpoint of each LM: a row for its stream and for each setting of SAEs, a column for each layer."""
    shown = _means(tidy[tidy["final"].astype(bool)])
    layers, rows = sorted(shown["layer"].unique()), []
    for (control, lm, line), group in shown.groupby(["dashed", "lm", "line"], sort=False):
        found = group.set_index("layer")[["value", "low", "high"]].reindex(layers)
        texts = ["" if np.isnan(value) else f"{value:.3f} ({low:.3f}, {high:.3f})" for value, low, high in found.values]
        rows.append([[Piece(text)] for text in (f"{lm} (control)" if control else lm, line, *texts)])
    header = ["LM", "of", *(f"layer {layer}" for layer in layers)]
    about = ABOUT.format(**{name: tidy[name].iloc[0] for name in ("candidates", "chance", "pairs")})
    return Table("Retrieval of translations, final checkpoint", header, rows, [about])


def _means(tidy: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of trained SAEs and of LMs, with intervals over pairs or, if several, LM seeds."""
    kept = tidy[tidy["centred"].astype(bool) & (tidy["direction"] == BOTH) & tidy["SAE"].isin([None, TRAINED])]
    setting = ", " + kept["setting"] if kept["setting"].nunique() > 1 else pd.Series(None, kept.index, dtype=object)
    by = ["control", "lm", "line", "step", "phase", "layer"]
    ordered = kept.assign(line=kept["space"] + setting.fillna("")).sort_values(["control", "lm", "step", "layer"])
    rows = []
    for key, group in ordered.groupby(by, sort=False):
        of_lms = group.groupby("model")[["value", "low", "high", "shuffled"]].mean()
        mean = of_lms.mean()
        if len(of_lms) > 1:
            mean["low"], mean["high"] = t_interval(of_lms["value"].to_numpy(float))
        rows.append({**dict(zip(["dashed", *by[1:]], key, strict=True)), **mean, "lm_seeds": len(of_lms)})
    return pd.DataFrame(rows)
