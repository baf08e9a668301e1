"""How the processes of a job share its SAEs (`spread`): each trains members of its own, or all train all by DDP."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from bisae.training.job import Member

log = logging.getLogger("bisae.training.fit")

# What DDP adds to a step of two CPU processes, as the time of so many tokens' work: 540 in a job of 1024 latents, 1250
# at A, 870 at B (benchmarks/ranks.py). Both the work and the gradients grow with latents x d_model.
EXCHANGE = 800


class Spread(NamedTuple):
    """What of a job this process does."""

    members: list[Member]  # that it trains
    part: Part  # it among all processes of the job, which share the LM's work
    rows: Part  # its part of each batch: all rows, where every process trains members of its own

    @property
    def apart(self) -> bool:
        """Whether every process trains members of its own, so that no gradient travels."""
        return self.part.world > self.rows.world

    @property
    def own(self) -> Part:
        """This process among those that each train members of their own; alone if they do not."""
        return self.part if self.apart else ALONE

    @property
    def layers(self) -> list[int]:
        """The layers that this process reads."""
        return sorted({member.layer for member in self.members})


def spread_over(asked: str, members: Sequence[Member], part: Part) -> Spread:
    """The share of one process.

    Args:
        asked: `spread`: auto, members or ddp.
        members: of the job; the same on all processes.
        part: this process among those of the job.

    Raises:
        Refused: `spread`, if it is members and there are fewer than processes.
    """
    few = len(members) < part.world
    if asked == "members" and few:
        remedy = f"ddp lets them share each batch; or give trainer.devices={len(members)}"
        raise Refused("spread", asked, f"there are {len(members)} SAEs to train on {part.world} devices: {remedy}")
    if part.world == 1 or asked == "ddp" or few:
        return Spread(list(members), part, part)
    shared = shares(members, part.world)
    log.info("each of %d devices trains SAEs of its own: %s", part.world, ", ".join(str(len(s)) for s in shared))
    return Spread(shared[part.rank], part, ALONE)


def shares(members: Sequence[Member], world: int) -> list[list[Member]]:
    """The members of each process: at least one, in their order, so that a layer is read by few; equal work if it can.

    The work of a member is taken as its latents: members of a job share batch and d_model.
    """
    rest, found = list(members), []
    for others in range(world - 1, -1, -1):
        fair = sum(_work(member) for member in rest) / (others + 1)
        mine, work = [rest.pop(0)], 0.0
        work += _work(mine[0])
        while len(rest) > others and (not others or work + _work(rest[0]) / 2 <= fair):
            work += _work(rest[0])
            mine.append(rest.pop(0))
        found.append(mine)
    return found


def _work(member: Member) -> int:
    return int(member.settings["latents"])


def warn_of_slow_ddp(spread: Spread, batch: int, d_model: int, accelerator: str) -> None:
    """Say so if DDP is slower than one process would be: by the benchmarks, on CPUs; GPUs were not measured."""
    world = spread.rows.world
    if world == 1 or spread.part.rank > 0 or accelerator != "cpu":
        return
    times = speedup(batch, world)
    if times < 1:
        values = sum(2 * _work(member) * d_model + _work(member) + d_model for member in spread.members)
        log.warning(
            "DDP sends %.3g MB of gradients each step, for the work of %d tokens a process: about %.1f times as fast "
            "as one process, by benchmarks/ranks.py; trainer.devices=1 is quicker, and so are as many SAEs as devices",
            *(4e-6 * values, batch // world, times),
        )


def speedup(batch: int, world: int) -> float:
    """How many times as fast as one process DDP on `world` CPU processes is, with `batch` tokens a step.

    A ring passes on 2 (world - 1) / world of the gradients; for two processes that is all of them once.
    """
    return 1 / (1 / world + 2 * (world - 1) / world * EXCHANGE / batch)
