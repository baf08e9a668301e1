import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import sacrebleu

from bisae.metrics.translation import MetricUnavailable
from bisae.metrics.translation.bleu import Bleu
from bisae.metrics.translation.chrf import Chrf
from bisae.metrics.translation.comet import Comet
from bisae.runtime.errors import Refused
from bisae.translation.scores import Scorer
from bisae.translation.tasks import Task

FOLDER = Path(__file__).parents[2] / "bisae" / "metrics" / "translation"
TEXTS = {
    "ja": (
        ["犬がここに住んでいます。", "私は緑茶が好きだ。", ""],
        ["犬はここに住んでいる。", "私は緑茶が好きです。", "そうだ。"],
    ),
    "en": (["The dog lives here .", "I like a green tea", ""], ["The dog lives here.", "I like green tea.", "Yes."]),
}
GENUINE = os.environ.get("BISAE_COMET_SCORE", "")


@pytest.mark.parametrize(("language", "tokenizer"), [("ja", "ja-mecab"), ("en", "13a")])
def test_bleu_is_sacrebleus_with_its_signature(language: str, tokenizer: str) -> None:
    predictions, references = TEXTS[language]
    found = Bleu(None, keep_in_memory=True).compute(predictions=predictions, references=references, language=language)
    assert found["score"] == sacrebleu.corpus_bleu(predictions, [references], tokenize=tokenizer).score > 0
    assert f"tok:{tokenizer}" in found["signature"] and sacrebleu.__version__ in found["signature"]
    assert found["segments"] == [
        sacrebleu.sentence_bleu(prediction, [reference], tokenize=tokenizer).score
        for prediction, reference in zip(predictions, references, strict=True)
    ]


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("zh", "zh"), ("zh-TW", "zh"), ("yue", "zh"), ("th", "char"), ("km", "char"), ("lo", "char"), ("my", "char"),
     ("bo", "char"), ("ja-Latn", "13a"), ("ar", "13a"), ("hi", "13a"), ("pt-PT", "13a"), ("vi", "13a")],
)  # fmt: skip
def test_bleus_tokenizer_can_split_the_language(language: str, tokenizer: str) -> None:
    found = Bleu(None, keep_in_memory=True).compute(predictions=["a b"], references=["a b"], language=language)
    assert f"tok:{tokenizer}|" in found["signature"]


def task(source: str, target: str) -> Task:
    return Task("t", source, target, "", (), (), 5)


THAI = ["สุนัขอาศัยอยู่ที่นี่", "สุนัขอาศัยอยู่บ้าน"]  # differ in the last word


def test_thai_has_a_score_where_words_are_not_all_the_same() -> None:
    both = {"predictions": THAI[:1], "references": THAI[1:]}
    assert sacrebleu.corpus_bleu(THAI[:1], [THAI[1:]], tokenize="13a").score == 0
    assert 20 < Bleu(None, keep_in_memory=True).compute(**both, language="th")["score"] < 100


@pytest.mark.parametrize(
    ("tokenize", "language"),
    [("13a", "ja"), ("intl", "ja"), ("zh", "ja"), ("none", "zh-TW"), ("ja-mecab", "zh"), ("13a", "th"), ("zh", "km"),
     (None, "x-mine"), (None, "und"), (None, "qaa"), (None, "jp"), (None, "klingon")],
)  # fmt: skip
def test_a_tokenizer_that_cannot_split_the_language_is_refused_by_key(
    tmp_path: Path, tokenize: str | None, language: str
) -> None:
    scorer = Scorer({"ours": Bleu(tokenize, keep_in_memory=True)}, 10, 0, tmp_path)
    with pytest.raises(Refused, match=f"^ours.tokenize={tokenize}: .*{language}.*char"):
        scorer.check([task("en", language)])
    Scorer({"ours": Bleu("char", keep_in_memory=True)}, 10, 0, tmp_path).check([task("en", language)])
    scorer.check([task("ja", "en")])  # what is translated from is not split


def test_a_tokenizer_given_is_used_in_every_language() -> None:
    predictions, references = TEXTS["ja"]
    found = Bleu("char", keep_in_memory=True).compute(predictions=predictions, references=references, language="ja")
    assert "tok:char" in found["signature"]


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleus(word_order: int) -> None:
    for predictions, references in TEXTS.values():
        found = Chrf(word_order, keep_in_memory=True).compute(predictions=predictions, references=references)
        own = sacrebleu.CHRF(word_order=word_order)
        assert found["score"] == own.corpus_score(predictions, [references]).score > 0
        assert found["segments"][0] == own.sentence_score(predictions[0], references[:1]).score
        assert found["signature"] == str(own.get_signature())


