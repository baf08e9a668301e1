"""Streams of the shipped LM at step 512, and the command's config."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bisae.convert.fit_to_lm import Sample
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint
from tests.conftest import ROOT

Settings = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def sample(step512: Checkpoint) -> Sample:
    corpus = EmbeddedCorpus("embedded", 0)
    source = LMPass(step512, corpus, "validation", 128, 8, 4, 6, "float32", "cpu")
    return Sample.of(source, range(5), 1000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            places = [f"runs={tmp_path}/runs", f"cache={tmp_path}/cache", "tokens=1000", "activations.pass.lm_batch=4"]
            return compose("convert", [*places, "activations.pass.device=cpu", *overrides])

    return composed
