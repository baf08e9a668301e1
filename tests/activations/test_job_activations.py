"""A corpus that is short: refused, or taken whole where the user asks for it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from bisae.activations.cached import Cached
from bisae.activations.job_activations import open_activations
from bisae.activations.order import ReadingOrder
from bisae.activations.rolling import Rolling
from bisae.activations.store import Request, Store
from bisae.activations.streaming import Streaming
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_source import SIZES, FakeSource

STORES = ("cached", "rolling", "streaming")


def store(name: str, folder: Path) -> Store:
    made: dict[str, Callable[[], Store]] = {
        "cached": lambda: Cached(str(folder / "cache"), 1, False, True, []),
        "rolling": lambda: Rolling(str(folder / "cache"), 1),
        "streaming": Streaming,
    }
    return made[name]()


def asked(tokens: int, held_out: int, take_short: bool, part: Part = ALONE) -> Request:
    order = ReadingOrder(seed=0, tokens=tokens, batch=10, block=8, pool_batches=4, window_pools=1)
    return Request(FakeSource(), FakeSource(checkpoint=20), [2], order, held_out, part, take_short)


@pytest.mark.parametrize("name", STORES)
def test_a_short_corpus_is_taken_whole_where_asked_and_that_is_said_and_kept(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = tmp_path / "job"
    first = open_activations(store(name, tmp_path), asked(300, 100, True), "job", False, job)
    assert first.asked.order.tokens == first.training.tokens == sum(SIZES) and first.asked.held_out_tokens == 100
    assert "tokens=300: all 200 tokens that there are: en ran out after 83 tokens" in caplog.text
    assert "validation" not in caplog.text
    first.close(False)
    for part, checked in ((ALONE, True), (Part(1, 2), False)):  # a job that goes on, and another rank
        again = asked(300, 100, True, part)
        opened = _there_only(again, checked, job)
        assert opened.order.tokens == 200 and not again.training.asked  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="^tokens=300: .*all 200 tokens there are; short_split=take"):
        open_activations(store(name, tmp_path), asked(300, 100, False), "job", True, job)


def _there_only(wanted: Request, checked: bool, job: Path) -> Request:
    from bisae.activations.job_activations import _limited

    return _limited(Streaming(), wanted, checked, job / "tokens.json")


@pytest.mark.parametrize("name", STORES)
def test_a_short_corpus_is_refused_otherwise_naming_the_language_that_ran_out(tmp_path: Path, name: str) -> None:
    for tokens, held_out, key in ((300, 100, "tokens=300"), (100, 300, "validation_tokens=300")):
        error = f"{key}: the corpus split holds only 200 tokens: en ran out after 83 tokens; .*short_split=take"
        with pytest.raises(Refused, match=error):
            open_activations(store(name, tmp_path), asked(tokens, held_out, False), "job", False, tmp_path / "job")
    assert not (tmp_path / "job" / "tokens.json").exists()


@pytest.mark.parametrize("name", STORES)
def test_where_there_is_enough_take_changes_nothing(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = store(name, tmp_path).check(asked(120, 90, True), lambda *_: None)
    assert found == [120, 90] == store(name, tmp_path).check(asked(120, 90, False), lambda *_: None)
    assert not caplog.text


@pytest.mark.parametrize("name", STORES)
def test_a_corpus_without_any_text_is_refused_all_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSource, "tokens", lambda *_: None)
    with pytest.raises(Refused, match="^tokens=300: the corpus split holds only 0 tokens"):
        store(name, tmp_path).check(asked(300, 100, True), lambda *_: None)
