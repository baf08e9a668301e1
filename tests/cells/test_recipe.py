import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bisae.cells.find import FoundCell
from bisae.cells.recipe import Recipe
from bisae.runtime.errors import Refused

MODEL = {"_target_": "bisae.lm.model.EmbeddedModel", "name": "embedded", "unpack_to": "elsewhere"}
CORPUS = {"_target_": "bisae.corpus.embedded.EmbeddedCorpus", "name": "embedded", "seed": 0}
READING = {"context": 128, "shortest": 8, "lm_batch": 4, "shard_batches": 6, "lm_dtype": "float32"}


@pytest.fixture
def cell(tmp_path: Path, step512: Any) -> FoundCell:
    made_from = {"weights": step512.weights, "tokenizer": step512.tokenizer, "languages": ["en", "ja"], **READING}
    found = FoundCell(tmp_path / "cell", "embedded", 512, 2, "topk", "0", {"activations": made_from}, {}, {})
    write_config(found, {"model": MODEL, "corpus": CORPUS})
    return found


def write_config(cell: FoundCell, config: object) -> None:
    cell.folder.mkdir(exist_ok=True)
    (cell.folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_cell_leads_to_the_lm_the_text_and_the_way_it_was_read(cell: FoundCell, tmp_path: Path) -> None:
    recipe = Recipe.of(cell, None, None, tmp_path)
    assert recipe.checkpoint.folder.is_relative_to(tmp_path / "lm") and recipe.checkpoint.step == 512
    source = recipe.lm_pass("analysis", "cpu")
    assert {key: source.fingerprint[key] for key in READING} == READING
    text = recipe.text("analysis")
    assert text == {key: source.fingerprint[key] for key in text}
    assert recipe.text("validation") != text


def test_a_model_or_corpus_given_here_takes_the_place_of_the_cells_own(cell: FoundCell, tmp_path: Path) -> None:
    write_config(cell, {"model": {"_target_": "gone.Model"}, "corpus": CORPUS})
    with pytest.raises(Refused, match="^model=gone.Model: .*give model="):
        Recipe.of(cell, None, None, tmp_path)
    assert Recipe.of(cell, MODEL, {**CORPUS, "seed": 3}, tmp_path).corpus.seed == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"_target_": "os.system", "command": "touch made"}, "corpus": CORPUS},
        {"model": {**MODEL, "name": {"_target_": "os.system", "command": "touch made"}}, "corpus": CORPUS},
        {"model": {**MODEL, "names": [{"_target_": "os.mkdir", "path": "made"}]}, "corpus": CORPUS},
        {"model": MODEL, "corpus": {"_target_": "bisae.lm.model.EmbeddedModel"}},
        {"model": MODEL, "corpus": "embedded"},
        {"model": {**MODEL, "unpack_to": "${oc.env:HOME}"}, "corpus": CORPUS},
        {"model": {**MODEL, "trust_remote_code": True}, "corpus": CORPUS},
        {"model": {**MODEL, "name": "../../elsewhere"}, "corpus": CORPUS},
        {"model": {**MODEL, "name": "/etc"}, "corpus": CORPUS},
        {"model": MODEL},
        [],
        None,
    ],
)
def test_nothing_but_known_models_and_corpora_is_made_of_a_cells_config(
    cell: FoundCell, tmp_path: Path, config: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(cell, config)
    with pytest.raises(Refused):
        Recipe.of(cell, None, None, tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["model: [", "\x00", "model: ${nowhere}"])
def test_a_damaged_config_is_refused_by_name(cell: FoundCell, tmp_path: Path, text: str) -> None:
    (cell.folder / "config.yaml").write_text(text)
    with pytest.raises(Refused, match=r"config\.yaml"):
        Recipe.of(cell, None, None, tmp_path)
    (cell.folder / "config.yaml").unlink()
    with pytest.raises(Refused, match="cannot be read"):
        Recipe.of(cell, None, None, tmp_path)


def test_an_lm_with_other_weights_is_refused(cell: FoundCell, tmp_path: Path) -> None:
    made_from = json.loads(json.dumps(cell.identity["activations"])) | {"weights": "of another"}
    other = replace(cell, identity={"activations": made_from})
    with pytest.raises(Refused, match="has other weights than the SAE in"):
        _ = Recipe.of(other, None, None, tmp_path).checkpoint


def test_an_lm_read_at_another_part_of_its_blocks_is_refused(cell: FoundCell, tmp_path: Path) -> None:
    other = {**MODEL, "hook": "mlp"}
    with pytest.raises(Refused, match="has other hook than the SAE in"):
        _ = Recipe.of(cell, other, None, tmp_path).checkpoint
    cell.identity["activations"]["hook"] = "mlp"
    recipe = Recipe.of(cell, other, None, tmp_path)
    assert recipe.checkpoint.model == "embedded@mlp"
    assert recipe.text("analysis")["hook"] == recipe.lm_pass("analysis", "cpu").fingerprint["hook"] == "mlp"
    with pytest.raises(Refused, match="has other hook than the SAE in"):
        _ = Recipe.of(cell, MODEL, None, tmp_path).checkpoint
    with pytest.raises(Refused, match=r"^hook=a/b: must be the path of a part"):
        _ = Recipe.of(cell, {**MODEL, "hook": "a/b"}, None, tmp_path).checkpoint


def test_a_cell_of_another_program_is_refused(cell: FoundCell, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="lacks 'activations'"):
        Recipe.of(replace(cell, identity={}), None, None, tmp_path)
