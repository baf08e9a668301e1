from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bisae.edits.operation import FeatureEdit, StreamPair, other_rows, pieces
from bisae.edits.recovered import ReconstructionEdit, zeros
from bisae.edits.steering import Steering
from bisae.runtime.errors import Refused
from bisae.sae import TopK
from bisae.sae.encoder import DENSE
from tests.sae.dense_reference import random_weights

D, LATENTS, K = 6, 20, 5
G = torch.Generator().manual_seed(0)
H, DONOR = (3 * torch.randn(9, D, generator=G, dtype=torch.float64) for _ in range(2))
KEPT = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]).bool()
CHOSEN, OTHERS = (torch.rand(LATENTS, generator=G) < share for share in (0.4, 0.8))


def an_sae() -> TopK:
    sae = TopK(D, LATENTS, K).double()
    for name, weight in random_weights(LATENTS, D, seed=3)._asdict().items():
        getattr(sae, name).data = weight
    return sae


SAE = an_sae()


def account(stream: Tensor, chosen: Tensor) -> Tensor:
    """In the SAE's space, what the chosen latents say of a stream: the k largest, dense, token by token."""
    rows = []
    for h in stream:
        z = (SAE.W_enc @ (h / h.norm() - SAE.b_pre) + SAE.b_enc).relu()
        z[z < z.sort().values[-K]] = 0
        rows.append((z * chosen) @ SAE.W_dec)
    return torch.stack(rows).detach()


def norms(stream: Tensor) -> Tensor:
    return stream.norm(dim=1)[:, None]


def operation(mode: str, norm: str = "donor", coefficient: float = 0.7) -> FeatureEdit:
    return FeatureEdit(SAE, CHOSEN, mode, norm, coefficient, shuffled=False)


def done(intervention: FeatureEdit, donor: Tensor | None = DONOR) -> Tensor:
    return intervention(StreamPair(H, donor, KEPT)).detach()


@pytest.mark.parametrize("norm", ["donor", "recipient"])
@pytest.mark.parametrize("mode", ["add", "replace"])
def test_a_donors_features_are_put_in_at_either_norm(mode: str, norm: str) -> None:
    delta = 0.7 * norms(DONOR if norm == "donor" else H) * account(DONOR, CHOSEN)
    own = norms(H) * account(H, CHOSEN) if mode == "replace" else 0
    torch.testing.assert_close(done(operation(mode, norm)), H - own + delta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mode", "factor"), [("ablate", -1.0), ("scale", -0.3)])
@pytest.mark.parametrize("donor", [DONOR, None])
def test_own_features_are_taken_out_or_scaled_with_or_without_a_donor(
    mode: str, factor: float, donor: Tensor | None
) -> None:
    expected = H + factor * norms(H) * account(H, CHOSEN)
    torch.testing.assert_close(done(operation(mode), donor), expected, rtol=1e-12, atol=1e-12)


def test_without_a_donor_the_recipient_is_its_own() -> None:
    torch.testing.assert_close(done(operation("add"), None), done(operation("add"), H))
    own = replace(operation("replace"), coefficient=1.0)
    torch.testing.assert_close(done(own, None), H)


def test_coefficient_0_and_an_empty_set_add_nothing_to_the_bit() -> None:
    assert torch.equal(done(operation("add", coefficient=0.0)), H)
    assert torch.equal(done(replace(operation("add"), chosen=torch.zeros_like(CHOSEN))), H)


def test_shuffled_codes_are_another_sentences_at_the_tokens_own_norm() -> None:
    found = done(replace(operation("add"), shuffled=True))
    # Sequences of 4, 4 and 1 tokens: the second's column by column, the third's only token four times, the first's.
    others = [4, 5, 6, 7, 8, 8, 8, 8, 0]
    torch.testing.assert_close(found, H + 0.7 * norms(DONOR) * account(DONOR, CHOSEN)[others])


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([[1, 1, 1, 0], [1, 1, 1, 1]], [3, 4, 5, 0, 1, 2, 2]),  # right-padded
        ([[0, 1, 1, 1], [1, 1, 1, 1]], [4, 5, 6, 0, 0, 1, 2]),  # left-padded
        ([[1, 1], [0, 0], [1, 1]], [2, 3, 0, 1]),  # nothing to take from the second
        ([[1], [1], [1]], [1, 2, 0]),  # one step of generation
    ],
)
def test_other_rows_are_those_of_the_next_sequence_in_the_same_column(
    kept: list[list[int]], expected: list[int]
) -> None:
    found = other_rows(torch.tensor(kept).bool())
    assert found is not None and found.tolist() == expected


def test_a_sentence_that_is_left_alone_gets_nothing_of_another() -> None:
    alone = torch.tensor([[1, 1, 1], [0, 0, 0]]).bool()
    assert other_rows(alone) is None
    shuffled = replace(operation("add"), shuffled=True)
    assert torch.equal(shuffled(StreamPair(H[:3], DONOR[:3], alone)), H[:3])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"mode": "put"}, "mode=put"), ({"norm": "l1"}, "norm=l1"), ({"coefficient": float("inf")}, "coefficient=inf")],
)
def test_what_cannot_work_is_refused_by_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        replace(operation("add"), **change)


def test_steering_adds_the_same_directions_to_every_token_in_proportion_to_its_norm() -> None:
    found = Steering.towards(SAE, {4: 0.5, 7: -0.2})(StreamPair(H, None, KEPT))
    torch.testing.assert_close(found, H + norms(H) * (0.5 * SAE.W_dec[4] - 0.2 * SAE.W_dec[7]))


def test_a_reconstruction_is_the_saes_and_with_its_error_the_stream_again() -> None:
    whole = torch.ones_like(CHOSEN)
    expected = norms(H) * (account(H, whole) + SAE.b_pre)
    torch.testing.assert_close(ReconstructionEdit(SAE, error=False)(StreamPair(H, None, KEPT)), expected)
    torch.testing.assert_close(ReconstructionEdit(SAE, error=True)(StreamPair(H, None, KEPT)), H)
    assert not zeros(StreamPair(H, None, KEPT)).any()


def test_many_tokens_are_encoded_in_pieces() -> None:
    assert len(pieces(SAE, torch.zeros(2 * (DENSE // LATENTS) + 1, 1))) == 3
