"""An analysed sweep made up for the report: features drawn so that a bilingual stage follows a monolingual one."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from bisae.report.bins import Bins

STEPS = (0, 16, 64, 128, 256, 512, 1024, 1536, 2048)
LMS = {"small": 5e5, "main": 1.5e6, "main_seed1": 1.5e6, "large": 3e6, "control": 1.5e6}
CLASSES = ("English", "Japanese", "Mixed")
FEATURES = 120
BINS = Bins([0.1, 0.5], [0.3333, 0.6667], None, {"main": ["main", "main_seed1"]})
WORDS = [("dog", "犬"), ("give", "与える"), ("ritual", "儀式"), ("100%_of", "すべて")]


@dataclass(frozen=True)
class Sweep:
    """Tables as an analysis gives them; `read(folder, name)` those of one cell."""

    cells: pd.DataFrame
    emergence: pd.DataFrame

    @staticmethod
    def read(folder: str, name: str) -> pd.DataFrame:
        tables: dict[str, Callable[[str], pd.DataFrame]]
        tables = {"features": _features, "contexts": _contexts, "sequences": _sequences}
        return tables[name](folder)


@cache
def sweep(
    models: tuple[str, ...] = tuple(LMS), steps: tuple[int, ...] = STEPS, seeds: tuple[int, ...] = (0, 1)
) -> Sweep:
    places = [(m, s, layer, seed) for m in models for s in steps for layer in (1, 2, 3, 4) for seed in seeds]
    cells = pd.DataFrame([_cell(*place) for place in places])
    return Sweep(cells, pd.concat([_emergence(m, layer, seeds[0], steps) for m in models for layer in (1, 2, 3, 4)]))


def _cell(model: str, step: int, layer: int, seed: int) -> dict[str, object]:
    folder = f"{model}/{step}/{layer}/{seed}"
    features = _features(folder)
    alive = features[features["class"] != "dead"]
    many = alive[~alive["single_token"]]
    place = {"model": model, "family": model, "parameters": LMS[model], "d_model": 128, "depth": 4, "step": step}
    place |= {"lm_tokens": step * 2048.0, "layer": layer, "sae": "topk", "latents": FEATURES, "k": 8.0, "seed": seed}
    place |= {"baseline": "trained"}
    cell = place | {
        "control": model == "control",
        "setting": f"topk {FEATURES} k=8",
        "hash": f"{zlib.crc32(folder.encode()):012x}",
        "folder": folder,
    }
    cell |= {"tokens": 10_000, "fvu": 0.05, "l0": 8.0, "alive": len(alive), "dead": 1 - len(alive) / FEATURES}
    means = {name: alive["class"] == name for name in CLASSES}
    means |= {f"firing_{name}": alive["class_firings"] == name for name in CLASSES}
    means |= {"monosemanticity": many["monosemanticity"], "single_token": alive["single_token"]}
    means |= {"bilingual": alive["bilingual"], "random_mixed": (alive["class"] == "Mixed") & ~alive["bilingual"]}
    means |= {"aligned": alive["alignment"] > 0.2, "alignment": alive["alignment"], "contextual": alive["contextual"]}
    for name, values in means.items():
        numbers = values.to_numpy(float)
        mean, half = numbers.mean(), 1.96 * numbers.std() / len(numbers) ** 0.5
        cell |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
        cell |= {f"{name}_doc_low": mean - 1.2 * half, f"{name}_doc_high": mean + 1.2 * half}
    return cell | {
        "monosemanticity_null": many["monosemanticity_null"].mean(),
        "Mixed_null": 0.9,
        "aligned_null": 0.004,
    }


@cache
def _features(folder: str) -> pd.DataFrame:
    model, step, layer, _ = folder.split("/")
    random = np.random.default_rng(zlib.crc32(folder.encode()))
    progress = int(step) / 2048
    bridge = 0.0 if model == "control" else progress**1.2 * (0.25 + 0.1 * (layer == "2") + LMS[model] / 2e7)
    mixed = 0.5 * np.exp(-10 * progress) + 0.15 + bridge
    dead = 0.4 * np.exp(-4 * progress) * (step != "0")
    alive = 1 - dead
    kinds = random.choice(
        [*CLASSES, "dead"], FEATURES, p=[alive * (1 - mixed) * 0.55, alive * (1 - mixed) * 0.45, alive * mixed, dead]
    )
    bilingual = (kinds == "Mixed") & (random.random(FEATURES) < bridge / mixed)
    share = np.select(
        [kinds == "English", kinds == "Japanese"],
        [random.beta(40, 1, FEATURES), random.beta(1, 40, FEATURES)],
        random.beta(2, 2, FEATURES),
    )
    score = random.beta(1 + 4 * progress * (1 + bilingual), 8 + 6 * (kinds == "Mixed") * ~bilingual)
    features = pd.DataFrame({"feature": np.arange(FEATURES, dtype=np.int32), "class": kinds, "share_en": share})
    features["share_ja"] = 1 - share
    features["firing_share_en"] = 0.5 + 0.8 * (share - 0.5)
    features["firing_share_ja"] = 1 - features["firing_share_en"]
    features["class_firings"] = np.where(features["firing_share_en"].between(0.12, 0.88), "Mixed", kinds)
    features["firings"] = random.integers(5, 500, FEATURES)
    features["single_token"] = random.random(FEATURES) < 0.15
    features["monosemanticity"] = np.where(features["single_token"], 1.0, score)
    features["monosemanticity_null"] = random.beta(1, 60, FEATURES)
    features["bilingual"] = bilingual
    features["alignment"] = np.clip(random.normal(0.45 * bilingual, 0.08), -1, 1)
    features["contextual"] = random.random(FEATURES) < 0.1 * int(layer)
    features["class_document"] = np.where(random.random(FEATURES) < 0.1, features["class_firings"], kinds)
    features["class_lape"], features["class_monolinguality"] = kinds, features["class_firings"]
    features["lape_kept"] = False
    unknown = [
        "share_en",
        "share_ja",
        "firing_share_en",
        "firing_share_ja",
        "monosemanticity",
        "monosemanticity_null",
        "alignment",
    ]
    features.loc[features["class"] == "dead", unknown] = np.nan
    return features


def _contexts(folder: str) -> pd.DataFrame:
    features = np.repeat(np.arange(FEATURES, dtype=np.int32), 4)
    rank = np.tile(np.arange(4, dtype=np.int16), FEATURES)
    return pd.DataFrame({"feature": features, "rank": rank, "sequence": (features + rank) % 8, "peak": np.int16(3)})


def _sequences(folder: str) -> pd.DataFrame:
    text = [
        [
            ["The", " big", " |", f" {en}", " is", " <b>", " here", "."],
            ["大", "きな", "「", ja, "」", "が", "いる", "。"],
        ]
        for en, ja in WORDS
    ]
    return pd.DataFrame({"sequence": np.arange(8), "pieces": [pieces for pair in text for pieces in pair]})


def _emergence(model: str, layer: int, seed: int, steps: tuple[int, ...]) -> pd.DataFrame:
    features = _features(f"{model}/{steps[-1]}/{layer}/{seed}")
    features = features[features["class"] != "dead"]
    random = np.random.default_rng(layer)
    place = np.minimum(random.poisson(4 + 3 * features["bilingual"]), len(steps) - 1)
    appears = np.where(place == len(steps) - 1, np.nan, np.array(steps)[place])
    about = {"model": model, "layer": layer, "seed": seed, "appears": appears}
    about["hash"] = _cell(model, steps[-1], layer, seed)["hash"]
    return features[["feature", "class", "bilingual", "monosemanticity"]].assign(**about)