@pytest.mark.parametrize("metric", [Bleu("13a", keep_in_memory=True), Chrf(0, keep_in_memory=True)])
def test_a_resample_scores_as_the_repeated_texts_do(metric: Any) -> None:
    predictions, references = TEXTS["en"]
    weights = np.array([[1, 1, 1], [3, 0, 1], [0, 255, 0]], np.uint8)
    found = metric.compute(predictions=predictions, references=references, weights=weights)
    for times, resampled in zip(weights, found["resampled"], strict=True):
        texts = (np.repeat(column, times).tolist() for column in (predictions, references))
        assert metric.compute(**dict(zip(("predictions", "references"), texts, strict=True)))["score"] == resampled
    assert found["resampled"][0] == found["score"]


def test_the_files_load_and_combine_as_metrics_of_evaluate(tmp_path: Path) -> None:
    chrf = evaluate.load(str(FOLDER / "chrf.py"), cache_dir=str(tmp_path), word_order=0)
    both = evaluate.combine([chrf, Bleu(None, cache_dir=str(tmp_path))])
    found = both.compute(predictions=["a b c d"], references=["a b c d"])
    assert found["chrf_score"] == pytest.approx(100) == pytest.approx(found["bleu_score"])


def stub(folder: Path, body: str) -> str:
    """A program in the place of comet-score."""
    program = folder / "comet-score"
    program.write_text(f"#!{sys.executable}\nimport json, sys\narguments = sys.argv[1:]\n{body}\n")
    program.chmod(0o755)
    return str(program)


LENGTHS = """
at = {key: arguments[arguments.index(key) + 1] for key in ("-s", "-t", "-r", "--to_json", "--model", "--gpus")}
lines = [[line.strip() for line in open(at[key]).readlines()] for key in ("-s", "-t", "-r")]
assert (at["--model"], at["--gpus"]) == ("some/model", "0")
scores = [{"src": s, "mt": t, "ref": r, "COMET": len(s) + len(t) / 10 + len(r) / 100} for s, t, r in zip(*lines)]
json.dump({"t": scores}, open(at["--to_json"], "w"))
"""


def test_comet_gets_a_segment_a_line_and_its_json_is_read(tmp_path: Path) -> None:
    metric = Comet(stub(tmp_path, LENGTHS), "some/model", 8, 0, keep_in_memory=True)
    texts = {"sources": ["a\nb", "犬"], "predictions": ["c\r\n\nd", ""], "references": ["e", "ff"]}
    found = metric.compute(**texts, weights=np.array([[1, 3], [2, 0]]))
    assert found["segments"] == pytest.approx([3.31, 1.02])
    assert found["score"] == pytest.approx(2.165)
    assert found["resampled"] == pytest.approx([(3.31 + 3 * 1.02) / 4, 3.31])
    assert found["signature"] == "model:some/model"


def test_a_missing_or_failing_comet_says_what_to_do(tmp_path: Path) -> None:
    texts = {"sources": ["a"], "predictions": ["b"], "references": ["c"]}
    with pytest.raises(MetricUnavailable, match=r"^program=no-comet: .*docs/comet.md"):
        Comet("no-comet", "some/model", 8, 0, keep_in_memory=True).compute(**texts)
    failing = stub(tmp_path, "print('noise', file=sys.stderr)\nsys.exit('KeyError: no such model')")
    with pytest.raises(MetricUnavailable, match="failed with 1: KeyError: no such model"):
        Comet(failing, "some/model", 8, 0, keep_in_memory=True).compute(**texts)


def test_comet_is_refused_for_a_language_its_model_was_never_shown(tmp_path: Path) -> None:
    def scorer(program: str, model: str) -> Scorer:
        return Scorer({"comet": Comet(program, model, 8, 0, keep_in_memory=True)}, 10, 0, tmp_path)

    program, genuine = stub(tmp_path, ""), "Unbabel/wmt22-comet-da"
    scorer(program, genuine).check([task("en", "ja"), task("zh-TW", "sr-Latn")])
    for unseen, *pair in (("yue", "en", "yue"), ("klingon", "klingon", "en"), ("x-mine", "x-mine", "ja")):
        with pytest.raises(Refused, match=f"^comet.model={genuine}: was never shown {unseen};"):
            scorer(program, genuine).check([task(*pair)])
        scorer(program, "my/model").check([task(*pair)])
        scorer("no-comet", genuine).check([task(*pair)])  # left out in any case


@pytest.mark.skipif(not GENUINE, reason="BISAE_COMET_SCORE names no comet-score")
def test_the_genuine_comet_scores_each_segment(tmp_path: Path) -> None:
    subprocess.run([Path(GENUINE).parent / "python", Path(__file__).parent / "tiny_comet.py", tmp_path], check=True)
    metric = Comet(GENUINE, str(tmp_path / "checkpoints" / "model.ckpt"), 8, 0, keep_in_memory=True)
    texts = {
        "sources": ["犬はここにいる。", "駅は\nどこですか。", "犬はここにいる。", ""],
        "predictions": ["The dog is here.", "Where is it?", "The dog is here.", ""],
        "references": ["Here is the dog.", "Where is the station?", "Here is the dog.", ""],
    }
    first, second, again, empty = metric.compute(**texts)["segments"]
    assert first == again != second and np.isfinite([first, second, empty]).all()
