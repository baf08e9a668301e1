"""What the package ships: the corpus, the tokenizer, the ladders."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import bisae
from bisae.corpus.pairs import Pair, documents, read_pairs
from bisae.pretrain.tatoeba import SPLITS, VULGAR, clean, key

EMBEDDED = Path(bisae.__file__).parent / "embedded"
ABOUT_CORPUS = json.loads((EMBEDDED / "corpus" / "corpus.json").read_text(encoding="utf-8"))
LADDERS = sorted(file.parent.name for file in EMBEDDED.glob("lm/*/ladder.json"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ladder(name: str) -> Any:
    return json.loads((EMBEDDED / "lm" / name / "ladder.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Pair]]:
    read = {name: read_pairs(EMBEDDED / "corpus" / f"{name}.tsv.xz") for name in ABOUT_CORPUS["splits"]}
    assert {languages for languages, _ in read.values()} == {("en", "ja")}
    return {name: pairs for name, (_, pairs) in read.items()}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


@pytest.mark.parametrize(("part", "most"), [("lm", 40e6), ("corpus", 3e6), ("tokenizer", 2e6)])
def test_the_package_data_is_small(part: str, most: float) -> None:
    assert sum(file.stat().st_size for file in (EMBEDDED / part).rglob("*") if file.is_file()) < most


def test_each_split_is_the_file_its_checksum_was_taken_of() -> None:
    assert {file.name for file in (EMBEDDED / "corpus").glob("*.xz")} == {f"{name}.tsv.xz" for name in SPLITS}
    for name, about in ABOUT_CORPUS["splits"].items():
        assert sha256(EMBEDDED / "corpus" / f"{name}.tsv.xz") == about["sha256"], name


def test_each_split_has_its_pairs_in_whole_documents_in_order_of_id(splits: dict[str, list[Pair]]) -> None:
    assert {name: len(pairs) for name, pairs in splits.items()} == SPLITS
    assert {name: about["pairs"] for name, about in ABOUT_CORPUS["splits"].items()} == SPLITS
    for pairs in splits.values():
        assert len(pairs) % 6 == 0
        ids = [pair.id for pair in pairs]
        assert ids == sorted(ids)


@pytest.mark.parametrize("language", [0, 1])
def test_no_sentence_is_told_twice_within_or_across_splits(splits: dict[str, list[Pair]], language: int) -> None:
    keys = [key(pair.texts[language]) for pairs in splits.values() for pair in pairs]
    assert len(keys) == sum(SPLITS.values())
    assert len(set(keys)) == len(keys)


def test_documents_of_different_splits_do_not_interleave(splits: dict[str, list[Pair]]) -> None:
    spans = sorted((group[0].id, group[-1].id) for pairs in splits.values() for group in documents(pairs))
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))


@pytest.mark.slow
def test_every_row_is_decent_short_prose(splits: dict[str, list[Pair]]) -> None:
    pairs = sorted(pair for part in splits.values() for pair in part)
    assert not [pair for pair in pairs if any(VULGAR.search(text) for text in pair.texts)]
    assert clean(pairs) == pairs


def checkpoints(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for step, rung in ladder(name)["checkpoints"].items():
        yield int(step), rung


def test_the_main_ladder_is_there() -> None:
    assert "embedded" in LADDERS


@pytest.mark.parametrize("name", LADDERS)
def test_every_checkpoint_of_a_ladder_is_the_file_its_checksum_was_taken_of(name: str) -> None:
    for step, rung in checkpoints(name):
        assert sha256(EMBEDDED / "lm" / rung["file"]) == rung["sha256"], step


def test_every_weight_file_belongs_to_a_ladder() -> None:
    named = {rung["file"] for name in LADDERS for _, rung in checkpoints(name)}
    assert {f"{file.parent.name}/{file.name}" for file in EMBEDDED.glob("lm/*/*.safetensors")} == named


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_was_trained_as_it_tells_on_the_shipped_corpus(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    about = ladder(name)
    recipe, schedule = about["recipe"], about["recipe"]["schedule"]
    for split in ("lm", "validation"):
        assert recipe["corpus_sha256"][split] == ABOUT_CORPUS["splits"][split]["sha256"]
    assert [step for step, _ in checkpoints(name)] == recipe["checkpoints"]
    assert about["config"]["vocab_size"] == len(tokenizer) == recipe["tokenizer"]["vocabulary"]
    assert about["config"]["hidden_size"] == recipe["size"]["d_model"]
    assert about["config"]["num_hidden_layers"] == recipe["size"]["layers"]
    for step, rung in checkpoints(name):
        assert rung["tokens_seen"] == step * schedule["batch"] * schedule["context"]


@pytest.mark.parametrize("name", LADDERS)
def test_int8_costs_less_than_a_hundredth_of_the_perplexity(name: str) -> None:
    for step, rung in checkpoints(name):
        assert rung["perplexity"] == pytest.approx(rung["perplexity_before_int8"], rel=0.01), step


@pytest.mark.parametrize("name", ["embedded", "embedded_parallel"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_main_ladders_get_better_from_each_checkpoint_to_the_next(name: str, language: str) -> None:
    scores = [rung["perplexity"][language] for _, rung in checkpoints(name)]
    assert all(after < before for before, after in zip(scores, scores[1:], strict=False))
    assert scores[-1] < scores[0] / 50
