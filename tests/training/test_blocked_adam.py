from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bisae.sae import ReLUL1, SparseAutoencoder, TopK
from bisae.sae.architectures.raw import Identity
from bisae.sae.kernels import products
from bisae.training.blocked_adam import BlockedAdam, by_block
from tests.sae.dense_reference import unit_rows

SETTINGS: dict[str, Any] = {"lr": 0.01, "eps": 1e-9, "fused": True}


def train(sae: SparseAutoencoder, optimizer: torch.optim.Adam, steps: range) -> None:
    dead = torch.arange(sae.latents) % 5 == 0
    take = optimizer.take if isinstance(optimizer, BlockedAdam) else None
    for step in steps:
        x = unit_rows(60, sae.d_model, step, torch.float32)
        optimizer.zero_grad()
        sae.objective(x, dead, take=take).loss.backward()
        optimizer.step()
        if take is None:
            sae.normalize_decoder()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(params=["topk", "topk with aux-k", "relu"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[SparseAutoencoder]:
    monkeypatch.setattr(products, "BLOCK", 7 * 24)  # seven latents: the last block is smaller

    def made() -> SparseAutoencoder:
        if request.param == "relu":
            return ReLUL1(24, 100, l1=0.01, encoder_bias=True)
        return TopK(24, 100, k=4, aux_k=8 if "aux" in request.param else 0)

    return [made(), made()]


def test_blocks_give_the_bits_of_adam_on_whole_gradients(pair: list[SparseAutoencoder]) -> None:
    whole, blocked = pair
    adam, by_block = torch.optim.Adam(whole.parameters(), **SETTINGS), BlockedAdam(blocked.parameters(), **SETTINGS)
    start = blocked.W_enc.detach().clone()
    train(whole, adam, range(6))
    train(blocked, by_block, range(6))
    assert_same(dict(whole.state_dict()), dict(blocked.state_dict()))
    assert not torch.equal(start, blocked.W_enc)
    one, other = adam.state_dict(), by_block.state_dict()
    assert one["param_groups"] == other["param_groups"]
    for number, state in one["state"].items():
        assert_same(state, other["state"][number])


def test_blocks_give_the_bits_of_adamw() -> None:
    whole, blocked = TopK(24, 100, k=4), TopK(24, 100, k=4)
    decaying = {**SETTINGS, "weight_decay": 0.1}
    train(whole, torch.optim.AdamW(whole.parameters(), **decaying), range(6))
    train(blocked, BlockedAdam(blocked.parameters(), **decaying, decoupled_weight_decay=True), range(6))
    assert_same(dict(whole.state_dict()), dict(blocked.state_dict()))


def test_the_norm_of_a_gradient_that_is_never_whole(pair: list[SparseAutoencoder]) -> None:
    whole, blocked = pair
    by = BlockedAdam(blocked.parameters(), **SETTINGS)
    x, dead = unit_rows(60, 24, 0, torch.float32), torch.arange(100) % 5 == 0
    whole.objective(x, dead).loss.backward()
    blocked.objective(x, dead, take=by.take).loss.backward()
    norm = torch.stack([p.grad.double().square().sum() for p in whole.parameters() if p.grad is not None]).sum().sqrt()
    torch.testing.assert_close(by.gradient_norm(blocked.parameters()), norm, rtol=1e-6, atol=0)


class Own(TopK):
    """A class of a user's own."""


@pytest.mark.parametrize(
    ("case", "taken"),
    [
        ("adam", True),
        ("adamw", True),
        ("gpu", True),
        ("several devices", False),
        ("clipped", False),
        ("not fused", False),
        ("amsgrad", False),
        ("sgd", False),
        ("own sae", False),
        ("identity", False),
    ],
)
def test_updates_go_by_block_where_they_give_the_same_bits(case: str, taken: bool) -> None:
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}.get(case, torch.optim.Adam)
    optimizer = partial(kind, fused=case != "not fused", **({"amsgrad": True} if case == "amsgrad" else {}))
    place = torch.device("cuda" if case == "gpu" else "cpu"), 1 + (case == "several devices")
    sae = {"own sae": Own(8, 8, k=2), "identity": Identity(8, 8)}.get(case, TopK(8, 8, k=2))
    made = by_block(optimizer, [TopK(8, 8, k=2), sae], *place, 1.0 if case == "clipped" else None)(
        [{"params": list(sae.parameters()), "lr": 0.1}]
    )
    assert isinstance(made, BlockedAdam) == taken
    assert taken or type(made) is kind
    assert made.param_groups[0].get("weight_decay", 0) == (0.01 if case == "adamw" else 0)


def test_no_gradient_of_a_matrix_exists_as_a_whole() -> None:
    sae = TopK(24, 100, k=4)
    optimizer = BlockedAdam(sae.parameters(), **SETTINGS)
    sae.objective(unit_rows(60, 24, 0, torch.float32), take=optimizer.take).loss.backward()
    assert sae.W_enc.grad is None and sae.W_dec.grad is None
    assert sae.b_enc.grad is not None and sae.b_pre.grad is not None


def test_going_on_from_a_state_gives_the_bits_of_an_undisturbed_run() -> None:
    undisturbed = TopK(24, 100, k=4)
    train(undisturbed, BlockedAdam(undisturbed.parameters(), **SETTINGS), range(6))
    first, second = TopK(24, 100, k=4), TopK(24, 100, k=4, seed=1)
    before, after = (BlockedAdam(sae.parameters(), **SETTINGS) for sae in (first, second))
    train(first, before, range(3))
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    train(second, after, range(3, 6))
    assert_same(dict(second.state_dict()), dict(undisturbed.state_dict()))


def test_two_losses_add_up_as_in_grad() -> None:
    saes = [TopK(24, 100, k=4) for _ in range(2)]
    adam, by_block = torch.optim.Adam(saes[0].parameters(), **SETTINGS), BlockedAdam(saes[1].parameters(), **SETTINGS)
    for seed in (1, 2):
        x = unit_rows(60, 24, seed, torch.float32)
        (2 * saes[0].objective(x).loss).backward()
        (2 * saes[1].objective(x, take=by_block.take).loss).backward()
    adam.step()
    by_block.step()
    torch.testing.assert_close(saes[1].W_enc, saes[0].W_enc)


def test_zero_grad_forgets_what_was_taken() -> None:
    sae = TopK(24, 100, k=4)
    optimizer = BlockedAdam(sae.parameters(), **SETTINGS)
    before = sae.W_enc.detach().clone()
    sae.objective(unit_rows(60, 24, 0, torch.float32), take=optimizer.take).loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(sae.W_enc, before)


def test_amsgrad_is_refused() -> None:
    with pytest.raises(ValueError, match="amsgrad"):
        BlockedAdam(TopK(4, 8, k=2).parameters(), **SETTINGS, amsgrad=True)
