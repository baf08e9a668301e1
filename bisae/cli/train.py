"""Train the SAEs of one LM checkpoint: python train.py [key=value ...], or -m for a sweep; --help lists the keys.

config -> corpus, checkpoint -> members -> activations -> training -> cells. Finished cells are not trained again; a
killed job goes on from its last save when the same command is run again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import OmegaConf

from bisae.cli.command import command
from bisae.cli.sweep import leave_logger, one_process_per_job
from bisae.config.choices import check_k_by_layer, layers_of
from bisae.config.folder import CONF
from bisae.config.instantiate import instantiate
from bisae.config.keys import refused_by_key
from bisae.config.settings import pass_keys, store_node
from bisae.config.train import TrainSettings
from bisae.metrics import RECONSTRUCTION
from bisae.runtime.device import sum_in_float32
from bisae.runtime.errors import ConfigError, RankLost, TrainingFailed
from bisae.runtime.ranks import Part, rank, under_torchrun, under_wandb_agent
from bisae.runtime.values import listed

if TYPE_CHECKING:
    from lightning import Trainer

    from bisae.activations.order import ReadingOrder
    from bisae.cells.cell import Cell
    from bisae.corpus.corpus import Corpus
    from bisae.lm.model import Checkpoint
    from bisae.sae import SparseAutoencoder
    from bisae.training.job import Job, Member
    from bisae.training.module import SAETraining
    from bisae.training.results import JobResults
    from bisae.training.spread import Spread

log = logging.getLogger("bisae.training.fit")


@command(TrainSettings)
def train(settings: TrainSettings, cfg: Any) -> "list[Cell]":
    """Train the SAEs of the job that have no finished cell yet; returns all its cells.

    Raises:
        TrainingFailed: some SAEs failed; raised after the cells of all others are written.
    """
    # Here, since they are slow to import: --help and refused values answer at once.
    from bisae.cells.shown import show_cells
    from bisae.runtime.library_warnings import silence
    from bisae.runtime.ranks import follow
    from bisae.training.job import check_tokens

    silence()
    if rank() > 0:
        follow()
    corpus = instantiate(settings.corpus, "corpus")
    check_metric("optimized_metric", settings.optimized_metric, corpus.languages)
    for name, node in settings.callbacks.items():
        if node and str(node["_target_"]).endswith(".EarlyStopping") and node.get("monitor") != "fvu":  # of training
            check_metric(f"callbacks.{name}.monitor", node.get("monitor"), corpus.languages)
    order = reading_order(settings)
    *_, (_, job) = jobs = planned_jobs(settings, order, corpus)
    cells = [member.cell for member in job.members]
    shown = [cell for member in job.members for cell in member.cells]
    leave_logger(settings.logger, settings.runs)
    if settings.data.short_split == "refuse" and not settings.force:
        check_tokens(shown, settings.data.tokens, settings.data.validation_tokens)
    due_jobs = jobs_due(settings, jobs)
    if under_wandb_agent() and not job.trial:
        check_agent(settings, [due for _, due in due_jobs])
    for checkpoint, due in due_jobs:
        with due.hold(settings.force and due is job) as remaining:
            if rank() == 0 and (before := len(due.members) - len(remaining.members)):
                log.info("SAEs trained before: %d (force=true trains them again)", before)
            if remaining.members:
                try:
                    at = OmegaConf.merge(cfg, {} if due is job else {"checkpoint": checkpoint.step})
                    train_members(settings, remaining, order, checkpoint, corpus, OmegaConf.to_yaml(at, resolve=True))
                except TrainingFailed as failure:
                    if rank() > 0 and not isinstance(failure, RankLost):  # rank 0 says it
                        return cells
                    show_cells(shown)
                    raise
    if job.trial:
        return []
    if rank() == 0:
        if job.finished and not settings.keep_save:
            job.delete_save()  # of a job killed after its last cell
        show_cells(shown)
    return cells


def check_agent(settings: TrainSettings, jobs: "Sequence[Job]") -> None:
    """Refuse several SAEs in the one run that a W&B agent has for this process."""
    from bisae.training.loggers import CellLoggers

    lists = {f"sae.{key}": value for key, value in settings.sae.items() if isinstance(value, list) and len(value) > 1}
    several = {"layer": settings.layer} if len(jobs[-1].layers) > 1 else lists
    key, found = next(iter({**several, "sae.start": settings.sae.get("start")}.items()))
    cells = sum(len(job.members) for job in jobs if settings.force or not job.finished)
    CellLoggers(settings.logger, settings.runs).check_agent(key, found, cells)


def mean_metric(cells: "Sequence[Cell]", metric: str) -> float | None:
    """The mean of a metric of finished cells, by its name in cell.json; None on ranks above 0, and of a trial."""
    if rank() > 0 or not cells:
        return None
    return fmean(cell.read()["metrics"][metric] for cell in cells)


def check_metric(key: str, metric: str | None, languages: "Sequence[str]") -> None:
    """Refuse a metric, asked for by `key`, that no cell of these languages will have."""
    there = [f"val/{name}{of}" for name in RECONSTRUCTION for of in ("", *(f"/{language}" for language in languages))]
    if metric not in there:
        raise ConfigError(key, metric, f"no such metric; there are {', '.join(there)}")


def reading_order(settings: TrainSettings) -> "ReadingOrder":
    """The order in which the training tokens are read."""
    from bisae.activations.order import ReadingOrder

    data = settings.data.model_dump()
    with refused_by_key(settings, "data"):
        return ReadingOrder(**{key: data[key] for key in ReadingOrder.__dataclass_fields__})


def planned_jobs(settings: TrainSettings, order: "ReadingOrder", corpus: "Corpus") -> "list[tuple[Checkpoint, Job]]":
    """The job at its checkpoint, after those of the earlier checkpoints whose SAEs it starts from (start=previous)."""
    from bisae.training.job import Job, check_snapshots
    from bisae.training.start import PREVIOUS, steps_until

    with refused_by_key(settings):
        check_snapshots(settings.snapshots, order.batch, settings.data.epochs * order.steps_per_epoch * order.batch)
    model = instantiate(settings.model, "model")
    steps: list[int | str] = [settings.checkpoint]
    before: list[Member] = []
    with refused_by_key(settings, start="sae.start"):
        if PREVIOUS in listed(settings.sae.get("start")):
            steps = steps_until(settings.checkpoint, settings.ladder)
        jobs = []
        for step in steps:
            checkpoint = model.checkpoint(step)
            before = planned_members(settings, checkpoint, corpus, before)
            jobs.append((checkpoint, Job(Path(settings.runs), before)))
    if len(jobs) > 1 and jobs[0][1].trial:
        raise ConfigError("sae.start", PREVIOUS, "a trial leaves no cells to start from; name one that is there")
    if settings.snapshots and jobs[0][1].may_stop:
        raise ConfigError("snapshots", settings.snapshots, "callbacks may end the training before; leave one out")
    return jobs


def jobs_due(settings: TrainSettings, jobs: "Sequence[tuple[Checkpoint, Job]]") -> "Sequence[tuple[Checkpoint, Job]]":
    """The last of `jobs`, after those before it whose cells it needs and that are missing.

    Each is trained once, whatever jobs of a sweep ask for it at the same time, since `Job.hold` locks it. With several
    devices, whose processes are started for one job, what is missing is refused.
    """
    first = len(jobs) - 1
    needs = settings.force or not jobs[first][1].finished
    while needs and first > 0 and not jobs[first][1].going_on and rank() == 0:
        if all(member.cell.finished for member in jobs[first - 1][1].members):
            break
        first -= 1
    devices = settings.trainer.get("devices", 1)
    several = len(devices) > 1 if isinstance(devices, list) else devices != 1
    if first < len(jobs) - 1 and (several or under_torchrun()):
        step = jobs[first][0].step
        remedy = f"start from step {step}, which is not trained yet: with several devices train checkpoint={step} first"
        raise ConfigError("sae.start", "previous", f"{remedy}, or all with -m and hydra/launcher=basic")
    return jobs[first:]


def planned_members(
    settings: TrainSettings, checkpoint: "Checkpoint", corpus: "Corpus", before: "Sequence[Member]"
) -> "list[Member]":
    """The members of a job and the cells that they become; everything that changes a result is in their identity.

    `before`: the members of the checkpoint before.
    """
    from bisae.lm.pass_settings import PassSettings
    from bisae.training.callbacks import check_alone
    from bisae.training.job import plan_members, training_identity

    data, findings = settings.data, Path(settings.cache) / "tokenizers"
    layers = layers_of(settings.layer, checkpoint.layers)
    with refused_by_key(settings, "activations.pass"):
        reading = PassSettings(checkpoint, corpus, data.split, **pass_keys(settings.activations), findings=findings)
    with refused_by_key(settings, split="data.validation_split"):
        validation = corpus.checksum(data.validation_split)
    shared = {
        "activations": reading.fingerprint,
        "validation": validation,
        **training_identity(settings.model_dump(by_alias=True)),
    }
    runs = Path(settings.runs)
    k_by_layer = settings.k_by_layer or {}
    check_k_by_layer(k_by_layer, settings.sae, checkpoint.layers)
    members = plan_members(runs, checkpoint, layers, settings.sae, shared, before, settings.snapshots, k_by_layer)
    check_alone(settings.callbacks, len(members))
    return members


def new_saes(
    settings: TrainSettings, members: "Sequence[Member]", d_model: int, going_on: bool
) -> "list[SparseAutoencoder]":
    """The SAEs of the members, in their order, with the weights that they start from, unless a save has them."""
    from bisae.sae.own import check_own

    saes = [instantiate(member.architecture, "sae", d_model=d_model) for member in members]
    with refused_by_key(settings, "sae"):
        for member, sae in zip(members, saes, strict=True):
            sae.set_candidates(member.settings.get("candidates", "auto"))
            check_own(sae, member.settings["_target_"], member.settings["latents"])
            if member.start and not going_on:
                sae.load_state_dict(member.start.state(sae))
    return saes


def made_trainer(
    settings: TrainSettings, order: "ReadingOrder", module: "SAETraining", results: "JobResults", spread: "Spread"
) -> "Trainer":
    """Lightning's Trainer for the job of `results`, with all callbacks; sets the precision of its products."""
    import torch

    from bisae.training.module import Reports
    from bisae.training.saves import Saves
    from bisae.training.snapshots import Snapshots
    from bisae.training.split_saves import MembersOf
    from bisae.training.trainer import make_trainer

    torch.set_float32_matmul_precision(settings.matmul_precision)
    sum_in_float32()
    job, epochs = results.job, settings.data.epochs
    own = [instantiate(node, f"callbacks.{name}") for name, node in settings.callbacks.items() if node]
    with refused_by_key(settings, "trainer"):
        saves = Saves(job.save, settings.save_every, module.gather, settings.trainer.get("max_time"), spread.own)
        # Saves last, to hold what the others did at that step; a trial has none.
        kept = [] if job.trial else [Snapshots(settings.snapshots, results.write_snapshots), saves]
        partial = instantiate(settings.trainer, "trainer", _partial_=True)
        callbacks = [*own, Reports(module.report, settings.log_every), *kept]
        of_job, mine = ([member.cell.name for member in members] for members in (job.members, spread.members))
        checkpoints = MembersOf(of_job, mine, spread.own.rank)
        return make_trainer(partial, callbacks, epochs, order, job.folder, checkpoints, spread.apart)


