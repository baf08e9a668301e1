import pytest

from bisae.runtime.progress import tokens_bar


def test_a_complete_cache_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with tokens_bar("LM activations") as report:
        pass
    assert capsys.readouterr().out == ""
    with tokens_bar("LM activations") as report:
        report(0, 10)
        report(10, 10)
    out = capsys.readouterr().out
    assert out.count("10/10") == 1
