"""Tables, figures and pages of traced latents, from a made-up ladder of four steps and four latents."""

import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bisae.analysis.lineage import Followed
from bisae.analysis.traced import trace
from bisae.report.traced import traced_chunk, traced_pictures, traced_points, write_traced
from tests.analysis.test_traced import LADDER, TOKENS

LEAST = 0.5
AXES = {"model": "tiny", "layer": 2, "sae": "topk", "seed": 0, "hash": "c2048"}


def followed(**about: object) -> Followed:
    lineage = {f"c{one.step}": pd.DataFrame() for one in LADDER[:-1]}
    steps = np.array([one.step for one in LADDER[:-1]])
    about = {**AXES, "least": LEAST, **about}
    return Followed(lineage, pd.DataFrame(), about, steps, np.zeros((3, 4)), trace(LADDER, TOKENS, LEAST))


def test_each_step_counts_what_is_born_and_gone_and_changes_its_class() -> None:
    table = trace(LADDER, TOKENS, LEAST).table
    found = traced_points(table, LEAST).set_index(["measure", "step"])["value"]
    assert found["alive"].to_dict() == {0: 0.75, 64: 0.75, 512: 1, 2048: 1}
    assert found["born"].to_dict() == {64: 0.5, 512: 0.25, 2048: 0.25}  # 1 and 2; 3 again; 2 again
    assert found["gone"].to_dict() == {64: 0.5, 512: 0, 2048: 0.25}
    assert found["another class"].to_dict() == {64: 0, 512: pytest.approx(1 / 3), 2048: 0}
    # Of those that live on: latent 0 since step 0, and 1 and 2 since step 64.
    turned = [[1 - np.cos(0.1)], [1 - np.cos(0.2), *[1 - np.cos(0.1)] * 2], [1 - np.cos(a) for a in (0.3, 0.2, 0.1)]]
    assert found["drift"].tolist() == pytest.approx([np.mean(of_step) for of_step in turned], abs=1e-6)


def test_by_chance_all_that_fires_is_born_and_classes_are_shuffled() -> None:
    table = trace(LADDER, TOKENS, LEAST).table
    null = traced_points(table, LEAST).set_index(["measure", "step"])["null"]
    assert null["born"].to_dict() == {64: 0.75, 512: 1, 2048: 1} and null["gone"].to_dict() == {
        64: 0.75,
        512: 0.75,
        2048: 1,
    }
    assert (null["co-activation"] < 0.3).all() and null["alive"].isna().all()
    # Step 512: English, Japanese, English before, Mixed, Japanese, English now.
    assert null["another class"][512] == pytest.approx(1 - (1 / 3 * 1 / 3 + 2 / 3 * 1 / 3))


def test_everything_is_written_and_a_layer_with_two_ladders_has_two_panels(tmp_path: Path) -> None:
    written = write_traced(tmp_path, [followed(), followed(hash="d2048"), followed(layer=3)], 4)
    assert all(path.stat().st_size for path in written) and write_traced(tmp_path, [], 4) == []
    assert (
        len(pd.read_csv(tmp_path / "traced.csv")) == 3 * 7 and len(pd.read_parquet(tmp_path / "traced.parquet")) == 48
    )
    drawn = pd.read_csv(tmp_path / "figures/traced_tiny.csv")
    assert drawn["panel"].unique().tolist() == ["layer 2, c2048", "layer 2, d2048", "layer 3"]
    text = (tmp_path / "tables/traced.md").read_text(encoding="utf-8")
    assert "| tiny | 2 | c2048 | 64 | 0.750 (" in text and "; chance 0.750 |" in text


def test_of_many_layers_some_are_shown_and_the_note_says_so() -> None:
    points = pd.concat(
        [traced_points(trace(LADDER, TOKENS, LEAST).table, LEAST).assign(**{**AXES, "layer": n}) for n in range(6)]
    )
    (picture,) = traced_pictures(points, 3)
    assert (
        picture.data["panel"].unique().tolist() == ["layer 0", "layer 2", "layer 5"] and "3 of 6 layers" in picture.note
    )


def test_the_browser_gets_each_latent_by_step() -> None:
    chunk = traced_chunk(followed(), ["a", "b", "c", "d"])
    assert chunk is not None and json.dumps(chunk) and chunk["latents"] == 4 and chunk["cells"] == ["a", "b", "c", "d"]
    life = np.frombuffer(b64decode(chunk["life"]["base64"]), "<f4").reshape(4, 4)
    assert life[:, 3].tolist() == [1, 0, 2, 2] and life[:, 1].tolist() == [1, 2, 2, 2]
    drift = np.frombuffer(b64decode(chunk["drift"]["base64"]), "<f4").reshape(4, 4)
    assert drift[3, 0] == pytest.approx(1 - np.cos(0.3), abs=1e-6) and np.isnan(drift[1, 3])
