from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from bisae.edits.operation import FeatureEdit
from bisae.edits.patched_lm import DonorReader, patched
from bisae.edits.steering import Steering
from bisae.intervention.edited_lm import EditedLM, _check_changes, _kinds
from bisae.intervention.specs import EditSettings, planned
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder
from tests.intervention.test_specs import features

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


@pytest.mark.parametrize(
    ("kind", "mode", "coefficient", "refused"),
    [
        ("mixed", "ablate", 1.0, "^kind=mixed: the cell has no such feature: the LM would be the plain one"),
        (3, "steer", 1.0, "^kind=3: never fires on the analysed text"),
        ("en", "scale", 1.0, "^coefficient=1.0: mode=scale multiplies features by it"),
        ("ja", "steer", 1.0, None),
        ("en", "scale", 0.5, None),
        ("en", "ablate", 1.0, None),
        (3, "add", 1.0, None),  # it may fire on other text
    ],
)
def test_an_edit_that_would_leave_the_lm_as_it_is_is_refused(
    kind: Any, mode: str, coefficient: float, refused: str | None
) -> None:
    layers = {2: features()}
    layers[2].table.loc[3, "maximum"] = 0.0
    layers[2].table["class"] = layers[2].table["class"].replace("Mixed", "dead")
    edit, controls = EditSettings(mode, "donor", [coefficient]), {"random": 0, "shuffled": False, "self": False}
    _, spec = planned(layers, ["en", "ja"], edit, _kinds(kind), controls, None, 0)
    with pytest.raises(Refused, match=refused) if refused else nullcontext():
        _check_changes(spec, layers, kind)


@pytest.mark.parametrize(("kind", "kinds"), [("ja", ["ja"]), (17, [[17]]), ("3+17", [[3, 17]]), ([3, 17], [[3, 17]])])
def test_features_are_named_by_kind_or_number(kind: Any, kinds: list[Any]) -> None:
    assert _kinds(kind) == kinds
