"""Intervene: python intervene.py [recipient=512] [kind=[en,ja,bi]] [coefficient=0.3] [key=value ...]; see --help.

donor's cells -> its features -> interventions -> perplexity and translations under each -> table, figures. What is
measured already is not measured again; with -m, over coefficient or layer for example, every job adds its rows to the
same table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra

from bisae.cli.command import command
from bisae.cli.measures import Measures, measures_of, swap_of
from bisae.cli.sweep import one_process_per_job
from bisae.config.folder import CONF
from bisae.config.intervene import InterveneSettings
from bisae.config.keys import refused_by_key
from bisae.runtime.errors import ConfigError
from bisae.runtime.values import flatten_keys, listed, numbers, writable

if TYPE_CHECKING:
    import pandas as pd

    from bisae.cells.find import FoundCell
    from bisae.intervention.donor import DonorCells
    from bisae.intervention.results import InterventionResult
    from bisae.lm.model import Checkpoint
    from bisae.training.loggers import CellLoggers


@command(InterveneSettings)
def intervene(settings: InterveneSettings, cfg: Any) -> "pd.DataFrame":
    """Measure what is missing; returns the table of all interventions in `output`."""
    # Here, since they are slow to import: --help and refused values answer at once.
    from bisae.cells.find import chosen_cells
    from bisae.intervention.results import InterventionResult
    from bisae.intervention.specs import SWAP, EditSettings, planned
    from bisae.intervention.work import InterventionWork
    from bisae.runtime.device import torch_device, torch_dtype
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.naming import name_of
    from bisae.sae.own import named_classes
    from bisae.training.loggers import CellLoggers

    silence()
    cache, output = Path(settings.cache), Path(settings.output)
    writable({"cache": cache, "output": output})
    dtype, device = torch_dtype(settings.dtype), torch_device(settings.device)
    operation = EditSettings(settings.mode, settings.norm, numbers("coefficient", listed(settings.coefficient)))
    settings.check_objects(late=True)
    loggers = CellLoggers(settings.logger, settings.runs_folder)
    classes = named_classes(settings.sae_classes)
    cells, _, _ = chosen_cells(listed(settings.runs), None, None, None)
    donor = donor_of(settings, cells)
    found = [donor.recipient(asked, cells, cache) for asked in listed(settings.recipient)]
    recipients = list({(lm.model, lm.step): lm for lm in found}.values())
    if not recipients:
        raise ConfigError("recipient", [], "name a step at least")
    measures = (swap_of if settings.mode == SWAP else measures_of)(settings, donor, recipients)

    layers = donor.features(settings.analyze, cache, device, classes)
    choice = settings.kind, settings.control.model_dump(), settings.features, settings.seed
    interventions = planned(layers, donor.recipe.corpus.languages, operation, *choice)
    family = donor.recipe.model.get("family")
    measured = name_of(measures.all[0].made_from), settings.dtype, donor.layer_by, family
    rows = [
        (
            lm,
            [
                (one, InterventionResult.planned(output, one, lm, donor.checkpoint, layers, *measured))
                for one in interventions
            ],
        )
        for lm in recipients
    ]
    parts = measures.text, measures.swapped, donor.checkpoint, layers, donor.tokenizer, settings.batch, dtype, device
    InterventionWork(rows, measures.all, *parts).do()
    table = write_table(settings, donor, measures, [row for _, of_lm in rows for _, row in of_lm], loggers)
    log_cells(loggers, table, donor, recipients, cells)
    return table


def log_cells(
    loggers: "CellLoggers",
    table: "pd.DataFrame",
    donor: "DonorCells",
    recipients: "Sequence[Checkpoint]",
    cells: "Sequence[FoundCell]",
) -> None:
    """Log what interventions do to each recipient into the runs of the donor's cells, and of the recipient's cells."""
    from bisae.analysis.lineage import ladder_of
    from bisae.report.interventions.figures_of_cells import figures_of_interventions
    from bisae.training.cell_runs import lm_axes

    sae = "+".join(f"{cell.sae}-{cell.hash}" for cell in donor.cells.values())
    # All figures of a cell at once: W&B's folder of a part is named by its second.
    told: dict[Path, tuple[FoundCell, Checkpoint, dict[str, Any]]] = {}
    for lm in (lm for lm in recipients if lm.model == donor.checkpoint.model):
        figures = figures_of_interventions(table, donor.recipe.corpus.languages, sae, lm.step)
        for own in donor.cells.values():
            same = [cell for cell in cells if cell.step == lm.step and ladder_of(cell) == ladder_of(own)][:1]
            ways = [
                (own, donor.checkpoint, f"into{lm.step}"),
                *((cell, lm, f"from{donor.checkpoint.step}") for cell in same),
            ]
            for cell, checkpoint, way in ways:
                of_cell = told.setdefault(cell.folder, (cell, checkpoint, {}))[2]
                of_cell |= {f"intervention/{way}/{name}": value for name, value in figures.items()}
    for cell, checkpoint, of_cell in told.values():
        loggers.add(cell, lm_axes(checkpoint), of_cell)


def donor_of(settings: InterveneSettings, cells: "Sequence[FoundCell]") -> "DonorCells":
    """The cells whose features are put in."""
    from bisae.intervention.donor import DonorCells

    nodes = settings.model, settings.corpus, Path(settings.cache)
    with refused_by_key(settings, "donor", checkpoint="donor.step"):
        asked = {**settings.donor.model_dump(), "layer": settings.layer, "retrieval": Path(settings.retrieval)}
        return DonorCells.choose(cells, **asked, nodes=nodes)


def write_table(
    settings: InterveneSettings,
    donor: "DonorCells",
    measures: Measures,
    rows: "Sequence[InterventionResult]",
    loggers: "CellLoggers",
) -> "pd.DataFrame":
    """Write the table of all interventions in `output`, with figures and generations; returns it."""
    import pandas as pd

    from bisae.intervention.results import measured_results
    from bisae.intervention.table import InterventionTable, generations
    from bisae.report.interventions.write import write_interventions
    from bisae.report.shown import show_interventions
    from bisae.runtime.atomic import atomic_file
    from bisae.runtime.lock import sole_writer

    output, (text, tasks, scorer, continued, swapped) = Path(settings.output), measures
    with sole_writer(output):
        results = measured_results(output, measures.all, rows)
        table, samples = InterventionTable(text, tasks, scorer, settings.resamples, settings.seed, swapped).of(results)
        for name, write in (("csv", table.to_csv), ("parquet", table.to_parquet)):
            with atomic_file(output / f"interventions.{name}") as temporary:
                write(temporary, index=False)
        written = generations(results, tasks, continued)
        languages = list(dict.fromkeys([*donor.recipe.corpus.languages, *(tasks.languages if tasks else ())]))
        figures = write_interventions(output, table, samples, written, languages)
        tables = {"interventions": table, **({"generations": pd.DataFrame(written)} if written else {})}
        described, files = dict(flatten_keys(settings.model_dump(by_alias=True))), [output / "interventions.parquet"]
        loggers.log_report("intervention", str(output), described, tables, [*figures.values()], files)
    show_interventions(table, output)
    return table


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="intervene")
@one_process_per_job
def main(cfg: Any) -> None:
    intervene(cfg)


if __name__ == "__main__":
    main()
