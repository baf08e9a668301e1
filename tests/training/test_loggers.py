import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import Feed
from bisae.activations.order import ReadingOrder
from bisae.cli.train import train
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import ConfigError
from bisae.sae import ReLUL1
from bisae.training.loggers import CellLoggers

Config = Callable[..., DictConfig]


class Recorder(Logger):
    """Keeps what it is told, by the name it was given; fails in the call `broken`."""

    told: ClassVar[dict[str, dict[int, dict[str, float]]]] = {}
    params: ClassVar[dict[str, Any]] = {}
    ends: ClassVar[list[str]] = []

    def __init__(self, place: str, broken: str = "") -> None:
        super().__init__()
        self.place, self.broken = place, broken

    @property
    def name(self) -> str:
        return self.place

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any) -> None:
        self.params[self.place] = params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.broken == "log_metrics":
            raise ConnectionError("broken pipe")
        self.told.setdefault(self.place, {}).setdefault(step or 0, {}).update(metrics)

    def finalize(self, status: str) -> None:
        if self.broken == "finalize":
            raise OSError("no route")
        self.ends.append(f"{self.place} {status}")


OWN = "+logger.own._target_=tests.training.test_loggers.Recorder"


@pytest.fixture(autouse=True)
def forgotten() -> None:
    for kept in (Recorder.told, Recorder.params, Recorder.ends):
        kept.clear()


@pytest.mark.slow
def test_each_cell_of_a_job_has_an_instance_of_a_logger_of_ones_own(config: Config) -> None:
    cells = train(config("sae.k=[2,4]", OWN, "+logger.own.place='<{cell}> {run} {name}'"))
    places = {f"<{cell.name}> {cell.run_id}": cell.identity["sae"]["k"] for cell in cells}
    assert {place.rsplit(" embedded ")[0] for place in Recorder.told} == places.keys()
    for place, params in Recorder.params.items():
        k = places[place.rsplit(" embedded ")[0]]
        assert params["k"] == params["config"]["sae"]["k"] == k and f"step512 layer2 topk k{k} n64" in place
    assert {end.rsplit()[-1] for end in Recorder.ends} == {"success"} and len(Recorder.ends) == 2
    assert all(list(told) == sorted(told) and max(told) == 12000 for told in Recorder.told.values())


@pytest.mark.parametrize("broken", ["log_metrics", "finalize", "place"])
@pytest.mark.slow
def test_a_failing_logger_is_given_up_with_one_line_and_the_job_ends_well(
    config: Config, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    own = [OWN, "+logger.own.place=a", f"+logger.own.broken={broken}", "+logger.other.place=b"]
    if broken == "place":
        own = ["+logger.own._target_=lightning.pytorch.loggers.CSVLogger", "+logger.own.save_dir=/proc/x", *own[3:]]
    (cell,) = train(config(*own, OWN.replace(".own.", ".other.")))
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "bisae.logger"]
    assert cell.finished and "is given up, the work goes on" in warning
    assert Recorder.ends == ["b success"] and max(Recorder.told["b"]) == 12000


