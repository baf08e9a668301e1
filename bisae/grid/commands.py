"""The commands that train a grid."""

from collections.abc import Mapping, Sequence
from shlex import quote

from bisae.grid.ladders import Ladder


def commands(
    ladders: Sequence[Ladder],
    members: Mapping[str, int],
    overrides: Sequence[str],
    devices: Mapping[str, int] | None = None,
) -> list[str]:
    """The fewest commands `python train.py -m` that train the grid, each for the models with equal steps and layers.

    Every checkpoint and pass is one job.

    Args:
        members: SAEs trained side by side at most, by preset.
        overrides: part of each command.
        devices: of a job, by preset; None: one.
    """
    together: dict[tuple[str, str, float | None, int], list[str]] = {}
    for ladder in ladders:
        steps, spread = ",".join(map(str, ladder.steps)), (devices or {}).get(ladder.preset, 1)
        by_rate: dict[float | None, list[str]] = {}
        for layers, rate in ladder.passes(members[ladder.preset]):
            whole = list(layers) == list(range(1, ladder.shape.layers + 1))
            by_rate.setdefault(rate, []).append("all" if whole else f"[{','.join(map(str, layers))}]")
        for rate, lists in by_rate.items():
            together.setdefault((steps, ",".join(lists), rate, spread), []).append(ladder.preset)
    return [
        " ".join(
            [
                "python train.py -m",
                *map(quote, overrides),
                f"model={','.join(presets)} checkpoint={steps} {quote(f'layer={layers}')}",
                *([] if rate is None else [f"sae.lr={rate}"]),
                *([] if spread == 1 else [f"trainer.devices={spread}"]),
            ]
        )
        for (steps, layers, rate, spread), presets in together.items()
    ]
