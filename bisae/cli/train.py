"""Train the SAEs of one LM checkpoint: python train.py [key=value ...], or -m for a sweep; --help lists the keys.

config -> corpus, checkpoint -> members -> activations -> training -> cells. Finished cells are not trained again; a
killed job goes on from its last save when the same command is run again.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from bisae.cli.sweep import one_process_per_job
from bisae.config.folder import CONF
from bisae.config.keys import refused_by_key
from bisae.config.shape import check_shape
from bisae.config.values import check_values
from bisae.runtime.errors import ConfigError, RankLost, TrainingFailed
from bisae.runtime.values import check_texts

if TYPE_CHECKING:
    from bisae.cells.cell import Cell


def train(cfg: DictConfig) -> "list[Cell]":
    """Train what is missing of the job; returns all its cells. TrainingFailed at the end if members failed."""
    with refused_by_key(cfg):
        return _train(cfg)


def _train(cfg: DictConfig) -> "list[Cell]":
    # Here, since they are slow to import: --help and refused values answer at once.
    from bisae.activations.order import ReadingOrder
    from bisae.cells.shown import show_cells
    from bisae.config.choices import layers_of
    from bisae.config.instantiate import instantiate
    from bisae.lm.pass_settings import PassSettings
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.ranks import Part, follow, rank
    from bisae.training.job import Job, check_tokens, plan_members

    for key in sorted(OmegaConf.missing_keys(cfg)):  # a set: else another key first in every process
        raise ConfigError(key, "???", "give a value")
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    check_shape("train", settings)
    check_texts("runs", [settings["runs"]])  # first, since other keys follow from it
    check_values(settings)
    reading, data, runs = settings["activations"], settings["data"], Path(settings["runs"])
    silence()
    if rank() > 0:
        follow()

    corpus = instantiate(cfg.corpus)
    checkpoint = instantiate(cfg.model).checkpoint(cfg.checkpoint)
    layers = layers_of(settings["layer"], checkpoint.layers)
    pass_ = {**reading["pass"], "findings": Path(settings["cache"]) / "tokenizers"}
    order = ReadingOrder(**{key: data[key] for key in ReadingOrder.__dataclass_fields__})
    shared = {
        "activations": PassSettings(checkpoint, corpus, data["split"], **pass_).fingerprint,
        "validation": corpus.checksum(data["validation_split"]),
        "data": {key: value for key, value in data.items() if not key.endswith("split")},
        "optimizer": settings["optimizer"],
        "precision": settings["trainer"]["precision"],
    }
    members = plan_members(runs, checkpoint, layers, settings["sae"], shared)
    cells, job, take_short = [member.cell for member in members], Job(runs, members), data["short_split"] == "take"
    if not take_short and not cfg.force:
        check_tokens(cells, data["tokens"], data["validation_tokens"])
    with job.hold(cfg.force) as remaining:
        if remaining.members:
            # Here, since a finished job needs neither torch nor Lightning.
            from bisae.activations.job_activations import open_activations
            from bisae.activations.store import Request
            from bisae.lm.lm_pass import LMPass
            from bisae.sae.own import check_own
            from bisae.training.data import ActivationData
            from bisae.training.fit import fit
            from bisae.training.module import Reports, SAETraining
            from bisae.training.results import JobResults
            from bisae.training.saves import Saves
            from bisae.training.schedule import TrainingSchedule
            from bisae.training.trainer import check_optimizer, make_trainer

            source = LMPass(checkpoint, corpus, data["split"], **pass_)
            held_out = LMPass(checkpoint, corpus, data["validation_split"], **pass_)
            store = instantiate({key: value for key, value in reading.items() if key != "pass"})
            schedule = TrainingSchedule(
                data["epochs"], cfg.optimizer.warmup, cfg.save_every, cfg.log_every, cfg.keep_save
            )
            optimizer = instantiate(cfg.optimizer.partial)
            with refused_by_key(settings, "logger"):
                wandb_runs = instantiate(cfg.logger)
            saes = [instantiate(member.architecture, d_model=checkpoint.d_model) for member in remaining.members]
            for member, sae in zip(remaining.members, saes, strict=True):
                check_own(sae, member.settings["_target_"], member.settings["latents"])
            module = SAETraining(remaining.members, saes, corpus.languages, optimizer, schedule.warmup, wandb_runs.log)
            callbacks = [
                Reports(module.report, schedule.log_every),
                Saves(remaining.save, schedule.save_every, module.gather),
            ]
            with refused_by_key(settings, "trainer"):
                partial = instantiate(cfg.trainer, _partial_=True)
                trainer = make_trainer(partial, callbacks, schedule.epochs, order.batch, remaining.folder)
                check_optimizer(optimizer, trainer.world_size)
            source.gpu = held_out.gpu = trainer.strategy.root_device.index or 0
            part, tokens = Part(rank(), trainer.world_size), data["validation_tokens"]
            asked = Request(source, held_out, remaining.layers, order, tokens, part, take_short)
            streams = open_activations(store, asked, remaining.key, remaining.going_on, remaining.folder)
            remaining.begin()
            config = OmegaConf.to_yaml(cfg, resolve=True)
            results = JobResults(remaining, checkpoint, config, wandb_runs, schedule.keep_save)
            try:
                fit(module, ActivationData(streams, schedule.epochs), trainer, results)
            except TrainingFailed as failure:
                if rank() > 0 and not isinstance(failure, RankLost):  # rank 0 says it
                    return cells
                show_cells(cells)
                raise
    if rank() == 0:
        if job.finished and not cfg.keep_save:
            job.save.unlink(missing_ok=True)  # of a job killed after its last cell
        show_cells(cells)
    return cells


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@one_process_per_job
def main(cfg: DictConfig) -> None:
    train(cfg)


if __name__ == "__main__":
    main()
