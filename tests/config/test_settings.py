"""Settings of every command: what is shipped is taken; unknown keys, wrong types and ranges are refused by key."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from bisae.config.analyze import AnalyzeSettings
from bisae.config.evaluate import EvaluateSettings
from bisae.config.examples import ExamplesSettings
from bisae.config.exchange import ConvertSettings, DashboardSettings
from bisae.config.intervene import InterveneSettings
from bisae.config.objects import validated
from bisae.config.pretrain import PretrainSettings
from bisae.config.settings import Command, read_settings
from bisae.config.train import PlanSettings, RatesSettings, StatusSettings, TrainSettings
from bisae.runtime.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
COMMANDS: dict[str, tuple[type[Command], list[str]]] = {
    "train": (TrainSettings, []),
    "analyze": (AnalyzeSettings, ["space=shipped"]),
    "evaluate": (EvaluateSettings, []),
    "intervene": (InterveneSettings, []),
    "plan": (PlanSettings, []),
    "status": (StatusSettings, []),
    "rates": (RatesSettings, []),
    "examples": (ExamplesSettings, []),
    "convert": (ConvertSettings, ["model=embedded"]),
    "dashboard": (DashboardSettings, []),
    "pretrain": (PretrainSettings, []),
}
# Whose keys are the user's:
OPEN = ("grid", "spaces", "callbacks", "translation.metrics", "report.bins.lm_seeds", "corpus.files", "corpus.sources")

GRIDS = ("laptop_grid", "laptop_lr_search", "lr_search", "paper_grid")
FITTING = {  # experiments of each command
    "train": ("embedded", "paper", "planted_cells", *GRIDS),
    "plan": GRIDS,
    "analyze": ("embedded", "paper", "demo", "planted", "trust"),
    "intervene": ("embedded", "paper", "source_gain", "source_gain_replace", "swap"),
}


def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, [*COMMANDS[command][1], *overrides])


def check(command: str, cfg: DictConfig) -> None:
    read_settings(COMMANDS[command][0], cfg).check_objects(late=True)


def choices() -> Iterator[tuple[str, str]]:
    """Every option of every group that a command composes, with what it leaves open."""
    needed = {
        "model/hf": "model.name=m model.path=p",
        "corpus/jsonl": "corpus.files={en:a,ja:b}",
        "corpus/hf": "corpus.sources={}",
        "optimizer/own": "optimizer.partial._target_=torch.optim.RAdam",
        "scheduler/own": "scheduler._target_=torch.optim.lr_scheduler.ConstantLR",
        "space/sentence_transformers": "space.model=m",
        "translation/jsonl": "translation.tasks.file=f translation.tasks.keys={en:en,ja:ja}",
        "translation/llm_jp_eval": "translation.tasks.folder=f",
    }
    groups = {
        "train": (
            *("model", "corpus", "activations", "sae", "optimizer", "trainer", "logger", "experiment"),
            *("callbacks", "debug", "scheduler", "sae/recipe", "paths"),
        ),
        "analyze": ("patterns", "space", "report", "experiment", "activations"),
        "intervene": ("translation", "experiment"),
        "plan": ("machine", "experiment"),
    }
    for command, names in groups.items():
        for group in names:
            for file in sorted((CONF / group).glob("*.yaml")):
                override = f"{group}={file.stem} {needed.get(f'{group}/{file.stem}', '')}"
                if group == "experiment" and file.stem not in FITTING[command]:
                    continue
                if group == "experiment":
                    override += " checkpoint=final" if command in ("train", "plan") else ""
                    override += " recipient=1 layer=1" if command == "intervene" else ""
                    override += " alignment.pairs=null" if command == "analyze" else ""
                yield command, override


@pytest.mark.parametrize(("command", "overrides"), [*choices(), *((command, "") for command in COMMANDS)])
def test_what_is_shipped_is_taken(command: str, overrides: str) -> None:
    check(command, composed(command, *overrides.split()))


def mappings(node: Any, key: str = "") -> Iterator[str]:
    if OmegaConf.is_dict(node):
        yield key
        for name in node:
            if not OmegaConf.is_missing(node, name):
                yield from mappings(node[name], f"{key}.{name}" if key else str(name))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_key_at_any_depth_is_refused_and_the_nearest_named(command: str) -> None:
    cfg = composed(command)
    tried = 0
    for key in mappings(cfg):
        if key in OPEN:
            continue
        node: Any = OmegaConf.select(cfg, key) if key else cfg
        near = next((name for name in reversed(list(node)) if not str(name).startswith("_")), None)
        changed = copy.deepcopy(cfg)
        place: Any = OmegaConf.select(changed, key) if key else changed
        with open_dict(changed):
            place[f"{near}x"] = 1
        wrong = f"{key}.{near}x" if key else f"{near}x"
        with pytest.raises(ConfigError) as refused:
            check(command, changed)
        assert refused.value.key == wrong, refused.value
        assert "no such key" in str(refused.value)
        assert near is None or f"did you mean {near}?" in str(refused.value)
        tried += 1
    assert tried > 0


# By hand, from what the documentation says of each key: values that must be taken, and that must not.
WHOLE = ([1, 7], [0, -1, 2.5, "many", True, None, [1]])
FROM_0 = ([0, 3], [-1, 1.5, "x", True, None])
ABOVE_0 = ([1, 0.5], [0, -0.1, "fast", True, None, float("inf"), float("nan")])
YES_NO = ([True, False], [1, 0, "yes", None])
TEXT: tuple[list[Any], list[Any]] = (["a", "a b"], [1, None, True, [], ""])
BY_HAND: list[tuple[str, str, tuple[list[Any], list[Any]]]] = [
    *(("train", key, WHOLE) for key in ("data.tokens", "data.batch", "data.epochs", "data.block", "save_every")),
    *(("train", key, WHOLE) for key in ("log_every", "optimizer.warmup", "data.window_pools", "data.pool_batches")),
    *(("train", key, WHOLE) for key in ("activations.pass.context", "activations.pass.lm_batch", "size.latents")),
    *(("train", key, FROM_0) for key in ("data.seed",)),
    ("train", "sae.lr", ([1, 0.5, [0.1, 1]], [0, "fast", True, None, float("inf"), [0.1, "x"], [0.1, 0]])),
    *(("train", key, YES_NO) for key in ("force", "keep_save", "activations.evict", "logger.upload")),
    *(("train", key, TEXT) for key in ("runs", "cache", "data.split", "sae.name", "corpus.name")),
    ("train", "checkpoint", ([0, 512, "final"], [-1, "last", 1.5, [0, 1], None])),
    ("train", "activations.pass.lm_dtype", (["float32", "bfloat16"], ["float64", 1, None])),
    ("analyze", "threshold", ([0.5, 0.9], [0.4, 1, "x", None])),
    ("analyze", "resamples", ([2, 200], [1, 2.5, None])),
    ("analyze", "language", (["script", "document"], ["word", 1, None])),
    ("analyze", "device", (["auto", "cpu"], ["tpu", None])),
    ("analyze", "monosemanticity.quantile", ([0.5, 0.99], [1, 0.2, True])),
    ("analyze", "patterns.contexts", WHOLE),
    ("intervene", "mode", (["add", "swap"], ["swop", None])),
    ("intervene", "control.self", YES_NO),
    ("intervene", "features", (["equal", 3, None], [0, "all", 1.5, True])),
    ("plan", "layers_at_once", ([None, 3], [0, "x"])),
    ("convert", "norm", ([None, 3, 0.5], [0, "x", True])),
    ("dashboard", "title", (["A grid: 1+1"], ["<b>", "", 3, "a" * 129])),
    ("pretrain", "mix.pair", ([0, 1, 0.5], [-0.1, 1.1, "x"])),
    ("pretrain", "mix.plain", ([[0, 1.0], [1, 0.5]], [[-0.1, 1], [1, 1.1], 0.5, "x"])),
    ("pretrain", "schedule.attention", (["sdpa", "eager"], ["flash", 1])),
]


@pytest.mark.parametrize(("command", "key", "values"), BY_HAND)
def test_values_of_the_wrong_type_or_range_are_refused_by_their_key(
    command: str, key: str, values: tuple[list[Any], list[Any]]
) -> None:
    base = composed(command)
    for right in (True, False):
        for value in values[0 if right else 1]:
            cfg = copy.deepcopy(base)
            OmegaConf.update(cfg, key, value)
            if right:
                check(command, cfg)
            else:
                with pytest.raises(ConfigError) as refused:
                    check(command, cfg)
                assert refused.value.key == key, value


@given(
    st.sampled_from(["data", "activations", "sae", "optimizer", "trainer", "logger", "model", "corpus", "size"]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers())),
)
def test_a_group_that_is_no_mapping_is_refused_by_its_key(key: str, value: object) -> None:
    found: Any = OmegaConf.to_container(BASE, resolve=True)
    found[key] = value
    with pytest.raises(ConfigError) as refused:
        validated(TrainSettings, found).check_objects(late=False)
    assert refused.value.key == key


BASE = composed("train")


class Mine:
    """A class of a user's."""

    def __init__(self, d_model: int, latents: int, depth: int, mode: str = "a") -> None: ...


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"_target_": "nowhere.Mine"}, "corpus._target_"),
        ({"_target_": "os.path"}, "corpus._target_"),
        ({"_target_": f"{__name__}.Mine", "d_model": 1, "latents": 2}, "corpus.depth"),
        ({"_target_": f"{__name__}.Mine", "d_model": 1, "latents": 2, "depth": "x"}, "corpus.depth"),
        ({"_target_": f"{__name__}.Mine", "d_model": 1, "latents": 2, "depth": 1, "model": "b"}, "corpus.model"),
    ],
)
def test_a_class_of_ones_own_is_checked_by_its_annotations(change: dict[str, Any], key: str) -> None:
    found: Any = OmegaConf.to_container(BASE, resolve=True)
    found["corpus"] = change
    with pytest.raises(ConfigError) as refused:
        validated(TrainSettings, found).check_objects(late=False)
    assert refused.value.key == key


def test_a_class_that_is_none_of_the_kind_is_refused() -> None:
    found: Any = OmegaConf.to_container(BASE, resolve=True)
    found["sae"]["_target_"] = "torch.nn.Linear"
    with pytest.raises(ConfigError, match=r"sae\._target_=torch\.nn\.Linear: must be a SparseAutoencoder"):
        validated(TrainSettings, found).check_objects(late=True)


def test_arguments_without_annotations_are_checked_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_step=3: no such key; did you mean max_steps\?"):
        check("train", composed("train", "+trainer.max_step=3"))
    check("train", composed("train", "+trainer.max_steps=3"))  # whether it may be set is for the trainer to say