def train_members(
    settings: TrainSettings,
    job: "Job",
    order: "ReadingOrder",
    checkpoint: "Checkpoint",
    corpus: "Corpus",
    config: str,
) -> None:
    """Train the members of `job`, which `config` (YAML) describes, and write their cells."""
    # Here, since a finished job needs neither torch nor Lightning.
    from bisae.activations.job_activations import open_activations
    from bisae.activations.store import Request
    from bisae.lm.lm_pass import LMPass
    from bisae.training.blocked_adam import by_block
    from bisae.training.data import ActivationData
    from bisae.training.fit import fit
    from bisae.training.job import check_snapshots
    from bisae.training.loggers import CellLoggers
    from bisae.training.module import SAETraining
    from bisae.training.results import JobResults
    from bisae.training.schedule import check_schedule, schedule_of
    from bisae.training.spread import spread_over, warn_of_slow_ddp
    from bisae.training.trainer import check_optimizer, machine

    settings.check_objects(late=True)
    data = settings.data
    reading = {**pass_keys(settings.activations), "findings": Path(settings.cache) / "tokenizers"}
    source = LMPass(checkpoint, corpus, data.split, **reading)
    held_out = LMPass(checkpoint, corpus, data.validation_split, **reading)
    store = instantiate(store_node(settings.activations), "activations")
    optimizer = instantiate(settings.optimizer.partial, "optimizer.partial")
    schedule = schedule_of(instantiate(settings.scheduler, "scheduler", _partial_=True), settings.optimizer.warmup)
    loggers = CellLoggers(settings.logger, settings.runs, len(job.members))
    with refused_by_key(settings, "trainer"):
        devices = machine(settings.trainer)
    spread = spread_over(settings.spread, job.members, Part(rank(), devices.world))
    saes = new_saes(settings, spread.members, checkpoint.d_model, job.going_on)
    module = SAETraining(spread.members, saes, corpus.languages, optimizer, schedule, loggers.log, spread.own)
    results = JobResults(job, checkpoint, config, loggers, settings.keep_save)
    trainer = made_trainer(settings, order, module, results, spread)
    if settings.optimizer.by_block and not any(settings.callbacks.values()):  # which may look for gradients
        place = trainer.strategy.root_device, spread.rows.world
        optimizer = module.optimizer = by_block(optimizer, saes, *place, trainer.gradient_clip_val)
    with refused_by_key(settings, "trainer"):
        check_optimizer(optimizer, spread.rows.world, trainer.gradient_clip_val)
        check_schedule(optimizer, schedule, data.epochs * order.steps_per_epoch)
    source.gpu = held_out.gpu = trainer.strategy.root_device.index or 0
    warn_of_slow_ddp(spread, order.batch, checkpoint.d_model, devices.accelerator)
    take_short, own_layers = data.short_split == "take", spread.layers if spread.apart else None
    texts = source, held_out, job.layers, order, data.validation_tokens
    on_gpu = trainer.strategy.root_device.type == "cuda"
    request = Request(*texts, spread.part, take_short, own_layers, on_gpu)
    activations = open_activations(store, request, job.key, job.going_on, job.folder)
    held = ActivationData(activations, data.epochs)
    with refused_by_key(settings):
        check_snapshots(settings.snapshots, order.batch, held.steps * order.batch)  # of a short split
    job.begin()
    fit(module, held, trainer, results)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@one_process_per_job
def main(cfg: Any) -> float | None:
    """Return the value of the job for a search: `optimized_metric`, as a mean over its cells."""
    return mean_metric(train(cfg), cfg.optimized_metric)


if __name__ == "__main__":
    main()
