"""A process that trains one contender, a round a line on stdin, and prints what it took as a line of JSON.

python contender.py NAME SHAPE THREADS DEVICE PAIRS
"""

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from steps import STEPS
from work import SHAPES, work

WARM_UPS = 2


def main(name: str, shape: str, threads: int, device: str, pairs: int) -> None:
    torch.set_num_threads(threads)
    cuda = device.startswith("cuda")
    # The process' own time on one thread: other processes on the core do not count, page faults do.
    clock = time.perf_counter if cuda or threads > 1 else time.process_time
    directions, batches = work(SHAPES[shape], seed=0)
    directions, batches = directions.to(device), [x.to(device) for x in batches]
    product = torch.empty(SHAPES[shape].batch, SHAPES[shape].latents, device=device)
    step = STEPS[name](directions.clone())

    def seconds(run: Callable[[], object]) -> float:
        if cuda:
            torch.cuda.synchronize()
        start = clock()
        run()
        if cuda:
            torch.cuda.synchronize()
        return clock() - start

    for number in range(WARM_UPS):
        step(batches[number])
    done = 0
    print(json.dumps({"torch": torch.__version__, "clock": clock.__name__}), flush=True)  # noqa: T201
    for _ in sys.stdin:
        found = []
        for _ in range(pairs):
            x = batches[done % len(batches)]
            bare = seconds(lambda: torch.mm(x, directions.T, out=product))  # noqa: B023
            found.append((bare, seconds(lambda: step(x))))  # noqa: B023
            done += 1
        peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"pairs": found, "peak": peak}), flush=True)  # noqa: T201


if __name__ == "__main__":
    name, shape, threads, device, pairs = sys.argv[1:]
    main(name, shape, int(threads), device, int(pairs))
