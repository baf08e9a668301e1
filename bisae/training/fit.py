"""One job from its activations to its finished cells."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Trainer

from bisae.runtime.errors import STOPPED, RankLost, TrainingFailed
from bisae.training.data import ActivationData
from bisae.training.module import SAETraining
from bisae.training.results import JobResults
from bisae.training.saves import check_save
from bisae.training.trainer import check_products, lost_ranks


def fit(module: SAETraining, data: ActivationData, trainer: Trainer, results: JobResults) -> None:
    """Train the SAEs of a job, going on from its save if there is one, and write their cells.

    Args:
        module: the SAEs and how they are trained.
        data: their activations, which are closed at the end.
        trainer: of as many epochs and processes as `data`.
        results: the job, its save, and where its cells and W&B runs go.

    Raises:
        TrainingFailed: a member's numbers were no longer finite; the other members' cells are written.
        RankLost: another process of the job is gone; nothing is written.
        Damaged: the save is.
        Refused: float32 products are not as the cells' identity says, at the start or by the end.
    """
    save, part, finished = results.job.save, data.streams.asked.part, False
    speaks = part.rank == 0
    products = results.job.members[0].cell.identity.get("matmul_precision", "highest")
    try:
        with _stops_by_their_cause(trainer, part.world):
            if speaks:
                if save.exists():
                    check_save(save)
                results.open_runs()
            check_products(products)
            trainer.fit(module, datamodule=data, ckpt_path=save if save.exists() else None, weights_only=True)
            check_products(products)
            stopped = trainer.should_stop and results.job.may_stop
            if trainer.global_step != data.steps and not stopped and not results.job.trial:
                raise RuntimeError(f"training ended after {trainer.global_step} steps; no cell is written")
            finished = True
            if speaks or module.apart:
                results.write(module, data)
            failed, _ = module.failed_anywhere()  # once all have written theirs
    finally:
        results.close()
        data.close(finished)
    if speaks:
        results.clean_up()
        if failed:
            raise TrainingFailed("\n".join(["these members failed, the others are finished:", *failed]))


@contextmanager
def _stops_by_their_cause(trainer: Trainer, world: int) -> Iterator[None]:
    """Inside, Ctrl-C comes out as KeyboardInterrupt, and a lost rank as RankLost."""
    try:
        yield
    except SystemExit as stop:
        if stop.code == 1:
            raise KeyboardInterrupt from None  # what Lightning makes an exit of
        if trainer.received_sigterm:  # in a trial, which has no `Saves` to answer it; Lightning's status is 0
            raise SystemExit(STOPPED) from None
        raise
    except TrainingFailed:
        raise
    except RuntimeError as error:
        if world > 1 and (lost := lost_ranks(trainer, error)):
            raise RankLost(f"{lost}; all stopped, and the same command goes on from the last save") from error
        raise
