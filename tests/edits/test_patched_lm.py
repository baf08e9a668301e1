from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from bisae.edits.operation import Edit, FeatureEdit, StreamPair
from bisae.edits.patched_lm import DonorReader, patched
from bisae.edits.recovered import ReconstructionEdit
from bisae.edits.steering import Steering
from bisae.lm.probe import decoder_blocks
from bisae.lm.residual import ResidualReader
from bisae.sae import SparseAutoencoder, TopK
from tests.lm.test_residual import FAMILIES, saved
from tests.pair_of_lms import BOS

PAD = 3


def padded(prompts: list[list[int]], side: str) -> dict[str, Tensor]:
    rows = [torch.tensor(row) for row in prompts]
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side),
    }


def adding(sae: SparseAutoencoder, coefficient: float = 1.0, shuffled: bool = False) -> FeatureEdit:
    every = torch.ones(sae.latents, dtype=torch.bool)
    return FeatureEdit(sae, every, "add", "recipient", coefficient, shuffled)


@torch.no_grad()
def logits(
    lm: PreTrainedModel, inputs: Mapping[str, Tensor], edits: Mapping[int, Edit], donor: DonorReader | None
) -> Tensor:
    with patched(lm, edits, donor, [BOS]):
        return lm(**inputs).logits


def test_an_lm_without_edits_is_the_plain_one_to_the_bit(
    lm: PreTrainedModel, donor: DonorReader, prompts: list[list[int]]
) -> None:
    inputs = padded(prompts, "right")
    with torch.no_grad():
        assert torch.equal(logits(lm, inputs, {}, donor), lm(**inputs).logits)


def test_the_same_lm_as_donor_with_coefficient_0_changes_no_bit(
    lm: PreTrainedModel, step512: Any, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    inputs, same = padded(prompts, "right"), DonorReader(step512, [2], torch.float32, lm.device)
    plain = logits(lm, inputs, {}, None)
    assert torch.equal(logits(lm, inputs, {2: adding(sae, 0.0)}, same), plain)
    assert not torch.equal(logits(lm, inputs, {2: adding(sae, 0.01)}, same), plain)


@pytest.mark.parametrize("layer", [0, 1, 4])
def test_the_reconstruction_with_its_error_changes_nothing(
    layer: int, lm: PreTrainedModel, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    inputs = padded(prompts, "right")
    plain = logits(lm, inputs, {}, None)
    torch.testing.assert_close(
        logits(lm, inputs, {layer: ReconstructionEdit(sae, error=True)}, None), plain, rtol=1e-5, atol=1e-5
    )
    assert (logits(lm, inputs, {layer: ReconstructionEdit(sae, error=False)}, None) - plain).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 2])
def test_the_stream_changes_at_the_layer_named_but_not_at_bos_and_padding(family: str, layer: int) -> None:
    lm = FAMILIES[family].eval()
    ids, mask = torch.tensor([[7, 2, 3, 4], [7, 5, 6, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    streams: list[list[Tensor]] = [[], []]

    def add_one(streams: StreamPair) -> Tensor:
        return streams.recipient + 1

    for found, edits in zip(streams, ({}, {layer: add_one}), strict=True):
        with patched(lm, edits, None, [7]) as patch, torch.no_grad():
            for block in decoder_blocks(lm):
                block.register_forward_pre_hook(
                    lambda _, args, inputs, found=found: found.append(args[0] if args else inputs["hidden_states"]),
                    with_kwargs=True,
                )
            lm(input_ids=ids, attention_mask=mask)
        for block in decoder_blocks(lm):
            block._forward_pre_hooks.clear()
    plain, edited = (torch.stack(found) for found in streams)
    change = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]])
    assert torch.equal(edited[:layer], plain[:layer])
    torch.testing.assert_close((edited - plain)[layer], change[..., None].expand_as(plain[layer]).float())
    assert patch.change(layer).touched == 1


