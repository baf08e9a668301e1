"""What W&B's offline runs hold after a whole study, read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bisae.cells.cell import Cell
from bisae.cli.analyze import analyze
from bisae.cli.intervene import intervene
from bisae.cli.train import train
from tests.training.test_wandb_runs import inspect

pytestmark = pytest.mark.slow


def last_part(runs: Path, cell: Cell) -> dict[str, Any]:
    """The newest part of a cell's run: config, summary and how many parts there are."""
    *_, newest = parts = sorted(runs.glob(f"wandb/offline-run-*-{cell.read()['provenance']['wandb_run']}"))
    found: dict[str, Any] = json.loads(inspect(newest, "--summary"))
    return {**found, "parts": len(parts)}


def test_a_cells_run_holds_its_config_history_validation_analysis_and_interventions(
    config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    for step in (512, 2048):
        cells = train(config("logger=wandb", f"checkpoint={step}", "sae.k=[4,8]", "tags=[a,b]"))
        (begun,) = (last_part(runs, cell) for cell in cells if cell.identity["sae"]["k"] == 8)
        assert begun["config"]["k"] == begun["config"]["config"]["sae"]["k"] == 8
        assert (begun["config"]["step"], begun["config"]["config"]["data"]["tokens"], begun["parts"]) == (step, 6000, 1)
        assert begun["summary"].keys() > {"val/fvu", "train/loss", "train/lr", "train/gradient_norm", "tokens"}

    where = ["logger=wandb", f"logger.folder={runs}"]
    table = analyze(config(*where, name="analyze")).set_index("hash")
    analyze(config(*where, name="analyze"))  # nothing is new
    for cell in cells:
        part, row = last_part(runs, cell), table.loc[cell.hash]
        for name in (
            "Mixed",
            "Mixed_null",
            "Mixed_low",
            "English",
            "bilingual_high",
            "aligned",
            "monosemanticity_null",
        ):
            assert part["summary"].get(f"analysis/{name}") == pytest.approx(row[name])
        assert part["parts"] == 2 and part["summary"]["val/fvu"] == pytest.approx(row["fvu"])
        assert part["config"] == {**part["config"], "step": 2048, "layer": 2, "sae": "topk"}
        assert part["config"]["config"]["sae"]["k"] == part["config"]["k"]

    one = next(cell for cell in cells if cell.identity["sae"]["k"] == 8)
    chosen = ["translation=none", "kind=[en,mixed]", f"donor.sae={one.hash}"]
    rows = intervene(config(*where, *chosen, "recipient=[512,2048]", name="intervene"))
    en = rows[(rows["kind"] == "en") & (rows["recipient"] == 512)].set_index("control")["perplexity_en_change"]
    donor = last_part(runs, one)
    (recipient,) = (cell for cell in _peers(runs, 512) if cell.read()["identity"]["sae"]["k"] == 8)
    for part, way in ((donor, "into512"), (last_part(runs, recipient), "from2048")):
        found = {name: value for name, value in part["summary"].items() if name.startswith(f"intervention/{way}/")}
        base = f"intervention/{way}/en/add0.3/perplexity_en_change"
        assert found[base] == pytest.approx(en[""]) and found[f"{base}_shuffled"] == pytest.approx(en["shuffled"])
        assert found[f"{base}_random"] == pytest.approx(en["random"].mean())
        assert found[f"{base}_random_low"] <= found[f"{base}_random"] <= found[f"{base}_random_high"]
        assert f"intervention/{way}/none/perplexity_en" in found and part["summary"]["analysis/Mixed"] > 0
        assert part["summary"]["val/fvu"] > 0 and part["parts"] == 3
    assert {name.split("/")[1] for name in donor["summary"] if name.startswith("intervention/")} == {
        *("into512", "into2048", "from2048")
    }
    untouched = next(cell for cell in cells if cell.identity["sae"]["k"] == 4)
    assert last_part(runs, untouched)["parts"] == 2


def _peers(runs: Path, step: int) -> list[Cell]:
    """The finished cells of a step."""
    found = [json.loads(file.read_text()) for file in runs.glob(f"embedded/step{step:07d}/*/*/cell.json")]
    keys = ("model", "step", "layer", "sae", "identity")
    return [Cell(runs, **{key: content[key] for key in keys}) for content in found]
