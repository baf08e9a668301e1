import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from bisae.lm.losses import TokenLoss, token_loss

VOCABULARY = 23


@pytest.fixture(scope="module")
def lm() -> LlamaForCausalLM:
    """Random, with weights large enough that its predictions are far from uniform."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def sequences(least: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=least, max_size=9), min_size=1, max_size=7)


@settings(deadline=None, max_examples=30)
@given(sequences(2))
def test_a_single_sequence_has_the_loss_transformers_computes(lm: LlamaForCausalLM, rows: list[list[int]]) -> None:
    ids = torch.tensor([rows[0]])
    with torch.no_grad():
        mean = lm(input_ids=ids, labels=ids).loss.item()
    found = token_loss(lm, [rows[0]])
    assert found.tokens == len(rows[0]) - 1
    assert found.nats == pytest.approx(mean * found.tokens, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(sequences(1), st.integers(1, 8))
def test_batches_and_their_padding_change_nothing(lm: LlamaForCausalLM, rows: list[list[int]], batch: int) -> None:
    alone = [token_loss(lm, [row]) for row in rows]
    together = token_loss(lm, rows, batch)
    assert together.tokens == sum(len(row) - 1 for row in rows)
    assert together.nats == pytest.approx(sum(loss.nats for loss in alone), rel=1e-5, abs=1e-5)


def test_an_lm_that_knows_nothing_has_the_vocabulary_as_perplexity(lm: LlamaForCausalLM) -> None:
    ignorant = LlamaForCausalLM(lm.config)
    with torch.no_grad():
        ignorant.lm_head.weight.zero_()
    found = token_loss(ignorant, [[1, 5, 6], [1, 2, 3, 4]])
    assert found.tokens == 5
    assert found.perplexity == pytest.approx(VOCABULARY)


def test_perplexity_is_the_exponent_of_the_mean_loss() -> None:
    assert TokenLoss(nats=6 * math.log(2), tokens=3).perplexity == pytest.approx(4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(lm: LlamaForCausalLM, training: bool) -> None:
    model = LlamaForCausalLM(lm.config).train(training)
    token_loss(model, [[1, 2, 3]])
    assert model.training is training
