import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from bisae.corpus.embedded import EMBEDDED
from bisae.features.tokens import pieces, token_texts
from bisae.lm.tokenizer import load_tokenizer, of_transformers
from bisae.runtime.errors import Refused

SHIPPED = EMBEDDED.parent / "tokenizer"
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
LINES = ["The old dog sleeps, the cat does not.", "古い犬は眠り、猫は眠りません。", "a<b, c>d; s/p a d u n k"] * 3
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    learner = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=list("</>"), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, learner)
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, learner)
    tokenizer.add_special_tokens([AddedToken("<|turn|>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens(["ordinary"])  # behind a special token: its id must not move
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(LINES, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def folder(path: Path, tokenizer: Tokenizer | None, config: dict[str, Any], model: str = "llama") -> Path:
    path.mkdir(exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps({"model_type": model}))
    return path


def test_a_unigram_that_transformers_takes_for_another_tokenizer_keeps_its_ids(tmp_path: Path) -> None:
    reference = unigram()
    place = folder(tmp_path, reference, LLAMA)
    expected = [encoding.ids for encoding in reference.encode_batch(LINES)]
    assert of_transformers(place, False)(LINES, add_special_tokens=False).input_ids != expected  # or no fault to mend
    found = load_tokenizer(place, False, None)
    assert found(LINES).input_ids == expected
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (1, 2, None)


@pytest.mark.parametrize("make", [unigram, byte_level, word_level])
def test_text_that_spells_special_tokens_gets_no_special_id(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    found = load_tokenizer(folder(tmp_path, tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast"}), False, None)
    special = {tokenizer.token_to_id(token) for token in found.special} - {tokenizer.token_to_id("<unk>")}
    assert len(special) >= 2
    text = f"the {' '.join(found.special)} dog {''.join(found.special)}"
    assert special & set(tokenizer.encode(text).ids)  # as tokenizers alone reads it
    assert not special & set(found(text).input_ids)
    again = found(found.as_special(text)).input_ids  # a template may spell them
    assert [i for i in again if i in special] == [i for i in tokenizer.encode(text).ids if i in special]


@given(
    st.lists(
        st.sampled_from(["dog", "犬", "ordinary", "<", "|", ">", " ", "\n", "\0", "é", "🐶", "s", "/"]), max_size=12
    )
)
def test_the_ids_of_other_texts_are_those_of_tokenizers_alone(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    text = "".join(parts)
    for make in (unigram, byte_level):
        if make not in MADE:
            path = tmp_path_factory.mktemp("tokenizer")
            made = make()  # once: a Unigram learnt again may differ
            MADE[make] = made, load_tokenizer(folder(path, made, {}), False, None)
        reference, found = MADE[make]
        if not any(token in text for token in found.special):
            expected = reference.encode(text)
            encoded = found(text, return_offsets_mapping=True)
            assert (encoded.input_ids, encoded.offset_mapping) == (expected.ids, expected.offsets)


MADE: dict[Callable[[], Tokenizer], tuple[Tokenizer, Any]] = {}


def test_the_shipped_tokenizer_reads_as_before_but_for_spelled_special_tokens() -> None:
    found, before = load_tokenizer(SHIPPED, False, 5120), of_transformers(SHIPPED, False)
    assert found(LINES).input_ids == before(LINES, add_special_tokens=False).input_ids
    assert 2 in before("a </s> b", add_special_tokens=False).input_ids
    assert found.decode(found("a </s> b").input_ids) == "a </s> b" and 2 not in found("a </s> b").input_ids


def test_baked_in_truncation_padding_and_dropout_do_not_reach_a_text(tmp_path: Path) -> None:
    plain = byte_level()
    odd = Tokenizer.from_str(plain.to_str())
    odd.enable_truncation(5)
    odd.enable_padding(length=40)
    described = json.loads(odd.to_str())
    described["model"]["dropout"] = 0.9
    place = folder(tmp_path, plain, {}, "gpt2")
    (place / "tokenizer.json").write_text(json.dumps(described))
    found = load_tokenizer(place, False, None)
    assert found(LINES).input_ids == [encoding.ids for encoding in plain.encode_batch(LINES)]
    assert found.bos_token == "<|endoftext|>" and len(found) == plain.get_vocab_size()


def test_ids_that_the_lm_has_no_embedding_for_are_refused_unless_no_text_has_them(tmp_path: Path) -> None:
    tokenizer = unigram()
    size = tokenizer.get_vocab_size()
    place = folder(tmp_path, tokenizer, LLAMA)
    assert load_tokenizer(place, False, size)
    with pytest.raises(Refused, match=rf"^tokenizer=.* has ids up to {size - 1} .* the LM has {size - 1} emb"):
        load_tokenizer(place, False, size - 1)
    tokenizer.add_special_tokens(["[PAD]"])  # for batches of some other program
    folder(tmp_path, tokenizer, {**LLAMA, "pad_token": "[PAD]"})
    assert load_tokenizer(place, False, size).pad_token is None
    folder(tmp_path, tokenizer, {**LLAMA, "bos_token": "[PAD]"})
    with pytest.raises(Refused, match=rf"^tokenizer=.* its BOS '\[PAD\]' has the id {size}, while the LM has"):
        load_tokenizer(place, False, size)


def test_what_is_no_tokenizer_is_refused_by_its_key(tmp_path: Path) -> None:
    place = folder(tmp_path, None, {"tokenizer_class": "LlamaTokenizer"})
    with pytest.raises(Refused, match=r"^tokenizer=.*: holds no tokenizer.json, and no tokenizer.model"):
        load_tokenizer(place, False, None)
    (place / "tokenizer_config.json").unlink()
    with pytest.raises(Refused, match=r"^tokenizer=.*: holds no tokenizer"):
        load_tokenizer(place, False, None)
    (place / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(Refused, match=r"^tokenizer=.*tokenizer.json: cannot be read: "):
        load_tokenizer(place, False, None)


def test_an_added_token_that_tokenizer_json_lacks_is_refused(tmp_path: Path) -> None:
    added = {"content": "ordinary", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    place = folder(tmp_path, unigram(), {**LLAMA, "added_tokens_decoder": {"200": {**added, "special": False}}})
    with pytest.raises(Refused, match=r"^tokenizer=.* lacks the added token 'ordinary'"):
        load_tokenizer(place, False, None)


def test_a_tokenizer_written_in_python_reads_text_and_shows_characters(tmp_path: Path) -> None:
    found = load_tokenizer(folder(tmp_path, None, {"tokenizer_class": "ByT5Tokenizer"}), False, 384)
    text = "彼女 </s><pad> é🐶"
    ids = found(text).input_ids
    assert ids == [byte + 3 for byte in text.encode()]
    shown = pieces(found, ids)
    assert len(shown) == len(ids) and "".join(shown) == text and shown[:4] == ["", "", "彼", ""]
    assert pieces(found, ids[:2]) == ["", ""] or pieces(found, ids[:2])[-1] == "\ufffd"
    assert token_texts(found)[ord("a") + 3] == "a" and len(token_texts(found)) == len(found)
    with pytest.raises(Refused, match="^tokenizer=.* written in Python"):
        found(text, return_offsets_mapping=True)
