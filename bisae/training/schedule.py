"""The learning rate from step to step: config group `scheduler`.

A scheduler is a function, or class, that makes an LRScheduler of an optimizer. One that takes `steps` is given the
number of optimizer steps. One that takes `warmup` is given that, and does the warm-up itself; the rates of others are
multiplied by it.
"""

import inspect
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Lt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from bisae.runtime.errors import Refused

Schedule = Callable[[Optimizer, int], LRScheduler]  # of an optimizer and the number of its steps
Below1 = Annotated[int | float, Ge(0), Lt(1)]
UpTo1 = Annotated[int | float, Ge(0), Le(1)]


def warm_up(step: int, steps: int) -> float:
    """The share of the learning rate at a step, from 0: rises linearly from 1 / steps to 1 over `steps` steps."""
    return min(1.0, (step + 1) / steps)


def constant(optimizer: Optimizer, warmup: int) -> LambdaLR:
    """The optimizer's rate, after `warmup` steps of warm-up."""
    return LambdaLR(optimizer, lambda step: warm_up(step, warmup))


def linear(optimizer: Optimizer, warmup: int, steps: int, begin: UpTo1, final: Below1) -> LambdaLR:
    """Warm-up, then a constant rate, then a linear decay.

    Args:
        optimizer: whose rate is the highest.
        warmup: steps.
        steps: of all training.
        begin: share of the steps after which the rate decays, but not before the end of the warm-up unless that lasts
            as long as the training; 1: it never does.
        final: share of the rate that the step after the last one would have.
    """
    return _decaying(optimizer, warmup, steps, begin, final, lambda progress: 1 - progress)


def cosine(optimizer: Optimizer, warmup: int, steps: int, begin: UpTo1, final: Below1) -> LambdaLR:
    """As `linear`, but the decay is half a period of a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return _decaying(optimizer, warmup, steps, begin, final, lambda progress: (1 + math.cos(math.pi * progress)) / 2)


def _decaying(
    optimizer: Optimizer, warmup: int, steps: int, begin: UpTo1, final: Below1, shape: Callable[[float], float]
) -> LambdaLR:
    first = min(round(begin * steps), steps - 1)
    if warmup < steps:
        first = max(warmup, first)

    def share(step: int) -> float:
        progress = min(1.0, max(0.0, (step - first) / (steps - first)))
        return warm_up(step, warmup) * (final + (1 - final) * shape(progress))

    return LambdaLR(optimizer, share)


def schedule_of(scheduler: Callable[..., Any], warmup: int) -> Schedule:
    """A scheduler as a function of an optimizer and the number of its steps, with `warmup` steps of warm-up."""
    taken = inspect.signature(scheduler).parameters

    def schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
        given = {"warmup": warmup, "steps": steps}
        made = scheduler(optimizer, **{name: value for name, value in given.items() if name in taken})
        if not isinstance(made, LRScheduler):
            raise TypeError(f"makes a {type(made).__name__}; must make a torch.optim.lr_scheduler.LRScheduler")
        return made if "warmup" in taken else WarmedUp(made, warmup)

    return schedule


def check_schedule(optimizer: Callable[..., Optimizer], schedule: Schedule, steps: int) -> None:
    """Try a step of an optimizer and of the schedule of its rates before any work.

    Args:
        optimizer: makes one of parameter groups.
        schedule: makes the scheduler of its rates.
        steps: of training.

    Raises:
        Refused: `partial`, if the optimizer cannot take a step; `scheduler`, if it cannot be made or stepped, or does
            not follow the members' rates; either, if no save could hold its state.
    """
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameter], "lr": lr} for parameter, lr in zip(parameters, (0.1, 0.2), strict=True)]
    with _refused_as("partial"):
        made = optimizer(groups)
        for parameter in parameters:
            parameter.grad = torch.zeros(1)
        made.step(lambda: 0.0)
    with _refused_as("scheduler"):
        scheduler = schedule(made, steps)
        made.step(lambda: 0.0)  # which torch wants first
        scheduler.step()
        one, other = scheduler.get_last_lr()
        if one == other:
            raise ValueError("sets the same rate whatever sae.lr is, so that names of cells would hold a wrong rate")
    for field, state in (("partial", made.state_dict()), ("scheduler", scheduler.state_dict())):
        with _refused_as(field):
            torch.save(state, file := io.BytesIO())
            torch.load(io.BytesIO(file.getvalue()), weights_only=True)  # as a killed job does


@contextmanager
def _refused_as(field: str) -> Iterator[None]:
    """Inside, whatever a class of a user's raises becomes a refusal of `field`."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(field, "...", f"cannot be used: {error}") from error


class WarmedUp(LRScheduler):
    """The rates of another scheduler, each times the share of the warm-up."""

    def __init__(self, scheduler: LRScheduler, warmup: int) -> None:  # not LRScheduler's, which would take a step
        self.optimizer, self.scheduler, self.warmup = scheduler.optimizer, scheduler, warmup
        self.last_epoch, self.rates = -1, self.get_last_lr()
        self._scale()

    def get_last_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate  # from which some schedulers compute the next
        self.scheduler.step()
        self.rates = self.get_last_lr()
        self._scale()

    def _scale(self) -> None:
        self.last_epoch += 1
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * warm_up(self.last_epoch, self.warmup)

    def state_dict(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler.state_dict(), "step": self.last_epoch, "rates": self.rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self.last_epoch, self.rates = state_dict["step"], state_dict["rates"]
