"""The activation store for a grid: the quickest one whose files and memory fit."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from pathlib import Path
from typing import Any

from bisae.activations.registry import STORES
from bisae.grid.cost import Cost
from bisae.grid.device import GIB, Device, Speeds
from bisae.grid.ladders import Ladder, existing
from bisae.runtime.errors import Refused


@dataclass(frozen=True)
class StoreChoice:
    """The cost of each ladder with each store; `refused` has the reason for stores that do not fit."""

    device: Device
    costs: Mapping[str, Sequence[Cost]]
    refused: Mapping[str, str]
    speeds: Sequence[Speeds]

    @classmethod
    def of(cls, ladders: Sequence[Ladder], device: Device, most: int | None) -> "StoreChoice":
        """Compute the costs; `most`: SAEs trained side by side, None for as many as fit. Refused if no store fits."""
        costs: dict[str, list[Cost]] = {}
        speeds = [device.speeds(ladder) for ladder in ladders]
        refused: dict[str, str] = {}
        for store in STORES:
            try:
                pairs = zip(ladders, speeds, strict=True)
                costs[store] = [_spread(ladder, store, device, most, of) for ladder, of in pairs]
            except Refused as error:
                refused[store] = str(error)
        if not costs:
            raise Refused("machine", device.name, "; ".join(refused.values()))
        return cls(device, costs, refused, speeds)

    @property
    def ladders(self) -> list[Ladder]:
        return [cost.ladder for cost in next(iter(self.costs.values()))]

    def hours(self, store: str) -> float:
        """Hours that one device takes."""
        return sum(cost.hours(speeds) for cost, speeds in zip(self.costs[store], self.speeds, strict=True))

    def job_bytes(self, store: str) -> int:
        """Bytes of activations on disk while the jobs of all devices run; jobs of one checkpoint share a cache."""
        alone = not STORES[store].shared
        return self._at_once(
            (cost.activation_bytes, len(cost.ladder.steps) * (len(cost.passes) if alone else 1), cost.devices)
            for cost in self.costs[store]
        )

    def _at_once(self, jobs: Iterable[tuple[int, int, int]]) -> int:
        """The most bytes that jobs on all devices take together; `jobs`: (bytes, how many jobs, devices of each)."""
        shares = (-(-size // devices) for size, count, devices in jobs for _ in range(count * devices))
        return sum(nlargest(self.device.count, shares))

    @cached_property
    def free(self) -> int | float:
        """Bytes free for activations and cells."""
        if self.device.free_gib is not None:
            return self.device.free_gib * GIB
        return shutil.disk_usage(existing(Path(self.ladders[0].settings["cache"]))).free

    @property
    def results(self) -> int:
        """Bytes of all cells, and of the saves of the jobs that run at the same time."""
        costs = next(iter(self.costs.values()))
        saves = self._at_once(
            (cost.save_bytes, len(cost.ladder.steps) * len(cost.passes), cost.devices) for cost in costs
        )
        return sum(cost.result_bytes for cost in costs) + saves

    @property
    def store(self) -> str:
        """The recommended store: the quickest that fits, or the first of equals."""
        return min([store for store in self.costs if self.fits(store)] or self.costs, key=self.hours)

    def fits(self, store: str) -> bool:
        """True if cells, saves and activations fit on the disk."""
        return self.results + self.job_bytes(store) <= self.free

    @property
    def members(self) -> dict[str, int]:
        """SAEs trained side by side, by preset."""
        return {cost.ladder.preset: cost.members for cost in self.costs[self.store]}

    @property
    def devices(self) -> dict[str, int]:
        """Devices of a job, by preset."""
        return {cost.ladder.preset: cost.devices for cost in self.costs[self.store]}

    def overrides(self, typed: Sequence[str]) -> list[str]:
        """Overrides that choose the recommended store and its disk budget, except those that are typed."""
        budget = -(-self.job_bytes(self.store) // GIB) + 1
        chosen: dict[str, Any] = {"activations": self.store}
        if STORES[self.store].on_disk:
            chosen["activations.disk_gib"] = budget
        if STORES[self.store].shared and sum(len(ladder.steps) for ladder in self.ladders) > self.device.count:
            chosen["activations.evict"] = "true"
        keys = {override.lstrip("+").split("=")[0] for override in typed}
        return [] if "activations" in keys else [f"{key}={value}" for key, value in chosen.items() if key not in keys]


def _spread(ladder: Ladder, store: str, device: Device, most: int | None, speeds: Speeds) -> Cost:
    """The cost with as many devices a job as take the least time, of equal times the fewest.

    Raises:
        Refused: nothing fits on any number of devices.
    """
    costs, reason = [], None
    for devices in (2**power for power in range(min(device.per_job, device.count).bit_length())):
        try:
            cost = Cost(ladder, store, device, most, devices)
        except Refused as error:
            reason = reason or error
        else:
            if cost.members >= devices:
                costs.append(cost)
    if not costs:
        assert reason
        raise reason
    return min(costs, key=lambda cost: cost.hours(speeds))
