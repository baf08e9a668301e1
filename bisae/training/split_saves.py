"""Any number of processes goes on from a save, whose files each hold some members of the job.

Each file is a checkpoint of Lightning's with `members`, the names of the cells it holds in their order; the first says
of how many `processes` there are files.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from bisae.runtime.errors import Refused
from bisae.training.save_files import parts_of

KINDS = 4  # of parts that `SAETraining` has for each member, all of one kind after another
OF_GROUPS = ("base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs", "base_momentums", "max_momentums", "rates")
OF_SCHEDULES = ("_schedulers", "_milestones", "_schedule_phases")  # of torch's schedulers; other lists are not known

State = Mapping[str, Any]


class _Member(NamedTuple):
    """What a save holds of one member."""

    weights: dict[tuple[int, str], Any]  # by kind of part and name
    group: dict[str, Any]  # of the optimizer, with `params` counted from 0
    states: dict[int, Any]  # of the optimizer, by parameter
    rates: State  # of the scheduler, where a list for each group has become its own value
    extra: Any
    failed: str | None


class MembersOf(TorchCheckpointIO):
    """Loads the members of one process from a save of any number of processes."""

    def __init__(self, members: Sequence[str], mine: Sequence[str], part: int) -> None:
        """The checkpoints of a job.

        Args:
            members: names of the cells of the job, in their order.
            mine: those of this process.
            part: its number.
        """
        self.members, self.mine, self.part = list(members), list(mine), part

    def load_checkpoint(self, path: Any, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """The checkpoint as this process would have saved it.

        Raises:
            Refused: `spread`, if there is a state of which it is not known whose it is.
        """
        whole = super().load_checkpoint(path, *arguments, **keywords)
        files = parts_of(Path(path), whole["global_step"], whole.get("processes", 1))
        held = whole.get("members", self.members)  # saves of older versions do not say it
        if self.part < len(files) > 1:
            own = whole if self.part == 0 else super().load_checkpoint(files[self.part], *arguments, **keywords)
            if own["members"] == self.mine:
                return own
        elif held == self.mine:
            return whole
        if any(whole.get("callbacks", {}).values()):
            remedy = f"a callback's state was saved by {len(files)} processes; go on with spread and devices as before"
            raise Refused("spread", "...", remedy)
        if "extra_states" not in whole:
            raise Refused(
                "spread", "...", "the save is of an older version; go on with devices as before, or spread=ddp"
            )
        found = _members(whole, held, self.mine)
        for file in files[1:]:
            part = super().load_checkpoint(file, *arguments, **keywords)
            found |= _members(part, part["members"], self.mine)
        return whole | _joined(whole, [found[name] for name in self.mine], self.mine)


def _members(checkpoint: State, held: Sequence[str], wanted: Sequence[str]) -> dict[str, _Member]:
    """The `wanted` ones of the members that a checkpoint holds."""
    (optimizer,), (scheduler,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    weights: dict[str, dict[tuple[int, str], Any]] = {name: {} for name in held}
    for key, value in checkpoint["state_dict"].items():
        _, number, name = key.split(".", 2)
        kind, index = divmod(int(number), len(held))
        weights[held[index]][kind, name] = value
    found = {}
    for index, name in enumerate(held):
        if name in wanted:
            group = optimizer["param_groups"][index]
            states = {n: optimizer["state"][one] for n, one in enumerate(group["params"]) if one in optimizer["state"]}
            own = {**group, "params": list(range(len(group["params"])))}
            rates, extra = of_group(scheduler, index, len(held)), checkpoint["extra_states"][index]
            found[name] = _Member(weights[name], own, states, rates, extra, checkpoint["failed"].get(index))
    return found


def _joined(whole: State, members: Sequence[_Member], names: Sequence[str]) -> dict[str, Any]:
    """What of a checkpoint is about its members, for these."""
    count = len(members)
    weights = {
        f"parts.{kind * count + index}.{name}": value
        for kind in range(KINDS)
        for index, member in enumerate(members)
        for (of, name), value in member.weights.items()
        if of == kind
    }
    groups: list[dict[str, Any]] = []
    states: dict[int, Any] = {}
    for member in members:
        first = sum(len(group["params"]) for group in groups)
        groups.append({**member.group, "params": [first + number for number in member.group["params"]]})
        states |= {first + number: state for number, state in member.states.items()}
    return {
        "state_dict": weights,
        "optimizer_states": [{**whole["optimizer_states"][0], "state": states, "param_groups": groups}],
        "lr_schedulers": [of_groups([member.rates for member in members])],
        "failed": {index: member.failed for index, member in enumerate(members) if member.failed is not None},
        "extra_states": {index: member.extra for index, member in enumerate(members)},
        "members": list(names),
        "processes": 1,
    }


def of_group(state: State, index: int, count: int) -> dict[str, Any]:
    """The state of a scheduler with the values of one of `count` parameter groups."""
    found: dict[str, Any] = {}
    for key, value in state.items():
        if key in OF_GROUPS and isinstance(value, list) and len(value) == count:
            found[key] = value[index]
        elif isinstance(value, list) and len(value) == count > 1 and key not in OF_SCHEDULES:
            remedy = f"the scheduler's {key} may be of its groups; go on with spread and devices as before"
            raise Refused("spread", "...", remedy)
        else:
            found[key] = _nested(value, lambda one: of_group(one, index, count))
    return found


def of_groups(states: Sequence[State]) -> dict[str, Any]:
    """The state of a scheduler from those of its groups."""
    found: dict[str, Any] = {}
    for key, value in states[0].items():
        if key in OF_GROUPS:
            found[key] = [state[key] for state in states]
        elif isinstance(value, Mapping):
            found[key] = of_groups([state[key] for state in states])
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            found[key] = [of_groups([state[key][number] for state in states]) for number in range(len(value))]
        else:
            found[key] = value
    return found


def _nested(value: Any, of: Any) -> Any:
    """A value in which `of` has been done to each mapping of a scheduler inside."""
    if isinstance(value, Mapping):
        return of(value)
    if isinstance(value, list):
        return [_nested(one, of) for one in value]
    return value


def named_parts(save: Path) -> Iterator[Path]:
    """The files of a save besides its first one."""
    first = torch.load(save, mmap=True, weights_only=True)
    yield from parts_of(save, first.get("global_step", 0), first.get("processes", 1))[1:]
