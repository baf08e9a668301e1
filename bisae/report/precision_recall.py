"""The scores of labels where the truth is known: a table and a figure."""

from pathlib import Path

import pandas as pd

from bisae.analysis.precision_recall import APPEARS, COUNTS, ORACLE, RULE, TRAINED, Scored, best, measured
from bisae.report.figures_panels import Picture, draw_lines
from bisae.report.markup import Piece, Table, latex, markdown
from bisae.report.style import look, save
from bisae.runtime.atomic import write_text

TITLE = "How often labels are right, last step, all layers"
FOOT = (
    "Level oracle: of the true codes; trained: of all latents and all planted features; recovered: of those planted "
    "features that have a latent. In brackets: 95 % over features (Wilson). Shuffled: F1 with the truth shuffled."
)
HEADER = [
    *("label", "rule", "level", "LM", "true", "found"),
    *("precision", "recall", "F1", "shuffled", "best F1", "threshold"),
]


def write_scores(scored: Scored, folder: Path) -> list[Path]:
    """Write the scores of every cell and every item, and of the last step a table and a figure, into `folder`."""
    picture, table = score_picture(scored), score_table(scored)
    texts = {
        folder / "precision_recall.csv": scored.labels.to_csv(index=False),
        folder / "precision_recall_thresholds.csv": scored.curves.to_csv(index=False),
        folder / "planted.csv": scored.items.to_csv(index=False),
        folder / "tables/precision_recall.md": markdown(table),
        folder / "tables/precision_recall.tex": latex(table),
        folder / "figures/precision_recall.csv": picture.data.to_csv(index=False),
    }
    for path, text in texts.items():
        write_text(path, text)
    with look():
        return [*texts, *save(draw_lines(picture), folder / "figures", picture.name)]


def last_steps(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each model's last step."""
    return table[table["step"] == table.groupby("model")["step"].transform("max")]


def score_table(scored: Scored) -> Table:
    """The scores at the last step of each LM, pooled over its cells."""
    rows = []
    labels, curves = last_steps(scored.labels), last_steps(scored.curves)
    models = labels["model"].unique()
    found = [best(*(table[table["model"] == lm] for table in (labels, curves))).assign(lm=lm) for lm in models]
    for row in pd.concat(found).sort_values(["label", "rule", "level"], kind="stable").itertuples():
        shares = [
            f"{value:.3f} ({low:.3f}, {high:.3f})" if value == value else "–"
            for value, low, high in (
                (row.precision, row.precision_low, row.precision_high),
                (row.recall, row.recall_low, row.recall_high),
            )
        ]
        threshold = f"{row.key} {row.best_threshold:.2f} for {row.threshold:g}".strip()
        numbers = [f"{row.f1:.3f}", f"{row.f1_null:.3f}", f"{row.best_f1:.3f}", threshold]
        texts = [row.label, row.rule, row.level, row.lm, f"{row.true:.0f}", f"{row.found:.0f}", *shares, *numbers]
        rows.append([[Piece(text)] for text in texts])
    return Table(TITLE, HEADER, rows, [FOOT])


def score_picture(scored: Scored) -> Picture:
    """F1 of each rule over its threshold, at the last step."""
    curves = last_steps(scored.curves)
    curves = curves[curves["level"].isin([ORACLE, TRAINED]) & (curves["label"] != "single_token")]
    counts = curves.groupby([*RULE, "threshold"], sort=False)[COUNTS].sum().reset_index()
    shares = pd.DataFrame([measured(row) for row in counts.to_dict("records")])
    other = counts["label"].isin(["bilingual", "aligned", "contextual", APPEARS])
    points = pd.DataFrame(
        {
            "row": other.map({False: "F1 of classes", True: "F1 of other labels"}),
            "panel": counts["label"],
            "line": counts["rule"],
            "dashed": counts["level"] == TRAINED,
            "x": counts["threshold"],
            "value": shares["f1"],
            "null": float("nan"),
            "low": float("nan"),
            "high": float("nan"),
        }
    )
    note = "Solid: true codes (oracle); dashed: trained SAEs. Last step, all layers, all planted LMs."
    return Picture("precision_recall", "F1 by threshold", note, "threshold", "linear", points, "trained")
