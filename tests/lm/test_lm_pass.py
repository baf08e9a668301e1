from typing import Any

import numpy as np
import pytest
import torch

from bisae.activations.store import Source, TokenShard
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint
from bisae.lm.residual import ResidualReader
from bisae.runtime.errors import Refused

CORPUS = EmbeddedCorpus("embedded", 0)


def make_pass(checkpoint: Checkpoint, split: str = "shots", **changes: Any) -> LMPass:
    settings: dict[str, Any] = {
        "context": 32,
        "shortest": 8,
        "lm_batch": 4,
        "shard_batches": 2,
        "lm_dtype": "float32",
        "device": "cpu",
    }
    return LMPass(checkpoint, CORPUS, split, **{**settings, **changes})


def test_it_is_a_source_whose_shards_end_with_the_corpus(step512: Checkpoint) -> None:
    source = make_pass(step512)
    assert isinstance(source, Source)
    shards: list[TokenShard] = []
    while (shard := source.tokens(len(shards))) is not None:
        shards.append(shard)
    assert len(shards) == 5  # 20 documents a language, 8 sequences a shard
    assert source.tokens(7) is None
    counts = np.bincount(np.concatenate([s.language for s in shards]))
    assert abs(int(counts[0]) - int(counts[1])) <= 32


def test_rows_are_the_lms_stream_at_every_token_without_bos_and_padding(step512: Checkpoint) -> None:
    source = make_pass(step512)
    shard, found = source.tokens(0), source.activations(0, [0, 2])
    assert shard is not None and found[2].dtype == torch.bfloat16 and len(found[2]) == shard.tokens
    lm = ResidualReader(step512, [0, 2], torch.float32, torch.device("cpu"))
    starts = np.flatnonzero(shard.position == 0)
    assert len(starts) == 8
    for start, stop in zip(starts, [*starts[1:], shard.tokens], strict=True):
        ids = [source.tokenizer.bos_token_id, *shard.token_ids[start:stop].tolist()]
        alone = lm.read(torch.tensor([ids]))
        for layer in (0, 2):
            torch.testing.assert_close(found[layer][start:stop].float(), alone[layer][0, 1:], rtol=2e-2, atol=2e-3)


def test_a_shard_is_the_same_whatever_was_read_before_and_which_layers_with_it(step512: Checkpoint) -> None:
    source, other = make_pass(step512), make_pass(step512)
    source.activations(0, [1])
    assert torch.equal(source.activations(1, [2])[2], other.activations(1, [1, 2, 4])[2])


def test_the_fingerprint_changes_with_what_changes_values_and_with_nothing_else(step512: Checkpoint) -> None:
    base = make_pass(step512).fingerprint
    assert make_pass(step512, device="auto").fingerprint == base
    changed: list[dict[str, Any]] = [
        {"context": 31},
        {"shortest": 9},
        {"lm_batch": 5},
        {"shard_batches": 3},
        {"lm_dtype": "bfloat16"},
    ]
    assert all(make_pass(step512, **change).fingerprint != base for change in changed)
    assert make_pass(step512, "validation").fingerprint != base
    assert not any("/" in str(value) for value in base.values())


@pytest.mark.parametrize("change", [{"context": 2**15}, {"shortest": 33}, {"lm_dtype": "float64"}, {"device": "tpu"}])
def test_impossible_settings_are_refused(step512: Checkpoint, change: dict[str, Any]) -> None:
    (key,) = change
    with pytest.raises(Refused, match=f"^{key}="):
        make_pass(step512, **change)


def test_a_context_longer_than_the_lm_can_read_is_refused(step512: Checkpoint) -> None:
    assert step512.positions is not None
    make_pass(step512, context=step512.positions - 1)
    with pytest.raises(Refused, match=f"at most {step512.positions - 1} tokens"):
        make_pass(step512, context=step512.positions)
