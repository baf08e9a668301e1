"""How SAEs are shared among the processes of a job, and what of a save is whose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler, OneCycleLR, SequentialLR

from bisae.cells.cell import Cell
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from bisae.training.job import Member
from bisae.training.schedule import WarmedUp, constant
from bisae.training.split_saves import MembersOf, of_group, of_groups
from bisae.training.spread import shares, speedup, spread_over
from tests.conftest import ROOT


def made(*latents: int) -> list[Member]:
    cells = (Cell(Path(), "tiny", 1, 1, "topk", {"number": number}) for number in range(len(latents)))
    return [Member(1, 0.1, {"latents": size}, cell) for size, cell in zip(latents, cells, strict=True)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 12))
def test_every_process_has_members_and_every_member_has_one_process_in_their_order(sizes: list[int], few: int) -> None:
    members = made(*sizes)
    found = shares(members, min(few, len(sizes)))
    assert [member for share in found for member in share] == members and all(found)


@given(st.integers(1, 40), st.integers(1, 40))
def test_members_of_one_size_are_shared_equally(count: int, few: int) -> None:
    sizes = {len(share) for share in shares(made(*[7] * count), min(few, count))}
    assert max(sizes) - min(sizes) <= 1


def test_a_large_member_stands_for_several_small_ones() -> None:
    assert [len(share) for share in shares(made(1, 1, 1, 1, 4), 2)] == [4, 1]
    assert [len(share) for share in shares(made(4, 1, 1, 1, 1), 2)] == [1, 4]


def test_auto_spreads_members_where_there_are_as_many_as_devices() -> None:
    members = made(8, 8, 8)
    assert spread_over("auto", members, Part(1, 2)) == (members[2:], Part(1, 2), ALONE)
    assert spread_over("auto", members, Part(1, 4)) == (members, Part(1, 4), Part(1, 4))
    assert spread_over("ddp", members, Part(1, 2)) == (members, Part(1, 2), Part(1, 2))
    assert spread_over("members", members, ALONE) == (members, ALONE, ALONE)
    with pytest.raises(Refused, match=r"spread=members: .* 3 SAEs to train on 4 devices"):
        spread_over("members", members, Part(1, 4))


def test_ddp_is_called_slower_than_one_process_where_it_was_measured_to_be() -> None:
    rows = json.loads((ROOT / "benchmarks/results/ranks.json").read_text())["rows"]
    measured = {row["batch"]: row["speedup"] for row in rows if row.get("way", "ddp") == "ddp"}
    assert min(measured.values()) < 1 < max(measured.values())
    assert {batch: speedup(batch, 2) < 1 for batch in measured} == {batch: s < 1 for batch, s in measured.items()}
    for batch, found in measured.items():
        assert speedup(batch, 2) == pytest.approx(found, rel=0.3)


def one_cycle(optimizer: SGD) -> LRScheduler:
    return OneCycleLR(optimizer, max_lr=[group["lr"] for group in optimizer.param_groups], total_steps=30)


def in_sequence(optimizer: SGD) -> LRScheduler:
    parts: list[LRScheduler] = [LambdaLR(optimizer, lambda step: 0.5), LambdaLR(optimizer, lambda step: 1 / (1 + step))]
    return SequentialLR(optimizer, parts, milestones=[7])


def warmed_up(optimizer: SGD) -> LRScheduler:
    return WarmedUp(CosineAnnealingWarmRestarts(optimizer, 4), 6)


@pytest.mark.parametrize("scheduler", [lambda optimizer: constant(optimizer, 9), one_cycle, in_sequence, warmed_up])
def test_the_rates_of_some_members_go_on_as_among_all(scheduler: Callable[[SGD], LRScheduler]) -> None:
    def optimizer_of(*rates: float) -> SGD:
        return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates], momentum=0.9)

    def rates_after(steps: int, optimizer: SGD, schedule: LRScheduler) -> list[float]:
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        return [group["lr"] for group in optimizer.param_groups]

    every = optimizer_of(0.1, 0.2, 0.4)
    of_all = scheduler(every)
    rates_after(5, every, of_all)
    some = optimizer_of(0.4, 0.1)
    of_some = scheduler(some)
    groups = every.state_dict()["param_groups"]
    some.load_state_dict({"state": {}, "param_groups": [{**groups[2], "params": [0]}, {**groups[0], "params": [1]}]})
    of_some.load_state_dict(of_groups([of_group(of_all.state_dict(), index, 3) for index in (2, 0)]))
    for _ in range(2):
        first, _, last = rates_after(4, every, of_all)
        assert rates_after(4, some, of_some) == [last, first]


def test_states_of_which_it_is_not_known_whose_they_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"the scheduler's mine may be of its groups"):
        of_group({"base_lrs": [1.0, 2.0], "mine": [3, 4]}, 0, 2)
    saved: dict[str, Any] = {"global_step": 3, "members": ["a", "b"], "processes": 1}
    saved["callbacks"] = {"Mine": {"seen": 1}}
    torch.save(saved, tmp_path / "save.ckpt")
    assert MembersOf(["a", "b"], ["a", "b"], 0).load_checkpoint(tmp_path / "save.ckpt", weights_only=True) == saved
    with pytest.raises(Refused, match=r"a callback's state was saved by 1 processes; go on with spread and devices"):
        MembersOf(["a", "b"], ["b"], 1).load_checkpoint(tmp_path / "save.ckpt", weights_only=True)
