"""Two CPU ranks beside one process, one thread each: python benchmarks/ranks.py [--json FILE].

`exchange` is an all_reduce of as many bytes as there are gradients, alone: what no arrangement can hide where backward
gives all gradients at its end. `one` is a step of the whole batch in one process, `two` of its halves under DDP as in
training. `speedup` is one / two, `allowed` what it would be if two took half of one and the exchange. Times are of the
wall, so it needs two idle cores.
"""

import json
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from feed import SIZES, reading
from measuring import in_turn, options, ratio, show, write
from members import job
from torch import distributed, multiprocessing

from bisae.activations.feed import Feed
from bisae.runtime.ranks import Part

WORLD = 2


def rank_main(rank: int, folder: str, name: str, rounds: int) -> None:
    """One of the ranks; 0 leaves the times in `folder`."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", timedelta(minutes=5), WORLD, rank)
    shape, _ = SIZES[name]
    rows, order = reading(Path(folder), shape, pools=1)
    alone = job(1, name, Feed(rows, [1], order, epochs=1))
    shared = job(1, name, Feed(rows, [1], order, 1, Part(rank, WORLD)), WORLD)
    values = 2 * shape.latents * shape.d_model + shape.latents + shape.d_model
    gradients = torch.ones(values)
    works = {
        "ready": distributed.barrier,
        "exchange": lambda: distributed.all_reduce(gradients),
        "again": distributed.barrier,
        "one": alone if rank == 0 else lambda: None,
        "waited": distributed.barrier,
        "two": shared,
    }
    times = in_turn(works, rounds, time.perf_counter)
    if rank == 0:
        (Path(folder) / "times.json").write_text(json.dumps(times))
    distributed.destroy_process_group()


def measure(name: str, rounds: int) -> dict[str, Any]:
    """A row: seconds of each, the speed-up and what the exchange allows."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (folder, name, rounds), nprocs=WORLD)
        times = json.loads((Path(folder) / "times.json").read_text())
    shape, k = SIZES[name]
    times["allowed"] = [one / 2 + exchange for one, exchange in zip(times["one"], times["exchange"], strict=True)]
    return {
        "name": name,
        **shape._asdict(),
        "k": k,
        **{f"{work}_seconds": min(times[work]) for work in ("exchange", "one", "two")},
        "speedup": ratio(times, "one", "two"),
        "allowed": ratio(times, "one", "allowed"),
    }


def main() -> None:
    given = options(__doc__).parse_args()
    found = []
    for name in ["default"] if given.smoke else SIZES:
        found.append(measure(name, given.rounds))
        show(found[-1])
        write(given.json, found)


if __name__ == "__main__":
    main()
