"""The command: SAEs become cells that the analysis reads, and cells become SAEs of other libraries."""

import json
import logging
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from bisae.cells.find import FoundCell, find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.convert import convert
from bisae.convert.fit_to_lm import Sample
from bisae.convert.formats import FORMATS
from bisae.runtime.errors import ConfigError
from bisae.sae import ReLUL1, SparseAutoencoder, TopK, load
from bisae.sae.architectures.raw import RawReLU, RawTopK
from tests.conftest import run
from tests.convert.conftest import Settings
from tests.convert.saes import CELL

pytestmark = pytest.mark.slow

LAYER = 2


@torch.no_grad()
def fitting(sample: Sample, kind: type[SparseAutoencoder], directions: int = 8) -> SparseAutoencoder:
    """The stream's principal directions at LAYER, each both ways: what lies in their space is reconstructed."""
    x = sample.streams[LAYER].float()
    x = x if kind in (RawReLU, RawTopK) else torch.nn.functional.normalize(x)
    mean = x.mean(0)
    along = torch.linalg.svd(x - mean, full_matrices=False).Vh[:directions]
    extra = {"k": directions} if kind in (TopK, RawTopK) else {"l1": 0.0}
    sae = kind(d_model=x.shape[1], latents=2 * directions, **extra)
    sae.W_enc.copy_(torch.cat([along, -along]))
    sae.W_dec.copy_(sae.W_enc)
    sae.b_pre.copy_(mean)
    return sae


def written(sae: SparseAutoencoder, folder: Path, name: str = "saelens") -> Path:
    folder.mkdir()
    FORMATS[name].write(sae, CELL, folder)
    return folder


@pytest.mark.parametrize("kind", [TopK, RawReLU])
def test_an_imported_sae_is_a_cell_the_analysis_reads(
    kind: type[SparseAutoencoder], sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    sae = fitting(sample, kind)
    theirs = written(sae, tmp_path / "theirs")
    (folder,) = convert(settings("from=saelens", f"source={theirs}", "model=embedded", "checkpoint=512", "most_fvu=1"))
    (cell,) = find_cells(str(folder), tmp_path)
    assert (cell.model, cell.step, cell.layer) == ("embedded", 512, LAYER)
    assert cell.provenance["imported"] == {
        "format": "saelens",
        "source": "theirs",
        "hook": "blocks.1.hook_resid_post",
    }
    expected = sample.quality(sae, LAYER)["fvu"]
    assert cell.metrics["val/fvu"] == pytest.approx(expected, rel=1e-4) and expected < 0.5
    back = load(folder)
    assert type(back) is kind
    rows = sample.streams[LAYER]
    torch.testing.assert_close(back.reconstruct(rows).activation, sae.reconstruct(rows).activation)
    recipe = Recipe.of(cell, None, None, tmp_path / "cache")
    assert recipe.checkpoint.step == 512 and recipe.reading["lm_batch"] == 4
    assert recipe.corpus.languages == ("en", "ja")


def test_an_sae_of_a_part_of_a_block_is_a_cell_of_that_part_and_goes_back_by_its_path(
    sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    theirs = written(fitting(sample, RawTopK), tmp_path / "theirs", "sparsify") / "layers.1"
    theirs = theirs.rename(tmp_path / "layers.1.mlp")
    wanted = ["from=sparsify", f"source={theirs}", "model=embedded", "checkpoint=512", "most_fvu=9"]
    for hook in ("null", "self_attn"):
        with pytest.raises(ConfigError, match="^model.hook=(None|self_attn): the files say layers.1.mlp"):
            convert(settings(*wanted, f"model.hook={hook}"))
    (folder,) = convert(settings(*wanted, "model.hook=mlp"))
    (cell,) = find_cells(str(folder), tmp_path)
    assert (cell.model, cell.layer, cell.hook) == ("embedded@mlp", 2, "mlp")
    (back,) = convert(settings("to=sparsify", f"cell={folder}", f"output={tmp_path}/out"))
    assert load_file(back / "layers.1.mlp/sae.safetensors").keys() == load_file(theirs / "sae.safetensors").keys()


def test_an_sae_that_is_a_cell_already_is_left_as_it_is(sample: Sample, settings: Settings, tmp_path: Path) -> None:
    theirs = written(fitting(sample, TopK), tmp_path / "theirs")
    wanted = settings("from=saelens", f"source={theirs}", "model=embedded", "checkpoint=512", "most_fvu=1")
    (folder,) = convert(wanted)
    first = (folder / "cell.json").stat().st_mtime_ns
    renamed = OmegaConf.merge(wanted, {"source": str(theirs.rename(tmp_path / "elsewhere"))})
    assert convert(DictConfig(renamed)) == [folder] and (folder / "cell.json").stat().st_mtime_ns == first


def test_a_wrong_layer_is_said_with_figures_and_refused_above_the_threshold(
    sample: Sample, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = written(fitting(sample, TopK), tmp_path / "theirs")
    wanted = ["from=saelens", f"source={theirs}", "model=embedded", "checkpoint=512", "layer=4"]
    fvu = sample.quality(fitting(sample, TopK), 4)["fvu"]
    with pytest.raises(
        ConfigError, match=f"^layer=4: FVU {fvu:.4g} at layer 4 .*lower at layer 2: .*blocks.1.hook_resid_post"
    ):
        convert(settings(*wanted, f"most_fvu={fvu - 0.01}"))
    assert not list((tmp_path / "runs").rglob("cell.json"))
    with caplog.at_level(logging.WARNING):
        convert(settings(*wanted, f"most_fvu={fvu + 0.01}"))
    assert "lower at layer 2" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "^from=None: give from=.* to="),
        (["from=saelens", "to=saelens"], "^from=saelens: give"),
        (["from=saelens", "source=nowhere"], "^model=None"),
        (["from=saelens", "model=embedded"], "^source=None"),
        (["to=saelens", "cell=runs"], "^output=None"),
        (["from=other", "source=nowhere", "model=embedded"], "^from=other: choose"),
        (["from=saelens", "source=nowhere", "model=embedded"], "^source=nowhere/cfg.json: cannot be read"),
        (["tokens=0"], "^tokens=0"),
        (["to=saebench", "cell=runs", "output=out", "recovered=0"], "^recovered=0: must be a whole number"),
        (["to=saelens", "cell=runs", "output=out", "norm=0"], "^norm=0: must be a number above 0"),
    ],
)
def test_what_is_missing_or_wrong_is_named_by_its_key(overrides: list[str], says: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=says):
        convert(settings(*overrides))


