"""Fixtures: the real config, shrunk to seconds, with all output in a temporary folder."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from tests import warm

ROOT = Path(__file__).parents[1]

# Before transformers or wandb is imported anywhere: no test may wait for a network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
os.environ |= {"OMP_NUM_THREADS": "1", "SPARSIFY_DISABLE_TRITON": "1"}  # tiny tensors; sparsify's kernels need a GPU
# A busy machine fails no test, and two runs of the same commit agree; new examples: --hypothesis-profile=explore; many
# more of tests/test_bad_input.py: HYPOTHESIS_PROFILE=thorough.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.register_profile("thorough", deadline=None, derandomize=True, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other

TINY = [
    "checkpoint=512",
    "data.tokens=6000",
    "data.validation_tokens=1000",
    "data.epochs=2",
    "size.aux_k=0",
    "size.dead_after=100_000",
    "data.batch=250",
    "data.pool_batches=5",
    "sae.latents=64",
    "sae.k=4",
    "optimizer.warmup=5",
    "save_every=7",
    "log_every=5",
    "activations.pass.lm_batch=4",
    "activations.pass.shard_batches=6",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "logger=none",
]

TINY_ANALYSIS = [
    "space=shipped",
    "tokens=12000",
    "monosemanticity.shuffles=5",
    "alignment.permutations=50",
    "retrieval.candidates=50",
    "resamples=20",
    "device=cpu",
    "logger=none",
]

TINY_INTERVENTION = [
    "perplexity.documents=6",
    "translation.tasks.examples=4",
    "translation.tasks.shots=1",
    "translation.tasks.max_new_tokens=6",
    "~translation.metrics.comet",
    "control.random=2",
    "batch=4",
    "resamples=20",
    "device=cpu",
    "logger=none",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-points", type=int, default=3, help="points at which train.py is killed and resumed")


def few_pairs(folder: Path) -> Path:
    """A pair file of 200 of the shipped pairs."""
    from bisae.corpus.embedded import EMBEDDED
    from bisae.corpus.pairs import read_pairs, write_pairs

    languages, pairs = read_pairs(EMBEDDED / "alignment.tsv.xz")
    write_pairs(folder / "pairs.tsv", languages, pairs[:200])
    return folder / "pairs.tsv"


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DictConfig]:
    """`config(override, ...)`: the shrunk config, with runs and cache below the test's folder."""
    GlobalHydra.instance().clear()

    def composed(*overrides: str, tiny: bool = True, name: str = "train") -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            places = [f"runs={tmp_path}/runs", f"cache={tmp_path}/cache"] if name != "pretrain" else []
            if name == "analyze":
                places += [f"output={tmp_path}/report", f"alignment.pairs={few_pairs(tmp_path)}"]
            elif name == "intervene":
                places.append(f"output={tmp_path}/interventions")
            elif name == "evaluate":
                places += [f"cell={tmp_path}/runs", f"output={tmp_path}/scores.csv", "device=cpu"]
            of_commands = {"train": TINY, "analyze": TINY_ANALYSIS, "intervene": TINY_INTERVENTION}
            shrunk = of_commands.get(name, []) if tiny else []
            if "translation=none" in overrides:
                shrunk = [key for key in shrunk if "translation." not in key]
            return compose(name, [*shrunk, *places, *overrides])

    return composed


@pytest.fixture(scope="session")
def step512(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Step 512 of the shipped main ladder."""
    from bisae.lm.model import EmbeddedModel

    return EmbeddedModel("embedded", str(tmp_path_factory.mktemp("lm"))).checkpoint(512)


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("WANDB_SERVICE", None)  # of this process, where a test has used W&B in it
    done = warm.run(arguments, folder, environment)
    if done is not None:
        return done
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`hub(address)`: the hub is there, and the process is not offline."""
    from huggingface_hub import constants  # reads the environment
    from huggingface_hub.utils import close_session

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)
    close_session()
