"""The grid: the steps of each model, and the jobs that train them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bisae.cells.recipe import READING
from bisae.config.choices import layers_of, variants
from bisae.grid.lm_shape import LMShape
from bisae.grid.rates import Rates
from bisae.lm.model import FINAL, read_at
from bisae.runtime.errors import Refused
from bisae.runtime.values import listed
from bisae.training.job import cell_identity, training_identity
from bisae.training.start import PREVIOUS

Settings = Mapping[str, Any]  # train.py's config, resolved


STARTED = "a trained SAE"  # stands for `start` in an identity whose cells are not there yet


class Pass(NamedTuple):
    """Layers trained side by side; `rate` is their learning rate where the grid has its own, else None."""

    layers: tuple[int, ...]
    rate: float | None


class PlannedCell(NamedTuple):
    """One SAE of the grid; `known` is the identity of its cell except for checksums of files."""

    step: int
    layer: int
    sae: str
    known: Mapping[str, Any]


@dataclass(frozen=True)
class Ladder:
    """The checkpoints of one LM in the grid, and how its SAEs are trained.

    Attributes:
        preset: name of the LM's config.
        model: name of the LM in cells.
        steps: numbers or `final`.
        settings: config of its jobs.
        rates: learning rate by layer; other layers have the config's.
    """

    preset: str
    model: str
    steps: Sequence[int | str]
    settings: Settings
    shape: LMShape
    rates: Mapping[int, float]

    @classmethod
    def of(cls, preset: str, steps: object, settings: Settings, rates: Rates) -> "Ladder":
        """The ladder of `preset`; steps that are none, or given twice, are refused."""
        asked = listed(steps)
        if not all(map(is_step, asked)):
            raise Refused(preset, steps, f"must be a list of steps, each a number or `{FINAL}`")
        if not asked or len(set(asked)) != len(asked):
            raise Refused(preset, steps, "name at least one step, and each once")
        model = read_at(settings["model"]["name"], settings["model"].get("hook"))
        return cls(preset, model, asked, settings, LMShape.of(settings["model"], asked[-1]), rates.get(model, {}))

    @property
    def layers(self) -> list[int]:
        return layers_of(self.settings["layer"], self.shape.layers)

    @property
    def saes(self) -> list[dict[str, Any]]:
        """The settings of each SAE of a layer, of the one with the largest k where layers have their own."""
        return max(
            (self.saes_of(layer) for layer in self.layers), key=lambda saes: sum(sae.get("k", 0) for sae in saes)
        )

    def saes_of(self, layer: int) -> list[dict[str, Any]]:
        """The settings of each SAE of `layer`."""
        return list(variants(self.settings["sae"], (self.settings["k_by_layer"] or {}).get(layer)))

    @property
    def cells(self) -> int:
        return len(self.steps) * len(self.layers) * len(self.saes)

    def passes(self, members: int) -> list[Pass]:
        """The passes over one checkpoint: layers of one rate in even parts of at most `members` SAEs."""
        passes = []
        by_rate: dict[float | None, list[int]] = {}
        for layer in self.layers:
            by_rate.setdefault(self.rates.get(layer), []).append(layer)
        for rate, layers in by_rate.items():
            count = -(-len(layers) // max(1, members // len(self.saes)))
            cuts = [len(layers) * number // count for number in range(count + 1)]
            passes += [Pass(tuple(layers[low:high]), rate) for low, high in zip(cuts, cuts[1:], strict=False)]
        return passes

    def number(self, step: int | str) -> int:
        """The step as a number, `final` too."""
        if isinstance(step, int):
            return step
        if self.shape.final is None:
            raise Refused("final_step", None, f"give the step of `final` of {self.preset}")
        return self.shape.final

    def places(self) -> Iterator[PlannedCell]:
        """All SAEs of the ladder."""
        reading = {key: self.settings["activations"]["pass"][key] for key in READING}
        known = {**training_identity(self.settings), "activations": reading}
        for number, step in enumerate(self.steps):
            for layer in self.layers:
                for sae in self.saes_of(layer):
                    rate = {"lr": self.rates[layer]} if layer in self.rates else {}
                    start = sae.get("start")
                    begun = STARTED if start is not None and (start != PREVIOUS or number) else None
                    identity = cell_identity(layer, {**sae, **rate}, known, begun)
                    yield PlannedCell(self.number(step), layer, sae["name"], identity)


def is_step(value: object) -> bool:
    """True for a whole number from 0 (not a bool), and for `final`."""
    return value == FINAL or (type(value) is int and value >= 0)


def ladders_of(grid: object, settings_of: Callable[[str], Settings], only: str | None, rates: Rates) -> list[Ladder]:
    """The ladders of a grid.

    Args:
        grid: {preset: steps}.
        settings_of: composes the config of train.py for a preset.
        only: one of the presets, or None for all.
        rates: learning rates of models and layers that have their own.

    Raises:
        Refused: `grid` is no mapping to lists of steps, or `only` is not in it.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise Refused("grid", grid, "must be {model: [step, ...]}")
    if only is not None and only not in grid:
        raise Refused("model", only, f"is not in the grid, which has {', '.join(grid)}")
    return [Ladder.of(name, grid[name], settings_of(name), rates) for name in ([only] if only else grid)]


def existing(folder: Path) -> Path:
    """The folder, or the nearest folder above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
