from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from bisae.grid.commands import commands
from bisae.runtime.errors import Refused
from tests.conftest import ROOT
from tests.grid.ladders import composed

Config = Callable[..., DictConfig]
SMALL = "experiment=laptop_grid"


@pytest.mark.slow
def test_the_studys_grid_has_1572_cells_and_lacks_one_checkpoint_of_the_largest_lm(config: Config) -> None:
    ladders = composed(config, "experiment=paper_grid")
    assert [len(ladder.layers) for ladder in ladders] == [12, 16, 20, 24, 28]
    assert [len(ladder.steps) for ladder in ladders] == [16, 16, 16, 16, 15]
    assert sum(ladder.cells for ladder in ladders) == 1572
    (missing,) = set(ladders[0].steps) - set(ladders[-1].steps)
    assert missing == 500_000 > ladders[-1].number("final") == 494_120
    for ladder in ladders:
        steps = [ladder.number(step) for step in ladder.steps]
        assert steps == sorted(steps) and steps[-1] == ladder.settings["model"]["final_step"]
        assert {10, 100, 1000, 10_000, 100_000} < set(steps)  # of the study's v1 code


def test_a_pass_has_at_most_as_many_saes_as_fit_and_each_layer_is_in_one(config: Config) -> None:
    (ladder,) = composed(config, "experiment=paper_grid", only="llm_jp_3_3.7b")
    for members in (1, 5, 28, 99):
        passes = [part.layers for part in ladder.passes(members)]
        assert max(map(len, passes)) <= members and len(passes) == -(-28 // members)
        assert sorted(layer for layers in passes for layer in layers) == list(range(1, 29))
        assert max(map(len, passes)) - min(map(len, passes)) <= 1
    (four,) = composed(config, "experiment=paper_grid", "sae.lr=[1e-3,2e-3]", "sae.k=[16,32]", only="llm_jp_3_3.7b")
    assert four.cells == 4 * ladder.cells
    assert {len(part.layers) for part in four.passes(8)} == {2}
    assert len(four.passes(1)) == 28  # never less than a layer
    (deep,) = composed(config, "experiment=paper_grid", "k_by_layer={28: 64}", only="llm_jp_3_3.7b")
    assert [place.known["sae"]["k"] for place in deep.places()][:28] == [32] * 27 + [64]
    assert deep.saes[0]["k"] == 64  # costs are of the largest


@pytest.mark.slow
def test_models_that_are_alike_share_a_sweep_and_layers_of_one_rate_a_pass(config: Config) -> None:
    ladders = composed(config, SMALL)
    members = {ladder.preset: 4 for ladder in ladders}
    lines = commands(ladders, members, [SMALL, "sae.k=[4,8]"])
    start = f"python train.py -m {SMALL} 'sae.k=[4,8]' "
    assert lines == [
        start + "model=embedded checkpoint=0,64,256,512,1024,final layer=all",
        start + "model=embedded_control,embedded_d64 checkpoint=0,512,final layer=all",
        start + "model=embedded_seed1 checkpoint=final layer=all",
    ]
    rates = {"embedded": {1: 1e-3, 2: 2e-3, 3: 1e-3, 4: 2e-3}}
    (ladder,) = composed(config, SMALL, only="embedded", rates=rates)
    two = commands([ladder], {"embedded": 2}, [])
    assert [line.split("final ")[1] for line in two] == ["'layer=[1,3]' sae.lr=0.001", "'layer=[2,4]' sae.lr=0.002"]
    assert [place.known["sae"]["lr"] for place in ladder.places()][:4] == [1e-3, 2e-3, 1e-3, 2e-3]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+grid={embedded:[]}"], r"^embedded=\[\]: name at least one step"),
        (["+grid={embedded:[0,0]}"], r"^embedded=\[0, 0\]: name at least one step, and each once"),
        (["+grid={embedded:[0,last]}"], "^embedded=.*: must be a list of steps"),
        (["+grid={embedded:[true]}"], "^embedded=.*: must be a list of steps"),
        (["+grid=all"], "grid=all: must be"),
        (["+grid={hf:[1]}", "model.name=mine", "model.path=nowhere/%d"], "^path=nowhere/1: no config.json there"),
    ],
)
def test_what_is_no_grid_is_refused_by_its_key(config: Config, overrides: list[str], message: str) -> None:
    preset = ["model=hf"] if "model.name=mine" in overrides else []
    with pytest.raises(Refused, match=message):
        composed(config, *preset, *overrides)


@pytest.mark.parametrize("launcher", ["processes", "slurm", "slurm_local"])
def test_every_launcher_is_a_ready_config(launcher: str) -> None:
    for plugin in ("hydra_joblib_launcher", "hydra_submitit_launcher"):
        pytest.importorskip(f"hydra_plugins.{plugin}")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"hydra/launcher={launcher}", "runs=there"], return_hydra_config=True)
    made = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(made, dict) and "hydra_plugins" in made["_target_"]
    if launcher != "processes":
        assert made["submitit_folder"] == "there/.submitit/%j"


def test_a_model_that_is_not_in_the_grid_is_refused(config: Config) -> None:
    with pytest.raises(Refused, match="^model=embedded_d63: is not in the grid, which has embedded, "):
        composed(config, SMALL, only="embedded_d63")
