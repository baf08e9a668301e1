"""The SAE whose codes are its inputs."""

from pathlib import Path

import pytest
import torch

from bisae.runtime.errors import Refused
from bisae.sae import load, save
from bisae.sae.architectures.raw import Identity


def test_its_codes_are_the_inputs_whatever_an_optimizer_did_and_it_is_saved_so(tmp_path: Path) -> None:
    sae = Identity(6, 6)
    codes = torch.rand(20, 6) * (torch.rand(20, 6) < 0.4)
    sae.initialize_b_pre(codes)
    sae.objective(codes).loss.backward()
    assert not any(weights.grad.any() for weights in sae.parameters() if weights.grad is not None)
    with torch.no_grad():
        for weights in sae.parameters():
            weights.add_(1e-3)
    sae.normalize_decoder()
    save(sae, tmp_path)
    for same in (sae, load(tmp_path)):
        assert torch.equal(same.encode(codes).dense(), codes) and torch.equal(same.reconstruct(codes).activation, codes)


def test_it_needs_a_latent_for_each_dimension() -> None:
    with pytest.raises(Refused, match="6 dimensions"):
        Identity(6, 7)
