import logging
from types import SimpleNamespace

import pytest

from bisae.runtime.progress import LogLines, tokens_bar


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock: the last value is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr("bisae.runtime.progress.time", SimpleNamespace(monotonic=lambda: now[-1]))
    return now


def test_a_complete_cache_shows_no_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(variable, "1")
    with tokens_bar("LM activations"):
        pass
    assert capsys.readouterr().out == ""


def test_in_a_terminal_of_80_columns_a_bar_is_one_line_and_its_numbers_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(variable, value)
    with tokens_bar("LM activations, embedded step2048") as report:
        report(0, 1_999_999)
        report(1_998_674, 1_999_999)
    shown = capsys.readouterr().out
    assert "1998674/1999999" in shown and "…" not in shown
    assert shown.count("\n") == 1  # the line's end


def test_without_a_terminal_there_is_a_line_a_minute(
    minutes: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    with tokens_bar("LM activations") as report:
        for second in range(0, 301, 10):
            minutes.append(float(second))
            report(100 * second, 60_000)
    assert capsys.readouterr().out == ""
    assert caplog.messages == [
        f"LM activations: {6000 * minute:,} of 60,000 tokens, {left} left"
        for minute, left in enumerate(("0:09:00", "0:08:00", "0:07:00", "0:06:00", "0:05:00"), start=1)
    ]


def test_what_earlier_runs_did_says_nothing_about_the_time_left(
    minutes: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lines = LogLines("training", "steps")
    lines.restart(900)
    minutes.append(60.0)
    lines.report(910, 1000, ", fvu 0.07")
    assert caplog.messages == ["training: 910 of 1,000 steps, fvu 0.07, 0:09:00 left"]
