from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bisae.activations.store import TokenShard
from bisae.features.tokens import Tokens, pieces, token_texts
from bisae.lm.model import EMBEDDED
from bisae.runtime.errors import Refused
from tests.activations.fake_source import FakeSource
from tests.features.small_text import tokens_of

LENGTHS = (4, 3, 1, 5, 2)


class Shards(FakeSource):
    """Three shards of whole sequences."""

    def tokens(self, shard: int) -> TokenShard | None:
        text, cuts = tokens_of(LENGTHS), (0, 7, 8, 15)
        if shard > 2:
            return None
        columns = (text.token_ids, text.language, text.document, text.position)
        return TokenShard(*(column[cuts[shard] : cuts[shard + 1]] for column in columns))


def test_sequences_end_at_the_next_position_zero() -> None:
    tokens = tokens_of([3, 1, 4])
    assert tokens.borders.tolist() == [0, 3, 4, 8]
    assert tokens.sequence.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_the_token_before_is_none_at_the_beginning_of_a_sequence() -> None:
    tokens = tokens_of([2, 3])
    ids = (tokens.token_ids + 1).tolist()
    assert tokens.previous.tolist() == [0, ids[0], 0, ids[2], ids[3]]


def test_no_sequence_is_cut_by_the_number_of_tokens() -> None:
    everything = Tokens.read(Shards(), None)
    assert len(everything) == sum(LENGTHS)
    for wanted in range(int(everything.borders[1]), sum(LENGTHS) + 1):
        some = Tokens.read(Shards(), wanted)
        assert len(some) == max(border for border in everything.borders if border <= wanted)
        assert np.array_equal(some.token_ids, everything.token_ids[: len(some)])


@pytest.mark.parametrize("wanted", [1, sum(LENGTHS) + 1])
def test_too_many_tokens_or_too_few_for_one_sequence_are_refused(wanted: int) -> None:
    with pytest.raises(Refused, match="^tokens="):
        Tokens.read(Shards(), wanted)


SHIPPED: Any = AutoTokenizer.from_pretrained(EMBEDDED / "tokenizer")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=30)


@given(st.one_of(TEXT, st.text("犬とdog 𠮷🐶é\n", max_size=20)))
def test_pieces_joined_are_the_decoded_text(text: str) -> None:
    ids = SHIPPED(text, add_special_tokens=False).input_ids
    found = pieces(SHIPPED, ids)
    assert len(found) == len(ids)
    assert "".join(found).removeprefix(" ") == SHIPPED.decode(ids, clean_up_tokenization_spaces=False).removeprefix(" ")


def test_a_character_of_several_bytes_is_given_to_the_last_of_them() -> None:
    ids = SHIPPED.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "🐶".encode()])
    assert pieces(SHIPPED, ids) == ["", "", "", "🐶"]
    assert pieces(SHIPPED, ids[:2]) == ["", "\ufffd"]
    assert pieces(SHIPPED, []) == []


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """As GPT-2's: every byte a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@given(text=TEXT)
def test_byte_level_tokens_become_characters(byte_level: Any, text: str) -> None:
    ids = byte_level(text).input_ids
    assert len(ids) == len(text.encode()) and "".join(pieces(byte_level, ids)) == text


def test_the_vocabulary_is_shown_with_spaces_and_bytes_by_name(byte_level: Any) -> None:
    texts = token_texts(SHIPPED)
    assert texts[SHIPPED.convert_tokens_to_ids("<0x0A>")] == "<0x0A>"
    assert texts[SHIPPED.convert_tokens_to_ids("▁the")] == " the"
    assert token_texts(byte_level)[byte_level.convert_tokens_to_ids("Ġ")] == " "
