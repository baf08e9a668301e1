"""Score cells on any text and LM checkpoint, without training.

    python -m bisae evaluate cell=runs/embedded/step0002048
    python -m bisae evaluate cell=runs/embedded/step0000512/layer02 checkpoint=final
    python -m bisae evaluate cell=<cell> corpus=jsonl 'corpus.files={en:en.jsonl,ja:ja.jsonl}' split=analysis

Without further keys each cell is scored on its own LM, corpus and validation tokens, which gives its val/ metrics.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra

from bisae.cli.command import command, ends_with_a_line
from bisae.config.evaluate import EvaluateSettings
from bisae.config.folder import CONF
from bisae.config.keys import refused_by_key
from bisae.runtime.console import counted
from bisae.runtime.values import listed, writable

if TYPE_CHECKING:
    import pandas as pd


@command(EvaluateSettings)
def evaluate(settings: EvaluateSettings, cfg: Any) -> "pd.DataFrame":
    """Score the chosen cells; returns, prints and writes a row for each."""
    # Here, since they are slow to import: --help and refused values answer at once.
    import pandas as pd

    from bisae.analysis.scores import ScoredText, Scoring, show_scores, write_scores
    from bisae.cells.find import chosen_cells
    from bisae.runtime.errors import AnalysisFailed
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.progress import tokens_bar
    from bisae.sae.own import named_classes

    silence()
    cache, classes = Path(settings.cache), named_classes(settings.sae_classes)
    writable({"cache": cache})
    with refused_by_key(settings, "only", cells="cell", runs="cell"):
        _, cells, damaged = chosen_cells(listed(settings.cell), **settings.only.model_dump(), base=Path(settings.runs))
    text = ScoredText(settings.split, settings.tokens, settings.short_split == "take", settings.device)
    rows = []
    with refused_by_key(settings, cells="cell"):
        for scoring in Scoring.plan(cells, text, settings.model, settings.corpus, settings.checkpoint, cache):
            with tokens_bar(f"step {scoring.source.checkpoint.step}") as progress:
                rows += scoring.scores(classes, progress)
    table = pd.DataFrame(rows)
    show_scores(table)
    if settings.output is not None:
        write_scores(table, Path(settings.output))
    if damaged:
        raise AnalysisFailed("\n".join([f"{counted(len(damaged), 'cell')} could not be scored:", *damaged]))
    return table


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
@ends_with_a_line
def main(cfg: Any) -> None:
    evaluate(cfg)


if __name__ == "__main__":
    main()
