"""The interventions to make: each kind of features and its controls, at each coefficient."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from bisae.edits.operation import ALONE, MODES, NORMS, Edit, FeatureEdit
from bisae.edits.steering import Steering
from bisae.edits.swap import FeatureSwap, swapped_stream
from bisae.intervention.kinds import ALL, EVERY, NONE, STREAM, feature_set, kind_of
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.random_sets import RandomSets, widening
from bisae.runtime.errors import Refused

STEER, SWAP = "steer", "swap"
ONE_LM = (*ALONE, STEER, SWAP)  # modes without a donor
RANDOM, SHUFFLED, SELF = "random", "shuffled", "self"
OTHERS, WHATEVER = "others", "all"  # where random features are drawn from
Sets = Mapping[int, Bool[np.ndarray, " latent"]]  # features by layer


@dataclass(frozen=True, eq=False)
class InterventionSpec:
    """One intervention, on whatever LM.

    Attributes:
        kind: the kind of the features; `none` is the plain LM.
        control: "" for the features of the kind, else `random`, `shuffled` or `self`.
        seed: the draw of a random control, else None.
        mode, norm, coefficient: how the features are put in (`bisae.edits.operation`).
        chosen: the features to put in, by layer; empty for `none`.
        like: for a random control, the feature set whose strength it is scaled to match.
        limit: how many features of the kind are taken at each layer, and which draw of them; "": all.
        drawn_from: where the features of a random control come from: `others` than the kind's, or `all`.
        widening: factor on the variance over draws (`bisae.intervention.random_sets.widening`).
        generates: whether the LM generates text under it; of random draws only the first does.
    """

    kind: str
    control: str
    seed: int | None
    mode: str
    norm: str
    coefficient: float
    chosen: Sets
    like: Sets | None
    limit: str = ""
    drawn_from: str = ""
    widening: float = 1.0
    generates: bool = True

    @property
    def alone(self) -> bool:
        """True if the edit needs no donor."""
        return self.control == SELF or self.mode in ONE_LM

    def edits(
        self, layers: Mapping[int, LayerFeatures], strength: Callable[[int, np.ndarray], float]
    ) -> dict[int, Edit]:
        """The edit at each layer; `strength(layer, chosen)` is the strength of a set of features."""
        edits = {}
        for layer, chosen in self.chosen.items():
            coefficient = 1.0 if np.isnan(self.coefficient) else self.coefficient  # ablation and swaps have none
            if self.like is not None and (own := strength(layer, chosen)) > 0:
                coefficient *= strength(layer, self.like[layer]) / own
            edits[layer] = self._edit(layers[layer], chosen, coefficient)
        return edits

    def _edit(self, features: LayerFeatures, chosen: Bool[np.ndarray, " latent"], coefficient: float) -> Edit:
        if self.kind == STREAM:
            return swapped_stream
        if self.mode == SWAP:
            return FeatureSwap(features.sae, features.tensor(chosen), coefficient, features.codes)
        if self.mode == STEER:
            strengths = coefficient * features.table["maximum"].to_numpy(dtype=float)
            return Steering.towards(
                features.sae, {int(number): float(strengths[number]) for number in np.flatnonzero(chosen)}
            )
        return FeatureEdit(
            features.sae,
            features.tensor(chosen),
            self.mode,
            self.norm or NORMS[0],
            coefficient,
            self.control == SHUFFLED,
            features.codes,
        )


PLAIN = InterventionSpec(NONE, "", None, "", "", float("nan"), {}, None)


@dataclass(frozen=True)
class EditSettings:
    """Mode, norm and coefficients (`bisae.edits.operation`); Refused (`mode`, `norm`, `coefficient`) if one is none."""

    mode: str
    norm: str
    coefficients: Sequence[float]

    def __post_init__(self) -> None:
        if self.mode not in (*MODES, STEER, SWAP):
            raise Refused("mode", self.mode, f"choose one of {', '.join((*MODES, STEER, SWAP))}")
        if self.norm not in NORMS:
            raise Refused("norm", self.norm, f"choose one of {', '.join(NORMS)}")
        for coefficient in self.coefficients:
            if not math.isfinite(coefficient):  # NaN stands for a mode that has none
                raise Refused("coefficient", coefficient, "must be finite")

    @property
    def arguments(self) -> list[tuple[str, str, float]]:
        """Mode, norm and coefficient of each intervention; "" and NaN where the mode does not use them."""
        if self.mode in ("ablate", SWAP):
            return [(self.mode, "", float("nan"))]
        return [(self.mode, "" if self.alone else self.norm, coefficient) for coefficient in self.coefficients]

    @property
    def alone(self) -> bool:
        """True if the mode needs no donor."""
        return self.mode in ONE_LM


def planned(
    layers: Mapping[int, LayerFeatures],
    languages: Sequence[str],
    edit: EditSettings,
    kind: Any,
    control: Mapping[str, Any],
    features: Any,
    seed: int,
) -> list[InterventionSpec]:
    """All interventions: `none` first, then each kind with its controls, at each coefficient.

    Args:
        layers: the donor's features at each layer.
        languages: codes of the corpus' languages.
        edit: mode, norm and coefficients.
        kind: one kind or a list (`bisae.intervention.kinds`); features by number are a list in the list.
        control: `random`: how many draws; `shuffled` and `self`: true or false.
        features: how many of a kind: None for all, "equal" for as many as the smallest kind with any has at the layer,
            or a number; drawn from `seed`.
        seed: of that draw, and of the first random control.

    Raises:
        Refused: a kind is unknown or has too few features.
    """
    kinds = checked_kinds(kind, languages)
    if features not in (None, "equal") and type(features) is not int:
        raise Refused("features", features, "must be null, equal or a whole number")
    if len(layers) > 1 and not all(isinstance(name, str) for name in kinds):
        raise Refused("kind", list(kinds), "numbered features are of one layer: give one")
    names = [chosen if isinstance(chosen, str) else "ids:" + ",".join(map(str, chosen)) for chosen in kinds]
    sets: dict[str, Sets] = {
        name: {layer: feature_set(of_layer.table, chosen, languages) for layer, of_layer in layers.items()}
        for name, chosen in zip(names, kinds, strict=True)
        if name != NONE
    }
    limit = ""
    if features is not None:
        sets = {name: _cut(sets, name, features, seed) for name in sets}
        limit = "+".join(str(max(_count(chosen[layer]) for chosen in sets.values())) for layer in layers if sets)
        limit += f" (draw {seed})"
    specs = [PLAIN]
    for arguments in edit.arguments:
        if edit.mode == SWAP:
            nothing = {layer: np.zeros(len(of_layer.table), bool) for layer, of_layer in layers.items()}
            specs.append(InterventionSpec(STREAM, "", None, *arguments, nothing, None, limit))
        for name, chosen in sets.items():
            specs.append(InterventionSpec(name, "", None, *arguments, chosen, None, limit))
            if name != ALL:
                specs += _at_random(specs[-1], layers, range(seed, seed + control[RANDOM]))
            if not edit.alone:
                wanted = [other for other in (SHUFFLED, SELF) if control[other]]
                specs += [InterventionSpec(name, other, None, *arguments, chosen, None, limit) for other in wanted]
    return specs


def _at_random(of: InterventionSpec, layers: Mapping[int, LayerFeatures], draws: range) -> Iterator[InterventionSpec]:
    """Random controls of the intervention `of`: one for each draw, none where all draws would be the same.

    Their features are disjoint from the kind's where enough others are left.
    """
    sets = {layer: RandomSets(features.table, of.chosen[layer]) for layer, features in layers.items()}
    if not any(of_layer.differ for of_layer in sets.values()):
        return
    apart = all(of_layer.apart for of_layer in sets.values())
    drawn_from, factor = (OTHERS, widening(sets.values())) if apart else (WHATEVER, 1.0)
    for draw in draws:
        yield replace(
            of,
            control=RANDOM,
            seed=draw,
            chosen={layer: of_layer.draw(draw, apart) for layer, of_layer in sets.items()},
            # Added and swapped features are scaled, removed ones are not.
            like=None if of.alone and of.mode != SWAP else of.chosen,
            drawn_from=drawn_from,
            widening=factor,
            generates=draw == draws[0],
        )


def checked_kinds(kind: Any, languages: Sequence[str]) -> list[str | list[int]]:
    """`kind` as a list of kinds, languages by their code; lists of feature numbers stay lists.

    `languages` among the kinds stands for each of the corpus' languages.
    """
    given = kind if isinstance(kind, list) else [kind]
    kinds = [one for asked in given for one in (languages if asked == EVERY else [asked])]
    for asked in kinds:
        numbers = isinstance(asked, list) and asked and all(type(number) is int for number in asked)
        if not (isinstance(asked, str) or numbers):
            raise Refused("kind", kind, "must be kinds such as [en, bi], or lists of features such as [[3,17]]")
    if not kinds:
        raise Refused("kind", kind, "name at least one")
    named = [kind_of(asked) if isinstance(asked, str) else asked for asked in kinds]
    return [asked for number, asked in enumerate(named) if asked not in named[:number]]


def _count(chosen: Bool[np.ndarray, " latent"]) -> int:
    return int(np.count_nonzero(chosen))


def _cut(sets: Mapping[str, Sets], name: str, features: int | str, seed: int) -> Sets:
    """The sets of kind `name`, cut to `features` at each layer by a draw from `seed`."""
    cut = {}
    for layer, chosen in sets[name].items():
        wanted: Any = features
        if features == "equal":  # a kind without features stays so, and cuts no other
            least = min((count for other in sets.values() if (count := _count(other[layer]))), default=0)
            wanted = min(least, _count(chosen))
        if isinstance(wanted, str) or not 0 <= wanted <= _count(chosen):
            remedy = f"must be equal, or at most {_count(chosen)}, which {name} has at layer {layer}"
            raise Refused("features", features, remedy)
        numbers = np.random.default_rng(seed).choice(np.flatnonzero(chosen), wanted, replace=False)
        cut[layer] = np.isin(np.arange(len(chosen)), numbers)
    return cut
