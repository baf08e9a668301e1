"""Analyse trained cells: python analyze.py space=shipped [runs=<folder, glob or W&B ids>] [key=value ...]; see --help.

cells -> their text through the LM -> codes -> feature patterns -> features -> lineage -> report. What is analysed
already is not done again; a killed analysis goes on when the same command is run again. With -m, over only.step for
example, every job analyses its share.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from bisae.cli.sweep import one_process_per_job
from bisae.config.folder import CONF
from bisae.config.shape import check_shape
from bisae.config.values import check_values
from bisae.runtime.errors import AnalysisFailed, ConfigError
from bisae.runtime.subcommands import run_first
from bisae.runtime.values import check_texts, writable

if TYPE_CHECKING:
    import pandas as pd


def analyze(cfg: DictConfig) -> "pd.DataFrame":
    """Analyse what is missing; returns the table of all analysed cells. AnalysisFailed at the end if cells failed."""
    # Here, since they are slow to import: --help and refused values answer at once.
    from bisae.analysis.cells_table import cells_table
    from bisae.analysis.checkpoint import AnalysedText
    from bisae.analysis.lineage import Lineage, ladders
    from bisae.analysis.rules import AlignmentRule, ContextualRule, MonosemanticityRule, Rules
    from bisae.analysis.work import AnalysisWork
    from bisae.cells.find import chosen_cells
    from bisae.config.instantiate import instantiate
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.lock import sole_writer
    from bisae.runtime.values import flatten_keys
    from bisae.sae.own import named_classes

    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(key, "???", "give a value")
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    check_shape("analyze", settings)
    check_values(settings)
    if not settings.get("space"):
        remedy = "choose shipped (for the shipped tokenizer), use, lm or sentence_transformers"
        raise ConfigError("space", None, f"where do tokens of one meaning lie together? {remedy}")
    if settings["output"] is not None:
        check_texts("output", [settings["output"]])
    silence()
    cache, classes = Path(settings["cache"]), named_classes(settings["sae_classes"])
    writable({"cache": cache, "output": Path(settings["output"] or cache)})
    rules = Rules(
        patterns=instantiate(cfg.patterns),
        space=instantiate(cfg.space),
        monosemanticity=MonosemanticityRule(**settings["monosemanticity"]),
        alignment=AlignmentRule(**settings["alignment"]),
        contextual=ContextualRule(**settings["contextual"]),
        **{key: settings[key] for key in ("language", "threshold", "bilingual", "recovered", "resamples", "seed")},
    )
    store = instantiate({key: value for key, value in settings["activations"].items() if key != "pass"})
    report, wandb_runs = instantiate(cfg.report), instantiate(cfg.logger)
    take_short = settings["short_split"] == "take"
    reading = settings["split"], settings["tokens"], store, cache / "codes", settings["device"]
    text = AnalysedText(*reading, take_short=take_short, classes=classes)

    run_first("train.py", settings["train"], [f"runs={settings['runs']}", f"cache={settings['cache']}"])
    cells, chosen, damaged = chosen_cells(check_texts("runs", settings["runs"]), **settings["only"])
    work = AnalysisWork.plan(cells, chosen, rules, text, settings.get("model"), settings.get("corpus"), cache)
    work.describe()
    output = settings["output"]
    with sole_writer(Path(output)) if output is not None else nullcontext():
        places = work.places()  # asked now: a process that had the report before may have analysed more
        table = cells_table(places, settings["controls"])
        if output is not None and places:
            followed = [Lineage(**settings["lineage"]).follow(ladder) for ladder in ladders(places)]
            figures = report.write(Path(output), table, places, followed)
            files = [Path(output, name) for name in ("cells.parquet", "index.html")]
            described = dict(flatten_keys(rules.describe))
            wandb_runs.log_report("analysis", output, described, {"cells": table}, figures, files)
    work.close()
    if failures := [*damaged, *(f"{cell}: {problem}" for cell, problem in work.failures.items())]:
        raise AnalysisFailed("\n".join([f"{len(failures)} cells could not be analysed:", *failures]))
    return table


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="analyze")
@one_process_per_job
def main(cfg: DictConfig) -> None:
    analyze(cfg)


if __name__ == "__main__":
    main()
