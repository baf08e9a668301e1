import logging
from pathlib import Path
from typing import Any

import pytest

from bisae.cells.find import FoundCell
from bisae.grid.rates import best_rates, read_rates
from bisae.runtime.errors import Refused
from tests.conftest import run


def found(layer: int, lr: float, fvu: float, step: int = 1, **sae: Any) -> FoundCell:
    identity = {"sae": {"lr": lr, "seed": 0, "k": 4, **sae}, "data": {"tokens": 9}, "optimizer": {}}
    return FoundCell(Path(f"cell{lr}"), "lm", step, layer, "topk", "hash", identity, {}, {"val/fvu": fvu})


def test_the_rate_of_the_least_mean_fvu_is_taken_for_each_layer(caplog: pytest.LogCaptureFixture) -> None:
    scores = {1e-3: (0.3, 0.3), 2e-3: (0.1, 0.4), 4e-3: (0.3, 0.5)}
    cells = [found(1, lr, fvu, step) for lr, both in scores.items() for step, fvu in enumerate(both)]
    cells += [found(2, lr, fvu) for lr, fvu in ((1e-3, 0.1), (2e-3, 0.2))]
    with caplog.at_level(logging.WARNING):
        assert best_rates(cells) == {"lm": {1: 2e-3, 2: 1e-3}}
    assert [record.getMessage() for record in caplog.records] == [
        "lm layer 2: the best rate, 0.001, is at the edge of those tried"
    ]


def test_cells_of_several_searches_or_an_unfinished_one_give_no_rates() -> None:
    with pytest.raises(Refused, match="^runs=cell0.002: differs from others in more than the learning rate"):
        best_rates([found(1, 1e-3, 0.1), found(1, 2e-3, 0.1, k=8)])
    with pytest.raises(Refused, match="not as many cells of every rate"):
        best_rates([found(1, 1e-3, 0.1), found(1, 1e-3, 0.1, step=2), found(1, 2e-3, 0.1)])


@pytest.mark.parametrize("text", ["", "[]", "lm: {1: fast}", "lm: {1: -1.0}", "lm: 0.1", "lm: {one: 0.1}", "{", "${a}"])
def test_a_file_that_holds_no_rates_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rates.yaml").write_text(text)
    if text:
        with pytest.raises(Refused, match="^rates=.*rates.yaml"):
            read_rates(str(tmp_path / "rates.yaml"))
    with pytest.raises(Refused, match="^rates=.*nowhere: cannot be read"):
        read_rates(str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_what_the_command_writes_is_what_the_plan_reads(tmp_path: Path) -> None:
    from bisae.cells.cell import Cell
    from bisae.sae import TopK

    for lr, fvu in ((1e-3, 0.2), (2e-3, 0.1), (4e-3, 0.3)):
        identity = {"sae": {"lr": lr}, "data": {}, "optimizer": {}}
        Cell(tmp_path / "runs", "lm", 5, 3, "topk", identity).write(TopK(4, 8, 2), "", {"val/fvu": fvu}, {})
    done = run(["-m", "bisae", "rates", "runs=runs"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_rates(str(tmp_path / "rates.yaml")) == {"lm": {3: 2e-3}}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rates.yaml", "runs"]
    assert "error: runs=nothing" in run(["-m", "bisae", "rates", "runs=nothing"], tmp_path).stderr
