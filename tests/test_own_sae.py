"""An SAE class of a user's own through all commands, each of which is told of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bisae.cells.find import find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.analyze import analyze
from bisae.cli.convert import convert
from bisae.cli.intervene import intervene
from bisae.cli.train import train
from bisae.convert.fit_to_lm import Sample
from bisae.runtime.errors import AnalysisFailed, ConfigError
from bisae.sae import load
from tests.conftest import ROOT
from tests.sae.test_own import Half

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]
NAMED = "sae_classes=[tests.sae.test_own.Half]"


def never(*_: object) -> None:
    raise AssertionError("an LM ran")


@pytest.mark.slow
def test_an_own_class_goes_through_all_commands_that_name_it_and_no_others(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = train(config("layer=2", "sae._target_=tests.sae.test_own.Half", "sae.name=half"))
    metrics = cell.read()["metrics"]
    assert metrics["val/l0"] == 2  # half of sae.k

    (found,) = find_cells(str(cell.folder), tmp_path)
    source = Recipe.of(found, None, None, tmp_path / "cache").lm_pass("validation", "cpu")
    sample = Sample.of(source, [2], 1000)
    language, sequence, stream = (values[:1000] for values in (sample.language, sample.sequence, sample.streams[2]))
    sample = replace(sample, language=language, sequence=sequence, streams={2: stream})
    again = sample.quality(load(cell.folder, classes=[Half]), 2)
    assert {key: again[key] for key in ("fvu", "l0")} == pytest.approx(
        {key: metrics[f"val/{key}"] for key in ("fvu", "l0")}, rel=1e-5
    )

    with monkeypatch.context() as patch:
        patch.setattr("bisae.lm.lm_pass.LMPass.tokens", never)
        with pytest.raises(AnalysisFailed, match=r"of the class tests\.sae\.test_own\.Half.*sae_classes="):
            analyze(config(name="analyze"))
    assert len(analyze(config(NAMED, name="analyze"))) == 1
    features = pd.read_parquet(cell.folder / "features.parquet")
    assert len(features) == 64

    wanted = ["translation=none", "layer=2", "recipient=256", "donor.step=512", "kind=[all]", "control.random=0"]
    with pytest.raises(ConfigError, match=r"^runs=.*sae_classes=\[tests\.sae\.test_own\.Half\]"):
        intervene(config(*wanted, name="intervene"))
    assert len(intervene(config(*wanted, NAMED, name="intervene"))) > 1

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        export = ["to=saelens", f"cell={cell.folder}", f"output={tmp_path}/out", f"cache={tmp_path}/cache"]
        with pytest.raises(ConfigError, match=r"^cell=.*sae_classes=\[tests\.sae\.test_own\.Half\]"):
            convert(compose("convert", export))
        with pytest.raises(ConfigError, match="^to=saelens: cannot hold a half SAE"):
            convert(compose("convert", [*export, NAMED]))


@pytest.mark.parametrize("name", ["Same", "Child", "Shipped", "OfBatch", "Louder", "Forgets", "NoSAE"])
def test_an_own_class_that_would_be_taken_for_another_is_refused_before_an_lm_runs(
    config: Config, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bisae.lm.lm_pass.LMPass.tokens", never)
    with pytest.raises(ConfigError, match=rf"^sae\._target_=tests\.sae\.test_own\.{name}: "):
        train(config(f"sae._target_=tests.sae.test_own.{name}"))
    assert not list((tmp_path / "runs").rglob("cell.json"))


@pytest.mark.parametrize(("command", "run"), [("analyze", analyze), ("intervene", intervene)])
def test_a_class_that_cannot_be_imported_is_refused_by_its_key(
    config: Config, command: str, run: Callable[[DictConfig], object]
) -> None:
    with pytest.raises(ConfigError, match=r"^sae_classes=nowhere\.Mine: must be the full name of a class"):
        run(config("sae_classes=[nowhere.Mine]", name=command))
