"""The command itself, on a language pair of ninety sentences."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bisae.cli.pretrain import pretrain
from bisae.corpus.pairs import documents, read_pairs
from bisae.lm.int8 import SCALE
from bisae.lm.losses import token_loss
from bisae.pretrain.pack import pack_ladder
from bisae.runtime.errors import ConfigError
from tests.pretrain.toy import SMALL, toy_corpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = (0, 3, 7, 12)


def command(module: str, *arguments: str) -> int:
    """Exit status of `python -m <module> <argument ...>` with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", *module.split(), *arguments], cwd=ROOT, env=environment).returncode


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*SMALL, *toy_corpus(tmp_path_factory.mktemp("corpus"))]


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    """A ladder trained without a break."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert command("bisae pretrain", "name=toy", f"out={out}", *overrides) == 0
    return out / "toy"


@pytest.fixture
def refused(
    config: Callable[..., DictConfig], overrides: list[str], tmp_path: Path
) -> Callable[..., pytest.ExceptionInfo[ConfigError]]:
    """`refused(override, ...)`: the error with which the recipe is refused, before anything is written."""

    def run(*more: str, out: Path = tmp_path / "out") -> pytest.ExceptionInfo[ConfigError]:
        cfg = config(*overrides, "name=toy", f"out={out}", *more, tiny=False, name="pretrain")
        before = sorted(out.rglob("*"))
        with pytest.raises(ConfigError) as caught:
            pretrain(cfg)
        assert sorted(out.rglob("*")) == before
        return caught

    return run


def files(ladder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(ladder)): file.read_bytes() for file in ladder.glob("[!.]*/*")}


def test_the_folders_are_ordinary_hugging_face_models(ladder: Path) -> None:
    assert sorted(folder.name for folder in ladder.glob("step*")) == [f"step{step:07d}" for step in STEPS]
    for step in STEPS:
        lm = AutoModelForCausalLM.from_pretrained(ladder / f"step{step:07d}")
        tokenizer = AutoTokenizer.from_pretrained(ladder / f"step{step:07d}")
        assert lm.config.vocab_size == len(tokenizer) == 330
        logits = lm(torch.tensor([tokenizer("The dog is old.\nその犬は古いです。").input_ids])).logits
        assert logits.isfinite().all()


def test_each_step_tells_what_it_has_seen_and_what_it_scores(ladder: Path, overrides: list[str]) -> None:
    recipe = json.loads((ladder / "recipe.json").read_text())
    assert (recipe["seed"], recipe["size"]["d_model"], recipe["schedule"]["steps"]) == (0, 16, 12)
    held = Path(overrides[-1].partition("=")[2])
    assert recipe["corpus_sha256"]["validation"] == hashlib.sha256(held.read_bytes()).hexdigest()
    for step in STEPS:
        about = json.loads((ladder / f"step{step:07d}" / "recipe.json").read_text())
        assert (about["step"], about["tokens_seen"], about["recipe"]) == (step, step * 2 * 16, recipe)


def test_the_perplexity_told_is_that_of_the_folder_on_the_validation_pairs(ladder: Path, overrides: list[str]) -> None:
    languages, pairs = read_pairs(Path(overrides[-1].partition("=")[2]))
    folder = ladder / "step0000007"
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    told = json.loads((folder / "recipe.json").read_text())["perplexity"]
    for side, language in enumerate(languages):
        texts = ["\n".join(pair.texts[side] for pair in group) for group in documents(pairs)]
        ids = [tokenizer(text).input_ids[:17] for text in texts]
        assert told[language] == pytest.approx(token_loss(lm, ids).perplexity, rel=1e-5)


def test_training_starts_near_uniform_and_gets_better(ladder: Path) -> None:
    scores = [json.loads((ladder / f"step{s:07d}" / "recipe.json").read_text())["perplexity"] for s in STEPS]
    for language in ("en", "ja"):
        along = [score[language] for score in scores]
        assert abs(math.log(along[0] / 330)) < 0.1
        assert along == sorted(along, reverse=True) and along[-1] < 0.9 * along[0]


def test_held_out_scores_are_kept_for_checkpoints_and_every_so_many_steps(ladder: Path) -> None:
    held_out = json.loads((ladder / "held_out.json").read_text())
    assert sorted(map(int, held_out)) == [0, 3, 5, 7, 10, 12]
    for step in STEPS:
        told = json.loads((ladder / f"step{step:07d}" / "recipe.json").read_text())
        assert held_out[str(step)]["perplexity"] == told["perplexity"]
    epochs = [held_out[str(step)]["epochs"] for step in (0, 3, 12)]
    assert epochs[0] == 0 < epochs[1] and epochs[2] == pytest.approx(4 * epochs[1], abs=0.01)


def test_a_finished_run_leaves_no_save_behind(ladder: Path) -> None:
    assert sorted(path.name for path in ladder.iterdir() if not path.name.startswith("step")) == [
        "held_out.json",
        "recipe.json",
        "tokenizer",
    ]


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    ladder: Path, overrides: list[str], tmp_path: Path
) -> None:
    toy, run = tmp_path / "toy", ("name=toy", f"out={tmp_path}", *overrides)
    # Another recipe, killed when its tokenizer is there and its recipe.json is not.
    assert command("tests.killed pretrain before-rename 2", *run, "tokenizer.vocabulary=320") == -signal.SIGKILL
    assert (toy / "tokenizer" / "tokenizer.json").exists() and not (toy / "recipe.json").exists()
    # In the middle of a step, two steps after the save at 4.
    assert command("tests.killed pretrain step 7", *run) == -signal.SIGKILL
    assert (toy / "last.ckpt").exists() and not (toy / "step0000007").exists()
    # Going on from there: with the folder of step 7 written, but not yet in its place, after held_out.json of 5 and 7.
    assert command("tests.killed pretrain before-rename 3", *run) == -signal.SIGKILL
    assert list(toy.glob(".step0000007.*/model.safetensors")) and not (toy / "step0000007").exists()
    assert command("bisae pretrain", *run) == 0

    assert files(toy) == files(ladder)
    assert (toy / "held_out.json").read_bytes() == (ladder / "held_out.json").read_bytes()
    assert sum(name.endswith("model.safetensors") for name in files(toy)) == len(STEPS)
    assert not (toy / "last.ckpt").exists()


@pytest.mark.parametrize("change", ["seed=1", "schedule.steps=13", "mix.pair=0.2", "checkpoints=[0,3]"])
def test_another_recipe_under_the_same_name_is_refused(
    refused: Callable[..., pytest.ExceptionInfo[ConfigError]], ladder: Path, change: str
) -> None:
    assert refused(change, out=ladder.parent).match("^name=toy: .* holds a ladder of another recipe")


def test_other_sentences_under_the_same_name_are_refused(
    refused: Callable[..., pytest.ExceptionInfo[ConfigError]], ladder: Path, overrides: list[str]
) -> None:
    held = overrides[-1].partition("=")[2]
    assert refused(f"corpus.lm={held}", out=ladder.parent).match("^name=toy: .* holds a ladder of another recipe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("corpus.lm=missing.tsv", r"corpus\.lm=missing\.tsv: no such pair file"),
        ("corpus.validation=missing.tsv", r"corpus\.validation=missing\.tsv: no such pair file"),
        ("checkpoints=[0,13]", r"checkpoints=\[0, 13\]: choose steps within 0\.\.12"),
        ("checkpoints=[-1,3]", r"checkpoints=\[-1, 3\]: must be a list, each a whole number, at least 0"),
        ("checkpoints=[]", r"checkpoints=\[\]: choose steps"),
        ("tokenizer_folder=missing", "tokenizer_folder=missing: holds no tokenizer.json"),
    ],
)
def test_what_cannot_work_is_refused_by_its_key(
    refused: Callable[..., pytest.ExceptionInfo[ConfigError]], change: str, message: str
) -> None:
    assert refused(change).match(f"^{message}")


def test_validation_in_other_languages_is_refused(
    refused: Callable[..., pytest.ExceptionInfo[ConfigError]], tmp_path: Path
) -> None:
    (tmp_path / "held.tsv").write_text("id\tja\ten\n1\t犬\tdog\n", encoding="utf-8")
    assert refused(f"corpus.validation={tmp_path / 'held.tsv'}").match(r"^corpus\.validation=\('ja', 'en'\)")


def test_a_packed_ladder_keeps_its_scores_and_shares_equal_files(
    ladder: Path, overrides: list[str], tmp_path: Path
) -> None:
    target, twin = tmp_path / "packed", tmp_path / "twin"
    (target / "corpus").mkdir(parents=True)
    held = Path(overrides[-1].partition("=")[2])
    (target / "corpus" / held.name).write_bytes(held.read_bytes())
    twin.symlink_to(ladder)
    for each in (ladder, twin):
        pack_ladder(each, target)
    assert len(list((target / "lm" / "toy").glob("*.safetensors"))) == len(STEPS)
    assert not list((target / "lm" / "twin").glob("*.safetensors"))
    abouts = [json.loads((target / "lm" / name / "ladder.json").read_text()) for name in ("toy", "twin")]
    assert abouts[0] == abouts[1]
    assert [int(step) for step in abouts[0]["checkpoints"]] == list(STEPS)
    for rung in abouts[0]["checkpoints"].values():
        assert hashlib.sha256((target / "lm" / rung["file"]).read_bytes()).hexdigest() == rung["sha256"]
        assert rung["perplexity"] == pytest.approx(rung["perplexity_before_int8"], rel=0.01)


def test_chosen_checkpoints_of_a_ladder_are_packed_and_others_are_refused(
    ladder: Path, overrides: list[str], tmp_path: Path
) -> None:
    held = Path(overrides[-1].partition("=")[2])
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / held.name).write_bytes(held.read_bytes())
    with pytest.raises(ValueError, match=r"no checkpoints \[5\], only \[0, 3, 7, 12\]"):
        pack_ladder(ladder, tmp_path, [3, 5])
    assert not (tmp_path / "lm").exists()
    pack_ladder(ladder, tmp_path, [12, 3])
    about = json.loads((tmp_path / "lm" / "toy" / "ladder.json").read_text())
    assert [int(step) for step in about["checkpoints"]] == about["recipe"]["checkpoints"] == [3, 12]
    assert sorted(f.name for f in (tmp_path / "lm" / "toy").glob("*.safetensors")) == [
        "step0000003.safetensors",
        "step0000012.safetensors",
    ]
    assert about["held_out"] == json.loads((ladder / "held_out.json").read_text())


def test_the_shipped_recipe_begins_with_the_shipped_weights(
    config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    shipped = ROOT / "bisae" / "embedded"
    cfg = config(
        f"out={tmp_path}",
        f"tokenizer_folder={shipped / 'tokenizer'}",
        "schedule.steps=2",
        "schedule.batch=2",
        "checkpoints=[0]",
        "trainer.accelerator=cpu",
        tiny=False,
        name="pretrain",
    )
    folder = pretrain(cfg) / "step0000000"
    about = json.loads((shipped / "lm" / "embedded" / "ladder.json").read_text())
    rung = about["checkpoints"]["0"]
    packed, weights = load_file(shipped / "lm" / rung["file"]), load_file(folder / "model.safetensors")
    assert sorted(weights) == sorted(name for name in packed if not name.endswith(SCALE))
    for name, weight in weights.items():
        if weight.ndim < 2:
            assert torch.equal(weight, packed[name])
        else:
            scale = packed[name + SCALE].float()[:, None]
            assert ((packed[name] * scale - weight).abs() <= 0.501 * scale).all()
    made = json.loads((folder / "recipe.json").read_text())
    assert made["recipe"]["corpus_sha256"] == about["recipe"]["corpus_sha256"]
    assert made["perplexity"] == pytest.approx(rung["perplexity_before_int8"], rel=1e-3)
