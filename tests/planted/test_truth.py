"""The truth against a plain reading of its definition, feature by feature and token by token."""

from pathlib import Path

import numpy as np
import pytest

from bisae.planted.model import VERSION, PlantedModel
from bisae.planted.truth import CONTEXTUAL, KINDS, NEVER, NONE, TRUTH, Truth
from bisae.runtime.naming import name_of
from tests.planted.worlds import corpus, model, node


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return model(tmp_path_factory.mktemp("lm"), noise=0, presence=1, second=[1, 1], correlated=0).truth()


def text(sequences: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of made-up sequences, and their positions."""
    words = corpus()._words
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, sequences)
    return rng.integers(1, words.size, lengths.sum()), np.concatenate([np.arange(length) for length in lengths])


def test_what_is_saved_is_what_is_loaded(truth: Truth, tmp_path: Path) -> None:
    truth.save(tmp_path / TRUTH)
    loaded = Truth.load(tmp_path / TRUTH)
    for name in Truth.__dataclass_fields__:
        np.testing.assert_equal(getattr(loaded, name), getattr(truth, name))


def test_a_feature_that_is_always_present_is_active_wherever_its_tokens_stand(truth: Truth) -> None:
    ids, position = text()
    for step, layer in ((truth.steps[0], 0), (truth.steps[-1], truth.layers)):
        codes = truth.codes(ids, position, step, layer).toarray()
        for feature in range(truth.features):
            lag = int(truth.lag[feature])
            at = np.isin(np.roll(ids, lag), truth.tokens_of(feature)) & (position >= lag)
            there = truth.birth[feature] <= step < truth.death[feature] and truth.first_layer[feature] <= layer
            assert np.array_equal(codes[:, feature] > 0, at & there)
            around = codes[:, feature][codes[:, feature] > 0] / truth.strength[feature]
            assert np.all(np.abs(around - 1) <= truth.spread)


def test_activations_are_sums_of_directions(truth: Truth) -> None:
    ids, position = text()
    step, layer = truth.steps[-1], 3
    codes = truth.codes(ids, position, step, layer)
    rows = np.zeros((len(ids), truth.directions.shape[1]))
    for token in range(len(ids)):
        for entry in range(codes.indptr[token], codes.indptr[token + 1]):
            rows[token] += codes.data[entry] * truth.directions[codes.indices[entry]].astype(np.float64)
    np.testing.assert_allclose(truth.stream(ids, position, step, layer), rows, rtol=1e-12, atol=1e-12)


def test_noise_is_of_the_length_asked_for_and_differs_by_step_and_layer(tmp_path: Path) -> None:
    noisy, clean = (model(tmp_path, noise=noise, d_model=64).truth() for noise in (0.5, 0))
    ids, position = text(400)
    noise = noisy.stream(ids, position, 64, 1) - clean.stream(ids, position, 64, 1)
    assert np.sqrt((noise**2).sum(1).mean()) == pytest.approx(0.5, rel=0.03)
    assert abs(noise.mean()) < 0.002 and np.abs(np.corrcoef(noise.T) - np.eye(64)).max() < 0.15
    for step, layer in ((64, 2), (128, 1)):
        other = noisy.stream(ids, position, step, layer) - clean.stream(ids, position, step, layer)
        assert abs(np.corrcoef(other.ravel(), noise.ravel())[0, 1]) < 0.03


def test_a_sequence_has_the_same_activations_in_any_company_and_before_any_end(tmp_path: Path) -> None:
    truth = model(tmp_path).truth()
    ids, position = text()
    alone = np.flatnonzero(position == 0)[3:5]
    whole = truth.stream(ids, position, 1024, 4)[slice(*alone)]
    part = slice(alone[0], alone[1] - 1)
    np.testing.assert_array_equal(truth.stream(ids[part], position[part], 1024, 4), whole[:-1])


def test_features_are_active_as_often_as_their_presence_says(tmp_path: Path) -> None:
    truth = model(tmp_path, presence=0.6).truth()
    ids, position = text(6000)
    codes = truth.codes(ids, position, 1024, 4).toarray() > 0
    language = truth.token_language[np.roll(ids, 1)], truth.token_language[ids]
    for feature in np.flatnonzero(truth.there(1024, 4) & (truth.parent == NONE) & (truth.presence.max(1) < 1)).tolist():
        lag = int(truth.lag[feature])
        at = np.isin(np.roll(ids, lag), truth.tokens_of(feature)) & (position >= lag)
        for number in np.flatnonzero(truth.of_language[feature]):
            here = at & (language[1 - lag] == number)
            assert codes[here, feature].mean() == pytest.approx(
                truth.presence[feature, number], abs=5 / here.sum() ** 0.5
            )


def test_nested_features_are_active_with_their_parents_only_and_twins_are_correlated(tmp_path: Path) -> None:
    truth = model(tmp_path, presence=0.7, correlation=0.8).truth()
    ids, position = text(20_000)
    codes = truth.codes(ids, position, 1024, 4).toarray() > 0
    nested = np.flatnonzero(truth.parent != NONE).tolist()
    assert len(nested) == 4
    for child in nested:
        parent = int(truth.parent[child])
        assert set(truth.tokens_of(child)) < set(truth.tokens_of(parent)) and truth.birth[child] >= truth.birth[parent]
        assert codes[:, child].any() and not np.any(codes[:, child] & ~codes[:, parent])
    twins = np.flatnonzero(truth.partner != NONE).tolist()
    assert len(twins) == 2
    for twin in twins:
        at = np.isin(ids, truth.tokens_of(twin)) & (position > 0)  # sequences that begin alike have the same draws
        pair = np.corrcoef(codes[at, twin], codes[at, truth.partner[twin]])
        assert pair[0, 1] == pytest.approx(0.8, abs=0.05)


def test_features_are_of_the_kinds_that_were_asked_for(truth: Truth) -> None:
    counts = dict(zip(KINDS, np.bincount(truth.kind, minlength=len(KINDS)).tolist(), strict=True))
    assert counts == {"word": 6 + 2, "grammar": 3 + 2, "meaning": 6, "mixed": 3, "contextual": 3, "single": 4 + 2 + 12}
    several = truth.of_language.sum(1) > 1
    for feature in range(truth.features):
        tokens, kind = truth.tokens_of(feature), KINDS[truth.kind[feature]]
        languages = set(truth.token_language[tokens].tolist())
        if kind in ("word", "meaning"):
            assert len(set(truth.token_meaning[tokens].tolist())) == 1 < len(tokens)
        if kind in ("meaning", "mixed"):
            assert several[feature] and languages == set(np.flatnonzero(truth.of_language[feature]))
        if kind in ("word", "grammar", "contextual"):
            assert not several[feature] and languages == set(np.flatnonzero(truth.of_language[feature]))
        assert (kind != "single") or len(tokens) == 1
        assert (truth.lag[feature] == 1) == (truth.kind[feature] == CONTEXTUAL)
        assert truth.birth[feature] in truth.steps and truth.death[feature] in (*truth.steps[1:], NEVER)
        assert truth.death[feature] > truth.birth[feature]


def test_directions_are_orthogonal_unless_there_are_more_features_than_dimensions(tmp_path: Path) -> None:
    for width in (20, 200):
        directions = model(tmp_path, d_model=width).truth().directions.astype(np.float64)
        products = directions @ directions.T
        np.testing.assert_allclose(np.diag(products), 1, rtol=1e-6)
        assert (np.abs(products - np.eye(len(products))).max() < 1e-6) == (width == 200)


def test_features_are_the_same_at_every_size(tmp_path: Path) -> None:
    small, large = (model(tmp_path, d_model=width).truth() for width in (16, 32))
    for name in ("kind", "tokens", "presence", "strength", "birth", "death", "parent", "first_layer"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))


def test_the_default_world_is_the_same_until_its_version_is_raised(tmp_path: Path) -> None:
    default = PlantedModel(**{**node("model"), "lexicon": node("corpus")["lexicon"], "unpack_to": str(tmp_path)})
    truth = default.truth()
    whole = ("kind", "tokens", "offsets", "parent", "partner", "birth", "death", "first_layer", "token_meaning")
    assert (VERSION, name_of({name: getattr(truth, name).tolist() for name in whole})) == (1, "23aa595799ca")
    assert [float(f"{number:.6g}") for number in truth.strength[-3:]] == [1.78479, 1.05224, 1.79943]
