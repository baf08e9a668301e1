from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bisae.edits.patched_lm import patched
from bisae.edits.resumed import RememberedCodes, ResumedLM
from bisae.lm.losses import token_losses
from bisae.lm.probe import decoder_blocks
from bisae.sae import SparseAutoencoder
from tests.edits.test_patched_lm import adding, padded
from tests.pair_of_lms import BOS


class Counted:
    """How often a block's MLP runs."""

    def __init__(self, lm: PreTrainedModel, block: int) -> None:
        self.times = 0
        part: Any = decoder_blocks(lm)[block].mlp
        self.hook = part.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.times += 1


@torch.no_grad()
def test_under_edits_it_gives_the_same_bits_and_runs_lower_blocks_once(
    lm: PreTrainedModel, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    inputs = padded(prompts, "right")
    edits = [{2: adding(sae, coefficient)} for coefficient in (0.0, 0.1, 0.7)]
    expected = []
    for edit in edits:
        with patched(lm, edit, None, [BOS]):
            expected.append(lm(**inputs, use_cache=False).logits)
    resumed = ResumedLM(lm, 2)
    lower, upper = Counted(lm, 1), Counted(lm, 2)
    for edit, logits in zip(edits, expected, strict=True):
        with resumed.reading(), patched(lm, edit, None, [BOS]) as patch:
            assert torch.equal(lm(**inputs, use_cache=False).logits, logits)
        assert patch.change(2).touched == (1 if edit is not edits[0] else 0)
    assert (lower.times, upper.times) == (1, 3)
    shorter = padded([row[:-1] for row in prompts], "right")
    with resumed.reading():
        other = lm(**shorter, use_cache=False).logits
        lm(**inputs)  # with a cache it begins at the beginning
    assert torch.equal(other, lm(**shorter, use_cache=False).logits) and lower.times == 1 + 3
    for counted in (lower, upper):
        counted.hook.remove()


@torch.no_grad()
def test_an_lm_whose_upper_blocks_need_more_than_the_stream_is_read_whole(
    lm: PreTrainedModel, prompts: list[list[int]]
) -> None:
    seen = Counted(lm, 0)
    told: list[Tensor] = []  # by the first block to the last one
    blocks = decoder_blocks(lm)
    tells = blocks[0].register_forward_hook(lambda _, __, output: told.append(output))
    hears = blocks[3].register_forward_hook(lambda _, __, output: output + told.pop() if told else output)
    resumed = ResumedLM(lm, 2)
    before = seen.times
    with resumed.reading():
        for _ in range(2):
            lm(**padded(prompts, "right"), use_cache=False)
    for hook in (tells, hears, seen.hook):
        hook.remove()
    assert seen.times == before + 2


def test_remembered_codes_are_those_of_the_sae(sae: SparseAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [torch.randn(5, sae.d_model), torch.randn(5, sae.d_model)]
    expected, codes = [sae.encode(one) for one in rows], RememberedCodes(sae)
    for one, own in zip(rows, expected, strict=True):
        assert torch.equal(codes(one).dense(), own.dense())
    monkeypatch.setattr(type(sae), "encode", lambda *_: pytest.fail("encoded again"))
    for one, own in zip(rows, expected, strict=True):
        assert torch.equal(codes(one.clone()).dense(), own.dense())


def test_losses_from_a_place_on_are_the_last_ones_of_all(lm: PreTrainedModel, prompts: list[list[int]]) -> None:
    starts = [len(row) - 1 - number for number, row in enumerate(prompts)]
    whole, late = token_losses(lm, prompts, 2), token_losses(lm, prompts, 2, starts)
    for all_of_it, found, start in zip(whole, late, starts, strict=True):
        assert len(found) == len(all_of_it) - start + 1
        assert found == pytest.approx(all_of_it[start - 1 :], rel=1e-5)
