"""Which interventions are made: kinds of features and their controls, at each coefficient."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from bisae.edits.operation import ALONE, MODES, NORMS, Edit, FeatureEdit
from bisae.edits.steering import Steering
from bisae.intervention.kinds import ALL, NONE, feature_set, kind_of
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.random_sets import RandomSets, widening
from bisae.runtime.errors import Refused

STEER = "steer"
RANDOM, SHUFFLED, SELF = "random", "shuffled", "self"
OTHERS, WHATEVER = "others", "all"  # where random features are drawn from
Sets = Mapping[int, Bool[np.ndarray, " latent"]]  # features by layer


@dataclass(frozen=True, eq=False)
class InterventionSpec:
    """One intervention. `chosen` features by layer; `like`: those as strongly as which a random control is added.

    `seed` is the draw of a random control, `drawn_from` the features that are not of the kind or all, and `widening`
    what the variance over draws is multiplied by. Without `chosen` it is `none`: the plain LM. `generates`: whether the
    LM is to write under it; of random draws only the first.
    """

    kind: str
    control: str
    seed: int | None
    mode: str
    norm: str
    coefficient: float
    chosen: Sets
    like: Sets | None
    limit: str = ""  # how many features of a kind are taken at each layer, and which draw of them; "": all
    drawn_from: str = ""
    widening: float = 1.0
    generates: bool = True

    @property
    def alone(self) -> bool:
        """Whether no donor reads along."""
        return self.control == SELF or self.mode in (*ALONE, STEER)

    def edits(
        self, layers: Mapping[int, LayerFeatures], strength: Callable[[int, np.ndarray], float]
    ) -> dict[int, Edit]:
        """The operation at each layer; `strength` of a set of features there."""
        edits = {}
        for layer, chosen in self.chosen.items():
            coefficient = 1.0 if np.isnan(self.coefficient) else self.coefficient  # ablation has none
            if self.like is not None and (own := strength(layer, chosen)) > 0:
                coefficient *= strength(layer, self.like[layer]) / own
            edits[layer] = self._edit(layers[layer], chosen, coefficient)
        return edits

    def _edit(self, features: LayerFeatures, chosen: Bool[np.ndarray, " latent"], coefficient: float) -> Edit:
        if self.mode == STEER:
            strengths = coefficient * features.table["maximum"].to_numpy(dtype=float)
            return Steering.towards(features.sae, {int(one): float(strengths[one]) for one in np.flatnonzero(chosen)})
        return FeatureEdit(
            features.sae,
            features.tensor(chosen),
            self.mode,
            self.norm or NORMS[0],
            coefficient,
            self.control == SHUFFLED,
        )


PLAIN = InterventionSpec(NONE, "", None, "", "", float("nan"), {}, None)


@dataclass(frozen=True)
class EditSettings:
    """How features are put in (`bisae.edits.operation`), at each of some coefficients.

    Refused for a mode or norm that there is not.
    """

    mode: str
    norm: str
    coefficients: Sequence[float]

    def __post_init__(self) -> None:
        if self.mode not in (*MODES, STEER):
            raise Refused("mode", self.mode, f"choose one of {', '.join((*MODES, STEER))}")
        if self.norm not in NORMS:
            raise Refused("norm", self.norm, f"choose one of {', '.join(NORMS)}")

    @property
    def arguments(self) -> list[tuple[str, str, float]]:
        """Mode, norm and coefficient of each intervention; "" and NaN where they have no part in it."""
        if self.mode == "ablate":
            return [(self.mode, "", float("nan"))]
        return [(self.mode, "" if self.alone else self.norm, one) for one in self.coefficients]

    @property
    def alone(self) -> bool:
        """Whether there is no donor."""
        return self.mode in (*ALONE, STEER)


def planned(
    layers: Mapping[int, LayerFeatures],
    languages: Sequence[str],
    operation: EditSettings,
    kind: Any,
    control: Mapping[str, Any],
    features: Any,
    seed: int,
) -> list[InterventionSpec]:
    """`none` first, then each `kind` with its controls, at each coefficient.

    `features`: None takes all of a kind, "equal" as many as the smallest kind has at the layer, or a number; they are
    drawn from `seed`. Refused for an unknown kind, or one with too few features.
    """
    kinds = checked_kinds(kind)
    if features not in (None, "equal") and type(features) is not int:
        raise Refused("features", features, "must be null, equal or a whole number")
    if len(layers) > 1 and any(not isinstance(one, str) for one in kinds):
        raise Refused("kind", list(kinds), "numbered features are of one layer: give one")
    names = [one if isinstance(one, str) else "ids:" + ",".join(map(str, one)) for one in kinds]
    sets: dict[str, Sets] = {
        name: {layer: feature_set(of_layer.table, one, languages) for layer, of_layer in layers.items()}
        for name, one in zip(names, kinds, strict=True)
        if name != NONE
    }
    limit = ""
    if features is not None:
        sets = {name: _cut(sets, name, features, seed) for name in sets}
        limit = "+".join(str(_count(chosen)) for chosen in next(iter(sets.values()), {}).values()) + f" (draw {seed})"
    settings = [PLAIN]
    for arguments in operation.arguments:
        for name, chosen in sets.items():
            settings.append(InterventionSpec(name, "", None, *arguments, chosen, None, limit))
            if name != ALL:
                settings += _at_random(settings[-1], layers, range(seed, seed + control[RANDOM]), operation.alone)
            if not operation.alone:
                wanted = [other for other in (SHUFFLED, SELF) if control[other]]
                settings += [InterventionSpec(name, other, None, *arguments, chosen, None, limit) for other in wanted]
    return settings


def _at_random(
    of: InterventionSpec, layers: Mapping[int, LayerFeatures], draws: range, alone: bool
) -> Iterator[InterventionSpec]:
    """Random controls of a kind, disjoint from it where it leaves enough features; none where all would be the same."""
    sets = {layer: RandomSets(one.table, of.chosen[layer]) for layer, one in layers.items()}
    if not any(one.differ for one in sets.values()):
        return
    apart = all(one.apart for one in sets.values())
    drawn_from, factor = (OTHERS, widening(sets.values())) if apart else (WHATEVER, 1.0)
    for draw in draws:
        yield replace(
            of,
            control=RANDOM,
            seed=draw,
            chosen={layer: one.draw(draw, apart) for layer, one in sets.items()},
            like=None if alone else of.chosen,  # what is taken out is there as it is; what is put in must be as much
            drawn_from=drawn_from,
            widening=factor,
            generates=draw == draws[0],
        )


def checked_kinds(kind: Any) -> list[str | list[int]]:
    """Config key `kind`: one kind or several; features by number are a list in the list."""
    kinds = kind if isinstance(kind, list) else [kind]
    for one in kinds:
        numbers = isinstance(one, list) and one and all(type(number) is int for number in one)
        if not (isinstance(one, str) or numbers):
            raise Refused("kind", kind, "must be kinds such as [en, bi], or lists of features such as [[3,17]]")
    if not kinds:
        raise Refused("kind", kind, "name one at least")
    return [kind_of(one) if isinstance(one, str) else one for one in kinds]


def _count(chosen: Bool[np.ndarray, " latent"]) -> int:
    return int(np.count_nonzero(chosen))


def _cut(sets: Mapping[str, Sets], name: str, features: int | str, seed: int) -> Sets:
    """So many features of a kind at each layer, drawn from `seed`."""
    cut = {}
    for layer, chosen in sets[name].items():
        wanted = min(_count(other[layer]) for other in sets.values()) if features == "equal" else features
        if isinstance(wanted, str) or not 0 <= wanted <= _count(chosen):
            remedy = f"must be equal, or at most {_count(chosen)}, which {name} has at layer {layer}"
            raise Refused("features", features, remedy)
        numbers = np.random.default_rng(seed).choice(np.flatnonzero(chosen), wanted, replace=False)
        cut[layer] = np.isin(np.arange(len(chosen)), numbers)
    return cut
