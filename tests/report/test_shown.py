from pathlib import Path

import pandas as pd
import pytest

from bisae.report.shown import MOST, show_analysis, show_interventions


def cells(count: int) -> pd.DataFrame:
    shares = {"English": 0.5, "Japanese": 0.25, "Mixed": 0.25, "bilingual": 0.125, "monosemanticity": 0.75}
    shares |= {f"firing_{name}": 0.1 for name in ("English", "Japanese", "Mixed")}
    found = {"model": "m", "layer": 2, "setting": "topk 64", "baseline": "trained", "alive": 60.0, "features": 64.0}
    found |= shares | {f"{name}_low": 0.0 for name in shares}
    return pd.DataFrame(
        [{"model": "m", "step": step, "layer": 2, "setting": "topk 64", **found} for step in range(count)]
    )


def test_an_analysis_ends_with_the_shares_of_each_cell_and_where_the_report_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_analysis(cells(MOST + 3), Path("a [b]"))
    header, first, *_, more, end = capsys.readouterr().out.splitlines()
    names = ["English", "Japanese", "Mixed", "bilingual", "monosemanticity"]
    assert header.split() == ["model", "step", "layer", "SAE", "alive", *names]
    shares = ["0.500", "0.250", "0.250", "0.125", "0.750"]
    assert first.split() == ["m", "0", "2", "topk", "64", "60", "of", "64", *shares]
    assert more == "... and 3 more"
    assert end == f"{MOST + 3} cells; shares are of alive features; the report is a [b]/index.html"
    show_analysis(cells(0), None)
    assert not capsys.readouterr().out


def test_interventions_end_with_how_often_each_ordering_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tables").mkdir()
    verdicts = tmp_path / "tables" / "orderings.csv"
    held = pd.DataFrame({"ordering": ["Bi is best", "Bi is best", "En helps"], "holds": ["yes", "undecided", "yes"]})
    verdicts.write_text(held.to_csv(index=False))
    show_interventions(cells(7), tmp_path)
    header, first, second, end = capsys.readouterr().out.splitlines()
    assert header.split() == ["ordering", "yes", "no", "undecided"]
    assert [line.split()[-3:] for line in (first, second)] == [["1", "0", "1"], ["1", "0", "0"]]
    assert first.startswith(" Bi is best") and end.startswith("7 interventions; ") and str(tmp_path) in end
    verdicts.write_text(pd.DataFrame([]).to_csv(index=False))
    show_interventions(cells(7), tmp_path)
    assert len(capsys.readouterr().out.splitlines()) == 1
