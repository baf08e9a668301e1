import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from bisae.pretrain.ladder import ChunkedLoss, LadderModule, LMSize, PretrainSchedule, tiny_llama
from bisae.pretrain.tokenizer import train_tokenizer
from tests.pretrain.toy import toy_pairs

SIZE = LMSize(d_model=16, layers=2, heads=2, ffn=24)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer((text for pair in toy_pairs() for text in pair.texts), vocabulary=330, alphabet=60)


def schedule(steps: int = 20, warmup: int = 5, clip: float = 1.0) -> PretrainSchedule:
    return PretrainSchedule(
        steps, 2, 8, learning_rate=0.01, warmup=warmup, weight_decay=0.1, clip=clip, precision="32-true"
    )


@pytest.mark.parametrize("tokens", [1, 7, ChunkedLoss.CHUNK, ChunkedLoss.CHUNK + 1, 2 * ChunkedLoss.CHUNK + 100])
def test_the_chunked_loss_is_cross_entropy(tokens: int) -> None:
    torch.manual_seed(tokens)
    hidden = torch.randn(tokens, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 12, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, 31, (tokens,))
    expected = cross_entropy(hidden @ weight.T, ids)
    gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    loss = ChunkedLoss.apply(hidden, weight, ids)
    found = torch.autograd.grad(3 * loss, (hidden, weight))
    # Logits are held in fp32, so the agreement ends there.
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_chunked_loss_under_autocast_has_fp32_gradients_near_the_exact_ones() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(600, 12, requires_grad=True)
    weight = torch.randn(31, 12, requires_grad=True)
    ids = torch.randint(0, 31, (600,))
    expected = cross_entropy(hidden @ weight.T, ids)
    gradients = torch.autograd.grad(expected, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss = ChunkedLoss.apply(hidden, weight, ids)
    found = torch.autograd.grad(loss, (hidden, weight))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    for ours, theirs in zip(found, gradients, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_a_training_step_has_the_loss_transformers_computes(tokenizer: PreTrainedTokenizerFast) -> None:
    lm = tiny_llama(SIZE, tokenizer, seed=0)
    rows = torch.randint(0, len(tokenizer), (2, 9))
    logged: dict[str, float] = {}

    class Logging(LadderModule):
        def log(self, name: str, value: torch.Tensor, **_: object) -> None:  # type: ignore[override]
            logged[name] = value.item()

    loss = Logging(lm, schedule()).training_step(rows, 0)
    assert loss.item() == pytest.approx(lm(input_ids=rows, labels=rows).loss.item(), rel=1e-5)
    assert logged == {"loss": loss.item()}


def test_the_seed_decides_the_weights_and_nothing_else_does(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = tiny_llama(SIZE, tokenizer, seed=0).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again = tiny_llama(SIZE, tokenizer, seed=0).state_dict()
    other = tiny_llama(SIZE, tokenizer, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_the_lm_fits_its_tokenizer_and_size(tokenizer: PreTrainedTokenizerFast) -> None:
    lm = tiny_llama(SIZE, tokenizer, seed=0)
    assert lm.config.vocab_size == len(tokenizer) == 330
    assert (lm.config.bos_token_id, lm.config.eos_token_id, lm.config.pad_token_id) == (1, 2, 3)
    assert (lm.config.hidden_size, lm.config.num_hidden_layers, lm.config.intermediate_size) == (16, 2, 24)
    assert lm.lm_head.weight is lm.model.embed_tokens.weight


def test_untied_the_output_matrix_is_not_the_embeddings(tokenizer: PreTrainedTokenizerFast) -> None:
    tied, untied = (tiny_llama(replace(SIZE, tied=which), tokenizer, seed=0) for which in (True, False))
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert not torch.equal(untied.lm_head.weight, untied.model.embed_tokens.weight)
    counts = [sum(parameter.numel() for parameter in lm.parameters()) for lm in (tied, untied)]
    assert counts[1] - counts[0] == len(tokenizer) * SIZE.d_model


def test_both_kinds_of_attention_have_the_same_loss_and_gradients(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = torch.randint(0, len(tokenizer), (3, 9), generator=torch.Generator().manual_seed(0))
    found = []
    for attention in ("sdpa", "eager"):
        module = LadderModule(tiny_llama(SIZE, tokenizer, seed=0).double(), replace(schedule(), attention=attention))
        module.log = lambda *_, **__: None  # type: ignore[method-assign]
        loss = module.training_step(rows, 0)
        loss.backward()
        found.append((loss, [parameter.grad for parameter in module.lm.parameters()]))
    # Logits are held in fp32, so the agreement ends there.
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-7)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine_to_a_tenth(tokenizer: PreTrainedTokenizerFast) -> None:
    module = LadderModule(tiny_llama(SIZE, tokenizer, seed=0), schedule(steps=20, warmup=4))
    made: Any = module.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(21):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert rates[12] == pytest.approx(0.0055)  # half-way down
    assert rates[20] == pytest.approx(0.001)
    falling = [0.001 + 0.0045 * (1 + math.cos(math.pi * step / 16)) for step in range(17)]
    assert rates[4:] == pytest.approx(falling)


def test_matrices_alone_decay(tokenizer: PreTrainedTokenizerFast) -> None:
    lm = tiny_llama(SIZE, tokenizer, seed=0)
    made = LadderModule(lm, schedule()).configure_optimizers()
    assert isinstance(made, dict)
    decay = {id(p): group["weight_decay"] for group in made["optimizer"].param_groups for p in group["params"]}
    assert len(decay) == len(list(lm.parameters()))
    assert all(decay[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in lm.parameters())


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_the_global_norm_of_the_gradient_is_clipped(tokenizer: PreTrainedTokenizerFast, clip: float) -> None:
    lm = tiny_llama(SIZE, tokenizer, seed=0)
    module = LadderModule(lm, schedule(clip=clip))
    for parameter in lm.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.on_before_optimizer_step(torch.optim.SGD(lm.parameters(), lr=1))
    norm = torch.stack([p.grad.norm() for p in lm.parameters() if p.grad is not None]).norm()
    unclipped = sum(p.numel() for p in lm.parameters()) ** 0.5
    assert norm.item() == pytest.approx(min(clip, unclipped), rel=1e-4)
