from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bisae.features.codes import CodesFolder, encode
from bisae.grid.cost import Cost
from bisae.grid.device import GIB, Device, Speeds
from bisae.grid.store_choice import StoreChoice
from bisae.runtime.errors import Refused
from bisae.sae import TopK
from tests.conftest import TINY
from tests.grid.ladders import composed

Config = Callable[..., DictConfig]
NODE = Device("node", 8, 79, 10_000, 400, 40, 1.5, 10**6, 60)


def paper(config: Config, *overrides: str) -> Any:
    (ladder,) = composed(config, "experiment=paper_grid", *overrides, only="llm_jp_3_1.8b")
    return ladder


def test_work_is_counted_once_a_checkpoint_or_once_a_pass_and_epoch(config: Config) -> None:
    ladder = paper(config, "data.epochs=2")
    cached, streaming = Cost(ladder, "cached", NODE, 12), Cost(ladder, "streaming", NODE, 12)
    assert (cached.lm_passes, streaming.lm_passes) == (16, 16 * 2 * 2)
    tokens = 132_000_000 + 16_500_000
    a_token = 2 * 1_459_716_096 + 24 * 4 * 2048 * 64  # parameters of the blocks
    assert cached.lm_flops == 16 * tokens * a_token
    assert streaming.lm_flops == 16 * tokens * 2 * (a_token + a_token // 2)  # the first pass ends at layer 12
    assert cached.sae_flops == streaming.sae_flops == 16 * 24 * 2 * tokens * 2 * 2048 * 32768
    assert cached.activation_bytes == tokens * 24 * 2048 * 2 and streaming.activation_bytes == 0
    speeds = Speeds(1e15, 1e14, 1e9)
    seconds = streaming.lm_flops / 1e15 + streaming.sae_flops / 1e14 + 60 * 16 * 2
    assert streaming.hours(speeds) == pytest.approx(seconds / 3600)
    assert cached.hours(speeds) > streaming.hours(speeds)  # 1 GB/s


def test_codes_are_counted_as_their_files_hold_them(config: Config, tmp_path: Path) -> None:
    sizes = ["size.analysis_tokens=5000", "size.latents=512", "size.k=8"]
    (ladder,) = composed(config, "+grid={embedded:[0,512]}", "layer=[1,2]", *sizes, only="embedded")
    codes = CodesFolder(tmp_path, 512)
    codes.write(0, encode(TopK(32, 512, 8), 0, torch.randn(5000, 32, generator=torch.Generator().manual_seed(0))))
    held = codes.path(0).stat().st_size
    assert Cost(ladder, "cached", NODE, None).code_bytes == pytest.approx(2 * 2 * held, rel=0.01)


def test_as_many_saes_stand_side_by_side_as_memory_and_ram_hold(config: Config) -> None:
    ladder = paper(config)
    assert Cost(ladder, "rolling", NODE, None).members == 18 < 24
    small = replace(NODE, memory_gib=40)
    few = Cost(ladder, "rolling", small, None).members
    assert few < 10
    blocked = paper(config, "optimizer=blocked")
    assert Cost(blocked, "rolling", small, None).members > few  # no gradients
    little_ram = Cost(ladder, "rolling", replace(NODE, ram_gib=40), None)
    assert little_ram.members < 18 and little_ram.job_ram(little_ram.members) < 40 * GIB
    with pytest.raises(Refused, match=r"^activations=rolling: does not fit node: a job of llm_jp_3_1.8b needs"):
        Cost(ladder, "rolling", NODE, 24)
    with pytest.raises(Refused, match="lower layers_at_once"):
        Cost(ladder, "rolling", replace(NODE, memory_gib=1), None)


def test_the_quickest_store_that_fits_the_disk_is_recommended(config: Config) -> None:
    ladders = [paper(config)]
    fast_disk = replace(NODE, disk_gbs=1000)
    choice = StoreChoice.of(ladders, fast_disk, None)
    assert choice.store == "cached" == min(choice.costs, key=choice.hours)
    all_devices = 8 * 148_500_000 * 24 * 2048 * 2
    budget = f"activations.disk_gib={all_devices // GIB + 2}"
    assert choice.overrides([]) == ["activations=cached", budget, "activations.evict=true"]
    assert choice.overrides(["activations=rolling"]) == []
    room = choice.results / GIB
    less = replace(fast_disk, free_gib=room + 20_000, ram_gib=190)  # streaming needs more RAM, so more passes
    assert StoreChoice.of(ladders, less, None).store == "rolling"
    assert StoreChoice.of(ladders, replace(fast_disk, free_gib=room + 20), None).store == "streaming"
    assert not StoreChoice.of(ladders, replace(fast_disk, free_gib=room / 2), None).fits("streaming")
    assert StoreChoice.of(ladders, NODE, None).store == "streaming"  # the disk is slow
    with pytest.raises(Refused, match="^machine=node: activations=cached: .*; activations=streaming: "):
        StoreChoice.of(ladders, replace(NODE, ram_gib=1), None)


def test_figures_that_are_not_given_are_measured_here(config: Config, tmp_path: Path) -> None:
    (ladder,) = composed(config, *TINY, "+grid={embedded:[512]}", f"cache={tmp_path}/cache")
    measured = replace(NODE, lm_tflops=None, sae_tflops=None, disk_gbs=None).speeds(ladder)
    assert all(1e6 < speed < 1e15 for speed in (measured.lm, measured.sae, measured.disk))
    assert measured.sources == ("measured here",) * 3
    assert NODE.speeds(ladder) == Speeds(400e12, 40e12, 1.5e9) != measured
    with pytest.raises(Refused, match="^sae_tflops=0: must be a number above 0"):
        replace(NODE, sae_tflops=0)
