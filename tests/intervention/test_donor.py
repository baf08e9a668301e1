from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bisae.cells.find import FoundCell
from bisae.intervention.donor import DonorCells
from bisae.lm.model import EmbeddedModel
from bisae.runtime.errors import Refused

Make = Callable[..., FoundCell]
READING = {"context": 8, "shortest": 1, "lm_batch": 2, "shard_batches": 1, "lm_dtype": "float32"}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(model: str, step: int, layer: int, hash: str) -> FoundCell:
        folder = tmp_path / model / str(step) / f"layer{layer}" / hash
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(
            f"model: {{_target_: bisae.lm.model.EmbeddedModel, name: {model}, unpack_to: x}}\n"
            "corpus: {_target_: bisae.corpus.embedded.EmbeddedCorpus, name: embedded, seed: 0}\n"
        )
        checkpoint = EmbeddedModel(model, str(tmp_path / "cache/lm")).checkpoint(step)
        weights = {"weights": checkpoint.weights, "tokenizer": checkpoint.tokenizer}
        return FoundCell(folder, model, step, layer, "topk", hash, {"activations": {**READING, **weights}}, {}, {})

    return made


def choose(cells: list[FoundCell], cache: Path, **given: Any) -> DonorCells:
    wanted: dict[str, Any] = {"model": None, "step": "final", "sae": None, "layer": 2, **given}
    return DonorCells.choose(cells, nodes=(None, None, cache), **{"retrieval": cache / "none.csv", **wanted})


def test_the_one_cell_of_each_layer_is_the_donors_and_other_checkpoints_are_recipients(
    make: Make, tmp_path: Path
) -> None:
    cells = [make("embedded", step, layer, "a") for step in (512, 2048) for layer in (1, 2)]
    donor = choose(cells, tmp_path / "cache", layer=[1, 2])
    assert [(deep, cell.step, cell.layer) for deep, cell in donor.cells.items()] == [(1, 2048, 1), (2, 2048, 2)]
    assert donor.checkpoint.step == 2048 and donor.recipient(256, cells, tmp_path).step == 256
    assert choose(cells, tmp_path / "cache", step=512).checkpoint.step == 512
    with pytest.raises(Refused, match=r"^recipient=7: .* has the steps"):
        donor.recipient(7, cells, tmp_path)


def test_another_lm_of_the_cells_is_a_recipient_too(make: Make, tmp_path: Path) -> None:
    cells = [make("embedded", 2048, 2, "a"), make("embedded_control", 2048, 2, "b"), make("embedded_d64", 2048, 2, "c")]
    donor = choose(cells, tmp_path / "cache", model="embedded")
    found = [donor.recipient(asked, cells, tmp_path / "cache") for asked in ("embedded_control/512", "embedded/final")]
    assert [(lm.model, lm.step) for lm in found] == [("embedded_control", 512), ("embedded", 2048)]
    with pytest.raises(Refused, match="^recipient=embedded_seed1/512: no cell of embedded_seed1.* embedded_d64$"):
        donor.recipient("embedded_seed1/512", cells, tmp_path)
    with pytest.raises(Refused, match="^donor=embedded at step 2048: has the d_model 128"):
        donor.recipient("embedded_d64/512", cells, tmp_path / "cache")


def test_what_is_not_there_or_not_one_is_refused_with_what_there_is(make: Make, tmp_path: Path) -> None:
    cells = [make("embedded", 2048, 2, "aaa"), make("embedded", 2048, 2, "abb"), make("embedded", 2048, 1, "ccc")]
    with pytest.raises(Refused, match="^sae=None: layer 2 has 2 SAEs: name one of topk-aaa, topk-abb"):
        choose(cells, tmp_path / "cache")
    assert choose(cells, tmp_path / "cache", sae="topk-ab").cells[2].hash == "abb"
    with pytest.raises(Refused, match=r"^layer=3: no SAE of it at step 2048; .* 2048/1, 2048/2"):
        choose(cells, tmp_path / "cache", layer=3)
    both = [*cells, make("embedded_control", 2048, 2, "ddd")]
    with pytest.raises(Refused, match="^model=None: name one: the cells are of embedded, embedded_control"):
        choose(both, tmp_path / "cache")
    assert choose(both, tmp_path / "cache", model="embedded_control").cells[2].hash == "ddd"
    with pytest.raises(Refused, match="^model=mine: no cell of it"):
        choose(both, tmp_path / "cache", model="mine")
