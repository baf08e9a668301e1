"""Where a plan's speeds come from, and what the study's grid takes with those of an H100 on paper."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from bisae.config.instantiate import instantiate
from bisae.grid.device import KERNELS, Device
from bisae.grid.ladders import Ladder
from bisae.grid.store_choice import StoreChoice
from bisae.runtime.errors import Refused
from tests.conftest import ROOT
from tests.grid.ladders import composed

Config = Callable[..., DictConfig]
PAPER = ("on paper", f"on paper, {KERNELS}", "on paper")


@pytest.fixture
def h100() -> Device:
    given: Any = OmegaConf.merge(*(OmegaConf.load(ROOT / f"conf/machine/{name}.yaml") for name in ("here", "h100")))
    del given["defaults"]
    device = instantiate(given, "machine")
    assert isinstance(device, Device)
    return device


def ladder_of(config: Config, preset: str, *overrides: str) -> Ladder:
    (ladder,) = composed(config, "experiment=paper_grid", *overrides, only=preset)
    return ladder


@pytest.mark.slow
def test_the_studys_grid_takes_two_device_days_of_one_node_and_reads_each_checkpoint_once(
    config: Config, h100: Device
) -> None:
    choice = StoreChoice.of(composed(config, "experiment=paper_grid"), replace(h100, results=None), None)
    assert choice.store == "streaming" and choice.fits("streaming")
    assert sum(cost.lm_passes for cost in choice.costs["streaming"]) == 79
    assert choice.hours("streaming") <= 48
    for cost in choice.costs["streaming"]:
        assert cost.members == len(cost.ladder.layers) >= cost.devices
        assert cost.job_ram(cost.members) / cost.devices <= 0.85 * 2**40 / 8
        assert cost.job_memory(cost.members) <= 0.85 * 79 * 2**30
    assert choice.devices["llm_jp_3_150m"] == 1 and choice.devices["llm_jp_3_3.7b"] == 8
    assert {speeds.sources for speeds in choice.speeds} == {PAPER}
    alone = StoreChoice.of(choice.ladders, replace(h100, results=None, per_job=1), None)
    assert sum(cost.lm_passes for cost in alone.costs["streaming"]) > 79
    assert alone.hours("streaming") > choice.hours("streaming")


def results(path: Path, **changed: Any) -> str:
    step = {"latents": 32768, "k": 32, "precision": "bf16-mixed", "backend": "torch"}
    rows = [
        {**step, "d_model": 2048, "batch": 32768, "step_seconds": 0.02},
        {**step, "d_model": 2048, "batch": 32768, "step_seconds": 0.01, "backend": "wrong"},
        {**step, "d_model": 512, "batch": 32768, "step_seconds": 0.004},
        {**step, "d_model": 2048, "batch": 8192, "step_seconds": 0.1},
        {**step, "d_model": 2048, "batch": 32768, "step_seconds": 0.1, "precision": "32-true"},
        {**step, "d_model": 2048, "batch": 32768, "error": "out of memory"},
    ]
    gates = [{"backend": "torch", "precision": p, "passes": True} for p in ("bf16-mixed", "32-true")]
    gates.append({"backend": "wrong", "precision": "bf16-mixed", "passes": False})
    stages = {
        "gates": {"rows": gates},
        "steps": {"rows": rows},
        "caching": {"rows": [{"lm_tflops": 300.0, "copied_of_forward": 1.5}]},
    }
    found = {"device": "NVIDIA Test", "measured": "2030-01-01", "smoke": False, "stages": stages}
    path.write_text(json.dumps({**found, **changed}))
    return str(path)


def test_what_was_measured_on_the_device_counts_before_paper_and_after_what_is_given(
    config: Config, h100: Device, tmp_path: Path
) -> None:
    ladder = ladder_of(config, "llm_jp_3_1.8b")
    measured = replace(h100, results=results(tmp_path / "found.json"))
    speeds = measured.speeds(ladder)
    assert (speeds.lm, speeds.sae) == pytest.approx((200e12, 2 * 32768 * 32768 * 2048 / 0.02))
    of = "measured on NVIDIA Test, 2030-01-01"
    assert speeds.sources == (of, of, "on paper")
    narrow = measured.speeds(ladder_of(config, "llm_jp_3_150m"))
    assert narrow.sae == pytest.approx(2 * 32768 * 32768 * 512 / 0.004)
    exact = measured.speeds(ladder_of(config, "llm_jp_3_1.8b", "trainer.precision=32-true"))
    assert exact.sae == pytest.approx(2 * 32768 * 32768 * 2048 / 0.1)
    given = replace(measured, sae_tflops=7).speeds(ladder)
    assert given.sae == 7e12 and given.sources[1] == "given"
    paper = replace(h100, results="a device that nobody measured").speeds(ladder)
    assert paper.lm == 400e12 and paper.sources == PAPER


def test_results_that_say_nothing_are_refused(config: Config, h100: Device, tmp_path: Path) -> None:
    ladder = ladder_of(config, "llm_jp_3_150m")
    smoke = results(tmp_path / "smoke.json", smoke=True)
    (tmp_path / "empty.json").write_text("{}")
    for path, why in (
        (smoke, "is of a smoke run"),
        (str(tmp_path / "empty.json"), "is no result of python benchmarks/device.py"),
        (str(tmp_path / "none.json"), "is not there; python benchmarks/device.py writes it"),
    ):
        with pytest.raises(Refused, match=f"^results={path}: .*{why}"):
            replace(h100, results=path).speeds(ladder)
    with pytest.raises(Refused, match="^on_paper=.*must have bf16, float32, memory, cache, lm, disk"):
        replace(h100, on_paper={"bf16": 1})
    with pytest.raises(Refused, match="^per_job=0"):
        replace(h100, per_job=0)
