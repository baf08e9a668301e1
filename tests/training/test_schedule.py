"""Schedules against those of torch and transformers; rates are Python's floats, of 64 bits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from bisae.runtime.errors import Refused
from bisae.training.schedule import check_schedule, constant, cosine, linear, schedule_of

STEPS, WARMUP, LR = 20, 4, (8.0, 2.0)  # two members
LAST: dict[str, Any] = {"begin": 0.0, "final": 0.0}


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in LR], lr=1, momentum=0.9
    )


def rates(scheduler: Callable[..., Any], warmup: int = WARMUP, stop: int | None = None) -> list[list[float]]:
    """The members' rates of each step; with `stop` training is stopped before that step, and goes on from its state."""
    found, made = [], optimizer()
    schedule = schedule_of(scheduler, warmup)(made, STEPS)
    for step in range(STEPS):
        if step == stop:
            states = made.state_dict(), schedule.state_dict()
            made = optimizer()
            schedule = schedule_of(scheduler, warmup)(made, STEPS)
            made.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        found.append([group["lr"] for group in made.param_groups])
        assert schedule.get_last_lr() == found[-1]
        made.step()
        schedule.step()
    return found


def plain(scheduler: Callable[..., Any], steps: int = STEPS) -> list[list[float]]:
    """The same of a scheduler alone, without warm-up."""
    found, made = [], optimizer()
    schedule = scheduler(made)
    for _ in range(steps):
        found.append([group["lr"] for group in made.param_groups])
        made.step()
        schedule.step()
    return found


def test_the_rate_rises_linearly_and_then_stays() -> None:
    assert [rate for rate, _ in rates(constant)[:6]] == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert all(one == 4 * other for one, other in rates(constant))
    assert [rate for rate, _ in rates(constant, warmup=1)] == STEPS * [8.0]


@pytest.mark.parametrize(
    ("ours", "of_transformers"),
    [(linear, get_linear_schedule_with_warmup), (cosine, get_cosine_schedule_with_warmup)],
)
def test_after_the_warm_up_a_decay_to_0_is_that_of_transformers(
    ours: Callable[..., LRScheduler], of_transformers: Callable[..., LRScheduler]
) -> None:
    theirs = plain(partial(of_transformers, num_warmup_steps=WARMUP, num_training_steps=STEPS))
    found = rates(partial(ours, **LAST))
    assert found[:WARMUP] == rates(constant)[:WARMUP]
    torch.testing.assert_close(found[WARMUP:], theirs[WARMUP:], rtol=1e-14, atol=0)


def test_a_decay_that_begins_late_and_ends_above_0_is_that_of_torch() -> None:
    begun = 15  # of 20
    settings: dict[str, Any] = {"begin": 0.75, "final": 0.1}
    falling = plain(partial(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=STEPS - begun), STEPS - begun)
    found = rates(partial(linear, **settings))
    assert found[:begun] == rates(constant)[:begun]
    torch.testing.assert_close(found[begun:], falling, rtol=1e-14, atol=0)
    curved = plain(partial(CosineAnnealingLR, T_max=STEPS - begun, eta_min=0.8), STEPS - begun)
    torch.testing.assert_close(
        [one for one, _ in rates(partial(cosine, **settings))[begun:]], [one for one, _ in curved], rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("decay", [linear, cosine])
def test_a_decay_ends_one_step_after_the_last_and_stays_within_its_bounds(decay: Callable[..., LRScheduler]) -> None:
    for begin in (0, 0.5, 0.99):
        found = [rate for rate, _ in rates(partial(decay, begin=begin, final=0.25))]
        assert max(found) == found[WARMUP - 1] == 8.0 and found[WARMUP:] == sorted(found[WARMUP:], reverse=True)
        assert found[-1] > 8.0 * 0.25 or begin == 0.99
    assert rates(partial(decay, begin=1, final=0)) == rates(constant)


@pytest.mark.parametrize("decay", [linear, cosine])
def test_a_warm_up_as_long_as_the_training_goes_on_during_the_decay(decay: Callable[..., LRScheduler]) -> None:
    falling = [rate / 8.0 for rate, _ in rates(partial(decay, begin=0.5, final=0), warmup=1)]
    rising = [rate for rate, _ in rates(constant, warmup=2 * STEPS)]
    found = [rate for rate, _ in rates(partial(decay, begin=0.5, final=0), warmup=2 * STEPS)]
    assert found == pytest.approx([one * other for one, other in zip(rising, falling, strict=True)], rel=1e-14)


OWN: dict[str, Callable[..., Any]] = {
    "closed form": partial(PolynomialLR, total_iters=STEPS, power=2),
    "recursive": partial(CosineAnnealingLR, T_max=STEPS, eta_min=0.1),
    "each from the last": partial(ExponentialLR, gamma=0.9),
    "with momentum": partial(CyclicLR, base_lr=[0.1, 0.2], max_lr=[4.0, 3.0], step_size_up=3),
}


@pytest.mark.parametrize("name", OWN)
def test_the_rates_of_another_scheduler_are_multiplied_by_the_warm_up(name: str) -> None:
    warm = [min(1.0, (step + 1) / WARMUP) for step in range(STEPS)]
    expected = [[share * rate for rate in both] for share, both in zip(warm, plain(OWN[name]), strict=True)]
    torch.testing.assert_close(rates(OWN[name]), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scheduler", [*OWN.values(), constant, partial(linear, **LAST), partial(cosine, **LAST)])
@pytest.mark.parametrize("stop", [2, 11])
def test_going_on_from_a_state_gives_the_same_rates(scheduler: Callable[..., Any], stop: int) -> None:
    assert rates(scheduler, stop=stop) == rates(scheduler)


class Unsaved(ConstantLR):
    """Whose state no save can hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"path": Path()}


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (partial(StepLR, step_size=0), "zero"),
        (ReduceLROnPlateau, "metrics"),
        (partial(OneCycleLR, max_lr=0.1, total_steps=9), "same rate whatever sae.lr is"),
        (partial(Unsaved, factor=0.5), "weights_only"),
        (torch.nn.Identity, "must make a torch.optim.lr_scheduler.LRScheduler"),
    ],
)
def test_a_scheduler_that_cannot_work_is_refused_before_any_work(scheduler: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        check_schedule(torch.optim.Adam, schedule_of(scheduler, 2), 9)
    assert refused.value.field == "scheduler"


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (partial(torch.optim.Adam, betas=(2, 3)), "beta"),
        (torch.optim.LBFGS, "parameter groups"),
        (torch.optim.SparseAdam, "dense gradients"),
        (AdamWScheduleFree, "train mode"),
    ],
)
def test_an_optimizer_that_cannot_take_a_step_is_refused_before_any_work(optimizer: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        check_schedule(optimizer, schedule_of(constant, 2), 9)
    assert refused.value.field == "partial"
    check_schedule(torch.optim.RAdam, schedule_of(constant, 2), 9)


def test_a_scheduler_that_asks_for_the_number_of_steps_is_given_it() -> None:
    def halves(optimizer: torch.optim.Optimizer, steps: int) -> StepLR:
        return StepLR(optimizer, step_size=steps // 2, gamma=0.5)

    assert [rate for rate, _ in rates(halves)] == [2.0, 4.0, 6.0, *7 * [8.0], *10 * [4.0]]
    with pytest.raises(TypeError, match="makes a float"):
        rates(lambda optimizer: 1.0)
