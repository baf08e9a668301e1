"""Messages of the libraries that say nothing about a user's job, silenced by name."""

import logging
import warnings

LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
    "lightning.fabric.utilities.distributed",
    "httpx",  # used by the hub library: one line for each request
    "httpx2",
)
MESSAGES = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.13
    r".*checkpoint that ended before the epoch ended",  # bisae/training/steps.py goes on exactly where it ended
    r"`broadcast_buffers` is deprecated",  # torch 2.13; its successor is unknown to older ones
    r".*``compute`` method of metric \w+ was called before",  # a rank without a validation batch
    r"You requested to overfit but enabled val dataloader shuffling",  # held-out batches are in order
    r"The `srun` command is available on your system but is not used",  # each fit where SLURM is installed
    r".*does not have many workers",  # a batch is a gather in RAM, workers would only copy it
)


def silence() -> None:
    """Call before any library speaks."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message)
