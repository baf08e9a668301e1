"""What one training step costs, in encoder products: python benchmarks/sae_step.py [--json FILE]; see --help.

ratio = a step / one `x @ W_enc.T` of the same shape into memory it already has, timed right before the step. Every
contender is a process of its own, on the same cores; they take turns, a round each. A row is the median of its rounds'
medians. Peers are contenders where --peers names the folder that benchmarks/peers/make.sh made. Before any timing the
step's gradients and selection are compared with dense autograd in float64.

On a CPU with one thread a time is the process' own, so that other processes only disturb it through the caches.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measuring import machine
from steps import OWN as OWN_STEPS
from steps import STEPS
from torch import Tensor
from work import SHAPES, K, Shape, work

from bisae.sae.architectures.triton_topk import triton_objective
from bisae.sae.encoder import Weights
from bisae.sae.kernels.candidates import START, Candidates
from bisae.sae.objective import Objective, sparse_objective, topk_objective

OWN = [step.__name__ for step in OWN_STEPS]  # in the environment of bisae
CONTENDER = Path(__file__).parent / "peers" / "contender.py"
NOISY = 1.2  # a round whose products took this much longer than the quickest of its process is not used
ROUNDS_AT_MOST = 3  # times those asked for, where rounds are not used


def by_candidates(x: Tensor, weights: Weights, k: int) -> Objective:
    """The objective as the default computes it where candidates pay."""
    return sparse_objective(x, weights, Candidates(k, START * k))


def gates(objective: Callable[[Tensor, Weights, int], Objective], device: str = "cpu") -> dict[str, float]:
    """Relative errors of one step against dense autograd in float64. RuntimeError beyond 1e-12, in float32 1e-6."""
    directions, batches = work(Shape(128, 2048, 512), seed=0)
    g = torch.Generator().manual_seed(0)

    def moved(start: torch.Tensor) -> torch.Tensor:
        return start.double() + 0.1 * torch.randn(start.shape, generator=g, dtype=torch.float64)

    latents, d_model = directions.shape
    weights = Weights(moved(directions), moved(torch.zeros(latents)), moved(directions), moved(torch.zeros(d_model)))
    leaves = Weights(*(w.requires_grad_() for w in weights))
    x = batches[0].double()
    pre = (x - leaves.b_pre) @ leaves.W_enc.T + leaves.b_enc
    threshold = pre.detach().topk(K)[0][:, -1:]
    errors = {}
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        found = objective(x.to(device, dtype), Weights(*(w.detach().to(device, dtype) for w in weights)), K)
        kept = found.codes.dense().cpu() > 0
        if ((pre - threshold)[kept != ((pre >= threshold) & (pre > 0))].abs() > 1e-6).any():
            raise RuntimeError(f"{dtype}: other latents were selected than by dense TopK")
        x_hat = (pre * kept) @ leaves.W_dec + leaves.b_pre
        truth = torch.autograd.grad((x_hat - x).square().sum(1).mean(), list(leaves), retain_graph=True)
        for name, gradient, expected in zip(Weights._fields, found.gradients, truth, strict=True):
            errors[f"{name} {dtype}"] = error = float((gradient.cpu().double() - expected).norm() / expected.norm())
            if error > allowed:
                raise RuntimeError(f"{dtype}: the gradient of {name} is off by {error:.1e}")
    return errors


def measure(shape: str, names: Sequence[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each contender, from processes that take turns."""
    processes, about = {}, {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "PYTHONPATH": str(Path(__file__).parents[1])}
    cores = sorted(os.sched_getaffinity(0))[-given.threads :]
    for name in names:
        python = sys.executable if name in OWN else str(given.peers / name / "bin" / "python")
        command = [python, str(CONTENDER), name, shape, str(given.threads), given.device, str(given.pairs)]
        processes[name] = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if given.device == "cpu":
            os.sched_setaffinity(processes[name].pid, cores)
        about[name] = json.loads(_line(processes[name], name))
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(ROUNDS_AT_MOST * given.rounds):
        for name in names:
            if len(_quiet(rounds[name])) < given.rounds:
                print("go", file=processes[name].stdin, flush=True)  # noqa: T201
                rounds[name].append(json.loads(_line(processes[name], name)))
    for process in processes.values():
        process.communicate()
    return [_row(name, shape, about[name], rounds[name], given) for name in names]


def _line(process: "subprocess.Popen[str]", name: str) -> str:
    assert process.stdout
    for line in process.stdout:
        if line.startswith("{"):  # a peer may have something to say
            return line
    raise RuntimeError(f"{name} ended with status {process.wait()}")


def _quiet(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    least = min((bare for found in rounds for bare, _ in found["pairs"]), default=0.0)
    return [found for found in rounds if median(bare for bare, _ in found["pairs"]) <= NOISY * least]


def _row(
    name: str, shape: str, about: dict[str, Any], rounds: list[dict[str, Any]], given: argparse.Namespace
) -> dict[str, Any]:
    used = _quiet(rounds) or rounds
    ratios = [median(step / bare for bare, step in found["pairs"]) for found in used]
    products = [median(bare for bare, _ in found["pairs"]) for found in used]
    steps = [median(step for _, step in found["pairs"]) for found in used]
    size = SHAPES[shape]
    return {
        "name": shape,
        "variant": name,
        "d_model": size.d_model,
        "latents": size.latents,
        "batch": size.batch,
        "dtype": "float32",
        "threads": given.threads,
        "step_seconds": median(steps),
        "product_seconds": median(products),
        "ratio": median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "tokens_per_second": size.batch / median(steps),
        "peak_bytes": used[-1]["peak"],
        "rounds": len(used),
        "rounds_noisy": len(rounds) - len(_quiet(rounds)),  # not used, unless all are
        **about,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where rows are written, after every shape")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B", "C"])
    parser.add_argument("--variants", nargs="*", choices=OWN, help="of bisae's own environment; triton needs a GPU")
    parser.add_argument("--peers", type=Path, help="what peers/make.sh made; its folders are contenders")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3, help="products and steps a round")
    given = parser.parse_args()
    own = given.variants
    if own is None:
        own = [name for name in OWN if name != "triton" or given.device != "cpu"]
    names = [*own, *(name for name in STEPS if given.peers and (given.peers / name).is_dir())]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    about = {"machine": machine(given.device), "cores": os.cpu_count(), **versions}
    result: dict[str, Any] = {**about, "errors": gates(topk_objective), "rows": []}
    others = {"candidates": (by_candidates, "cpu"), "triton": (triton_objective, given.device)}
    for name, (objective, device) in others.items():
        if name != "triton" or name in names:
            result["errors"] |= {f"{name} {part}": error for part, error in gates(objective, device).items()}
    for shape in given.shapes:
        for row in measure(shape, names, given):
            result["rows"].append(row)
            print(  # noqa: T201
                f"{row['name']:12} {row['variant']:20} {row['ratio']:6.2f} "
                f"[{row['ratio_least']:.2f} {row['ratio_most']:.2f}]  {row['tokens_per_second']:9,.0f} tokens/s  "
                f"{row['peak_bytes'] / 2**30:.1f} GiB"
            )
        if given.json:
            given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
