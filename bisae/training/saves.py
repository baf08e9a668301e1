"""The one file a killed run goes on from."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer

from bisae.runtime.atomic import atomic_file
from bisae.runtime.errors import STOPPED, Damaged, Refused
from bisae.runtime.ranks import ALONE, Part
from bisae.training.save_files import delete_others, part_of, parts_of
from bisae.training.split_saves import named_parts

log = logging.getLogger("bisae.training.saves")


def check_save(path: Path) -> None:
    """Damaged if a bit of the save differs from what was written, or a file of it is missing."""
    _check_file(path, path)
    for part in named_parts(path):
        _check_file(part, path)


def _check_file(path: Path, save: Path) -> None:
    try:
        with ZipFile(path) as file:
            broken = file.testzip()
    except Exception as error:  # zipfile raises nearly any
        broken = str(error)
    if broken:
        which = "it" if path == save else save
        raise Damaged(f"{path} is damaged ({broken}); delete {which}, and the same command begins anew")


class Saves(Callback):
    """Saves the whole training state to `path` every `every` steps, the older save staying until the newer is complete.

    After SIGTERM, or when its time is over, it saves at the end of the step and ends the process with status `STOPPED`,
    under DDP all of them.
    Lightning's ModelCheckpoint does not fsync, and renames its file when one is already there. A save due at the last
    batch of an epoch is made one step later: going on from an epoch's very end, Lightning would skip the next epoch.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        gather: Callable[[], None] = lambda: None,
        max_time: Any = None,
        part: Part = ALONE,
    ) -> None:
        """The callback of a job.

        Args:
            path: of the save.
            every: steps between saves.
            gather: called before each save: rank 0 takes over what the ranks hold in parts.
            max_time: how long this process trains, as Lightning's Trainer takes it. None: until the end.
            part: this process among those that each save a file, of members of their own. Under DDP rank 0 saves all.

        Raises:
            Refused: `max_time`, if it is no time.
        """
        self.path, self.every, self.gather, self.part = path, every, gather, part
        self._saved, self._told = 0, False
        try:
            self._timer = Timer(max_time)  # no callback of the Trainer's: a job that goes on has all its time again
        except (MisconfigurationException, TypeError) as error:
            raise Refused("max_time", max_time, "give DD:HH:MM:SS, or {hours: 12}") from error

    def _tell(self, *_: object) -> None:
        self._told = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        # Lightning's own handler sends messages between ranks in the middle of others. Its teardown removes this one.
        signal.signal(signal.SIGTERM, self._tell)
        if trainer.received_sigterm:  # that handler's, a moment ago
            raise SystemExit(STOPPED)
        self._saved = trainer.global_step
        self._timer.on_train_start(trainer, module)

    @property
    def _over(self) -> bool:
        left = self._timer.time_remaining()
        return left is not None and left <= 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._told or self._over, all=False)
        if (stop or step // self.every > self._saved // self.every) and not trainer.is_last_batch:
            self.gather()
            self._save(trainer, step)
            self._saved = step
            if stop:
                trainer.strategy.barrier()  # before any rank ends: Lightning kills rank 0 once another has failed
                why = "told to stop" if not self._over else "trainer.max_time is over"
                log.info("%s: saved at step %d, the same command goes on from there", why, step)
                raise SystemExit(STOPPED if trainer.is_global_zero else 0)

    def _save(self, trainer: Trainer, step: int) -> None:
        rank, world = self.part
        if world == 1 and not trainer.is_global_zero:  # takes part, but writes nothing
            trainer.save_checkpoint(self.path, weights_only=False)
            return
        with atomic_file(part_of(self.path, step, rank)) as temporary:
            trainer.save_checkpoint(temporary, weights_only=False)
            if rank == 0 and world > 1:
                trainer.strategy.barrier()  # the files of all processes are there before the one that counts
        if rank > 0:
            trainer.strategy.barrier()
        else:
            delete_others(self.path, keep=parts_of(self.path, step, world))