def test_an_sae_for_another_width_or_without_a_layer_is_refused(
    sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    theirs = written(fitting(sample, TopK), tmp_path / "theirs", "llm_jp_sae")
    wanted = ["from=llm_jp_sae", f"source={theirs}", "checkpoint=512"]
    with pytest.raises(ConfigError, match="^layer=None: the files do not say"):
        convert(settings(*wanted, "model=embedded"))
    with pytest.raises(ConfigError, match="^layer=5: choose layers within 0..4"):
        convert(settings(*wanted, "model=embedded", "layer=5"))
    with pytest.raises(ConfigError, match="^model=embedded_d64: is 64 wide, but the SAE reads 128"):
        convert(settings(*wanted, "model=embedded_d64", "layer=2"))


@pytest.fixture
def cell(sample: Sample, settings: Settings, tmp_path: Path) -> FoundCell:
    theirs = written(fitting(sample, TopK), tmp_path / "cell_of")
    (folder,) = convert(settings("from=saelens", f"source={theirs}", "model=embedded", "checkpoint=512", "most_fvu=1"))
    return find_cells(str(folder), tmp_path)[0]


def test_a_cell_exported_exactly_comes_back_with_the_same_weights(
    cell: FoundCell, settings: Settings, tmp_path: Path
) -> None:
    wanted = settings("to=llm_jp_sae", f"cell={cell.folder}", f"output={tmp_path}/out")
    (place,) = convert(wanted)
    assert place == tmp_path / "out/embedded/step0000512/layer02" / cell.folder.name
    about = json.loads((place / "bisae.json").read_text())
    assert about["exact"] is True and about["hash"] == cell.hash and about["metrics"] == cell.metrics
    back = FORMATS["llm_jp_sae"].read(place, None).sae
    for ours, theirs in zip(load(cell.folder).weights, back.weights, strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ConfigError, match="^output=.*is there already"):
        convert(wanted)


def test_a_format_without_unit_norms_gets_the_mean_folded_in_and_its_error_said(
    cell: FoundCell, sample: Sample, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (place,) = convert(settings("to=sparsify", f"cell={cell.folder}", f"output={tmp_path}/out"))
    about = json.loads((place / "bisae.json").read_text())
    assert "approximate, since sparsify has no inputs of norm 1" in caplog.text
    assert about["exact"] is False and about["norm"] == pytest.approx(sample.norm(LAYER), rel=1e-3)
    back = FORMATS["sparsify"].read(place / "layers.1", None).sae
    assert about["fvu_raw_folded"] == pytest.approx(sample.quality(back, LAYER)["fvu"], rel=1e-3)
    assert about["fvu_raw"] == pytest.approx(cell.metrics["val/fvu_raw"], rel=1e-3)
    assert about["fvu_raw_folded"] > about["fvu_raw"]


def test_a_norm_given_needs_no_lm(cell: FoundCell, settings: Settings, tmp_path: Path) -> None:
    (cell.folder / "config.yaml").unlink()
    (place,) = convert(settings("to=dictionary_learning", f"cell={cell.folder}", f"output={tmp_path}/out", "norm=1"))
    assert json.loads((place / "bisae.json").read_text())["norm"] == 1
    back = FORMATS["dictionary_learning"].read(place, None).sae
    assert torch.equal(back.b_pre, load(cell.folder).b_pre)


def test_an_architecture_a_format_lacks_is_refused_before_anything_is_written(
    sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    theirs = written(fitting(sample, ReLUL1), tmp_path / "theirs")
    convert(settings("from=saelens", f"source={theirs}", "model=embedded", "checkpoint=512", "most_fvu=1"))
    with pytest.raises(ConfigError, match="^to=llm_jp_sae: cannot hold a relu_l1 SAE"):
        convert(settings("to=llm_jp_sae", f"cell={tmp_path}/runs", f"output={tmp_path}/out"))
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    done = run(["-m", "bisae", "convert", "to=saelens", "cell=nowhere", "output=out"], tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: cell=nowhere: no finished cell")
    assert "Traceback" not in done.stderr
