import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from bisae.report.averages import OVER
from bisae.report.bins import Bins
from bisae.report.examples import Examples
from bisae.runtime.errors import Refused
from tests.conftest import ROOT
from tests.report.sweep import BINS, sweep


def test_phases_are_fractions_of_each_lms_last_step_and_step_0_is_random_weights() -> None:
    cells = BINS.label(sweep(("main",)).cells)
    phases = cells.drop_duplicates("step").set_index("step")["phase"].to_dict()
    expected = {
        0: "random weights",
        16: "early",
        64: "early",
        128: "early",
        256: "middle",
        512: "middle",
        1024: "middle",
    }
    assert phases == {**expected, 1536: "late", 2048: "late"}


def test_phases_may_be_steps() -> None:
    cells = Bins([64, 256], [0.3, 0.7], None, {}).label(sweep(("main",)).cells)
    assert cells.loc[cells["phase"] == "early", "step"].unique().tolist() == [16, 64]
    assert cells.loc[cells["phase"] == "middle", "step"].unique().tolist() == [128, 256]


def test_four_layers_are_one_lower_two_middle_one_upper() -> None:
    cells = BINS.label(sweep(("main",)).cells)
    assert cells.drop_duplicates("layer")["part"].tolist() == ["lower", "middle", "middle", "upper"]
    assert cells.drop_duplicates("layer")["height"].tolist() == [0.25, 0.5, 0.75, 1]


def test_sizes_are_cut_at_the_geometric_mean_or_where_config_says() -> None:
    cells = sweep(("small", "main", "large"), (2048,)).cells
    sizes = BINS.label(cells).drop_duplicates("model").set_index("model")["size"]
    assert sizes.to_dict() == {"small": "small", "main": "large", "large": "large"}
    sizes = Bins([0.1, 0.5], [0.3, 0.7], 2e6, {}).label(cells).drop_duplicates("model").set_index("model")["size"]
    assert sizes.to_dict() == {"small": "small", "main": "small", "large": "large"}


def test_lms_of_one_size_or_of_unknown_size_have_no_size() -> None:
    assert set(BINS.label(sweep(("main", "control"), (2048,)).cells)["size"]) == {""}
    cells = sweep(("small", "large"), (2048,)).cells
    cells = cells.assign(parameters=cells["parameters"].where(cells["model"] == "large"))
    assert set(BINS.label(cells)["size"]) == {""}


def test_cells_that_differ_in_something_unknown_are_refused() -> None:
    with pytest.raises(Refused, match="^runs=main/2048/1/0, main/2048/1/1: these differ in settings"):
        BINS.label(sweep(("main",), (2048,)).cells.assign(seed=0))


@pytest.mark.parametrize("edges", [[0.5, 0.1], [0.1], [0.0, 0.5]])
def test_edges_must_ascend(edges: list[float]) -> None:
    with pytest.raises(Refused, match="^phases="):
        Bins(edges, [0.3, 0.7], None, {})


def test_a_model_is_a_seed_of_one_lm() -> None:
    with pytest.raises(Refused, match="^lm_seeds="):
        Bins([0.1, 0.5], [0.3, 0.7], None, {"a": ["main", "x"], "b": ["main"]})


def test_the_shipped_config_builds_bins_and_examples() -> None:
    report = OmegaConf.load(ROOT / "conf/report/default.yaml")
    bins, examples = instantiate(report.bins), instantiate(report.examples)
    assert isinstance(examples, Examples)
    assert bins.label(sweep(("main",), (2048,)).cells)["phase"].unique().tolist() == ["late"]
    assert set(report.intervals) == set(OVER) and report.band in OVER
