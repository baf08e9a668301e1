"""Cells that differ in their SAE's seed only: which features are found again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from bisae.analysis import stability
from bisae.analysis.stability import Found, Stability
from bisae.cli.analyze import analyze
from bisae.cli.train import train
from bisae.features.measures.stability import cosine_by_chance
from bisae.sae import load
from tests.analysis.test_warm_ladders import place

Config = Callable[..., DictConfig]


@pytest.mark.slow
def test_features_are_found_again_in_cells_of_other_seeds_and_every_table_says_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config("sae.seed=[0,1,2]", "data.epochs=1"))
    train(config("sae.baseline=frozen_decoder", "data.epochs=1"))  # of one seed
    table = analyze(config(name="analyze")).set_index("hash")
    seeds, frozen = table[table["baseline"] == "trained"], table[table["baseline"] == "frozen_decoder"]
    assert set(seeds["pw_mcc_null"]) == {cosine_by_chance(64, 128)} and (seeds["pw_mcc"] > 0).all()
    assert frozen[["pw_mcc", "stable", "Mixed_reseed"]].isna().all(axis=None)
    np.testing.assert_allclose(seeds["Mixed_reseed"], seeds["Mixed"].std())

    seeds = seeds.assign(kept=[len(list(Path(one).glob("analysis/*/seeds-*.parquet"))) for one in seeds["folder"]])
    row, *others = seeds.sort_values("kept", ascending=False).itertuples()
    assert seeds["kept"].sum() == 3 and row.kept == 2  # each pair once
    folder = Path(row.folder)
    features = pq.read_table(folder / "features.parquet")
    assert set(json.loads(features.schema.metadata[b"seeds"])) == {other.Index for other in others}
    assert b"bisae" in features.schema.metadata
    found = features.to_pandas()
    a, *rest = (load(one.folder).W_dec.detach().numpy() for one in (row, *others))
    kept = [pd.read_parquet(file) for file in folder.glob("analysis/*/seeds-*.parquet")]
    for one in kept:
        errors = [np.abs(np.einsum("ld,ld->l", a, there[one["feature"]]) - one["cosine"]).max() for there in rest]
        assert min(errors) < 1e-5 < max(errors)
    np.testing.assert_allclose(found["stability"], np.mean([one["cosine"] for one in kept], 0), atol=1e-6)
    again = np.mean([np.minimum(one["cosine"], one["r"]) >= 0.7 for one in kept], 0)
    np.testing.assert_array_equal(found["found_again"], again)
    alive = found["class"] != "dead"
    assert row.found_70 == pytest.approx(again[alive].mean()) and row.found_50 >= row.found_70
    stable = found[alive & (found["found_again"] >= 0.5)]
    assert row.stable == len(stable)
    if len(stable):
        assert row.English_stable == pytest.approx((stable["class"] == "English").mean())

    claims = pd.read_csv(tmp_path / "report/tables/trust.csv").query("claim == 'Mixed'").iloc[0]
    assert claims["trained"] == pytest.approx(seeds["Mixed"].mean())
    assert claims["frozen decoder"] == pytest.approx(frozen["Mixed"].mean())

    monkeypatch.setattr("bisae.analysis.stability.one_to_one", None)  # what is matched is kept
    pd.testing.assert_frame_equal(analyze(config(name="analyze")).set_index("hash"), table)
    assert (folder / "features.parquet").read_bytes() == _bytes(features, tmp_path)


def _bytes(table: object, folder: Path) -> bytes:
    pq.write_table(table, folder / "again.parquet", compression="zstd")
    return (folder / "again.parquet").read_bytes()


def test_a_match_is_the_same_from_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    there = pd.DataFrame({"feature": [2, 0, 1], "cosine": [0.5, 0.9, 0.1], "r": [0.4, 0.8, 0.2]})
    monkeypatch.setattr(Stability, "match", lambda *_: there)
    monkeypatch.setattr(stability, "_found", lambda _, found: Found(next(iter(found.values())), {}, list(found)))
    reseeded = [place(2, hash, sae={"latents": 3, "seed": seed}) for seed, hash in enumerate("ab")]
    found = Stability(10).of([*reseeded, place(4, "c", sae={"latents": 3, "seed": 2})])
    assert {hash: one.others for hash, one in found.items()} == {"a": ["b"], "b": ["a"]}
    pd.testing.assert_frame_equal(found["a"].features, there)
    back = found["b"].features
    assert back[["feature", "cosine", "r"]].to_numpy().tolist() == [[1, 0.9, 0.8], [2, 0.1, 0.2], [0, 0.5, 0.4]]
