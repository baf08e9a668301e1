"""Analyse trained cells: python analyze.py space=shipped [runs=<folder, glob or W&B ids>] [key=value ...]; see --help.

cells -> their text through the LM -> codes -> feature patterns -> features -> lineage -> report. What is analysed
already is not done again; a killed analysis goes on when the same command is run again. With -m, over only.step for
example, every job analyses its share.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra

from bisae.cli.command import command, keys_of_all
from bisae.cli.sweep import one_process_per_job
from bisae.config.analyze import AnalyzeSettings
from bisae.config.folder import CONF
from bisae.config.instantiate import instantiate
from bisae.config.keys import refused_by_key
from bisae.config.settings import store_node
from bisae.runtime.errors import AnalysisFailed, ConfigError, Refused
from bisae.runtime.subcommands import run_first
from bisae.runtime.values import listed, writable

if TYPE_CHECKING:
    import pandas as pd

    from bisae.analysis.analysed_text import AnalysedText
    from bisae.analysis.rules import Rules


@command(AnalyzeSettings)
def analyze(settings: AnalyzeSettings, cfg: Any) -> "pd.DataFrame":
    """Analyse the chosen cells that have no analysis yet; returns the table of all analysed cells.

    Raises:
        AnalysisFailed: some cells failed; raised after all others are done.
    """
    # Here, since they are slow to import: --help and refused values answer at once.
    from bisae.analysis.cells_table import cells_table
    from bisae.analysis.lineage import Lineage, ladders
    from bisae.analysis.stability import Stability, with_stability
    from bisae.analysis.work import AnalysisWork
    from bisae.cells.find import chosen_cells
    from bisae.report.shown import show_analysis
    from bisae.runtime.console import counted
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.lock import sole_writer
    from bisae.runtime.values import flatten_keys
    from bisae.training.loggers import CellLoggers

    if not settings.space:
        remedy = "choose shipped (for the shipped tokenizer), use, lm or sentence_transformers"
        raise ConfigError("space", None, f"where do tokens of one meaning lie together? {remedy}")
    silence()
    cache, output = Path(settings.cache), settings.output
    writable({"cache": cache, "output": Path(output or cache)})
    settings.check_objects(late=True)
    rules, text = rules_of(settings), analysed_text(settings)
    report = instantiate(settings.report, "report")
    loggers = CellLoggers(settings.logger, settings.runs_folder)

    run_first("train.py", settings.train, [f"runs={settings.runs}", f"cache={settings.cache}"])
    with refused_by_key(settings, "only"):
        cells, chosen, damaged = chosen_cells(listed(settings.runs), **settings.only.model_dump())
    work = AnalysisWork.plan(cells, chosen, rules, text, settings.model, settings.corpus, cache)
    work.describe()
    with sole_writer(Path(output)) if output is not None else nullcontext():
        analysed = work.places()  # asked now: a process that had the report before may have analysed more
        stable = Stability(settings.lineage.tokens).of(analysed)
        table = with_stability(cells_table(analysed, settings.controls), analysed, stable)
        if output is not None and analysed:
            lineage = Lineage(**settings.lineage.model_dump())
            figures = report.write(Path(output), table, analysed, [lineage.follow(one) for one in ladders(analysed)])
            files = [Path(output, name) for name in ("cells.parquet", "index.html")]
            loggers.log_report("analysis", output, dict(flatten_keys(rules.describe)), {"cells": table}, figures, files)
        for place in analysed:
            if place.cell.folder in work.chosen:
                if (found := stable.get(place.cell.hash)) is not None:
                    place.analysis.publish(found.features, found.others)
                loggers.add(place.cell, *place.analysis.logged())
                if settings.codes == "delete":
                    place.delete_codes()
    work.close()
    show_analysis(table, Path(output) if output is not None and analysed else None)
    if failures := [*damaged, *(f"{cell}: {problem(error, settings)}" for cell, error in work.failures.items())]:
        raise AnalysisFailed("\n".join([f"{counted(len(failures), 'cell')} could not be analysed:", *failures]))
    return table


def problem(error: Exception, settings: AnalyzeSettings) -> str:
    """What is wrong with a cell, by the key that mends it; how the LM reads a text is the cell's own."""
    scope = ""
    if isinstance(error, Refused) and error.field == "space" and isinstance(error.__cause__, Refused):
        error, scope = error.__cause__, "space"
    own = dict.fromkeys(("context", "shortest", "lm_dtype"), "runs") if not scope else {}
    try:
        with refused_by_key(settings, **keys_of_all(settings)), refused_by_key(settings, scope, **own):
            raise error
    except Refused as named:
        return str(named)
    except Exception as other:
        return f"{type(other).__name__}: {other}"


def rules_of(settings: AnalyzeSettings) -> "Rules":
    """How features are described."""
    from bisae.analysis.rules import AlignmentRule, ContextualRule, CrossRule, MonosemanticityRule, RetrievalRule, Rules

    assert settings.space is not None
    return Rules(
        patterns=instantiate(settings.patterns, "patterns"),
        space=instantiate(settings.space, "space"),
        monosemanticity=MonosemanticityRule(**settings.monosemanticity.model_dump()),
        cross=CrossRule(**settings.cross.model_dump()),
        alignment=AlignmentRule(**settings.alignment.model_dump()),
        retrieval=RetrievalRule(**settings.retrieval.model_dump()),
        contextual=ContextualRule(**settings.contextual.model_dump()),
        language=settings.language,
        threshold=settings.threshold,
        bilingual=settings.bilingual,
        recovered=settings.recovered,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def analysed_text(settings: AnalyzeSettings) -> "AnalysedText":
    """The text that features are described on, and where its activations and codes are kept."""
    from bisae.analysis.analysed_text import AnalysedText
    from bisae.sae.own import named_classes

    return AnalysedText(
        settings.split,
        settings.tokens,
        instantiate(store_node(settings.activations), "activations"),
        Path(settings.cache) / "codes",
        settings.device,
        take_short=settings.short_split == "take",
        classes=named_classes(settings.sae_classes),
    )


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="analyze")
@one_process_per_job
def main(cfg: Any) -> None:
    analyze(cfg)


if __name__ == "__main__":
    main()
