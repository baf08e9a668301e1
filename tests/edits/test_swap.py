from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bisae.edits.operation import Edit, StreamPair
from bisae.edits.patched_lm import patched
from bisae.edits.swap import CounterpartReader, FeatureSwap, SwapTexts, WordSwap, swapped_stream
from bisae.sae import SparseAutoencoder
from tests.edits.test_operation import CHOSEN, DONOR, SAE, H, account, norms
from tests.edits.test_patched_lm import padded
from tests.pair_of_lms import BOS, CPU

KEPT = torch.ones(1, len(H), dtype=torch.bool)


def swapped(chosen: Tensor, other: Tensor = DONOR, coefficient: float = 1.0) -> Tensor:
    return FeatureSwap(SAE, chosen, coefficient)(StreamPair(H, other, KEPT))


@pytest.mark.parametrize("coefficient", [1.0, 0.4])
def test_one_words_part_takes_the_place_of_the_others_at_the_same_length(coefficient: float) -> None:
    own, other = norms(H) * account(H, CHOSEN), norms(DONOR) * account(DONOR, CHOSEN)
    both = (norms(own) > 0) & (norms(other) > 0)
    assert both.sum() > 3
    put = other * norms(own) / norms(other)
    expected = H + coefficient * (put - own)
    torch.testing.assert_close(swapped(CHOSEN, coefficient=coefficient)[both[:, 0]], expected[both[:, 0]])


def test_a_word_of_which_the_features_say_nothing_gives_nothing_and_gets_nothing() -> None:
    one = torch.zeros_like(CHOSEN)
    one[int(telling_feature(H, DONOR))] = True  # a feature that fires on some words only
    own, other = norms(H) * account(H, one), account(DONOR, one)
    silent, alone = norms(own)[:, 0] == 0, (norms(own)[:, 0] > 0) & (norms(other)[:, 0] == 0)
    assert silent.any() and alone.any()
    new = swapped(one)
    assert torch.equal(new[silent], H[silent])
    torch.testing.assert_close(new[alone], (H - own)[alone])


def telling_feature(own: Tensor, other: Tensor) -> int:
    """A feature that is silent on a row of `own`, and that fires on another one where it is silent on `other`."""
    for number in range(len(CHOSEN)):
        one = torch.zeros_like(CHOSEN)
        one[number] = True
        mine, theirs = (norms(account(rows, one))[:, 0] > 0 for rows in (own, other))
        if (mine & ~theirs).any() and not mine.all():
            return number
    raise AssertionError("no such feature")


@pytest.fixture(scope="module")
def swaps(prompts: list[list[int]]) -> SwapTexts:
    """In each prompt two tokens are to be swapped for two others."""
    return SwapTexts({tuple(row): WordSwap(3, (row[1], row[2])) for row in prompts})


@torch.no_grad()
def logits(
    lm: PreTrainedModel, inputs: Mapping[str, Tensor], edits: Mapping[int, Edit], reader: Any, places: Any
) -> Tensor:
    with patched(lm, edits, reader, [BOS], places=places):
        return lm(**inputs).logits


@pytest.mark.parametrize("layer", [0, 1, 2, 4])
def test_the_whole_stream_of_every_position_gives_what_the_lm_says_of_the_other_word(
    layer: int, lm: PreTrainedModel, step512: Any, prompts: list[list[int]], swaps: SwapTexts
) -> None:
    inputs = padded(prompts, "right")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    reader = CounterpartReader(step512, [layer], torch.float32, CPU, swaps)
    with torch.no_grad():
        expected = lm(input_ids=swaps.others(ids, mask), attention_mask=mask).logits
    plain = logits(lm, inputs, {}, None, None)
    everywhere = logits(lm, inputs, {layer: swapped_stream}, reader, None)
    torch.testing.assert_close(everywhere[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
    at_words = logits(lm, inputs, {layer: swapped_stream}, reader, swaps.places)
    after = mask.bool() & (torch.arange(ids.shape[1]) > 4)
    if layer == 0:  # nothing has left the word yet
        torch.testing.assert_close(at_words[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
    if layer == 4:  # nothing leaves it any more
        assert torch.equal(at_words[after], plain[after])
    else:
        assert (at_words[after] - plain[after]).abs().max() > 0.1


def test_only_the_words_are_edited(
    lm: PreTrainedModel, step512: Any, sae: SparseAutoencoder, prompts: list[list[int]], swaps: SwapTexts
) -> None:
    inputs, every = padded(prompts, "right"), torch.ones(sae.latents, dtype=torch.bool)
    reader = CounterpartReader(step512, [2], torch.float32, CPU, swaps)
    plain, after = logits(lm, inputs, {}, None, None), inputs["attention_mask"].bool()
    new = logits(lm, inputs, {2: FeatureSwap(sae, every)}, reader, swaps.places)
    assert torch.equal(new[:, :3][after[:, :3]], plain[:, :3][after[:, :3]])
    assert not torch.equal(new[:, 3:5], plain[:, 3:5])


def test_a_word_swapped_for_itself_changes_no_bit(lm: PreTrainedModel, step512: Any, prompts: list[list[int]]) -> None:
    same = SwapTexts({tuple(row): WordSwap(3, (row[3], row[4])) for row in prompts})
    inputs, reader = padded(prompts, "right"), CounterpartReader(step512, [2], torch.float32, CPU, same)
    plain = logits(lm, inputs, {}, None, None)
    assert torch.equal(logits(lm, inputs, {2: swapped_stream}, reader, same.places), plain)
