import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from bisae.cli.analyze import analyze
from bisae.cli.intervene import intervene
from bisae.cli.train import train
from bisae.corpus.embedded import EMBEDDED
from bisae.intervention import work
from bisae.intervention.edited_lm import EditedLM
from bisae.runtime.errors import AnalysisFailed, ConfigError, Refused
from tests.cli.test_analyze import files
from tests.conftest import ROOT, TINY, TINY_ANALYSIS, TINY_INTERVENTION, run

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]
FINAL = 2048


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of two layers at the last step, one of them analysed."""
    folder = tmp_path_factory.mktemp("analysed")
    done = run([str(ROOT / "train.py"), *TINY, "checkpoint=final", "layer=[1,2]"], folder)
    assert done.returncode == 0, done.stderr
    typed = [*TINY_ANALYSIS, "alignment.pairs=null", "only.layer=2", "output=null"]
    done = run([str(ROOT / "analyze.py"), *typed], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(analysed: Path, tmp_path: Path) -> Path:
    for name in ("runs", "cache"):
        shutil.copytree(analysed / name, tmp_path / name)
    return tmp_path


def never(*_: object) -> None:
    raise AssertionError("the LM was asked")


def test_a_table_has_each_kind_its_controls_and_their_changes_against_the_plain_lm(place: Path, config: Config) -> None:
    table = intervene(config("kind=[EN,mixed,[3,5]]", 'continue.prompts=["He is","彼は"]', name="intervene"))
    kept = pd.read_parquet(place / "interventions/interventions.parquet")
    pd.testing.assert_frame_equal(kept, table)
    assert len(pd.read_csv(place / "interventions/interventions.csv")) == len(table) == 1 + 3 * 5
    assert table["kind"].tolist()[0] == "none" and set(table["kind"]) == {"none", "en", "mixed", "ids:3,5"}
    assert table.groupby("kind")["control"].apply(sorted)["en"] == ["", "random", "random", "self", "shuffled"]
    plain, changed = table.iloc[0], table.iloc[1:]
    assert (changed["donor"] == FINAL).all() and (table["recipient"] == 512).all() and pd.isna(plain["donor"])
    assert pd.isna(plain["perplexity_all_change"]) and changed["perplexity_all_change"].notna().all()
    for metric in ("perplexity_en", "perplexity_all", "loss_en_ja", "source_gain_ja_en", "bleu_en_ja", "chrf_ja_en"):
        difference = changed[metric] - plain[metric]
        np.testing.assert_allclose(changed[f"{metric}_change"], difference, atol=1e-12)
        written = table if metric.startswith(("perplexity", "loss", "source")) else table[table["seed"].isna()]
        assert (written[f"{metric}_low"] <= written[f"{metric}_high"]).all()
    draws = table[table["control"] == "random"].set_index("seed")  # of draws only the first writes
    assert draws.loc[0, "bleu_en_ja"].notna().all() and draws.loc[1, "bleu_en_ja"].isna().all()
    assert set(draws["drawn_from"]) <= {"others", "all"} and (draws["widening"] >= 1).all()
    strong = table[(table["kind"] == "en") & (table["control"] == "")].iloc[0]
    assert table["bleu_en_ja_signature"].dropna().str.contains("tok:ja-mecab").all()
    assert strong["change"] > 0 and strong["perplexity_en_change"] != 0
    for name in ("interventions.md", "interventions.tex", "slides.md", "slides.tex", "orderings.csv"):
        assert (place / "interventions/tables" / name).stat().st_size > 0
    assert list((place / "interventions/figures").glob("*.png"))
    page = (place / "interventions/generations.html").read_text()
    assert "He is" in page and "random 0 (as En)" in page and "random 1 (as En)" not in page


def test_nothing_is_measured_twice_and_more_joins_the_same_table(
    place: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = intervene(config("kind=[en]", "translation=none", name="intervene"))
    before = files(place / "interventions/rows")
    more = intervene(config("kind=[en,ja]", "coefficient=[0.3,1]", "translation=none", name="intervene"))
    assert len(first) == 6 and len(more) == 1 + 2 * 2 * 5
    after = files(place / "interventions/rows")
    assert {name: after[name] for name in before} == before
    monkeypatch.setattr(work, "load_causal_lm", never)
    pd.testing.assert_frame_equal(intervene(config("kind=[ja]", "translation=none", name="intervene")), more)
    with pytest.raises(AssertionError, match="the LM was asked"):
        intervene(config("kind=[ja]", "recipient=256", "translation=none", name="intervene"))


def test_coefficient_0_changes_nothing_to_the_bit(place: Path, config: Config) -> None:
    table = intervene(config("kind=[all]", "coefficient=0", "control.self=false", name="intervene"))
    changes = table[[name for name in table if name.endswith("_change")]].iloc[1:]
    assert (changes == 0).all().all()


@pytest.mark.parametrize(
    ("mode", "controls"), [("ablate", {"", "random"}), ("scale", {"", "random"}), ("steer", {"", "random"})]
)
def test_one_lm_alone_can_be_changed(place: Path, config: Config, mode: str, controls: set[str]) -> None:
    typed = [f"mode={mode}", "recipient=final", "coefficient=2", "kind=[mixed]", "translation=none"]
    table = intervene(config(*typed, 'continue.prompts=["He is"]', name="intervene"))
    assert set(table["control"]) == controls and (table["recipient"] == FINAL).all()
    assert (table["change"].iloc[1:] > 0).all() and table["norm"].eq("").all()
    assert pd.isna(table["coefficient"].iloc[-1]) == (mode == "ablate")


def test_words_are_swapped_and_the_whole_stream_is_the_measure(
    place: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["mode=swap", "recipient=final", "kind=[mixed,all]", "control.random=2", "batch=32", "swap.dice=0.2"]
    typed += [f"swap.pairs={EMBEDDED}/alignment.tsv.xz", "translation.tasks.examples=400", "translation.tasks.shots=0"]
    table = intervene(config(*typed, name="intervene"))
    assert table["kind"].tolist() == ["none", "all", "mixed", "mixed", "mixed", "stream"]
    effects = table.set_index("kind")[["contrast_en_ja_change", "contrast_ja_en_change"]]
    assert (effects.loc["stream"] > 0).all() and effects.loc["none"].isna().all()
    assert (table["touched"].iloc[1:] > 0).all() and "perplexity_all" not in table
    shares = pd.read_csv(place / "interventions/tables/swap.csv").set_index(["kind", "metric"])
    assert set(shares["family"]) == {"embedded"}
    share = effects.loc["all", "contrast_en_ja_change"] / effects.loc["stream", "contrast_en_ja_change"]
    assert shares.loc[("all", "contrast_en_ja"), "effect"] == effects.loc["all", "contrast_en_ja_change"]
    if shares.loc[("all", "contrast_en_ja"), "verdict"] != "no claim":
        assert shares.loc[("all", "contrast_en_ja"), "share"] == pytest.approx(share)
    monkeypatch.setattr(work, "load_causal_lm", never)
    pd.testing.assert_frame_equal(intervene(config(*typed, name="intervene")), table)


def test_several_layers_are_changed_together_and_what_is_not_analysed_is_first(place: Path, config: Config) -> None:
    typed = ["layer=[1,2]", "kind=[en]", "control.random=1", "translation=none"]
    with pytest.raises(ConfigError, match=r"analyze=None: .*layer01.* has no features.parquet; .*analyze=."):
        intervene(config(*typed, name="intervene"))
    overrides = json.dumps([*TINY_ANALYSIS, "alignment.pairs=null"])
    both = intervene(config(*typed, f"analyze={overrides}", name="intervene"))
    assert both["layers"].tolist() == ["", "1+2", "1+2", "1+2", "1+2"]
    one = intervene(config(*typed, "layer=2", name="intervene"))
    assert set(one["layers"]) == {"", "2", "1+2"} and one["kind"].eq("none").sum() == 1
    added = one[(one["control"] == "") & (one["kind"] == "en")].set_index("layers")
    assert added.loc["1+2", "features"] > added.loc["2", "features"]
    assert added.loc["1+2", "perplexity_all"] != added.loc["2", "perplexity_all"]


def test_the_layer_of_best_retrieval_is_edited_and_every_row_says_so(place: Path, config: Config) -> None:
    typed = ["kind=[mixed]", "mode=ablate", "recipient=final", "translation=none"]
    given = intervene(config(*typed, "control.random=0", name="intervene"))
    rows = [("embedded", FINAL, layer, "stream", True, "both", 0.4 - abs(layer - 2) / 10) for layer in range(5)]
    found = pd.DataFrame(rows, columns=["model", "step", "layer", "space", "centred", "direction", "value"])
    found.assign(low=0.1, high=0.5, candidates=50).to_csv(place / "retrieval.csv", index=False)
    chosen = [*typed, "layer=auto", f"retrieval={place}/retrieval.csv"]
    table = intervene(config(*chosen, name="intervene")).set_index("control")
    assert (table["layers"].iloc[1:] == "2").all() and given["layer_by"].eq("").all()
    assert table.loc["random", "layer_by"].str.startswith("retrieval 0.400 (0.100 to 0.500) of 50 candidates").all()
    assert table["layer_by"].iloc[1] == ""  # this row was measured before, at a layer that was given


def test_three_languages_are_read_without_the_features_of_each(tmp_path: Path, config: Config) -> None:
    rng = np.random.default_rng(0)
    for code, syllables in {
        "de": ["sch", "ung", "ein"],
        "fr": ["eau", "que", "ou"],
        "sv": ["sk", "och", "det"],
    }.items():
        texts = (" ".join("".join(rng.choice(syllables, 3)) + "." for _ in range(12)) for _ in range(120))
        (tmp_path / f"{code}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files = ",".join(f"{code}:{tmp_path}/{code}.jsonl" for code in ("de", "fr", "sv"))
    corpus = ["corpus=jsonl", f"corpus.files={{{files}}}"]
    train(config(*corpus, "checkpoint=final", "layer=2", "data.epochs=1", "data.validation_tokens=600"))
    analysed = [*corpus, "language=document", "alignment.pairs=null", "bilingual=monosemantic", "tokens=900"]
    analyze(config(*analysed, "output=null", name="analyze"))
    typed = ["experiment=languages", "translation=none", "donor.step=final", "layer=2", "perplexity.documents=3"]
    table = intervene(config(*typed, "kind=languages", "control.random=3", name="intervene"))
    assert list(table[table["control"] == ""]["kind"]) == ["none", "de", "fr", "sv"]
    for code in ("de", "fr", "sv"):
        np.testing.assert_allclose(table[f"cross_entropy_{code}"], np.log(table[f"perplexity_{code}"]))
    matrix = pd.read_csv(tmp_path / "interventions/tables/languages.csv").set_index(["kind", "text"])
    assert len(matrix) == 9 and (matrix["size"].groupby("kind").first() > 0).any()
    known = matrix[matrix["specificity"].notna()]
    assert set(known["draws"]) == {3} and known.index.get_level_values("text").nunique() == 3
    assert "specificity" in (tmp_path / "interventions/tables/languages.md").read_text()


def test_an_lm_edited_by_an_analysed_cell_answers_as_intervene_does(place: Path, config: Config) -> None:
    (folder,) = (place / "runs").rglob("layer02/*/features.parquet")
    typed = ["kind=[mixed]", "control.random=0", "translation=none", "continue.max_new_tokens=5"]
    said = ['continue.prompts=["He is","彼は"]', "control.shuffled=false", "control.self=false"]
    table = intervene(config(*typed, *said, name="intervene"))
    files = (place / "interventions/rows").glob("*/continuation-*.parquet")
    answers = {file.parent.name: pd.read_parquet(file)["answer"].tolist() for file in files}
    by_kind = {row["kind"]: answers[row["hash"]] for row in table.to_dict("records")}
    cell, cache = folder.parent, place / "cache"
    adding = EditedLM.of(cell, "mixed", "add", 0.3, step=512, cache=cache)
    assert [adding.answer(prompt, 5) for prompt in ("He is", "彼は")] == by_kind["mixed"] != by_kind["none"]
    plain = EditedLM.of(cell, "none", "add", step=512, cache=cache)
    assert [plain.answer(prompt, 5) for prompt in ("He is", "彼は")] == by_kind["none"]
    assert EditedLM.of(cell, "3+5", cache=cache).donor is None  # ablate, the default
    modes: list[tuple[dict[str, Any], str]] = [({"kind": "en", "mode": mode}, "mode") for mode in ("x", "swap")]
    useless: list[tuple[dict[str, Any], str]] = [
        ({"kind": "languages"}, "kind"),  # of which only the last would be taken
        ({"kind": 3, "mode": "scale"}, "coefficient"),
        ({"kind": "en", "mode": "add", "coefficient": float("nan")}, "coefficient"),
    ]
    for wrong, key in (*modes, ({"kind": "xx"}, "kind"), ({"kind": 99}, "kind"), *useless):
        with pytest.raises(Refused, match=f"^{key}="):
            EditedLM.of(cell, **wrong, cache=cache)
    with pytest.raises(Refused, match=r"^cell=.*runs: names 2 cells"):
        EditedLM.of(place / "runs", "en", cache=cache)


def test_the_evaluation_harness_scores_the_edited_lm(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    from bisae.intervention import harness

    assert harness.EditedModel.__name__
    (folder,) = (place / "runs").rglob("layer02/*/features.parquet")
    (place / "texts.jsonl").write_text('{"text": "He is", "next": " a student"}\n{"text": "彼は", "next": "行った"}\n')
    task: dict[str, Any] = {
        "task": "next",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(place / "texts.jsonl")},
    }
    task |= {
        "test_split": "train",
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{next}}",
    }
    task |= {"target_delimiter": "", "metric_list": [{"metric": "perplexity"}]}
    monkeypatch.setenv("HF_HOME", str(place / "hf"))
    scores = []
    for kind in ("none", "mixed"):
        arguments = f"cell={folder.parent},kind={kind},cache={place}/cache"
        found = lm_eval.simple_evaluate("bisae", arguments, [task], batch_size=2, task_manager=TaskManager())
        scores.append(found["results"]["next"]["perplexity,none"])
    edited = EditedLM.of(folder.parent, "none", cache=place / "cache")
    nats = []
    for text, following in (("He is", " a student"), ("彼は", "行った")):
        whole, before = (edited.tokenizer(one, add_special_tokens=False).input_ids for one in (text + following, text))
        ids = torch.tensor([[edited.tokenizer.bos_token_id, *whole]])
        losses = torch.nn.functional.cross_entropy(edited(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        nats.append(float(losses[len(before) :].sum()))
    assert scores[0] == pytest.approx(np.exp(np.mean(nats)), rel=1e-3) and scores[1] != scores[0]


def test_kinds_can_be_made_equally_many(place: Path, config: Config) -> None:
    table = intervene(config("features=equal", "kind=[en,ja,mixed]", "translation=none", name="intervene"))
    assert table["features"].iloc[1:].nunique() == 1 and table["limit"].iloc[1:].str.fullmatch(r"\d+ \(draw 0\)").all()
    with pytest.raises(ConfigError, match="features=1000: must be equal, or at most"):
        intervene(config("features=1000", "kind=[en]", name="intervene"))


def test_rows_of_other_rules_of_analysis_are_not_in_the_table(place: Path, config: Config) -> None:
    first = intervene(config("kind=[en]", "translation=none", name="intervene"))
    typed = [*TINY_ANALYSIS, "alignment.pairs=null", "only.layer=2", "output=null", "threshold=0.6"]
    assert run([str(ROOT / "analyze.py"), *typed], place).returncode == 0
    second = intervene(config("kind=[ja]", "translation=none", name="intervene"))
    assert set(first["kind"]) == {"none", "en"} and set(second["kind"]) == {"none", "ja"}


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["runs=nowhere"], "runs"),
        (["donor.model=other"], "donor.model"),
        (["donor.sae=other"], "donor.sae"),
        (["donor.step=512"], "layer"),
        (["layer=3"], "layer"),
        (["layer=9"], "layer"),
        (["layer=auto", "retrieval=nowhere.csv"], "layer"),
        (["layer=best"], "layer"),
        (["recipient=7"], "recipient"),
        (["experiment=paper", "layer=2"], "recipient"),
        (["experiment=paper", "recipient=512"], "layer"),
        (["kind=[xx]"], "kind"),
        (["kind=[[99]]"], "kind"),
        (["mode=multiply"], "mode"),
        (["mode=swap", "translation=none"], "translation"),
        (["mode=swap", "swap.pairs=nowhere.tsv"], "swap.pairs"),
        (["mode=swap", "swap.words=nowhere.tsv"], "swap.words"),
        (["mode=swap", "swap.apart=0.5"], "swap.apart"),
        (["norm=both"], "norm"),
        (["coefficient=strong"], "coefficient"),
        (["coefficient=inf"], "coefficient"),
        (["control.random=-1"], "control.random"),
        (["control.self=1"], "control.self"),
        (["batch=1"], "control.shuffled"),
        (['continue.prompts=["He is"]'], "control.shuffled"),
        (["dtype=int8"], "dtype"),
        (["device=tpu"], "device"),
        (["perplexity.split=nowhere"], "perplexity.split"),
        (["perplexity.documents=100000"], "perplexity.documents"),
        (["perplexity.documents=0"], "perplexity.documents"),
        (["perplexity.context=100000"], "perplexity.context"),
        (["perplexity.stride=128"], "perplexity.stride"),
        (["perplexity.mix={en: 1}"], "perplexity.mix"),
        (["perplexity.mix={en: 1, ja: x}"], "perplexity.mix.ja"),
        (["perplexity.mix={en: 1, ja: 1, jpn: 1}"], "perplexity.mix"),
        (["translation.metrics.bleu.tokenize=13a"], "translation.metrics.bleu.tokenize"),
        (["translation.tasks.examples=100000"], "translation.tasks.examples"),
        (["continue.prompts=[3]"], "continue.prompts"),
        (["resamples=1"], "resamples"),
        (["layer=1"], "analyze"),
        (['analyze=["space=nowhere"]', "layer=1"], "analyze.py"),
    ],
)
def test_bad_input_is_refused_by_key_before_any_lm_runs(
    place: Path, config: Config, overrides: list[str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "load_causal_lm", never)
    with pytest.raises((ConfigError, AnalysisFailed), match=rf"^{key}[= ]"):
        intervene(config(*overrides, name="intervene"))
    assert not list((place / "interventions").rglob("*.parquet"))


def test_features_of_another_sae_are_refused(place: Path, config: Config) -> None:
    (file,) = (place / "runs").rglob("layer02/*/features.parquet")
    pd.read_parquet(file).head(10).to_parquet(file)
    with pytest.raises(ConfigError, match="has 10 features, the SAE 64"):
        intervene(config(name="intervene"))


def test_a_cell_without_live_features_is_a_result_too(place: Path, config: Config) -> None:
    (file,) = (place / "runs").rglob("layer02/*/sae.safetensors")
    tensors = load_file(file)
    tensors["b_enc"] -= 1000
    save_file(tensors, file)
    (table,) = (place / "runs").rglob("layer02/*/features.parquet")
    found = pd.read_parquet(table).assign(**{"class": "dead", "bilingual": False})
    found.filter(regex="^(?!mass_)").assign(mass_en=0.0, mass_ja=0.0).to_parquet(table)
    rows = intervene(config("kind=[en,bi]", "translation=none", name="intervene"))
    assert (rows["features"].iloc[1:] == 0).all() and (rows["perplexity_all_change"].iloc[1:] == 0).all()


def test_a_sweep_over_coefficients_ends_in_one_table(place: Path) -> None:
    typed = [*TINY_INTERVENTION, "kind=[en]", "control.random=1", "coefficient=0.1,0.4"]
    done = run([str(ROOT / "intervene.py"), "-m", *typed], place)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(place / "interventions/interventions.csv")
    assert sorted(set(table["coefficient"].dropna())) == [0.1, 0.4] and len(table) == 1 + 2 * 4


def test_an_intervention_killed_at_any_moment_ends_like_an_undisturbed_one(
    place: Path, request: pytest.FixtureRequest
) -> None:
    typed = [*TINY_INTERVENTION, "kind=[en]", "control.random=1"]
    shutil.copytree(place, place.with_name("undisturbed"))
    done = run([str(ROOT / "intervene.py"), *typed], place.with_name("undisturbed"))
    assert done.returncode == 0, done.stderr
    for number in range(request.config.getoption("--kill-points")):
        point = ("before-rename", "after-rename")[number % 2]
        killed = run(["-m", "tests.killed", "intervene", point, str(2 + 5 * number), *typed], place)
        assert killed.returncode in (-9, 0), killed.stderr
    assert run([str(ROOT / "intervene.py"), *typed], place).returncode == 0
    one, other = files(place / "interventions"), files(place.with_name("undisturbed") / "interventions")
    assert sorted(one) == sorted(other)
    assert [name for name in one if one[name] != other[name]] == []


def test_source_gains_are_measured_without_a_written_answer(place: Path, config: Config) -> None:
    few = "translation.tasks.examples=4", "perplexity.documents=2", "kind=[en,all]"
    table = intervene(config("experiment=source_gain", *few, f"output={place}/gains", name="intervene"))
    assert {"source_gain_en_ja", "loss_ja_en"} <= set(table) and not [name for name in table if "bleu" in name]
    assert set(table["recipient"]) == {FINAL} and set(table["mode"]) == {"", "ablate"}
    found = pd.read_csv(place / "gains/tables/source_gain.csv")
    assert set(found["kind"]) == {"none", "en", "all"} and len(found) == 3 * 4
    assert not (place / "gains/generations.html").exists()
