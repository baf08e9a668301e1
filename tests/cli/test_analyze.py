import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from bisae.cli.analyze import analyze
from bisae.features import analysed_activations
from bisae.lm.lm_pass import LMPass
from bisae.runtime.errors import AnalysisFailed, ConfigError
from bisae.runtime.naming import name_of
from tests.conftest import ROOT, TINY, TINY_ANALYSIS, few_pairs, run

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells: two steps of the shipped LM, two layers."""
    folder = tmp_path_factory.mktemp("trained")
    for step in (0, 512):
        done = run([str(ROOT / "train.py"), *TINY, f"checkpoint={step}", "layer=[1,3]"], folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    for name in ("runs", "cache"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def never(*_: object) -> None:
    raise AssertionError("the LM was asked")


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_every_cell_gets_its_features_and_the_report_says_what_they_are(place: Path, config: Config) -> None:
    table = analyze(config(name="analyze"))
    assert table[["step", "layer"]].to_numpy().tolist() == [[0, 1], [0, 3], [512, 1], [512, 3]]
    pd.testing.assert_frame_equal(pd.read_csv(place / "report/cells.csv"), table, check_dtype=False)
    for row in table.itertuples():
        features = pq.read_table(Path(row.folder) / "features.parquet")
        about = json.loads(features.schema.metadata[b"bisae"])
        assert about["rules"]["bilingual"] == "cross" and about["rules"]["language"]["rule"] == "script"
        found = features.to_pandas()
        alive = found[found["class"] != "dead"]
        assert len(found) == row.features == 64 and len(alive) == row.alive
        assert (alive["class"] == "Mixed").mean() == pytest.approx(row.Mixed)
        contexts = pd.read_parquet(next(Path(row.folder).glob("analysis/*/contexts.parquet")))
        counted = contexts["feature"].value_counts(sort=False)
        assert counted.sort_index().tolist() == found.query("contexts > 0")["contexts"].tolist()
    lineage, emergence = (pd.read_parquet(place / f"report/{name}.parquet") for name in ("lineage", "emergence"))
    assert lineage.groupby(["layer", "step"]).size().tolist() == [64, 64] and set(lineage["next_step"]) == {512}
    assert len(emergence) == table.query("step == 512")["alive"].sum()
    browsed = (place / "report/browser/data/cells.js").read_text(encoding="utf-8")
    assert set(re.findall(r'"sae":"([^"]*)"', browsed)) == set(table["setting"]) == {"topk 64 k=4"}
    expected = ["index.html", "tables/phases.md", "tables/examples.tex", "figures/over_step_embedded.pdf"]
    assert [name for name in expected if not (place / "report" / name).is_file()] == []


WITHOUT_SLOW_IMPORTS = """
import runpy, sys
sys.argv = {!r}
runpy.run_path(sys.argv[0], run_name="__main__")
slow = {{"transformers", "datasets", "lightning", "wandb", "sentence_transformers", "scipy.stats", "matplotlib"}}
slow &= set(sys.modules)
assert not slow, slow
"""


def test_what_is_done_is_not_done_again_nor_read_again(
    place: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = analyze(config(name="analyze"))
    typed = [str(ROOT / "analyze.py"), *TINY_ANALYSIS, f"alignment.pairs={few_pairs(place)}", "output=null"]
    quick = run(["-c", WITHOUT_SLOW_IMPORTS.format(typed)], place)
    assert quick.returncode == 0, quick.stderr
    before = files(place / "runs") | files(place / "report")
    monkeypatch.setattr(LMPass, "activations", never)
    monkeypatch.setattr(LMPass, "tokens", never)
    pd.testing.assert_frame_equal(analyze(config(name="analyze")), first)
    assert files(place / "runs") | files(place / "report") == before


def test_other_rules_make_another_analysis_and_keep_the_first(place: Path, config: Config) -> None:
    only = "only.step=512", "only.layer=1"
    analyze(config(*only, name="analyze"))
    before = files(place / "runs")
    table = analyze(config(*only, "patterns=top", "language=document", "bilingual=alignment", name="analyze"))
    after = files(place / "runs")
    changed = {name for name in before if before[name] != after[name]}
    assert len(table) == 1 and {Path(name).name for name in changed} == {"features.parquet"}
    assert len({Path(name).parent for name in after if name.endswith("analysis.json")}) == 2


def edit(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def test_bad_cells_are_named_and_skipped_and_the_rest_is_done(place: Path, config: Config) -> None:
    good, partial, damaged, foreign = sorted(file.parent for file in (place / "runs").rglob("cell.json"))
    others = []
    changes: list[dict[str, Any]] = [{"identity": {}}, {"identity": None}, {"step": "512"}, {"metrics": {}}]
    for number, changed in enumerate([*changes, {"model": "../../escaped"}]):
        others.append(place / "runs" / f"other{number}")
        shutil.copytree(good, others[-1])
        edit(others[-1] / "cell.json", **{"hash": str(number), **changed})
    (partial / "sae.safetensors").unlink()
    (damaged / "cell.json").write_text("{")
    (foreign / "config.yaml").write_text("model: {_target_: os.system, command: exit}")
    with pytest.raises(AnalysisFailed, match="^8 cells could not be analysed:") as failure:
        analyze(config(name="analyze"))
    for cell in (partial, damaged, foreign, *others):
        assert str(cell) in str(failure.value)
    assert len(pd.read_csv(place / "report/cells.csv")) == 1 and (good / "features.parquet").exists()
    assert not list(place.glob("**/escaped*"))


def test_a_cell_of_which_all_features_are_dead_is_a_result_too(place: Path, config: Config) -> None:
    for file in (place / "runs").rglob("step0000512/layer01/*/sae.safetensors"):
        tensors = load_file(file)
        tensors["b_enc"] -= 1000
        save_file(tensors, file)
    table = analyze(config("only.layer=1", name="analyze"))
    assert table["alive"].tolist()[1] == 0 and table["alive"].tolist()[0] > 0
    assert pd.isna(table["Mixed"].tolist()[1])


def test_the_same_cell_in_two_folders_is_refused_by_name(place: Path, config: Config) -> None:
    cell = sorted((place / "runs").rglob("cell.json"))[0].parent
    shutil.copytree(cell, place / "copy")
    with pytest.raises(AnalysisFailed, match="the same cell is in another folder too") as failure:
        analyze(config(f"runs=[{place}/runs,{place}/copy,{place}/nowhere]", "only.step=512", name="analyze"))
    assert str(cell) in str(failure.value) and str(place / "nowhere") in str(failure.value)
    assert len(pd.read_csv(place / "report/cells.csv")) == 2


def test_a_report_removes_its_own_old_files_only(place: Path, config: Config) -> None:
    (place / "report/figures").mkdir(parents=True)
    (place / "report/figures/photo.png").write_text("mine")
    analyze(config("only.layer=1", name="analyze"))
    assert (place / "report/figures/over_step_embedded.png").exists()
    for cell in (place / "runs").rglob("step0000000/layer01/*/cell.json"):
        shutil.rmtree(cell.parent)
    analyze(config("only.layer=1", name="analyze"))
    assert not (place / "report/figures/over_step_embedded.png").exists()
    assert (place / "report/figures/photo.png").read_text() == "mine"


def test_a_damaged_analysis_is_named_and_left_out(place: Path, config: Config) -> None:
    analyze(config("only.layer=1", "output=null", name="analyze"))
    one, other = sorted((place / "runs").rglob("analysis.json"))
    one.write_text("{")
    with pytest.raises(AnalysisFailed, match="^1 cell could not be analysed:"):
        analyze(config("only.layer=1", name="analyze"))
    assert len(pd.read_csv(place / "report/cells.csv")) == 1


@pytest.mark.parametrize(
    ("store", "held", "readings"),
    [("rolling", 2**30, 1), ("streaming", 2**30, 1), ("streaming", 0, 2)],  # one for codes, one for contexts
)
def test_the_same_features_come_from_wherever_activations_are_kept(
    place: Path, config: Config, store: str, held: int, readings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = "only.step=512", "output=null"
    analyze(config(*only, name="analyze"))
    cached = files(place / "runs")
    for written in [*(place / "runs").rglob("analysis"), place / "cache/codes"]:
        shutil.rmtree(written)
    read: Counter[tuple[str, int]] = Counter()
    one_shard = LMPass.activations

    def counted(lm: LMPass, shard: int, layers: Sequence[int]) -> Any:
        read.update([(name_of(lm.fingerprint), shard)])
        return one_shard(lm, shard, layers)

    monkeypatch.setattr(LMPass, "activations", counted)
    monkeypatch.setattr(analysed_activations, "HELD", held)
    analyze(config(*only, f"activations={store}", "codes=delete", name="analyze"))
    assert files(place / "runs") == cached
    text, pairs = Counter(source for source, _ in read).most_common()  # the text has more shards
    assert {times for (source, _), times in read.items() if source == text[0]} == {readings}
    assert {times for (source, _), times in read.items() if source == pairs[0]} == {1}
    assert not list((place / "cache/codes").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["tokens=10000000"], "tokens"),
        (["tokens=0"], "tokens"),
        (["language=sign"], "language"),
        (["bilingual=yes"], "bilingual"),
        (["cross.least=1.5"], "cross.least"),
        (["cross.level=1.0"], "cross.level"),
        (["bilingual=alignment", "alignment.pairs=null"], "bilingual"),
        (["alignment.pairs=nowhere.tsv"], "alignment.pairs"),
        (["threshold=1.0"], "threshold"),
        (["monosemanticity.shuffles=0"], "monosemanticity.shuffles"),
        (["split=nowhere"], "split"),
        (["only.step=7"], "only.step"),
        (["only.layer=[1,9]"], "only.layer"),
        (["runs=nowhere"], "runs"),
        (["patterns.share=1.0"], "patterns.share"),
        (["resamples=1"], "resamples"),
        (["model=embedded_control", "only.step=512"], "model"),
        (["lineage.least=-1"], "lineage.least"),
    ],
)
def test_bad_input_is_refused_by_key_before_any_lm_runs(
    place: Path, config: Config, overrides: list[str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LMPass, "activations", never)
    with pytest.raises((ConfigError, AnalysisFailed), match=rf"(^|: ){key}="):
        analyze(config(*overrides, name="analyze"))
    assert not list((place / "runs").rglob("features.parquet"))


def test_a_sweep_shares_the_work_and_its_report_has_all_cells(place: Path) -> None:
    typed = [*TINY_ANALYSIS, f"alignment.pairs={few_pairs(place)}"]
    done = run([str(ROOT / "analyze.py"), "-m", *typed, "only.step=0,512"], place)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(place / "report/cells.csv")) == 4
    caches = [*(place / "cache/activations").iterdir()]
    assert len(caches) > 4  # of training, and of the analysis of two steps
    for cache in caches:  # each written in one LM pass: the layers shard by shard
        first, second = (
            sorted(f.stat().st_mtime_ns for f in cache.glob(f"{layer}/*")) for layer in ("layer01", "layer03")
        )
        assert len(first) == len(second) and all(one > other for one, other in zip(first[1:], second, strict=False))
    none = run([str(ROOT / "analyze.py"), "runs=runs"], place)
    assert none.returncode == 1 and "space" in none.stderr and "shipped" in none.stderr


def test_an_analysis_killed_at_any_moment_ends_like_an_undisturbed_one(
    place: Path, request: pytest.FixtureRequest
) -> None:
    typed = [*TINY_ANALYSIS, f"alignment.pairs={few_pairs(place)}", "only.layer=1"]
    shutil.copytree(place, place.with_name("undisturbed"))
    assert run([str(ROOT / "analyze.py"), *typed], place.with_name("undisturbed")).returncode == 0
    points = request.config.getoption("--kill-points")
    for number in range(points):
        point = ("before-rename", "after-rename")[number % 2]
        killed = run(["-m", "tests.killed", "analyze", point, str(3 + 13 * number), *typed], place)
        assert killed.returncode in (-9, 0), killed.stderr
    assert run([str(ROOT / "analyze.py"), *typed], place).returncode == 0
    for part in ("runs", "report"):
        one, other = files(place / part), files(place.with_name("undisturbed") / part)
        assert sorted(one) == sorted(other)
        assert [name for name in one if one[name] != other[name]] == []


def test_the_loss_recovered_by_the_reconstruction_is_a_metric_on_request(place: Path, config: Config) -> None:
    table = analyze(config("recovered=6", "only={step: 512, layer: 3}", "output=null", name="analyze"))
    for row in table.to_dict("records"):
        for name in ("ce_loss_score", "kl_div_score", "ce_loss_score_en", "kl_div_score_ja"):
            assert row[f"{name}_doc_low"] <= row[name] <= row[f"{name}_doc_high"] <= 1 + 1e-6
        zero, sae, lm = (row[f"ce_loss_{what}"] for what in ("with_ablation", "with_sae", "without_sae"))
        assert row["ce_loss_score"] == pytest.approx((zero - sae) / (zero - lm))
