"""SAEs of other libraries as cells, and the other way.

    python -m bisae.convert from=saelens source=theirs/layer_1 model=embedded checkpoint=final layer=2
    python -m bisae.convert to=saelens cell='runs/embedded/step*/layer02' output=ours

Formats: saelens, sparsify, dictionary_learning, llm_jp_sae. What comes in becomes a cell that analyze.py takes as any
other; what goes out is exact, or approximate with the error measured, or refused: docs/convert.md.
"""

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from bisae.analysis.recipe import Recipe
from bisae.cells import FoundCell, find_cells
from bisae.convert.exported import export
from bisae.convert.fit_to_lm import Sample
from bisae.convert.formats import chosen_format
from bisae.convert.imported import Imported
from bisae.errors import ConfigError
from bisae.instances import build
from bisae.job import code_version
from bisae.lm.lm_pass import LMPass
from bisae.noise import hush
from bisae.values import check_values, writable

CONF = Path(__file__).resolve().parents[2] / "conf"
log = logging.getLogger("bisae.convert")


def convert(cfg: Any) -> list[Path]:
    """Import or export; returns the folders written, or there before."""
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(key, "???", "give a value")
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    check_values(settings)
    hush()
    if (settings["from"] is None) == (settings["to"] is None):
        raise ConfigError("from", settings["from"], "give from=... to import an SAE, or to=... to export cells")
    needed = ("source", "model") if settings["from"] else ("cell", "output")
    for key in needed:
        if settings.get(key) is None:
            raise ConfigError(key, None, "give a value")
    return [import_sae(cfg, settings)] if settings["from"] else export_cells(settings)


def import_sae(cfg: Any, settings: Any) -> Path:
    """One SAE as a cell. What is one already is left as it is."""
    name, source, runs = settings["from"], Path(settings["source"]), Path(settings["runs"])
    foreign = chosen_format("from", name).read(source, settings["k"])
    corpus, checkpoint = build(cfg.corpus), build(cfg.model).checkpoint(cfg.checkpoint)
    lm = LMPass(checkpoint, corpus, settings["split"], **settings["activations"]["pass"])
    imported = Imported.of(foreign, lm, settings["layer"], f"{name}-{foreign.sae.architecture}")
    writable({"runs": runs})
    cell = imported.cell(runs)
    if not cell.finished:
        quality = imported.check(settings["tokens"], above_zero(settings, "most_fvu"))
        metrics = {f"val/{key}": value for key, value in quality.items()}
        about = {
            "code": code_version(),
            "lm_tokens_seen": checkpoint.tokens_seen,
            "imported": {"format": name, "source": source.name, "hook": foreign.hook},
        }
        cell.write(foreign.sae, OmegaConf.to_yaml(cfg, resolve=True), metrics, about)
    log.info("%s", cell.folder)
    return cell.folder


def export_cells(settings: Any) -> list[Path]:
    """Each cell as an SAE in a folder of its own."""
    norm = None if settings["norm"] is None else above_zero(settings, "norm")
    found = find_cells(settings["cell"], Path(settings["runs"]))

    def sample(cell: FoundCell) -> Sample:
        recipe = Recipe.of(cell, None, None, Path(settings["cache"]))
        source = recipe.lm_pass(settings["split"], settings["activations"]["pass"]["device"])
        return Sample.of(source, [cell.layer], settings["tokens"])

    places = []
    for cell in found:
        places.append(export(cell, settings["to"], Path(settings["output"]), norm, partial(sample, cell)))
        log.info("%s", places[-1])
    return places


def above_zero(settings: Any, key: str) -> float:
    value = settings[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(key, value, "must be a number above 0")
    return float(value)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="convert")
def main(cfg: Any) -> None:
    try:
        convert(cfg)
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
