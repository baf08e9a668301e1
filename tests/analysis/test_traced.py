"""Latents of a warm-started ladder, made up: which index is the same feature from checkpoint to checkpoint."""

import numpy as np
import pandas as pd
import pytest

from bisae.analysis.traced import Checkpointed, is_warm, trace
from bisae.features.codes import Firings
from bisae.features.measures.lineage import coactivation_of_same, shifted
from tests.analysis.test_warm_ladders import BACK, PLAIN, WARM

TOKENS, STEPS = 400, (0, 64, 512, 2048)
FIRES = np.random.default_rng(0).random((6, TOKENS)) < 0.2  # patterns of firing, unlike each other


def firings(fires: np.ndarray) -> Firings:
    offsets = np.concatenate([[0], fires.sum(1).cumsum()])
    return Firings(0, offsets, np.nonzero(fires)[1], np.ones(offsets[-1], dtype=np.float32))


def checkpoint(step: int, patterns: list[int | None], classes: list[str], angle: float = 0.0) -> Checkpointed:
    """Latents that fire as the patterns do (None: not at all); all directions are turned by `angle`."""
    fires = np.stack([np.zeros(TOKENS, bool) if number is None else FIRES[number] for number in patterns])
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    table = {"feature": np.arange(len(patterns)), "class": classes, "bilingual": [one == "Mixed" for one in classes]}
    return Checkpointed(step, firings(fires), np.tile(direction, (len(patterns), 1)), pd.DataFrame(table))


LADDER = [
    checkpoint(0, [0, 1, None, 3], ["English", "English", "dead", "Mixed"]),
    checkpoint(64, [0, 2, 4, None], ["English", "Japanese", "English", "dead"], 0.1),
    checkpoint(512, [0, 2, 4, 3], ["Mixed", "Japanese", "English", "Mixed"], 0.2),
    checkpoint(2048, [0, 2, 5, 3], ["Mixed", "Japanese", "Japanese", "Mixed"], 0.3),
]


def test_a_feature_lives_while_its_latent_fires_on_the_same_tokens() -> None:
    lives = trace(LADDER, TOKENS, 0.5).lives
    found = [tuple(row) for row in lives[["feature", "life", "birth", "death", "classes"]].fillna(-1).to_numpy()]
    assert found == [
        (0, 1, 0, -1, "English > Mixed"),
        (1, 1, 0, 64, "English"),  # the latent fires, but elsewhere
        (1, 2, 64, -1, "Japanese"),
        (2, 1, 64, 2048, "English"),
        (2, 2, 2048, -1, "Japanese"),
        (3, 1, 0, 64, "Mixed"),  # and is silent for a checkpoint
        (3, 2, 512, -1, "Mixed"),
    ]
    drift = lives.set_index(["feature", "life"])["drift"]
    assert drift[0, 1] == pytest.approx(1 - np.cos(0.3), abs=1e-6) and drift[2, 2] == pytest.approx(0, abs=1e-6)


def test_each_checkpoint_is_told_with_the_next_and_with_chance() -> None:
    found = trace(LADDER, TOKENS, 0.5)
    table = found.table.set_index(["feature", "step"])
    assert len(table) == 16 and table.loc[(0, slice(None)), "life"].tolist() == [1, 1, 1, 1]
    assert table.loc[(3, slice(None)), "life"].tolist() == [1, 0, 2, 2]
    assert table.at[(0, 0), "same"] == 1 and table.at[(3, 0), "same"] == 0 and np.isnan(table.at[(0, 2048), "same"])
    assert 0 < table.at[(0, 0), "chance"] < 0.3 and found.same.shape == (3, 4)
    assert table.at[(0, 0), "cosine"] == pytest.approx(np.cos(0.1), abs=1e-6)


def test_coactivation_of_the_same_index_is_the_jaccard_index() -> None:
    one, other = FIRES[:3].copy(), np.stack([FIRES[0], FIRES[2], FIRES[3]])
    one[2], other[2] = False, False
    expected = (one & other).sum(1) / np.maximum((one | other).sum(1), 1)
    np.testing.assert_allclose(coactivation_of_same(firings(one), firings(other), TOKENS), expected)
    moved = np.roll(FIRES[:3], TOKENS // 2, axis=1)
    again = coactivation_of_same(firings(moved), shifted(firings(FIRES[:3]), TOKENS), TOKENS)
    np.testing.assert_allclose(again, 1)


def test_only_saes_that_start_from_each_other_in_order_are_traced() -> None:
    assert is_warm([place.cell for place in (PLAIN[0], *WARM)])
    assert not is_warm([place.cell for place in PLAIN])
    assert not is_warm([place.cell for place in reversed((PLAIN[2], *BACK))])
