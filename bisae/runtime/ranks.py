"""The processes (ranks) of one job under DDP, and the messages of rank 0 to the others.

Rank 0 alone plans the job, holds its locks, fills caches and writes results. The other ranks run the same command;
they are started by Lightning, by rank 0 once everything is ready, or all at once by torchrun.
"""

import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

ANNOUNCED, STARTED_BY = "BISAE_ANNOUNCED", "BISAE_STARTED_BY"
RANKS = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
)  # of torchrun, Lightning
JOB = "BISAE_SWEEP_JOB"  # environment of a sweep's job: the folder where it leaves what is shown at the sweep's end
SECONDS_BETWEEN_LOOKS = 1.0


def leave(folder: str | Path | None, name: str, text: str) -> None:
    """Write what is shown at a sweep's end, where there is a sweep whose command has not ended."""
    with suppress(FileNotFoundError):
        if folder:
            Path(folder, name).write_text(text, encoding="utf-8")


class Part(NamedTuple):
    """This process among the `world` processes of the job."""

    rank: int
    world: int

    def owns(self, number: int) -> bool:
        """True if this process does piece `number` of the work."""
        return number % self.world == self.rank


ALONE = Part(0, 1)


def rank() -> int:
    """Return the number of this process in the job; 0 without DDP, also if a cluster has set RANK."""
    if under_torchrun():
        return int(os.environ["RANK"])
    return int(os.environ["LOCAL_RANK"]) if ANNOUNCED in os.environ and "LOCAL_RANK" in os.environ else 0


def forget_ranks() -> None:
    """Rank 0: remove the ranks from the environment. With them, Lightning would believe that all ranks are running."""
    for name in RANKS:
        os.environ.pop(name, None)


def under_wandb_agent() -> bool:
    """Whether `wandb agent` has started this process. W&B then gives all its runs the agent's one id and project."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def under_torchrun() -> bool:
    """True if torchrun started the ranks."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun_size() -> tuple[int, int] | None:
    """Return torchrun's (processes on each machine, machines); None without torchrun."""
    if not under_torchrun():
        return None
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def tell_torchrun(text: str) -> None:
    """Leave what has gone wrong in this process, with which torchrun then ends its own report."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}), encoding="utf-8")


def announce(text: str) -> None:
    """Rank 0: send `text` to the other ranks, which then continue."""
    if under_torchrun():
        _store().set(ANNOUNCED, text)
    else:
        os.environ |= {ANNOUNCED: text, STARTED_BY: str(os.getpid())}  # inherited by the ranks that Lightning starts


def withdraw() -> None:
    """Rank 0, at the job's end: processes started from now on are no ranks of this job."""
    for name in (ANNOUNCED, STARTED_BY):
        os.environ.pop(name, None)


def announced() -> str:
    """Other ranks: wait for the text of rank 0 and return it. torchrun ends them if rank 0 dies meanwhile."""
    if not under_torchrun():
        return os.environ[ANNOUNCED]
    store = _store()
    while not store.check([ANNOUNCED]):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return str(store.get(ANNOUNCED), "utf-8")


def follow() -> None:
    """Other ranks: leave output to rank 0, and end when it ends, even while waiting for it on a GPU."""
    logging.getLogger().setLevel(logging.WARNING)
    parent = os.getppid() if under_torchrun() else int(os.environ[STARTED_BY])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    print(f"rank {rank()}: the process that started it has died, so it stops", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)


def _store() -> Any:
    from torch.distributed import PrefixStore, TCPStore

    # torchrun's own store, which its agent keeps open; a restart of the workers is another round.
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    return PrefixStore(f"bisae-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
