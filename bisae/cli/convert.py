"""SAEs of other libraries as cells, and the other way.

    python -m bisae convert from=saelens source=theirs/layer_1 model=embedded checkpoint=final layer=2
    python -m bisae convert to=saelens cell='runs/embedded/step*/layer02' output=ours
    python -m bisae convert push=owner/name cell='runs/embedded/step*/layer02' to=saelens
    python -m bisae convert pull=owner/name

Formats: saelens, sparsify, dictionary_learning, llm_jp_sae. What comes in becomes a cell that analyze.py takes as any
other; what goes out is exact, or approximate with the error measured, or refused: docs/convert.md. `to=neuronpedia` and
`to=saebench` write a cell's features and scores for those, `push` and `pull` use the Hugging Face hub: docs/share.md.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import hydra
from omegaconf import OmegaConf

from bisae.cells.cell import code_version
from bisae.cells.find import FoundCell, find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.command import command, ends_with_a_line
from bisae.config.exchange import ConvertSettings
from bisae.config.folder import CONF
from bisae.config.instantiate import instantiate
from bisae.config.keys import refused_by_key
from bisae.convert import neuronpedia, saebench
from bisae.convert.exported import export
from bisae.convert.fit_to_lm import Sample
from bisae.convert.formats import chosen_format
from bisae.convert.imported import Imported
from bisae.convert.repository import Repository
from bisae.lm.lm_pass import LMPass
from bisae.runtime.errors import ConfigError
from bisae.runtime.library_warnings import silence
from bisae.runtime.values import writable
from bisae.sae import SparseAutoencoder, TopK
from bisae.sae.own import named_classes

NEEDED = {"from": ("source", "model"), "pull": (), "push": ("cell",), "to": ("cell", "output")}  # the first one given
Value = TypeVar("Value")
Classes = Sequence[type[SparseAutoencoder]]
log = logging.getLogger("bisae.convert")


@command(ConvertSettings)
def convert(settings: ConvertSettings, cfg: Any) -> list[Path]:
    """Import or export; returns the folders written, or there before."""
    silence()
    classes = named_classes(settings.sae_classes)
    asked = settings.model_dump(by_alias=True)
    given = [way for way in NEEDED if asked[way] is not None]
    if len(given) != 1 and given != ["push", "to"]:
        remedy = "give from=... to import an SAE, to=... to export cells, or push=... or pull=... for the hub"
        raise ConfigError("from", settings.from_, remedy)
    for key in NEEDED[given[0]]:
        needed(asked[key], key)
    with refused_by_key(settings, format="from" if given == ["from"] else "to", cells="cell"):
        if given == ["from"]:
            places = [import_sae(cfg, settings)]
        elif given == ["pull"]:
            runs, cache = Path(settings.runs), Path(settings.cache)
            writable({"runs": runs, "cache": cache})
            places = Repository(needed(settings.pull, "pull")).pull(
                settings.revision, settings.cell, runs, cache, classes
            )
        else:
            places = push(settings, classes) if "push" in given else export_cells(settings, classes)
    for place in places:
        log.info("%s", place)
    return places


def needed(value: Value | None, key: str) -> Value:
    """The value; ConfigError if there is none."""
    if value is None:
        raise ConfigError(key, None, "give a value")
    return value


def import_sae(cfg: Any, settings: ConvertSettings) -> Path:
    """One SAE as a cell. What is one already is left as it is."""
    name, source = needed(settings.from_, "from"), Path(needed(settings.source, "source"))
    model, runs = needed(settings.model, "model"), Path(settings.runs)
    foreign = chosen_format(name).read(source, settings.k)
    if settings.k is not None and not isinstance(foreign.sae, TopK):
        raise ConfigError("k", settings.k, f"an SAE of kind {foreign.sae.architecture} keeps no fixed number")
    corpus = instantiate(settings.corpus, "corpus")
    checkpoint = instantiate(model, "model").checkpoint(settings.checkpoint)
    findings = Path(settings.cache) / "tokenizers"
    lm = LMPass(checkpoint, corpus, settings.split, **settings.activations.lm_pass.model_dump(), findings=findings)
    imported = Imported.of(foreign, lm, settings.layer, f"{name}-{foreign.sae.architecture}")
    writable({"runs": runs})
    cell = imported.cell(runs)
    if not cell.finished:
        quality = imported.check(settings.tokens, settings.most_fvu)
        metrics = {f"val/{key}": value for key, value in quality.items()}
        about = {
            "code": code_version(),
            "lm_tokens_seen": checkpoint.tokens_seen,
            "imported": {"format": name, "source": source.name, "hook": foreign.hook},
        }
        cell.write(foreign.sae, OmegaConf.to_yaml(cfg, resolve=True), metrics, about)
    return cell.folder


def push(settings: ConvertSettings, classes: Classes) -> list[Path]:
    """Cells to the hub; returns their folders."""
    export = None
    if settings.to is not None:
        chosen_format(settings.to)

        def export(cell: FoundCell, output: Path) -> Path:
            return export_cell(cell, settings, output, classes)

    cells = find_cells(needed(settings.cell, "cell"), Path(settings.runs))
    Repository(needed(settings.push, "push")).push(
        cells, export, settings.private, settings.licence, Path(settings.cache)
    )
    return [cell.folder for cell in cells]


def export_cells(settings: ConvertSettings, classes: Classes) -> list[Path]:
    """Each cell as an SAE in a folder of its own, or as what another tool reads of it."""
    cells, to = find_cells(needed(settings.cell, "cell"), Path(settings.runs)), settings.to
    output = Path(needed(settings.output, "output"))
    if to == "neuronpedia":
        who = settings.creator
        now = datetime.now(UTC).isoformat()
        return [neuronpedia.write(cell, output, who.id, who.name, now) for cell in cells]
    if to == "saebench":
        return [score_cell(cell, settings, output, classes) for cell in cells]
    return [export_cell(cell, settings, output, classes) for cell in cells]


def export_cell(cell: FoundCell, settings: ConvertSettings, output: Path, classes: Classes) -> Path:
    """One cell as an SAE of another library."""

    def sample() -> Sample:
        source = recipe_of(cell, settings).lm_pass(settings.split, settings.activations.lm_pass.device)
        return Sample.of(source, [cell.layer], settings.tokens)

    return export(cell, needed(settings.to, "to"), output, settings.norm, sample, classes)


def score_cell(cell: FoundCell, settings: ConvertSettings, output: Path, classes: Classes) -> Path:
    """One cell's scores, as SAEBench writes them."""
    split, device = settings.split, settings.activations.lm_pass.device
    recipe = recipe_of(cell, settings)
    sizes = settings.tokens, settings.recovered
    return saebench.write(cell, recipe, split, *sizes, device, output, classes)


def recipe_of(cell: FoundCell, settings: ConvertSettings) -> Recipe:
    return Recipe.of(cell, None, None, Path(settings.cache))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="convert")
@ends_with_a_line
def main(cfg: Any) -> None:
    convert(cfg)


if __name__ == "__main__":
    main()
