"""Where a step's time goes, in units of its product: python benchmarks/stages.py [--json FILE].

The autograd form of sae_step.py under PyTorch's profiler, by operator, time within others left out; the profiler itself
makes the many small ones look dearer than they are.
"""

from collections import defaultdict
from typing import Any

import torch
from measuring import options, show, write
from steps import autograd
from torch.profiler import ProfilerActivity, profile
from work import SHAPES, work

STAGES = {  # part of an operator's name: what it does in a step
    "sampled_addmm": "gradient of the activations",  # before the next, which is part of it
    "addmm": "encoder product",
    "topk": "selection",
    "amax": "selection",
    "gather": "selection",
    "embedding_bag": "decode and both weight gradients",
    "sort": "transpose of the code",
    "adam": "Adam",
}


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    directions, batches = work(SHAPES[name], seed=0)
    step = autograd(directions.clone())
    for x in batches[:2]:
        step(x)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for number in range(rounds):
            step(batches[number % len(batches)])
    seconds: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        stage = next((stage for part, stage in STAGES.items() if part in event.key.lower()), "rest")
        seconds[stage] += event.self_cpu_time_total / 1e6 / rounds
    product = seconds["encoder product"]
    ordered = sorted(seconds.items(), key=lambda one: -one[1])
    return [{"name": name, "stage": stage, "seconds": time, "of_product": time / product} for stage, time in ordered]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B", "C"])
    given = parser.parse_args()
    torch.manual_seed(0)
    found = []
    for name in ["smoke"] if given.smoke else given.shapes:
        for row in measure(name, given.rounds):
            show(row)
            found.append(row)
        write(given.json, found)


if __name__ == "__main__":
    main()
