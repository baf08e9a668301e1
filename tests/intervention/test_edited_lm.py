from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from bisae.edits.operation import FeatureEdit
from bisae.edits.patched_lm import DonorReader, patched
from bisae.edits.steering import Steering
from bisae.intervention.edited_lm import EditedLM, _kinds
from bisae.lm.model import Checkpoint
from bisae.sae import SparseAutoencoder

LENGTH = 8


@pytest.fixture(scope="module")
def tokenizer(final: Checkpoint) -> Any:
    return AutoTokenizer.from_pretrained(final.folder)


def beams(edited: EditedLM, prompts: list[list[int]], use_cache: bool) -> Any:
    """Several beams of each left-padded prompt, all kept."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ends = GenerationConfig(
        num_beams=4,
        num_return_sequences=4,
        max_new_tokens=LENGTH,
        pad_token_id=0,
        eos_token_id=None,
        use_cache=use_cache,
    )
    return edited.generate(input_ids=ids, attention_mask=mask, generation_config=ends)[:, longest:]


def adding(sae: SparseAutoencoder) -> FeatureEdit:
    return FeatureEdit(sae, torch.ones(sae.latents, dtype=torch.bool), "add", "donor", 1.0, False)


def test_beams_under_a_donors_features_are_those_of_reading_every_text_anew(
    lm: PreTrainedModel,
    donor: DonorReader,
    sae: SparseAutoencoder,
    tokenizer: Any,
    prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edited = EditedLM(lm, tokenizer, {2: adding(sae)}, donor)
    anew = beams(edited, prompts, use_cache=False)
    assert torch.equal(beams(edited, prompts, use_cache=True), anew)
    assert not torch.equal(beams(EditedLM(lm, tokenizer, {}), prompts, use_cache=True), anew)
    monkeypatch.setattr(DonorReader, "follow_beams", lambda *_: None)  # what would be silently wrong
    assert not torch.equal(beams(edited, prompts, use_cache=True), anew)


def test_beams_under_steering_are_those_of_reading_every_text_anew(
    lm: PreTrainedModel, sae: SparseAutoencoder, tokenizer: Any, prompts: list[list[int]]
) -> None:
    edited = EditedLM(lm, tokenizer, {2: Steering.towards(sae, {3: 2.0})})
    anew = beams(edited, prompts, use_cache=False)
    assert torch.equal(beams(edited, prompts, use_cache=True), anew)
    assert not torch.equal(beams(EditedLM(lm, tokenizer, {}), prompts, use_cache=True), anew)


def test_a_call_is_edited_and_the_lm_is_plain_afterwards(
    lm: PreTrainedModel, sae: SparseAutoencoder, tokenizer: Any
) -> None:
    edited, ids = EditedLM(lm, tokenizer, {2: Steering.towards(sae, {3: 2.0})}), torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        before = lm(input_ids=ids).logits
        with patched(lm, edited.edits, None, {tokenizer.bos_token_id}):
            expected = lm(input_ids=ids).logits
        assert torch.equal(edited(input_ids=ids).logits, expected) and not torch.equal(expected, before)
        assert torch.equal(lm(input_ids=ids).logits, before)
    assert isinstance(edited.answer("He is", 3, beams=2), str)


@pytest.mark.parametrize(("kind", "kinds"), [("ja", ["ja"]), (17, [[17]]), ("3+17", [[3, 17]]), ([3, 17], [[3, 17]])])
def test_features_are_named_by_kind_or_number(kind: Any, kinds: list[Any]) -> None:
    assert _kinds(kind) == kinds