def test_a_block_that_gives_a_tuple_still_gives_one(lm: PreTrainedModel) -> None:
    block, found = decoder_blocks(lm)[0], []

    def unwrapped(_: object, __: object, output: Any) -> Tensor:
        found.append(output)
        return output[0]

    first = block.register_forward_hook(lambda _, __, stream: (stream, "cache"))
    with patched(lm, {1: lambda streams: 0 * streams.recipient}, None, [BOS]), torch.no_grad():
        last = block.register_forward_hook(unwrapped)
        lm(torch.tensor([[BOS, 5]]))
    first.remove()
    last.remove()
    ((stream, cache),) = found
    assert stream.any(2).tolist() == [[True, False]] and cache == "cache"


def written(
    lm: PreTrainedModel,
    prompts: list[list[int]],
    edits: Mapping[int, Edit],
    donor: DonorReader | None,
    use_cache: bool = True,
) -> tuple[Tensor, Tensor]:
    """Twelve new tokens of each prompt, whatever they are, and the logits they were chosen by."""
    with patched(lm, edits, donor, [BOS]):
        generate: Any = lm.generate
        found = generate(
            **padded(prompts, "left"), use_cache=use_cache, max_new_tokens=12, min_new_tokens=12, do_sample=False,
            pad_token_id=PAD, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    return found.sequences[:, -12:], torch.stack(found.logits, 1)


@pytest.mark.parametrize("edited", ["donor", "shuffled", "own", "steered"])
def test_generation_with_a_cache_equals_generation_without(
    edited: str, lm: PreTrainedModel, donor: DonorReader, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    edits: dict[str, dict[int, Edit]] = {
        "donor": {2: adding(sae, 0.5), 3: adding(sae, 0.5)},
        "shuffled": {0: adding(sae, 0.5), 2: adding(sae, 0.5, shuffled=True)},
        "own": {2: adding(sae, -0.5)},
        "steered": {3: Steering.towards(sae, {5: 1.0})},
    }
    helper = donor if edited in ("donor", "shuffled") else None
    (cached, cached_logits), (whole, whole_logits) = (
        written(lm, prompts, edits[edited], helper, use) for use in (True, False)
    )
    assert torch.equal(cached, whole)
    torch.testing.assert_close(cached_logits, whole_logits, rtol=1e-4, atol=1e-4)
    assert not torch.equal(cached, written(lm, prompts, {}, None)[0])


def test_answers_of_unlike_lengths_lend_their_neighbours_the_same_codes_with_and_without_a_cache(
    lm: PreTrainedModel, donor: DonorReader, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    edits: dict[int, Edit] = {2: adding(sae, 1.0, shuffled=True)}
    end = int(written(lm, prompts, edits, donor)[0][0, 3])  # the first answer ends there, the others go on
    found = []
    for use_cache in (True, False):
        with patched(lm, edits, donor, [BOS]):
            generate: Any = lm.generate
            ending = {"eos_token_id": end, "pad_token_id": PAD, "max_new_tokens": 12, "do_sample": False}
            found.append(generate(**padded(prompts, "left"), use_cache=use_cache, **ending)[:, -12:])
    assert len({row.tolist().count(PAD) for row in found[0]}) > 1
    assert torch.equal(*found)


def test_prompts_of_unlike_lengths_are_continued_in_a_batch_as_each_alone(
    lm: PreTrainedModel, donor: DonorReader, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    edits = {2: adding(sae, 0.5)}
    together, _ = written(lm, prompts, edits, donor)
    assert len({len(prompt) for prompt in prompts}) == 3
    assert torch.equal(together, torch.cat([written(lm, [prompt], edits, donor)[0] for prompt in prompts]))


def test_a_donor_counts_positions_from_the_first_token_of_a_left_padded_prompt(tmp_path: Path) -> None:
    lm, prompts = FAMILIES["gpt2"], [[BOS, 5, 6], [BOS, 7, 8, 9, 10, 11]]  # its positions are absolute
    donor = DonorReader(saved("gpt2", tmp_path), [1], torch.float32, lm.device)
    edits = {1: adding(TopK(d_model=16, latents=32, k=4, seed=0))}
    _, together = written(lm, prompts, edits, donor)
    torch.testing.assert_close(together[:1], written(lm, prompts[:1], edits, donor)[1])


def test_padding_behind_the_text_changes_nothing_but_the_last_bits(
    lm: PreTrainedModel, donor: DonorReader, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    edits, ids = {2: adding(sae)}, torch.tensor(prompts[:1])
    alone = logits(lm, {"input_ids": ids}, edits, donor)[0]
    beside = logits(lm, padded(prompts, "right"), edits, donor)[0, : len(alone)]
    torch.testing.assert_close(alone, beside, rtol=1e-4, atol=1e-4)


def test_a_donor_that_has_not_read_along_is_refused(
    lm: PreTrainedModel, donor: DonorReader, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    ids = torch.tensor(prompts[:1])
    with torch.no_grad():
        past = lm(ids, use_cache=True).past_key_values
    with patched(lm, {2: adding(sae)}, donor, [BOS]), pytest.raises(ValueError, match="the donor has not read"):
        lm(ids, past_key_values=past)


def test_the_lm_is_whole_again_after_an_error(lm: PreTrainedModel, prompts: list[list[int]]) -> None:
    def broken(_: StreamPair) -> Tensor:
        raise RuntimeError("broken edit")

    inputs = padded(prompts, "right")
    with pytest.raises(RuntimeError, match="broken edit"):
        logits(lm, inputs, {0: broken, 1: broken}, None)
    assert not lm._forward_pre_hooks
    logits(lm, inputs, {}, None)


def test_a_patch_says_how_much_it_changed(lm: PreTrainedModel, prompts: list[list[int]]) -> None:
    def double_the_first(streams: StreamPair) -> Tensor:
        return torch.cat([2 * streams.recipient[:1], streams.recipient[1:]])

    with patched(lm, {1: double_the_first}, None, [BOS]) as patch, torch.no_grad():
        lm(**padded(prompts, "right"))
    tokens = sum(len(prompt) - 1 for prompt in prompts)
    assert patch.change(1) == pytest.approx((1 / tokens, 1 / tokens))


def test_an_lm_in_bfloat16_keeps_its_dtype_and_the_bits_of_an_edit_by_nothing(
    step512: Any, donor: DonorReader, sae: SparseAutoencoder, prompts: list[list[int]]
) -> None:
    from bisae.lm.causal_lm import load_causal_lm

    lm = load_causal_lm(step512, torch.bfloat16, torch.device("cpu"))
    inputs = padded(prompts, "right")
    plain = logits(lm, inputs, {}, None)
    assert plain.dtype == torch.bfloat16
    assert torch.equal(logits(lm, inputs, {2: adding(sae, 0.0)}, donor), plain)
    assert not torch.equal(logits(lm, inputs, {2: adding(sae)}, donor), plain)


@torch.no_grad()
def test_of_a_part_of_a_block_what_it_puts_out_is_edited(
    lm: PreTrainedModel, step512: Any, prompts: list[list[int]]
) -> None:
    inputs = padded(prompts, "right")
    states = lm(**inputs, output_hidden_states=True).hidden_states
    with patched(lm, {2: lambda streams: 0 * streams.recipient}, None, [], "mlp"):
        changed = lm(**inputs, output_hidden_states=True).hidden_states
    part = (replace(step512, hook="mlp"), [2], torch.float32, lm.device)
    added = ResidualReader(*part).read(inputs["input_ids"])[2]
    kept = inputs["attention_mask"].bool()
    torch.testing.assert_close((states[2] - changed[2])[kept], added[kept])
    torch.testing.assert_close(DonorReader(*part).follow(0, True, **inputs)[2][kept], added[kept])
