"""Two CPU ranks beside one process, one thread each: python benchmarks/ranks.py [--json FILE] [--cpu] [--shapes A].

DDP (`ddp`): `one` is a step of a job with one member in one process, `two` of halves of the batch under DDP as in
training. `exchange` is an all_reduce of as many bytes as there are gradients, alone: what no arrangement can hide where
backward gives all gradients at its end. `speedup` is one / two, `allowed` what it would be if two took half of one and
the exchange.

Members (`members`): `one` is a step of a job with four members in one process, `two` of two members on each rank with
the message that a training step has (whether any rank was told to stop). `speedup` is one / two.

Times are of the wall, so it needs two idle cores. With --cpu they are the CPU time of the slower rank, which says
what two idle cores would take of the wall but for what the ranks disturb each other: memory, caches and messages.
"""

import json
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from feed import SIZES, reading
from measuring import Times, in_turn, options, ratio, show, write
from members import MEMBERS, job
from torch import distributed, multiprocessing

from bisae.activations.feed import Feed
from bisae.runtime.ranks import ALONE, Part

WORLD = 2
Works = dict[str, Callable[[], object]]


def ddp(feed: Callable[[Part], Feed], name: str, part: Part) -> Works:
    """A step in one process and on all ranks, each with its part of the batch."""
    shape, _ = SIZES[name]
    gradients = torch.ones(2 * shape.latents * shape.d_model + shape.latents + shape.d_model)
    return {
        "exchange": lambda: distributed.all_reduce(gradients),
        "again": distributed.barrier,
        "one": job(1, name, feed(ALONE)) if part.rank == 0 else lambda: None,
        "waited": distributed.barrier,
        "two": job(1, name, feed(part), WORLD),
    }


def members(feed: Callable[[Part], Feed], name: str, part: Part) -> Works:
    """A step in one process and on all ranks, each with its share of the members."""
    share, told = job(MEMBERS // WORLD, name, feed(ALONE), WORLD, part), torch.zeros(1)

    def step() -> None:
        share()
        distributed.all_reduce(told)

    return {
        "one": job(MEMBERS, name, feed(ALONE)) if part.rank == 0 else lambda: None,
        "waited": distributed.barrier,
        "two": step,
    }


WAYS = {"ddp": ddp, "members": members}


def rank_main(rank: int, folder: str, way: str, name: str, rounds: int, cpu: bool) -> None:
    """One of the ranks; each leaves its times in `folder`."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", timedelta(minutes=5), WORLD, rank)
    shape, _ = SIZES[name]
    rows, order = reading(Path(folder), shape, pools=1)
    works = WAYS[way](lambda part: Feed(rows, [1], order, 1, part), name, Part(rank, WORLD))
    clock = time.process_time if cpu else time.perf_counter
    times = in_turn({"ready": distributed.barrier, **works}, rounds, clock)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(times))
    distributed.destroy_process_group()


def measure(way: str, name: str, rounds: int, cpu: bool) -> dict[str, Any]:
    """A row: seconds of each, the speed-up and, of DDP, what the exchange allows."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (folder, way, name, rounds, cpu), nprocs=WORLD)
        times, other = (json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(WORLD))
    if cpu:
        times["two"] = [max(pair) for pair in zip(times["two"], other["two"], strict=True)]
    shape, k = SIZES[name]
    about = {"way": way, "name": name, **shape._asdict(), "k": k, "clock": "cpu" if cpu else "wall"}
    about |= {f"{work}_seconds": min(times[work]) for work in ("exchange", "one", "two") if work in times}
    return {**about, "speedup": ratio(times, "one", "two"), **_allowed(times)}


def _allowed(times: Times) -> dict[str, float]:
    if "exchange" not in times:
        return {}
    times["least"] = [one / 2 + exchange for one, exchange in zip(times["one"], times["exchange"], strict=True)]
    return {"allowed": ratio(times, "one", "least")}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--cpu", action="store_true", help="CPU time, for a busy machine")
    given = parser.parse_args()
    found = []
    for way in given.ways:
        for name in ["default"] if given.smoke else given.shapes:
            found.append(measure(way, name, given.rounds, given.cpu))
            show(found[-1])
            write(given.json, found)


if __name__ == "__main__":
    main()
