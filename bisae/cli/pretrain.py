"""Train a ladder of tiny bilingual LMs from scratch.

    python -m bisae pretrain                                        the recipe of the shipped main ladder
    python -m bisae pretrain name=mine corpus.lm=my.tsv corpus.validation=held_out.tsv size.d_model=256
    python -m bisae pretrain name=control mix.pair=0 mix.code_switched=0

config -> corpus -> tokenizer -> lexicon -> documents -> ladder. Killed at any moment, the same command goes on.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra

from bisae.cli.command import command, ends_with_a_line
from bisae.config.folder import CONF
from bisae.config.pretrain import PretrainSettings
from bisae.corpus.embedded import EMBEDDED
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import ConfigError

if TYPE_CHECKING:
    from bisae.lm.tokenizer import TextTokenizer
    from bisae.pretrain.text import Pairs

SAVE = "last.ckpt"
log = logging.getLogger("bisae.pretrain")


@command(PretrainSettings)
def pretrain(settings: PretrainSettings, cfg: Any) -> Path:
    """Run the whole recipe; returns the ladder's folder `<out>/<name>`. A finished ladder is left as it is."""
    from bisae.pretrain.text import Pairs

    folder, steps = Path(settings.out) / settings.name, settings.checkpoints
    if not steps or max(steps) > settings.schedule.steps:
        raise ConfigError("checkpoints", steps, f"choose steps within 0..{settings.schedule.steps} (schedule.steps)")
    files = settings.corpus.model_dump()
    corpus = {key: Path(file or EMBEDDED / f"{key}.tsv.xz") for key, file in files.items()}
    pairs = Pairs.read(**corpus)
    recipe, started = recipe_of(settings, corpus), folder / "recipe.json"
    if started.exists() and json.loads(started.read_text()) != recipe:
        raise ConfigError("name", settings.name, f"{folder} holds a ladder of another recipe; choose another name")
    tokenizer = ready_tokenizer(settings, folder, pairs)
    if not started.exists():
        write_json(started, recipe)
    rungs = [folder / f"step{step:07d}" / "recipe.json" for step in steps]
    if (folder / SAVE).exists() or not all(rung.is_file() for rung in rungs):
        train_ladder(settings, folder, pairs, tokenizer, recipe)
    for rung in rungs:
        trained = json.loads(rung.read_text())
        scores = "  ".join(f"{language} {value:.2f}" for language, value in trained["perplexity"].items())
        log.info("step %7d  perplexity %s", trained["step"], scores)
    return folder


def recipe_of(settings: PretrainSettings, corpus: Mapping[str, Path]) -> dict[str, Any]:
    """Everything that the ladder's weights follow from: no places, but the checksums of the `corpus` files."""
    recipe = settings.model_dump(exclude={"out", "corpus", "tokenizer_folder", "trainer", "paths", "print_config"})
    recipe["corpus_sha256"] = {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in corpus.items()}
    return recipe


def ready_tokenizer(settings: PretrainSettings, folder: Path, pairs: "Pairs") -> "TextTokenizer":
    """The tokenizer that is given, or the one in `folder`, learnt from `pairs` where there is none yet."""
    from bisae.lm.tokenizer import load_tokenizer
    from bisae.pretrain.tokenizer import save_tokenizer, train_tokenizer

    given = settings.tokenizer_folder
    ready = Path(given) if given else folder / "tokenizer"
    if not given and not (folder / "recipe.json").exists():
        shutil.rmtree(ready, ignore_errors=True)  # of a run killed so early that its recipe is not known
    if not (ready / "tokenizer.json").is_file():
        if given:
            raise ConfigError("tokenizer_folder", ready, "holds no tokenizer.json")
        log.info("tokenizer: learning %d tokens from %d pairs", settings.tokenizer.vocabulary, len(pairs.lm))
        texts = (text for pair in pairs.lm for text in pair.texts)
        save_tokenizer(train_tokenizer(texts, **settings.tokenizer.model_dump()), ready)
    return load_tokenizer(ready, False, None)


def train_ladder(
    settings: PretrainSettings, folder: Path, pairs: "Pairs", tokenizer: "TextTokenizer", recipe: Mapping[str, Any]
) -> None:
    """Train the LM, going on from its last save, and write its checkpoints to `folder`."""
    from lightning import Trainer

    from bisae.pretrain.documents import Mix
    from bisae.pretrain.ladder import LadderModule, LMSize, PretrainSchedule, Rungs, loader, tiny_llama
    from bisae.pretrain.text import training_rows, validation_documents
    from bisae.runtime.library_warnings import silence
    from bisae.training.saves import Saves, check_save

    mix = Mix(**settings.mix.model_dump() | {"plain": tuple(settings.mix.plain)})
    size = LMSize(**settings.size.model_dump())
    schedule, save = PretrainSchedule(**settings.schedule.model_dump()), folder / SAVE
    texts = {"seed": settings.seed, "rows": schedule.rows, "context": schedule.context}
    rows, epochs = training_rows(pairs, tokenizer, mix, **settings.lexicon.model_dump(), **texts)
    validation = validation_documents(pairs.languages, pairs.validation, tokenizer, schedule.context)
    module = LadderModule(tiny_llama(size, tokenizer.written, settings.seed), schedule)
    watch = settings.trainer.held_out_every
    rungs = Rungs(folder, settings.checkpoints, tokenizer.written, validation, epochs, watch, recipe)
    silence()
    if save.exists():
        check_save(save)
    trainer = Trainer(
        accelerator=settings.trainer.accelerator,
        devices=1,
        precision=schedule.precision,
        max_steps=schedule.steps,
        callbacks=[rungs, Saves(save, settings.trainer.save_every)],
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, loader(module, rows), ckpt_path=save if save.exists() else None, weights_only=True)
    save.unlink(missing_ok=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="pretrain")
@ends_with_a_line
def main(cfg: Any) -> None:
    pretrain(cfg)


if __name__ == "__main__":
    main()
