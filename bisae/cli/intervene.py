"""Intervene: python intervene.py [recipient=512] [kind=[en,ja,bi]] [coefficient=0.3] [key=value ...]; see --help.

donor's cells -> its features -> interventions -> perplexity and translations under each -> table, figures. What is
measured already is not measured again; with -m, over coefficient or layer for example, every job adds its rows to the
same table.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from bisae.cli.sweep import one_process_per_job
from bisae.config.folder import CONF
from bisae.config.shape import check_shape
from bisae.config.values import check_values
from bisae.runtime.errors import ConfigError
from bisae.runtime.values import check_texts, listed, numbers, writable

if TYPE_CHECKING:
    import pandas as pd


def intervene(cfg: DictConfig) -> "pd.DataFrame":
    """Measure what is missing; returns the table of all interventions in `output`."""
    # Here, since they are slow to import: --help and refused values answer at once.
    import pandas as pd

    from bisae.cells.find import chosen_cells
    from bisae.config.instantiate import instantiate
    from bisae.corpus.languages import codes_of
    from bisae.intervention.donor import DonorCells
    from bisae.intervention.measures import ContinuedPrompts, Measure, PerplexityText, TranslatedTasks
    from bisae.intervention.results import InterventionResult, measured_results
    from bisae.intervention.specs import EditSettings, planned
    from bisae.intervention.table import InterventionTable, generations
    from bisae.intervention.work import InterventionWork
    from bisae.lm.changed_ids import changed_ids
    from bisae.lm.generation import generation_identity
    from bisae.report.interventions.write import write_interventions
    from bisae.runtime.atomic import atomic_file
    from bisae.runtime.device import torch_device, torch_dtype
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.lock import sole_writer
    from bisae.runtime.naming import name_of
    from bisae.runtime.values import flatten_keys
    from bisae.sae.own import named_classes
    from bisae.translation.prompts import task_ids
    from bisae.translation.scores import Scorer

    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(key, "???", "give a value")
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    check_shape("intervene", settings)
    check_values(settings)
    for key in ("donor", "control", "perplexity", "continue", "output"):
        if not settings[key]:
            raise ConfigError(key, settings[key], "has keys of its own" if key != "output" else "name a folder")
    check_texts("output", [settings["output"]])
    silence()
    cache, output, drawn = Path(settings["cache"]), Path(settings["output"]), (settings["resamples"], settings["seed"])
    writable({"cache": cache, "output": output})
    dtype, device = torch_dtype(settings["dtype"]), torch_device(settings["device"])
    coefficients, mix = listed(settings["coefficient"]), settings["perplexity"]["mix"]
    operation = EditSettings(settings["mode"], settings["norm"], numbers("coefficient", coefficients))
    wandb_runs, translation = instantiate(cfg.logger), settings.get("translation")
    classes = named_classes(settings["sae_classes"])

    cells, _, _ = chosen_cells(check_texts("runs", settings["runs"]), None, None, None)
    nodes = settings.get("model"), settings.get("corpus"), cache
    donor = DonorCells.choose(cells, **settings["donor"], layer=settings["layer"], nodes=nodes)
    recipients = [donor.recipient(step) for step in listed(settings["recipient"])]
    if not recipients:
        raise ConfigError("recipient", [], "name a step at least")
    corpus, tokenizer, positions = donor.recipe.corpus, donor.tokenizer, donor.checkpoint.positions
    if mix is not None and not isinstance(mix, dict):
        raise ConfigError("perplexity.mix", mix, "must be null or a share for each language: {en: 0.5, ja: 0.5}")
    if mix:
        shares = numbers("perplexity.mix", [*mix.values()])
        try:
            mix = dict(zip(codes_of(mix), shares, strict=True))
        except ValueError as error:
            raise ConfigError("perplexity.mix", mix, str(error)) from error
    ids = changed_ids(donor.checkpoint, corpus, settings["perplexity"]["split"], cache / "tokenizers")
    text = PerplexityText(corpus, tokenizer, settings["batch"], **{**settings["perplexity"], "mix": mix}, ids=ids)
    text.check(positions)
    generation = generation_identity([lm.folder for lm in recipients], tokenizer)
    tasks = scorer = None
    if translation:
        prompt, chosen = instantiate(translation["prompt"]), instantiate(translation["tasks"]).read()
        asked = [task_ids(task, prompt, tokenizer, positions) for task in chosen]
        tasks = TranslatedTasks(asked, settings["batch"], generation)
        scorer = Scorer({name: instantiate(node) for name, node in translation["metrics"].items()}, *drawn, output)
        scorer.check(chosen)
    prompts, longest = settings["continue"].values()
    prompts = prompts and check_texts("continue.prompts", prompts)
    spelled = tokenizer.spells_special(prompts or [])
    continued = ContinuedPrompts(prompts, longest, settings["batch"], generation, spelled)
    continued.check(tokenizer, positions)
    measures: list[Measure] = [text, *([tasks] if tasks else []), *([continued] if continued.prompts else [])]

    layers = donor.features(settings["analyze"], cache, device, classes)
    choice = {key: settings[key] for key in ("kind", "control", "features", "seed")}
    interventions = planned(layers, corpus.languages, operation, **choice)
    rows = [
        (
            lm,
            [
                (
                    one,
                    InterventionResult.planned(
                        output, one, lm, donor.checkpoint, layers, name_of(text.made_from), settings["dtype"]
                    ),
                )
                for one in interventions
            ],
        )
        for lm in recipients
    ]
    InterventionWork(rows, measures, text, donor.checkpoint, layers, tokenizer, settings["batch"], dtype, device).do()
    with sole_writer(output):
        found = measured_results(output, measures, [row for _, of_lm in rows for _, row in of_lm])
        table, samples = InterventionTable(text, tasks, scorer, *drawn).of(found)
        for name, write in (("csv", table.to_csv), ("parquet", table.to_parquet)):
            with atomic_file(output / f"interventions.{name}") as temporary:
                write(temporary, index=False)
        written = generations(found, tasks, continued)
        languages = list(dict.fromkeys([*corpus.languages, *(tasks.languages if tasks else ())]))
        figures = write_interventions(output, table, samples, written, languages)
        tables = {"interventions": table, **({"generations": pd.DataFrame(written)} if written else {})}
        files = [output / "interventions.parquet"]
        wandb_runs.log_report(
            "intervention", str(output), dict(flatten_keys(settings)), tables, [*figures.values()], files
        )
    return table


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="intervene")
@one_process_per_job
def main(cfg: DictConfig) -> None:
    intervene(cfg)


if __name__ == "__main__":
    main()