def test_a_logger_that_would_mix_cells_is_refused_before_any_work(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger.own._target_.*\{cell\}"):
        train(config("sae.k=[2,4]", OWN, "+logger.own.place=a"))
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize(
    ("overrides", "key", "remedy"),
    [
        (["+logger.x._target_=pathlib.Path"], "logger.x._target_", "must be a lightning.pytorch.loggers.Logger"),
        (["+logger.x._target_=not.there"], "logger.x._target_", "imported"),
        (["logger=csv", "+logger.csv.x=1"], "logger.csv.x", "no such key"),
        (["logger=csv", "logger.csv.save_dir=3"], "logger.csv.save_dir", "must be text"),
        (["logger=tensorboard"], "logger.tensorboard._target_", "pip install tensorboard"),
        (["logger=[csv,mlflow]"], "logger.mlflow._target_", "pip install mlflow-skinny"),
    ],
)
def test_what_is_no_logger_is_refused_by_key_before_any_work(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: list[str], key: str, remedy: str
) -> None:
    monkeypatch.setattr("bisae.training.run_log.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=re.escape(remedy)) as refused:
        train(config(*overrides))
    assert refused.value.key == key and not list(tmp_path.rglob("*.bin"))


def test_two_loggers_at_once_and_a_csv_file_a_cell(config: Config, tmp_path: Path) -> None:
    cells = train(config("logger=[none,csv]", "layer=[1,2]", "sae.lr=0.01", "optimizer.warmup=20"))
    for cell in cells:
        place = tmp_path / "runs" / "csv" / cell.name / "version_0"
        rows = list(csv.DictReader((place / "metrics.csv").read_text().splitlines()))
        assert [int(row["step"]) for row in rows if row["train/loss"]] == [1250 * n for n in range(1, 10)]
        assert [float(row["train/lr"]) for row in rows if row["train/lr"]][:5] == [
            pytest.approx(0.01 * min(1, n / 20)) for n in (5, 10, 15, 20, 25)
        ]
        assert f"layer: {cell.layer}" in (place / "hparams.yaml").read_text()
    assert not list(tmp_path.rglob("offline-run-*"))


@pytest.mark.slow
def test_loss_its_parts_and_the_gradients_norm_are_those_of_the_step(
    config: Config, step512: Checkpoint, tmp_path: Path
) -> None:
    """Against float64 autograd at the second report, after nine steps of the plain loop."""
    relu = ["sae._target_=bisae.sae.ReLUL1", "~sae.k", "~sae.aux_k", "~sae.aux_coefficient", "+sae.l1=0.02"]
    cfg = config(*relu, OWN, "+logger.own.place=a", "sae.lr=0.01")
    train(cfg)
    rows = ActivationCache(tmp_path / "other", disk_gib=1, evict=False, verify=True).prepare(
        LMPass(step512, EmbeddedCorpus("embedded", 0), "sae", **dict(cfg.activations["pass"])), [2], 6000
    )
    order = ReadingOrder(seed=0, tokens=6000, batch=250, block=16, pool_batches=5, window_pools=16)
    feed = Feed(rows, [2], order, epochs=1)
    sae = ReLUL1(d_model=128, latents=64, l1=0.02)
    optimizer = torch.optim.Adam(
        [weight for weight in sae.parameters() if weight.requires_grad], betas=(0.9, 0.95), eps=6.25e-10
    )
    sae.initialize_b_pre(sae.normalize(feed.batch(0, 0).activations[2])[0])
    for step in range(9):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1.0, (step + 1) / 5)
        optimizer.zero_grad()
        sae.objective(sae.normalize(feed.batch(0, step).activations[2])[0]).loss.backward()
        optimizer.step()
        sae.normalize_decoder()
    x = sae.normalize(feed.batch(0, 9).activations[2])[0].double()
    W_enc, W_dec, b_pre = (weight.detach().double().requires_grad_() for weight in (sae.W_enc, sae.W_dec, sae.b_pre))
    z = torch.relu((x - b_pre) @ W_enc.T)
    error, penalty = (z @ W_dec + b_pre - x).square().sum(1).mean(), 0.02 * z.sum(1).mean()
    (error + penalty).backward()
    norm = sum(float(weight.grad.square().sum()) for weight in (W_enc, W_dec, b_pre) if weight.grad is not None) ** 0.5
    told = Recorder.told["a"][2500]
    expected = {"loss": error + penalty, "loss_reconstruction": error, "loss_penalty": penalty, "gradient_norm": norm}
    assert {name: told[f"train/{name}"] for name in expected} == {
        name: pytest.approx(float(torch.as_tensor(value).detach()), rel=1e-4) for name, value in expected.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "blocked"])
def test_what_is_reported_changes_no_bit(config: Config, tmp_path: Path, optimizer: str) -> None:
    chosen = [f"optimizer={optimizer}", "layer=[1,2]", "sae.aux_k=8", "sae.dead_after=500", OWN]
    often = train(config(*chosen, "+logger.own.place='{run}'", "log_every=1", f"runs={tmp_path}/often"))
    never = train(config(*chosen, "+logger.own.place='{run}'", "log_every=1000000", f"runs={tmp_path}/never"))
    for one, other in zip(often, never, strict=True):
        weights = [load_file(cell.folder / "sae.safetensors") for cell in (one, other)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    told = [step for run in Recorder.told.values() for step in run.values() if "train/loss" in step]
    assert len(told) == 2 * 48 and all("train/gradient_norm" in step for step in told)
    assert any("train/loss_penalty" in step for step in told)


@pytest.mark.slow
def test_no_logger_at_all_leaves_nothing(config: Config, tmp_path: Path) -> None:
    train(config())
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {".jobs", "embedded"}
    assert CellLoggers({}, "runs").all == []
    csv = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "runs/csv"}
    assert CellLoggers({"csv": csv}, "runs").places == ["CSVLogger: runs/csv"]  # what the terminal says
