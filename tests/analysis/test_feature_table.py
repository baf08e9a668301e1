from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import entropy

from bisae.analysis.feature_table import Side
from bisae.analysis.rules import AlignmentRule
from bisae.analysis.summary import summarize
from bisae.features import codes as codes_module
from bisae.features import read_contexts as contexts_module
from bisae.features.measures import cross as cross_module
from bisae.features.measures.language import classes
from bisae.features.measures.monosemanticity import monosemanticity
from bisae.runtime.errors import Refused
from tests.analysis.small_cell import CLUSTERS, LANGUAGES, described, rules
from tests.intervention.small_results import Languages


def test_rates_shares_and_scores_are_those_of_the_dense_codes(tmp_path: Path) -> None:
    found, reading, sae, dense = described(tmp_path, rules())
    features, tokens = found.features, reading.tokens
    values = next(reading.rows(np.arange(len(tokens)), [2]))[1][2]
    before = sae.pre_activations(sae.normalize(values)[0]).detach().numpy()
    assert features["feature"].tolist() == list(range(12))
    dense, fires = dense.astype(np.float16).astype(np.float32), dense > 0  # codes are kept in half precision
    assert features["firings"].tolist() == fires.sum(0).tolist()
    np.testing.assert_allclose(features["rate"], fires.mean(0))
    for number, code in enumerate(LANGUAGES):
        here = tokens.language == number
        assert features[f"firings_{code}"].tolist() == fires[here].sum(0).tolist()
        np.testing.assert_allclose(features[f"rate_{code}"], fires[here].mean(0))
        np.testing.assert_allclose(features[f"mass_{code}"], dense[here].sum(0, dtype=np.float64), rtol=1e-6)
    rates = features[["rate_fr", "rate_de"]].to_numpy()
    np.testing.assert_allclose(features["firing_share_fr"], rates[:, 0] / np.where(rates.sum(1), rates.sum(1), np.nan))
    assert features["class_firings"].tolist() == classes(rates, 0.7, ["fr", "de"]).tolist()
    assert features["class_document"].tolist() == features["class"].tolist() and "class_script" not in features
    means = np.stack([dense[tokens.language == number].mean(0, dtype=np.float64) for number in (0, 1)], 1)
    assert features["class_monolinguality"].tolist() == classes(means, 0.7, ["fr", "de"]).tolist()
    np.testing.assert_allclose(features["monolinguality_de"], means[:, 1] - means[:, 0], rtol=1e-6, atol=1e-9)
    alive = rates.sum(1) > 0
    np.testing.assert_allclose(features["lape"][alive], entropy(rates[alive], axis=1))
    assert features["lape"][~alive].isna().all()
    spoken = tokens.language[tokens.borders[:-1]]
    heard = np.maximum.reduceat(dense, tokens.borders[:-1]) > 0
    assert features["sequences_de"].tolist() == heard[spoken == 1].sum(0).tolist()
    wide = np.stack([heard[spoken == n].mean(0) >= 0.98 for n in (0, 1)]).any(0) & (rates > 0.1).any(1)
    assert features["lape_kept"].tolist() == wide.tolist()

    for feature in range(12):
        pieces = [slice(start, stop) for start, stop in zip(tokens.borders, tokens.borders[1:], strict=False)]
        firing = [piece for piece in pieces if dense[piece, feature].max() > 0]
        chosen = sorted(firing, key=lambda piece: -dense[piece, feature].max())[:20]
        top = max((before[piece, feature].max() for piece in chosen), default=1)
        rows = [piece.start + int(np.ceil(10 * (before[piece, feature] / top)).argmax()) for piece in chosen]
        row = features.iloc[feature]
        assert row["contexts"] == len(rows)
        if not rows:
            assert row["class"] == "dead" and np.isnan(row["monosemanticity"])
            continue
        share = np.mean(tokens.language[rows] == 0)
        np.testing.assert_allclose([row["share_fr"], row["share_de"]], [share, 1 - share])
        assert row["class"] == ("fr" if share > 0.7 else "de" if 1 - share > 0.7 else "Mixed")
        ids, counts = np.unique(tokens.token_ids[rows], return_counts=True)
        assert row["distinct_tokens"] == len(ids)
        np.testing.assert_allclose(row["monosemanticity"], monosemanticity(counts, CLUSTERS[ids]))


def test_a_dead_feature_is_dead_in_every_column(tmp_path: Path) -> None:
    dead = described(tmp_path, rules(), dead=7)[0].features.iloc[7]
    labels = [name for name in dead.index if name.startswith("class")]
    assert len(labels) == 5 and (dead[labels] == "dead").all() and dead["maximum"] == dead["firings"] == 0
    assert not dead[["lape_kept", "single_token", "bilingual", "contextual", "aligned"]].any()
    assert dead[["monosemanticity", "share_fr", "firing_share_de", "lape", "by_token", "alignment"]].isna().all()


