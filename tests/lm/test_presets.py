"""Presets of public ladders, without the hub: what is asked of it, and what its old files need."""

from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bisae.config.instantiate import instantiate
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.model import EMBEDDED, Checkpoint, HuggingFaceModel
from bisae.lm.residual import ResidualReader
from bisae.lm.step_names import check_listed, named
from bisae.runtime.errors import Refused
from tests.lm.test_lm_pass import make_pass
from tests.lm.test_model_presets import llama
from tests.lm.test_residual import FAMILIES, IDS

Ladder = Callable[..., HuggingFaceModel]
Asked = list[tuple[str, str | None]]

PYTHIA = {0: "step0", 512: "step512", 143000: "step143000"}
OLMO = {0: "stage1-step0-tokens0B", 300: "stage1-step300-tokens1B", 1907359: "stage1-step1907359-tokens4001B"}
LADDERS: dict[str, tuple[str, str, dict[int, str], int, int]] = {  # repository, of `final`, revisions, layers, d_model
    "pythia_70m": ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m", PYTHIA, 6, 512),
    "pythia_160m": ("EleutherAI/pythia-160m", "EleutherAI/pythia-160m", PYTHIA, 12, 768),
    "pythia_410m": ("EleutherAI/pythia-410m", "EleutherAI/pythia-410m", PYTHIA, 24, 1024),
    "pythia_1b": ("EleutherAI/pythia-1b", "EleutherAI/pythia-1b", PYTHIA, 16, 2048),
    "pythia_1.4b": ("EleutherAI/pythia-1.4b", "EleutherAI/pythia-1.4b", PYTHIA, 24, 2048),
    "pythia_2.8b": ("EleutherAI/pythia-2.8b", "EleutherAI/pythia-2.8b", {66000: "step66000"}, 32, 2560),
    "pythia_6.9b": ("EleutherAI/pythia-6.9b", "EleutherAI/pythia-6.9b", PYTHIA, 32, 4096),
    "olmo_2_1b": ("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-0425-1B", OLMO, 16, 2048),
    "olmo_2_1b_early": (
        "allenai/OLMo-2-0425-1B-early-training", "", {1000: "stage1-step1000-tokens3B"}, 16, 2048,
    ),
    "olmo_2_7b": (
        "allenai/OLMo-2-1124-7B", "allenai/OLMo-2-1124-7B", {928646: "stage1-step928646-tokens3896B"}, 32, 4096,
    ),
    "bloom_560m": ("bigscience/bloom-560m-intermediate", "bigscience/bloom-560m", {1000: "global_step1000"}, 24, 1024),
    "bloom_1b1": ("bigscience/bloom-1b1-intermediate", "bigscience/bloom-1b1", {600000: "global_step600000"}, 24, 1536),
    "bloom_1b7": ("bigscience/bloom-1b7-intermediate", "bigscience/bloom-1b7", {50000: "global_step50000"}, 24, 2048),
    "bloom_3b": ("bigscience/bloom-3b-intermediate", "bigscience/bloom-3b", {1000: "global_step1000"}, 30, 2560),
    "bloom_7b1": ("bigscience/bloom-7b1-intermediate", "bigscience/bloom-7b1", {300000: "global_step300000"}, 30, 4096),
}  # fmt: skip
# Step and billions of tokens in the names of OLMo 2's branches, by tokens a step, as public code has them.
BRANCHES = {
    512 * 4096: """0-0 300-1 1000-3 2000-5 3000-7 4000-9 5000-11 6000-13 7000-15 8000-17 9000-19 10000-21 11000-24
        15000-32 20000-42 23100-49 26000-55 30000-63 31000-66 36000-76 40000-84 50000-105 140000-294 150000-315
        480000-1007 760000-1594 950000-1993 990000-2077 1000000-2098 1140000-2391 1200000-2517 1400000-2937
        1600000-3356 1800000-3775 1907359-4001""",
    1024 * 4096: """150-1 600-3 1000-5 2000-9 2150-10 3000-13 5000-21 10000-42 11000-47 12000-51 15000-63 20000-84
        35000-147 50000-210 51000-214 55000-231 75000-315 95000-399 100000-420 101000-424 102000-428 105000-441
        116000-487 119000-500 130000-546 136000-571 156000-655 175000-735 177000-743 197000-827 200000-839 207000-869
        217000-911 237000-995 239000-1003 250000-1049 257000-1078 277000-1162 297000-1246 300000-1259 301000-1263
        310000-1301 318000-1334 338000-1418 358000-1502 378000-1586 398000-1670 400000-1678 418000-1754 438000-1838
        458000-1921 467000-1959 477000-2001 478000-2005 498000-2089 500000-2098 516000-2165 518000-2173 539000-2261
        559000-2345 579000-2429 599000-2513 600000-2517 619000-2597 620000-2601 641000-2689 661000-2773 682000-2861
        702000-2945 716000-3004 722000-3029 742000-3113 762000-3197 782000-3280 802000-3364 822000-3448 825000-3461
        842000-3532 862000-3616 882000-3700 902000-3784 922000-3868 928000-3893 928646-3896""",
    2048 * 4096: "0-0 1100-10 2000-17 5000-42 6000-51 7000-59 467000-3918 596057-5001 721901-6056",  # 13B and 32B
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is asked of the hub, which answers with LMs without weights, of the shape in `ladder`, and a tokenizer."""
    asked: Asked = []

    def fetched(repository: str, revision: str | None, trust_remote_code: bool, field: str = "path") -> Path:
        asked.append((repository, revision))
        return tmp_path / ("tokenizer" if repository == "bigscience/tokenizer" else "lm")

    monkeypatch.setattr("bisae.lm.model.fetch", fetched)
    (tmp_path / "tokenizer").mkdir()
    copy(EMBEDDED / "tokenizer" / "tokenizer.json", tmp_path / "tokenizer")
    return asked


@pytest.fixture
def ladder(config: Callable[..., DictConfig], tmp_path: Path) -> Ladder:
    def made(preset: str, *overrides: str) -> HuggingFaceModel:
        llama(tmp_path / "lm", *LADDERS[preset][3:])
        model: HuggingFaceModel = instantiate(config(f"model={preset}", *overrides).model)
        return model

    return made


@pytest.mark.parametrize("preset", LADDERS)
def test_every_step_is_a_revision_of_one_repository_and_final_the_released_lm(
    preset: str, ladder: Ladder, asked: Asked
) -> None:
    repository, final, revisions, layers, d_model = LADDERS[preset]
    model = ladder(preset)
    assert (model.name, model.layers, model.d_model) == (preset, layers, d_model)
    found = {step: model.checkpoint(step) for step in revisions}
    if final:
        last = model.checkpoint("final")
        assert last.step >= max(revisions) and last.step == model.final_step
    else:
        with pytest.raises(Refused, match="^final_step="):
            model.checkpoint("final")
    weights = [one for one in asked if one[0] != "bigscience/tokenizer"]
    assert weights == [*((repository, revision) for revision in revisions.values()), *([(final, None)] * bool(final))]
    assert ("bigscience/tokenizer", None) in asked or not preset.startswith("bloom")
    for step, checkpoint in found.items():
        assert checkpoint.tokens_seen == (model.tokens_per_step and step * model.tokens_per_step)


def test_final_of_pythia_has_seen_the_tokens_its_authors_say(ladder: Ladder, asked: Asked) -> None:
    assert ladder("pythia_70m").checkpoint("final").tokens_seen == 299_892_736_000


@pytest.mark.parametrize("tokens_per_step", BRANCHES)
def test_branches_of_olmo_2_hold_the_billions_of_tokens_rounded_up(tokens_per_step: int) -> None:
    for branch in BRANCHES[tokens_per_step].split():
        step, billions = branch.split("-")
        name = named("stage1-step%d-tokens%bB", int(step), 1, tokens_per_step)
        assert name == f"stage1-step{step}-tokens{billions}B"


@pytest.mark.parametrize(
    ("presets", "tokens_per_step", "left_out"),
    [(("olmo_2_1b", "olmo_2_1b_early"), 512 * 4096, []), (("olmo_2_7b",), 1024 * 4096, [101000, 175000, 300000])],
)
def test_steps_of_olmo_2_are_those_of_its_branches_but_for_doubles(
    presets: tuple[str, ...], tokens_per_step: int, left_out: list[int], config: Callable[..., DictConfig]
) -> None:
    ladders = [config(f"model={preset}").model for preset in presets]
    assert {one.tokens_per_step for one in ladders} == {tokens_per_step}
    steps = [int(branch.split("-")[0]) for branch in BRANCHES[tokens_per_step].split()]
    assert [step for step in steps if not any(listed(step, one.steps) for one in ladders)] == left_out


def listed(step: int, steps: Any) -> bool:
    try:
        check_listed(step, steps)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("preset", "count", "wrong"),
    [
        ("pythia_410m", 154, (3, 1500, 144000)),
        ("pythia_2.8b", 68, (0, 65000, 100000, 143000)),
        ("olmo_2_1b", 195, (1000, 1931211)),
        ("olmo_2_1b_early", 37, (500, 37000)),
        ("olmo_2_7b", 932, (0, 101000)),
        ("bloom_560m", 6, (500000, 600000)),
        ("bloom_1b1", 7, (400000,)),
        ("bloom_1b7", 4, (1000, 10000, 250000, 300000)),
        ("bloom_7b1", 6, (100000, 200000)),
    ],
)
def test_steps_that_there_are_not_or_not_rightly_are_refused_without_the_hub(
    preset: str, count: int, wrong: tuple[int, ...], ladder: Ladder, asked: Asked
) -> None:
    model = ladder(preset)
    candidates = {*range(0, 2_000_000, 1000), *range(0, 100_000, 50), *(1 << n for n in range(10)), 928646, 1907359}
    assert model.steps is not None
    steps = [one if isinstance(one, int) else list(one) for one in model.steps]  # OmegaConf's lists are slow
    assert sum(listed(step, steps) for step in candidates) == count
    for step in wrong:
        with pytest.raises(Refused, match=rf"^checkpoint={step}: is none of steps=.*; null asks for any"):
            model.checkpoint(step)
    assert asked == []


def test_any_step_can_be_asked_for_all_the_same(ladder: Ladder, asked: Asked) -> None:
    ladder("pythia_410m", "model.steps=null").checkpoint(1500)
    assert asked == [("EleutherAI/pythia-410m", "step1500")]


@pytest.mark.parametrize("steps", ["5", "[[1, 5]]", "[[1, 5, 0]]", "[one]"])
def test_steps_that_are_none_are_refused_by_key(ladder: Ladder, steps: str) -> None:
    with pytest.raises(Refused, match=r"^(steps|_target_)="):
        ladder("pythia_70m", f"model.steps={steps}").checkpoint(0)


def test_tokens_in_a_name_need_the_tokens_of_a_step(ladder: Ladder) -> None:
    with pytest.raises(Refused, match=r"^tokens_per_step=None: give it: stage1-step%d-tokens%bB holds %b"):
        ladder("olmo_2_1b", "model.tokens_per_step=null").checkpoint(300)


def test_a_tokenizer_can_lie_apart_from_the_weights(ladder: Ladder, asked: Asked) -> None:
    model = ladder("bloom_560m")
    first, final = model.checkpoint(1000), model.checkpoint("final")
    assert first.tokenizer == final.tokenizer != ladder("bloom_560m", "model.tokenizer=null").checkpoint(1000).tokenizer
    assert make_pass(first).tokenizer("I have a dog.").input_ids


def test_bloom_saved_without_its_head_and_with_the_config_keys_of_2022_is_read(tmp_path: Path) -> None:
    lm = FAMILIES["bloom"].eval()
    torch.save(lm.base_model.state_dict(), tmp_path / "pytorch_model.bin")  # saved by a BloomModel, without head
    (tmp_path / "config.json").write_text(
        '{"model_type": "bloom", "architectures": ["BloomModel"], "n_embed": 16, "n_layer": 3, "vocab_size": 50,'
        ' "num_attention_heads": 2, "seq_length": 2048, "masked_softmax_fusion": true, "offset_alibi": 100}'
    )
    same_as(lm, tmp_path)


def test_pythia_saved_as_bin_with_the_causal_masks_of_2023_is_read(tmp_path: Path) -> None:
    lm = FAMILIES["neox"].eval()
    masks = {f"gpt_neox.layers.{n}.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8) for n in range(3)}
    lm.config.save_pretrained(tmp_path)
    torch.save({**lm.state_dict(), **masks}, tmp_path / "pytorch_model.bin")
    same_as(lm, tmp_path)


def same_as(lm: Any, folder: Path) -> None:
    model = HuggingFaceModel("mine", str(folder), None, 1, None, 0, None, 3, 16, False)
    checkpoint: Checkpoint = model.checkpoint(0)
    device = torch.device("cpu")
    with torch.no_grad():
        expected = lm(input_ids=IDS, output_hidden_states=True)
        assert torch.equal(load_causal_lm(checkpoint, torch.float32, device)(input_ids=IDS).logits, expected.logits)
    found = ResidualReader(checkpoint, [0, 2], torch.float32, device).read(IDS)
    assert all(torch.equal(found[layer], expected.hidden_states[layer]) for layer in (0, 2))


def test_layer_0_of_bloom_is_behind_the_layer_norm_of_its_embeddings(tmp_path: Path) -> None:
    lm = FAMILIES["bloom"].eval()
    lm.save_pretrained(tmp_path)
    checkpoint = Checkpoint("bloom", 0, tmp_path, "w", "t", None, layers=3, d_model=16)
    found = ResidualReader(checkpoint, [0], torch.float32, torch.device("cpu")).read(IDS)[0]
    embedded = lm.base_model.word_embeddings(IDS)
    assert torch.equal(found, lm.base_model.word_embeddings_layernorm(embedded)) and not torch.allclose(found, embedded)
