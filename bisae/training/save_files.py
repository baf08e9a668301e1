"""The files of a job's save, where each process saves the members that it trains.

    save.ckpt          of process 0: whatever holds for the job, and the members of process 0; it appears last
    save.200.1.ckpt    of process 1, at step 200

A save of one process, or of DDP, is the first file alone.
"""

from collections.abc import Sequence
from pathlib import Path


def part_of(save: Path, step: int, process: int) -> Path:
    """The file of a process."""
    return save if process == 0 else save.with_name(f"{save.stem}.{step}.{process}{save.suffix}")


def parts_of(save: Path, step: int, processes: int) -> list[Path]:
    """All files of a save, the one that counts first."""
    return [part_of(save, step, process) for process in range(processes)]


def delete_others(save: Path, keep: Sequence[Path]) -> None:
    """Delete what is left of other saves of the job, the file that counts first."""
    for file in [save, *save.parent.glob(f"{save.stem}.*.*{save.suffix}")]:
        if file not in keep:
            file.unlink(missing_ok=True)
