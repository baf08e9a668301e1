"""The learning rate from step to step."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_up(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Learning-rate warm-up: rises linearly to the optimizer's rate over `steps` steps, from 1 / steps of it; then
    the rate is constant."""

    def share(step: int) -> float:
        return min(1.0, (step + 1) / steps)

    return LambdaLR(optimizer, share)
