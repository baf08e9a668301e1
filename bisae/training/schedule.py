"""How long a job trains, how often it saves and logs, and its learning rate from step to step."""

from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class TrainingSchedule:
    """How long and how often: `epochs`; `warmup`, `save_every` and `log_every` in steps.

    `keep_save`: whether the last save, with its optimizer state, outlives the job.
    """

    epochs: int
    warmup: int
    save_every: int
    log_every: int
    keep_save: bool


def warm_up(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Learning-rate warm-up: rises linearly to the optimizer's rate over `steps` steps, from 1 / steps of it; then
    the rate is constant."""

    def share(step: int) -> float:
        return min(1.0, (step + 1) / steps)

    return LambdaLR(optimizer, share)
