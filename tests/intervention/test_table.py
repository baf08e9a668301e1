from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bisae.intervention.measures import TranslatedTasks
from bisae.intervention.results import InterventionResult
from bisae.intervention.table import InterventionTable, by_direction, mean_score
from bisae.metrics.translation.bleu import Bleu
from bisae.translation.prompts import Prompt, TaskIds
from bisae.translation.scores import Score, Scorer
from bisae.translation.tasks import Task, TranslationExample
from tests.intervention.small_results import losses, row, text


def table(tmp_path: Path, mix: dict[str, float] | None = None) -> pd.DataFrame:
    measure, rows = text(mix), list[InterventionResult]()
    for model, recipient, kind, harder in (
        ("lm", 512, "en", 0.2),
        ("lm", 512, "none", 0.0),
        ("lm", 128, "none", 1.0),
        ("lm", 128, "en", 1.3),
        ("other", 512, "en", 0.5),
    ):
        one = row(tmp_path, kind, recipient, model, control="", donor=None if kind == "none" else 2048)
        one.keep(measure, losses(len(rows), harder), {"size": 0.1, "touched": 1.0})
        rows.append(one)
    found, samples = InterventionTable(measure, None, None, 200, 0).of(rows)
    changed = found[found["perplexity_all_change"].notna()]
    assert {name for name, changes in samples.items() if changes} == set(changed["hash"])
    for one in changed.itertuples():
        low, high = np.quantile(samples[one.hash]["perplexity_all"], [0.025, 0.975])
        assert (one.perplexity_all_change_low, one.perplexity_all_change_high) == (low, high)
    return found


def test_changes_are_paired_with_the_plain_lm_of_the_same_step(tmp_path: Path) -> None:
    found = table(tmp_path)
    assert found[["model", "recipient", "kind"]].to_numpy().tolist() == [
        ["lm", 128, "none"], ["lm", 128, "en"], ["lm", 512, "none"], ["lm", 512, "en"], ["other", 512, "en"],
    ]  # fmt: skip
    plain, changed = found.iloc[0], found.iloc[1]
    for name in ("perplexity_en", "perplexity_ja", "perplexity_all"):
        assert changed[name] == pytest.approx(np.exp(4.3), rel=1e-3)
        assert changed[f"{name}_change"] == pytest.approx(changed[name] - plain[name])
        low, high = changed[f"{name}_change_low"], changed[f"{name}_change_high"]
        assert low < changed[f"{name}_change"] < high and high - low < 0.1  # unpaired it would be wider
        assert changed[f"{name}_low"] <= changed[name] <= changed[f"{name}_high"]
    assert found.iloc[0].filter(regex="_change").isna().all()
    assert found.iloc[4].filter(regex="_change").isna().all()  # nothing plain to compare it with
    assert found["donor"].dtype == "Int64" and found["mode"].tolist() == [""] * 5


def test_a_mix_is_the_mean_of_the_languages(tmp_path: Path) -> None:
    found = table(tmp_path, mix={"en": 1.0, "ja": 3.0})
    expected = 0.25 * found["perplexity_en"] + 0.75 * found["perplexity_ja"]
    np.testing.assert_allclose(found["perplexity_all"], expected)


def test_the_signature_of_each_score_is_a_column(tmp_path: Path) -> None:
    one, measure = row(tmp_path, "none", control="", donor=None), text()
    one.keep(measure, losses(0, 0.0), {"size": 0.1, "touched": 1.0})
    texts = task("news", "en", "ja"), task("back", "ja", "en")
    tasks = TranslatedTasks([TaskIds(made, Prompt("pairs", "x"), [[1]], [], [], [], []) for made in texts], 4, {})
    answers = {"answer": ["b"] * 2, "nats": [1.0] * 2, "tokens": [2] * 2, "nats_other": [2.0] * 2}
    one.keep(tasks, pd.DataFrame({"task": ["news", "back"], **answers}), {})
    scorer = Scorer({"bleu": Bleu(None, keep_in_memory=True)}, 10, 0, tmp_path)
    found, _ = InterventionTable(measure, tasks, scorer, 10, 0).of([one])
    assert "tok:ja-mecab" in found["bleu_en_ja_signature"].item()
    assert "tok:13a" in found["bleu_ja_en_signature"].item()
    assert found["loss_en_ja_signature"].item() == "nats per reference token"


def score(value: float, resampled: list[float]) -> Score:
    return Score(value, np.array([value]), np.array(resampled), "signature")


def task(name: str, source: str, target: str) -> Task:
    return Task(name, source, target, "", (), (TranslationExample("a", "b"),), 5)


def test_a_direction_is_the_plain_mean_of_its_tasks() -> None:
    tasks = [task("news", "en", "ja"), task("back", "ja", "en"), task("wiki", "en", "ja")]
    scores = [
        {"loss": score(1.0, [1.0, 2.0])},
        {"loss": score(9.0, [9.0, 9.0])},
        {"loss": score(3.0, [3.0, 5.0, 7.0])},
    ]
    found = by_direction(tasks, scores)
    assert {name: one.value for name, one in found.items()} == {
        "loss_en_ja": 2.0,
        "loss_en_ja/news": 1.0,
        "loss_en_ja/wiki": 3.0,
        "loss_ja_en": 9.0,
    }
    assert found["loss_en_ja"].resampled.tolist() == [2.0, 3.5]


def test_a_metric_that_one_task_lacks_is_not_averaged() -> None:
    tasks = [task("news", "en", "ja"), task("wiki", "en", "ja")]
    scores = [{"loss": score(1.0, [1.0]), "comet": score(0.5, [0.5])}, {"loss": score(2.0, [2.0])}]
    assert set(by_direction(tasks, scores)) == {"loss_en_ja", "loss_en_ja/news", "loss_en_ja/wiki"}
    assert mean_score([scores[0]["loss"]]) is scores[0]["loss"]
