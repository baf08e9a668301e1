"""What an LM writes is the likeliest token each time, whatever the files beside its weights say."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.generation import CausalLM, generation_identity, greedy, written
from bisae.lm.model import Checkpoint
from bisae.sae import TopK

ROOT = Path(__file__).parents[2]
PROMPTS = ["He is", "I like the", "彼は"]
LENGTH = 20
NOT_GREEDY: list[tuple[str, dict[str, Any]]] = [
    ("generation_config", {"repetition_penalty": 5.0, "max_length": 3, "return_dict_in_generate": True}),
    ("generation_config", {"no_repeat_ngram_size": 1, "exponential_decay_length_penalty": [1, 5.0]}),
    ("generation_config", {"min_new_tokens": 18, "min_length": 25}),
    ("generation_config", {"forced_eos_token_id": 2, "begin_suppress_tokens": [*range(3, 300)]}),
    ("generation_config", {"suppress_tokens": [*range(300, 2000)], "stop_strings": ["e"]}),
    ("generation_config", {"bad_words_ids": [[one] for one in range(300, 1500)]}),
    ("generation_config", {"eos_token_id": [*range(300, 2000)], "guidance_scale": 1.5}),
    ("generation_config", {"num_beams": 4, "length_penalty": 9.0, "num_return_sequences": 3}),
    ("config", {"repetition_penalty": 5.0, "num_beams": 4, "do_sample": True, "temperature": 9.0}),
]


def with_files(checkpoint: Checkpoint, folder: Path, **files: dict[str, Any]) -> Checkpoint:
    """A copy of an LM's folder, in which JSON files have other entries."""
    shutil.copytree(checkpoint.folder, folder)
    for name, entries in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | entries))
    return replace(checkpoint, folder=folder)


def loaded(checkpoint: Checkpoint) -> Any:
    return load_causal_lm(checkpoint, torch.float32, torch.device("cpu"))


@torch.no_grad()
def likeliest(model: Any, tokenizer: Any, prompt: str) -> str:
    ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
    begin = len(ids)
    while len(ids) < begin + LENGTH and ids[-1] != tokenizer.eos_token_id:
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return str(tokenizer.decode([one for one in ids[begin:] if one != tokenizer.eos_token_id]))


def answers(lm: CausalLM) -> list[str]:
    return lm.generate([lm.tokenizer(prompt).input_ids for prompt in PROMPTS], None, LENGTH)


@pytest.fixture(scope="module")
def right(step512: Checkpoint) -> list[str]:
    model, tokenizer = loaded(step512), step512.load_tokenizer().written
    return [likeliest(model, tokenizer, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize(("file", "said"), NOT_GREEDY)
def test_an_lm_writes_the_likeliest_tokens_whatever_its_folder_says(
    step512: Checkpoint, right: list[str], tmp_path: Path, file: str, said: dict[str, Any]
) -> None:
    checkpoint = with_files(step512, tmp_path / "lm", **{file: said})
    tokenizer = checkpoint.load_tokenizer().written
    assert answers(CausalLM(loaded(checkpoint), tokenizer, 2)) == right
    assert generation_identity([step512.folder, checkpoint.folder], tokenizer)  # measured again


def test_answers_of_an_lm_that_was_greedy_before_are_not_measured_again(step512: Checkpoint, tmp_path: Path) -> None:
    tokenizer = step512.load_tokenizer().written
    said = {"eos_token_id": tokenizer.eos_token_id, "do_sample": True, "temperature": 0.6, "max_length": 30}
    said_by = with_files(step512, tmp_path / "lm", generation_config=said).folder
    assert generation_identity([step512.folder, said_by], tokenizer) == {}


def test_a_loaded_lm_of_the_users_own_writes_the_same(step512: Checkpoint, right: list[str], tmp_path: Path) -> None:
    folder = with_files(step512, tmp_path / "lm", generation_config={"repetition_penalty": 5.0}).folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert answers(CausalLM(model, step512.load_tokenizer().written, 4)) == right
    model.generate = None  # as a folder with code of its own would set it
    assert answers(CausalLM(model, step512.load_tokenizer().written, 4)) == right


def test_an_end_of_sequence_ends_an_answer_and_what_pads_the_others_is_no_text(
    step512: Checkpoint, right: list[str]
) -> None:
    tokenizer = step512.load_tokenizer().written
    first: Any = tokenizer(right[0], add_special_tokens=False).input_ids[3]
    for pad in (tokenizer.pad_token, None):
        tokenizer = step512.load_tokenizer().written
        tokenizer.pad_token, tokenizer.eos_token = pad, tokenizer.convert_ids_to_tokens(first)
        found = answers(CausalLM(loaded(step512), tokenizer, 3))
        assert found[0] == tokenizer.decode(tokenizer(right[0], add_special_tokens=False).input_ids[:3])


def test_without_an_end_of_sequence_an_answer_is_as_long_as_asked(step512: Checkpoint) -> None:
    tokenizer = step512.load_tokenizer().written
    tokenizer.eos_token = tokenizer.pad_token = None
    lm = CausalLM(loaded(step512), tokenizer, 3)
    assert all(len(tokenizer(text, add_special_tokens=False).input_ids) > LENGTH - 6 for text in answers(lm))


def test_bytes_and_markup_that_a_tokenizer_calls_special_stay_in_an_answer(step512: Checkpoint) -> None:
    tokenizer = step512.load_tokenizer().written
    text = "彼女は鰯を食べた。"
    bytes_of = [f"<0x{byte:02X}>" for byte in "鰯".encode()]
    ids = [*tokenizer("彼女は", add_special_tokens=False).input_ids, *tokenizer.convert_tokens_to_ids(bytes_of)]
    ids += tokenizer("を食べた。", add_special_tokens=False).input_ids
    tokenizer.add_special_tokens({"additional_special_tokens": [*bytes_of, "<0x0A>"]})
    assert "鰯" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert written(tokenizer, ids) == text
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert written(tokenizer, [bos, *ids[:2], pad, *ids[2:], eos, *ids, pad]) == text
    assert written(tokenizer, [tokenizer.unk_token_id]) == "<unk>"
    assert generation_identity([step512.folder], tokenizer)["generation"]["eos"] == eos  # answers change: asked again


def test_text_that_spells_a_special_token_is_text(step512: Checkpoint) -> None:
    tokenizer = step512.load_tokenizer().written
    ids = tokenizer("a </s> b", add_special_tokens=False, split_special_tokens=True).input_ids
    assert tokenizer.eos_token_id not in ids and written(tokenizer, ids) == "a </s> b"


def test_the_snippet_of_the_page_on_interventions_runs(step512: Checkpoint, right: list[str]) -> None:
    page = (ROOT / "docs" / "intervention.md").read_text(encoding="utf-8")
    *_, snippet = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    sae = TopK(step512.d_model, 32, k=4)
    known = {"torch": torch, "checkpoint": step512, "sae": sae, "tokenizer": step512.load_tokenizer().written}
    exec(snippet, known)  # noqa: S102
    assert isinstance(known["answer"], str) and known["answer"] != right[0]
    zero = snippet.replace("0.5", "0.0")
    exec(zero, known)  # noqa: S102
    assert known["answer"] == right[0]
    assert greedy(known["tokenizer"], 20).max_new_tokens == LENGTH
