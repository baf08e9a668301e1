"""Schedules, optimizers and initial weights chosen by keys, in whole jobs of the embedded LM."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.optim.lr_scheduler import StepLR

from bisae.cli.train import train
from tests.training.stopped import assert_same, stop_at, weights

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]


class Sign(torch.optim.Optimizer):
    """An optimizer of a user's own: steps of one length, in the direction of a running mean of gradients."""

    def __init__(self, params: Iterable[Any], lr: float = 1.0, beta: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is not None
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - group["beta"])
                parameter.sub_(mean.sign(), alpha=group["lr"])
        return loss


def halves(optimizer: torch.optim.Optimizer, steps: int) -> StepLR:
    """A scheduler of a user's own."""
    return StepLR(optimizer, step_size=steps // 2, gamma=0.5)


RECIPES = {
    "linear": ["scheduler=linear", "scheduler.final=0.1", "optimizer=adamw", "sae.encoder_norm=0.5"],
    "cosine, blocked": ["scheduler=cosine", "scheduler.begin=0.5", "optimizer=blocked"],
    "own": [
        *(
            "scheduler=own",
            f"scheduler._target_={__name__}.halves",
            "optimizer=own",
            f"optimizer.partial._target_={__name__}.Sign",
        ),
        *("+optimizer.partial.beta=0.9", "optimizer.warmup=5"),
    ],
    "torch's": [
        *("scheduler=own", "scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "+scheduler.T_max=48"),
        *("optimizer=sgd", "optimizer.partial.momentum=0.5", "optimizer.warmup=5", "sae=batch_topk"),
    ],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_stopped_job_ends_as_undisturbed_and_a_member_as_the_cell_trained_alone(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str
) -> None:
    keys = [*RECIPES[recipe], "layer=3", "sae.lr=[0.001,0.004]"]
    undisturbed = train(config(*keys))
    (alone,) = train(config(*keys, "sae.lr=0.004", f"runs={tmp_path}/alone"))
    stop_at(
        30, config(*keys, f"runs={tmp_path}/stopped"), monkeypatch
    )  # of 48 steps, after the saves of steps 7, 14, 21 and 28
    gone_on = train(config(*keys, f"runs={tmp_path}/stopped"))
    for one, other in zip(undisturbed, gone_on, strict=True):
        assert_same(one, other)
    assert_same(next(cell for cell in undisturbed if cell.hash == alone.hash), alone)
    rows = weights(alone)["W_dec"].norm(dim=1)
    torch.testing.assert_close(rows, torch.ones(len(rows)))


def test_what_changes_nothing_is_not_in_a_cells_name_and_what_does_is(config: Config) -> None:
    def names(*keys: str) -> list[str]:
        return [cell.name for cell in train(config("data.epochs=1", *keys))]

    (default,) = names()
    linear = ["scheduler=linear", "scheduler.begin=0.5", "optimizer.partial.betas=[0.9,0.95]"]
    assert names(*linear, "sae.encoder_norm=1", "matmul_precision=highest") == [default]
    constant = names("scheduler=constant")
    assert constant == names("scheduler=cosine", "scheduler.begin=1") == names("size.decay=1") != [default]
    study = names("sae/recipe=study")
    assert study == names("size.lr=3e-3", "size.beta2=0.999", "size.decay=1")
    assert names("matmul_precision=medium") != [default] and torch.get_float32_matmul_precision() == "medium"
    decaying = names("scheduler=linear")
    assert decaying == names("scheduler=linear", "scheduler.final=0", "scheduler.begin=0") != [default]
    shorter = names("sae.encoder_norm=[0.5,1]")
    assert torch.get_float32_matmul_precision() == "highest"
    assert len(set(shorter)) == 2 and default in shorter
    assert (
        len({default, *constant, *study, *decaying, *shorter, *names("scheduler=cosine"), *names("optimizer=adamw")})
        == 7
    )
