"""A recipient (step 512 of the shipped LM), a donor (its last step) and an SAE; and text in rows of unlike lengths."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from bisae.edits.patched_lm import DonorReader
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.model import Checkpoint, EmbeddedModel
from bisae.sae import SparseAutoencoder, TopK

CPU = torch.device("cpu")
BOS = 1


@pytest.fixture(scope="session")
def final(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return EmbeddedModel("embedded", str(tmp_path_factory.mktemp("lm"))).checkpoint("final")


@pytest.fixture(scope="session")
def lm(step512: Checkpoint) -> PreTrainedModel:
    return load_causal_lm(step512, torch.float32, CPU)


@pytest.fixture(scope="session")
def donor(final: Checkpoint) -> DonorReader:
    return DonorReader(final, [0, 2, 3], torch.float32, CPU)


@pytest.fixture(scope="session")
def sae() -> SparseAutoencoder:
    """Not trained, but as if: biases are not 0."""
    sae = TopK(d_model=128, latents=64, k=8, seed=0)
    with torch.no_grad():
        sae.b_pre.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    return sae


@pytest.fixture(scope="session")
def prompts(final: Checkpoint) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(Path(final.folder))
    texts = ["He gave me a book.\n", "彼は私に本をくれた。\nHe", "I do not know where she lives now.\nTom"]
    return [[BOS, *ids] for ids in tokenizer(texts, add_special_tokens=False).input_ids]
