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
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from bisae.config.folder import CONF
from bisae.corpus.embedded import EMBEDDED
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import ConfigError, explained

log = logging.getLogger("bisae.pretrain")


def pretrain(cfg: DictConfig) -> Path:
    """Run the whole recipe; returns the ladder's folder `<out>/<name>`. A finished ladder is left as it is."""
    from lightning import Trainer

    from bisae.lm.tokenizer import load_tokenizer
    from bisae.pretrain.documents import Mix
    from bisae.pretrain.ladder import LadderModule, LMSize, PretrainSchedule, Rungs, loader, tiny_llama
    from bisae.pretrain.text import Pairs, training_rows, validation_documents
    from bisae.pretrain.tokenizer import save_tokenizer, train_tokenizer
    from bisae.runtime.library_warnings import silence
    from bisae.training.saves import Saves, check_save

    folder, save = Path(cfg.out) / cfg.name, Path(cfg.out) / cfg.name / "last.ckpt"
    steps = [int(step) for step in cfg.checkpoints]
    if not steps or min(steps) < 0 or max(steps) > cfg.schedule.steps:
        raise ConfigError("checkpoints", steps, f"choose steps within 0..{cfg.schedule.steps} (schedule.steps)")
    mix, size, schedule = Mix(**cfg.mix), LMSize(**cfg.size), PretrainSchedule(**cfg.schedule)
    corpus = {key: Path(cfg.corpus[key] or EMBEDDED / f"{key}.tsv.xz") for key in ("lm", "validation")}
    pairs = Pairs.read(**corpus)

    recipe: Any = OmegaConf.to_container(cfg, resolve=True)
    for place in ("out", "corpus", "tokenizer_folder", "trainer"):
        recipe.pop(place)
    recipe["corpus_sha256"] = {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in corpus.items()}
    started = folder / "recipe.json"
    if started.exists() and json.loads(started.read_text()) != recipe:
        raise ConfigError("name", cfg.name, f"{folder} holds a ladder of another recipe; choose another name")

    ready = Path(cfg.tokenizer_folder) if cfg.tokenizer_folder else folder / "tokenizer"
    if not cfg.tokenizer_folder and not started.exists():
        shutil.rmtree(ready, ignore_errors=True)  # of a run killed so early that its recipe is not known
    if not (ready / "tokenizer.json").is_file():
        if cfg.tokenizer_folder:
            raise ConfigError("tokenizer_folder", ready, "holds no tokenizer.json")
        log.info("tokenizer: learning %d tokens from %d pairs", cfg.tokenizer.vocabulary, len(pairs.lm))
        save_tokenizer(train_tokenizer((text for pair in pairs.lm for text in pair.texts), **cfg.tokenizer), ready)
    tokenizer = load_tokenizer(ready, False, None)
    if not started.exists():
        write_json(started, recipe)

    rungs = [folder / f"step{step:07d}" / "recipe.json" for step in steps]
    if save.exists() or not all(rung.is_file() for rung in rungs):
        rows = training_rows(
            pairs, tokenizer, mix, **cfg.lexicon, seed=cfg.seed, rows=schedule.rows, context=schedule.context
        )
        validation = validation_documents(pairs.languages, pairs.validation, tokenizer, schedule.context)
        module = LadderModule(tiny_llama(size, tokenizer.written, cfg.seed), schedule)
        keep = Rungs(folder, steps, tokenizer.written, validation, schedule.batch * schedule.context, recipe)
        silence()
        if save.exists():
            check_save(save)
        trainer = Trainer(
            accelerator=cfg.trainer.accelerator,
            devices=1,
            precision=schedule.precision,
            max_steps=schedule.steps,
            callbacks=[keep, Saves(save, cfg.trainer.save_every)],
            logger=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, loader(module, rows), ckpt_path=save if save.exists() else None, weights_only=True)
        save.unlink(missing_ok=True)
    for rung in rungs:
        about = json.loads(rung.read_text())
        scores = "  ".join(f"{language} {value:.2f}" for language, value in about["perplexity"].items())
        log.info("step %7d  perplexity %s", about["step"], scores)
    return folder


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="pretrain")
def main(cfg: DictConfig) -> None:
    try:
        pretrain(cfg)
    except Exception as error:
        if mendable := explained(error):
            raise SystemExit(f"error: {mendable}") from None
        raise


if __name__ == "__main__":
    main()
