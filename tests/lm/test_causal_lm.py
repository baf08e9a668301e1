import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bisae.edits.patched_lm import DonorReader
from bisae.intervention.donor import check_pair
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused


def test_weights_that_are_missing_are_refused_rather_than_drawn_at_random(step512: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    shutil.copytree(step512.folder, folder)
    weights = load_file(folder / "model.safetensors")
    (gone,) = (name for name in weights if name.endswith("layers.2.mlp.up_proj.weight"))
    del weights[gone]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=r"^path=.*lacks 1 weights, such as model.layers.2.mlp.up_proj.weight"):
        load_causal_lm(replace(step512, folder=folder), torch.float32, torch.device("cpu"))


def test_a_donor_of_another_tokenizer_or_width_is_refused(step512: Checkpoint, final: Checkpoint) -> None:
    check_pair(final, step512)
    with pytest.raises(Refused, match="donor=embedded at step 2048: has the d_model 64, and embedded at step 512"):
        check_pair(replace(final, d_model=64), step512)
    with pytest.raises(Refused, match="has the tokenizer"):
        check_pair(replace(final, tokenizer="another"), step512)


def test_a_donor_reads_a_text_once_and_only_what_there_is_room_for_is_kept(
    final: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.tensor([[1, 40, 50, 60], [1, 70, 80, 0]])
    mask = (ids > 0).long()
    monkeypatch.setattr(DonorReader, "_left", 3 * ids.numel() * 128 * 4 - 1)  # of three such texts the last has no room
    donor, calls = DonorReader(final, [2], torch.float32, torch.device("cpu")), list[object]()
    donor.model.register_forward_pre_hook(lambda *_: calls.append(_))
    texts = [{"input_ids": ids + more, "attention_mask": mask} for more in (0, 1, 2)]
    first, again = ([donor.follow(0, False, **text)[2] for text in texts] for _ in range(2))
    assert len(calls) == 4
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[0], first[1])
    donor.follow(0, False, input_ids=ids, attention_mask=torch.ones_like(ids))  # the same ids, read otherwise
    cached = donor.follow(0, True, **texts[0])[2]  # with a cache, that it may go on
    assert len(calls) == 6 and torch.allclose(cached, first[0], atol=1e-5)