def test_bilingual_features_are_mixed_ones_above_their_own_null(tmp_path: Path) -> None:
    features = described(tmp_path, rules())[0].features
    above = features["monosemanticity"] > features["monosemanticity_null_high"]
    assert features["bilingual"].tolist() == ((features["class"] == "Mixed") & above).tolist()
    assert features["bilingual"].any() and not features["bilingual"].all()


def test_no_seed_changes_what_is_bilingual_by_words_of_both_languages(tmp_path: Path) -> None:
    tables = [described(tmp_path / str(seed), rules(bilingual="cross", seed=seed))[0].features for seed in range(5)]
    columns = [*(name for name in tables[0] if name.startswith("cross")), "bilingual"]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table[columns], tables[0][columns])
    tested = tables[0].query("cross_q >= 0")
    assert len(tested) > 2 and (tested["class"] == "Mixed").all() and (tested["cross"] > 0).any()


def test_words_of_three_languages_are_not_compared() -> None:
    text = Languages(languages=("fr", "de", "en"))
    with pytest.raises(Refused, match="bilingual=cross: compares two languages, but the text is in fr, de, en"):
        rules(bilingual="cross").check(text)
    rules(bilingual="monosemantic").check(text)


def test_with_sentence_pairs_the_aligned_features_can_be_the_bilingual_ones(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    left = random.random((60, 12)).astype(np.float32)
    right = random.random((60, 12)).astype(np.float32)
    right[:, 3] = left[:, 3]
    sides = [Side(csr_array(side), csr_array(other)) for side, other in ((left, right), (right, right))]
    # pairs are given here, so that the file is not read
    chosen = rules(bilingual="alignment", alignment=AlignmentRule("given", 199, 0.5, 0.1))
    features = described(tmp_path, chosen, sides)[0].features
    assert np.flatnonzero(features["bilingual"]).tolist() == np.flatnonzero(features["aligned"]).tolist() == [3]
    expected = [np.corrcoef(left[:, n], right[:, n])[0, 1] for n in range(12)]
    np.testing.assert_allclose(features["alignment"], expected)
    np.testing.assert_allclose(features["alignment_other"], np.ones(12))


def test_with_sentence_pairs_the_active_sets_are_compared_with_those_of_shuffled_pairs(
    tmp_path: Path,
) -> None:
    """Every sentence has one latent, which its translation has too, on words or on other tokens."""
    one = np.eye(12, dtype=np.float32)
    none = csr_array(np.zeros_like(one))
    sides = [Side(csr_array(one), none), Side(none, csr_array(2 * one))]
    chosen = rules(alignment=AlignmentRule("given", 99, 0.5, 0.1))
    metrics = summarize(described(tmp_path / "pairs", chosen, sides)[0], LANGUAGES, chosen)
    kept = np.mean(np.random.default_rng(0).permutation(12) == np.arange(12))
    assert metrics["jaccard"] == 1 and metrics["jaccard_null"] == pytest.approx(kept) and kept < 0.5
    assert "jaccard" not in summarize(described(tmp_path / "none", rules())[0], LANGUAGES, rules())


def test_by_script_the_peaks_of_the_same_contexts_are_counted(tmp_path: Path) -> None:
    tokens = described(tmp_path / "first", rules())[1].tokens
    script = (tokens.token_ids % 2).astype(np.uint8)
    found = described(tmp_path / "second", rules(), script=script)[0]
    contexts = found.contexts
    peak = script[tokens.borders[contexts.sequence] + contexts.peak]
    share = pd.Series(peak).groupby(contexts.latent).mean()
    expected = np.where(share > 0.7, "de", np.where(share < 0.3, "fr", "Mixed"))
    assert found.features["class_script"][share.index].tolist() == expected.tolist()
    assert (found.features["class_script"] != found.features["class_document"]).any()


def test_clusters_stand_beside_the_tokens_they_were_counted_from(tmp_path: Path) -> None:
    found = described(tmp_path, rules())[0]
    assert found.clusters.tolist() == CLUSTERS[found.counts.tokens].tolist()
    table = pd.DataFrame({"feature": found.counts.feature_of_entry(), "count": found.counts.counts})
    assert table.groupby("feature")["count"].sum().tolist() == found.features.query("contexts > 0")["contexts"].tolist()


def test_any_number_of_threads_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes_module, "PART", 40)
    monkeypatch.setattr(contexts_module, "VALUES", 30)
    monkeypatch.setattr(cross_module, "BLOCK", 3)
    usual, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made = described(tmp_path / str(threads), rules())[0]
            found.append((made, summarize(made, LANGUAGES, rules())))
    finally:
        torch.set_num_threads(usual)
    (one, metrics), (several, same) = found
    pd.testing.assert_frame_equal(one.features, several.features, check_exact=True)
    assert metrics == same and metrics["monosemanticity_doc_low"] is not None
    for name in ("values", "peak", "activation"):
        np.testing.assert_array_equal(getattr(one.contexts, name), getattr(several.contexts, name))
    assert one.features["cross"].notna().sum() > 3  # several blocks
