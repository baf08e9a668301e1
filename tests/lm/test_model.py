import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bisae.lm.model import Checkpoint, EmbeddedModel, HuggingFaceModel
from bisae.lm.residual import ResidualReader
from bisae.runtime.errors import Refused


def hugging_face(path: Path | str, **options: Any) -> HuggingFaceModel:
    defaults: dict[str, Any] = {
        "revision": None,
        "step_unit": 1,
        "final_path": None,
        "final_step": None,
        "tokens_per_step": None,
        "layers": None,
        "d_model": None,
        "trust_remote_code": False,
    }
    return HuggingFaceModel("mine", str(path), **{**defaults, **options})


def save(checkpoint: Checkpoint, folder: Path, **options: Any) -> Any:
    """`checkpoint` as transformers saves it; returns the LM."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(checkpoint.folder)
    lm.save_pretrained(folder, **options)
    return lm


def stream(checkpoint: Checkpoint) -> torch.Tensor:
    """Layer 2 on 20 tokens."""
    return ResidualReader(checkpoint, [2], torch.float32, torch.device("cpu")).read(torch.arange(20)[None] + 300)[2]


def test_final_is_the_last_step_of_an_embedded_ladder(tmp_path: Path) -> None:
    model = EmbeddedModel("embedded", str(tmp_path))
    final = model.checkpoint("final")
    assert final.step == 2048 and final == model.checkpoint(2048)
    assert (final.layers, final.d_model, final.tokens_seen, final.positions) == (4, 128, 2048 * 2048, 1024)


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^checkpoint=100: embedded has the steps \[0, 64, .*2048\]"):
        EmbeddedModel("embedded", str(tmp_path)).checkpoint(100)
    for wrong in ("last", -1, True):
        with pytest.raises(Refused, match="^checkpoint="):
            EmbeddedModel("embedded", str(tmp_path)).checkpoint(wrong)


def test_an_unpacked_checkpoint_is_an_ordinary_hugging_face_folder(step512: Checkpoint) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(step512.folder)
    lm = AutoModelForCausalLM.from_pretrained(step512.folder)
    ids = tokenizer("I have a dog.", return_tensors="pt").input_ids
    assert lm(ids, labels=ids).loss < 7  # a uniform guess scores ln 5120 = 8.5
    assert lm.lm_head.weight.data_ptr() == lm.model.embed_tokens.weight.data_ptr()
    assert step512.parameters == lm.num_parameters()


def test_a_template_is_another_folder_for_every_step(step512: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(step512.folder, tmp_path / "iter_0000512")
    model = hugging_face(tmp_path / "iter_%07d", tokens_per_step=2048)
    found = model.checkpoint(512)
    assert (found.step, found.tokens_seen, found.layers, found.d_model) == (512, 512 * 2048, 4, 128)
    with pytest.raises(Refused, match="^checkpoint=1024: no folder"):
        model.checkpoint(1024)
    shutil.move(tmp_path / "iter_0000512", tmp_path / "moved_512")
    assert hugging_face(tmp_path / "moved_%d").checkpoint(512).weights == found.weights


def test_a_path_without_step_serves_only_its_own_final_step(step512: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(step512.folder, tmp_path / "model")
    model = hugging_face(tmp_path / "model", final_step=512)
    assert model.checkpoint("final") == model.checkpoint(512)
    with pytest.raises(Refused, match="step 1024 would load the same weights as any other"):
        model.checkpoint(1024)
    with pytest.raises(Refused, match="^final_step="):
        hugging_face(tmp_path / "model").checkpoint("final")


@pytest.mark.parametrize("witness", ["name", "recipe.json", "trainer_state.json"])
def test_a_folder_that_holds_another_step_is_refused(step512: Checkpoint, tmp_path: Path, witness: str) -> None:
    folder = tmp_path / ("iter_0000256" if witness == "name" else "model")
    shutil.copytree(step512.folder, folder)
    if witness != "name":
        key = {"recipe.json": "step", "trainer_state.json": "global_step"}[witness]
        (folder / witness).write_text(json.dumps({key: 256}))
    with pytest.raises(Refused, match=r"^checkpoint=512: .* holds step 256"):
        hugging_face(folder, final_step=512).checkpoint(512)


def test_a_revision_of_a_local_folder_is_refused(step512: Checkpoint) -> None:
    with pytest.raises(Refused, match="^revision=main: .* is a local folder"):
        hugging_face(step512.folder.parent / "step%07d-b99f520f", revision="main").checkpoint(512)


def test_a_folder_without_all_its_weights_is_refused(step512: Checkpoint, tmp_path: Path) -> None:
    model = hugging_face(tmp_path / "model", final_step=512)
    (tmp_path / "model").mkdir()
    with pytest.raises(Refused, match=r"^path=.* lacks \['config.json'\]"):
        model.checkpoint(512)
    shutil.copy(step512.folder / "config.json", tmp_path / "model")
    with pytest.raises(Refused, match=r"^path=.* lacks \*.safetensors or pytorch_model\*.bin"):
        model.checkpoint(512)
    save(step512, tmp_path / "model", max_shard_size="2MB")
    assert model.checkpoint(512).parameters == step512.parameters
    shard = max((tmp_path / "model").glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(Refused, match="^path=.* cannot be read: "):
        model.checkpoint(512)
    shard.unlink()
    with pytest.raises(Refused, match=rf"^path=.* lacks \['{shard.name}'\]"):
        model.checkpoint(512)


def test_bin_weights_serve_where_there_are_no_safetensors(step512: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    lm = save(step512, folder)
    whole = hugging_face(folder, final_step=512).checkpoint(512)
    torch.save(lm.state_dict(), folder / "pytorch_model.bin")
    assert hugging_face(folder, final_step=512).checkpoint(512) == whole
    (folder / "model.safetensors").unlink()
    pickled = hugging_face(folder, final_step=512).checkpoint(512)
    assert pickled.parameters is None and whole.parameters == step512.parameters
    assert torch.equal(stream(pickled), stream(step512))


def test_a_checkpoint_that_is_not_the_lm_the_preset_describes_is_refused(step512: Checkpoint) -> None:
    path = step512.folder.parent / "step%07d-b99f520f"
    assert hugging_face(path, layers=4, d_model=128).checkpoint(512).layers == 4
    for key, wrong in (("layers", 12), ("d_model", 512)):
        with pytest.raises(Refused, match=f"^path=.* has {key} .*, not {key}={wrong}"):
            hugging_face(path, **{key: wrong}).checkpoint(512)


def test_names_may_count_steps_in_thousands(step512: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(step512.folder, tmp_path / "step_5k")
    model = hugging_face(tmp_path / "step_%dk", step_unit=1000, final_path=str(tmp_path / "step_5k"), final_step=5001)
    assert model.checkpoint(5000).step == 5000
    with pytest.raises(Refused, match="^checkpoint=5001: must be a multiple of step_unit=1000"):
        model.checkpoint(5001)
    (tmp_path / "step_5k").rename(tmp_path / "final")
    final = hugging_face(tmp_path / "step_%dk", step_unit=1000, final_path=str(tmp_path / "final"), final_step=5001)
    assert final.checkpoint("final").step == 5001


def test_a_hub_repository_that_cannot_be_had_offline_is_refused_at_once() -> None:
    with pytest.raises(Refused, match="^path=nobody/nothing: neither a local folder nor in the local hub"):
        hugging_face("nobody/nothing", final_step=3).checkpoint("final")


def test_a_tokenizer_that_is_not_there_is_refused_by_its_own_key(step512: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.touch()
    for place in (tmp_path / "gone", file, Path("~/gone")):
        with pytest.raises(Refused, match=f"^tokenizer={place}: no such folder"):
            hugging_face(step512.folder, final_step=512, tokenizer=str(place)).checkpoint(512)
    with pytest.raises(Refused, match="^tokenizer=nobody/nothing: neither a local folder"):
        hugging_face(step512.folder, final_step=512, tokenizer="nobody/nothing").checkpoint(512)


def test_other_weights_are_another_checkpoint(step512: Checkpoint, tmp_path: Path) -> None:
    other = EmbeddedModel("embedded", str(tmp_path)).checkpoint(256)
    assert other.weights != step512.weights and other.tokenizer == step512.tokenizer
    assert not torch.allclose(stream(other), stream(step512))
