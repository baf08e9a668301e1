"""The plan in the terminal."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bisae.activations.registry import STORES
from bisae.grid.store_choice import StoreChoice
from bisae.runtime.console import counted, say, wide

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def si(count: int | float, unit: str = "") -> str:
    """The count with three digits and a decimal prefix: 1 G = 10^9."""
    power = min(len(PREFIXES) - 1, (len(str(int(count))) - 1) // 3)
    return f"{count / 1000**power:.3g} {PREFIXES[power]}{unit}".strip()


def size(count: int | float) -> str:
    """The count as bytes."""
    return si(count, "B")


def duration(hours: float) -> str:
    """The hours in the unit that reads best, from seconds to days."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"


def show(choice: StoreChoice, contexts: int, commands: Sequence[str], console: Console | None = None) -> None:
    """Print the plan; long lines are not wrapped."""
    console = console or wide()
    line = partial(say, console=console)
    device, costs = choice.device, choice.costs[choice.store]
    checkpoints = sum(len(cost.ladder.steps) for cost in costs)
    cells = sum(cost.ladder.cells for cost in costs)
    passes = sum(len(cost.ladder.steps) * len(cost.passes) for cost in costs)
    jobs = f"their layers in {passes} passes, a job each (activations={choice.store})"
    line(f"{counted(cells, 'cell')}: {counted(checkpoints, 'checkpoint')}, {jobs}")
    console.print(_models(choice))
    memory = size(device.memory) if device.memory else "works in RAM"
    line(f"\nOn {device.count} x {device.name} (memory {memory}, RAM {size(device.ram)} each), {_speeds(choice)}:")
    console.print(_stores(choice))
    for store, reason in choice.refused.items():
        line(f"  {store} does not work: {reason}")
    of_cells = sum(cost.result_bytes for cost in costs)
    saves = size(choice.results - of_cells)
    patterns = size(sum(cost.pattern_bytes(contexts) for cost in costs))
    codes = size(sum(cost.code_bytes for cost in costs))
    line(f"\nCells {size(of_cells)}, saves of running jobs {saves}. Free disk: {size(choice.free)}.")
    line(f"Analysing them: contexts at most {patterns} uncompressed, codes {codes} if none are deleted.")
    if not choice.fits(choice.store):
        line("The disk is too small: give another by cache= and runs=, or machine.free_gib=", "bold")
    line(f"\nThe commands, with activations={choice.store} (the quickest that fits) unless given:")
    for command in commands:
        line(f"  {command}")


def _models(choice: StoreChoice) -> Table:
    table = Table(
        *("model", "d_model", "LM params", "steps", "layers", "SAEs", "jobs", "SAEs a job", "devices a job"),
        *("LM reads", "LM tokens", "SAE + optimizer a job", "memory a device", "RAM a job", "cells", "FLOP"),
        box=None,
        header_style="bold",
    )
    for cost in choice.costs[choice.store]:
        ladder, shape = cost.ladder, cost.ladder.shape
        members = max(len(part.layers) for part in cost.passes) * len(ladder.saes)
        table.add_row(
            Text(ladder.preset),
            str(shape.d_model),
            si(shape.parameters(shape.layers)),
            str(len(ladder.steps)),
            str(len(ladder.layers)),
            f"{ladder.cells:,}",
            str(len(ladder.steps) * len(cost.passes)),
            str(members),
            str(cost.devices),
            str(cost.lm_passes),
            si(cost.lm_passes * cost.tokens),
            size(cost.sae_bytes(members)),
            size(cost.job_memory(members)),
            size(cost.job_ram(members)),
            size(cost.result_bytes),
            si(cost.lm_flops + cost.sae_flops),
        )
    return table


def _stores(choice: StoreChoice) -> Table:
    table = Table(
        *("activations=", "LM reads", "LM FLOP", "SAE FLOP", "on disk while running", "if all are kept", "moved"),
        *("device time", f"{choice.device.count} at once", ""),
        box=None,
        header_style="bold",
    )
    for store in STORES:
        if store in choice.costs:
            costs, hours = choice.costs[store], choice.hours(store)
            kept = sum(cost.activation_bytes * len(cost.ladder.steps) for cost in costs) if STORES[store].shared else 0
            table.add_row(
                store,
                str(sum(cost.lm_passes for cost in costs)),
                si(sum(cost.lm_flops for cost in costs)),
                si(sum(cost.sae_flops for cost in costs)),
                size(choice.job_bytes(store)),
                size(kept) if kept else "",
                size(sum(cost.moved_bytes for cost in costs)),
                duration(hours),
                duration(hours / choice.device.count),
                "" if choice.fits(store) else "the disk is too small",
            )
    return table


def _speeds(choice: StoreChoice) -> str:
    """Each speed, from the slowest ladder's to the quickest's, and where it comes from."""
    parts = []
    for number, (name, key, unit) in enumerate((("LM", "lm", 1e12), ("SAE", "sae", 1e12), ("disk", "disk", 1e9))):
        values = [getattr(speeds, key) / unit for speeds in choice.speeds]
        low, high = f"{min(values):.3g}", f"{max(values):.3g}"
        sources = " and ".join(sorted({speeds.sources[number] for speeds in choice.speeds}))
        of = "GB/s" if key == "disk" else "TFLOP/s"
        parts.append(f"{name} {low if low == high else f'{low} to {high}'} {of} ({sources})")
    return ", ".join(parts)
