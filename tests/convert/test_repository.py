"""Push and pull against a stand-in for the Hugging Face hub."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from hydra import compose, initialize_config_dir

from bisae.cells.cell import Cell
from bisae.cells.find import FoundCell, find_cells
from bisae.cli.convert import convert
from bisae.runtime.errors import ConfigError
from bisae.sae import TopK, load
from tests.conftest import ROOT
from tests.convert.saes import random_sae
from tests.convert.stand_in import Hub, answering
from tests.sae.test_own import Half

CORPUS = {"_target_": "bisae.corpus.embedded.EmbeddedCorpus", "name": "embedded", "seed": 0}
METRICS = {"val/fvu": 0.125, "val/fvu/en": 0.1, "val/fvu/ja": 0.15, "val/l0": 4.0}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(token="hf_secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), answering(made)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_TOKEN", made.token)
        yield made
        server.shutdown()
    close_session()


def cell_in(runs: Path, layer: int, own: bool = False, **seen: Any) -> FoundCell:
    sae = Half(d_model=8, latents=24, k=4) if own else random_sae(TopK)
    activations = {"context": 128, "languages": ["en", "ja"]}
    target = {"_target_": "tests.sae.test_own.Half"} if own else {}
    identity = {"layer": layer, "sae": {**sae.arguments, **target}, "activations": activations}
    cell = Cell(runs, "embedded", 512, layer, "topk", identity)
    cell.write(sae, json.dumps({"corpus": CORPUS}), METRICS, {"sae_tokens": 1000, **seen})
    return find_cells(str(cell.folder), runs)[0]


Command = Callable[..., list[Path]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    def run(*overrides: str, runs: str = "runs") -> list[Path]:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            places = [f"runs={tmp_path}/{runs}", f"cache={tmp_path}/cache"]
            return convert(compose("convert", [*places, *overrides]))

    return run


def test_what_is_pushed_comes_back_as_the_same_cell(hub: Hub, command: Command, tmp_path: Path) -> None:
    cell = cell_in(tmp_path / "runs", 2)
    (cell.folder / "features.parquet").write_bytes(b"features")
    command("push=me/saes", "cell=embedded", "to=saelens")
    name = f"embedded/step0000512/layer02/{cell.folder.name}"
    own = ["cell.json", "config.yaml", "features.parquet", "sae.json", "sae.safetensors"]
    theirs = ["bisae.json", "cfg.json", "sae_weights.safetensors"]
    assert sorted(hub.repositories["me/saes"]) == sorted(["README.md", *(f"{name}/{file}" for file in own + theirs)])
    assert hub.private["me/saes"] and hub.commits == 1
    (folder,) = command("pull=me/saes", runs="elsewhere")
    assert folder == tmp_path / "elsewhere" / name
    assert sorted(file.name for file in folder.iterdir()) == own
    assert (folder / "cell.json").read_bytes() == (cell.folder / "cell.json").read_bytes()
    for ours, back in zip(load(cell.folder).weights, load(folder).weights, strict=True):
        assert torch.equal(ours, back)
    changed = (folder / "cell.json").stat().st_mtime_ns
    assert command("pull=me/saes", runs="elsewhere") == [folder]
    assert (folder / "cell.json").stat().st_mtime_ns == changed


def test_the_card_tells_of_every_cell_that_is_there(hub: Hub, command: Command, tmp_path: Path) -> None:
    first, second = cell_in(tmp_path / "runs", 1), cell_in(tmp_path / "runs", 3)
    command("push=me/saes", "cell=embedded/step0000512/layer01", "to=llm_jp_sae")
    command("push=me/saes", "cell=embedded/step0000512/layer03", "licence=cc-by-4.0")
    card = hub.repositories["me/saes"]["README.md"].decode()
    assert card.startswith('---\nlibrary_name: bisae\nlanguage: ["en", "ja"]\n')
    assert '\nlicense: "cc-by-4.0"\n---\n' in card
    for cell, files in ((first, "llm_jp_sae (exact)"), (second, "")):
        name = f"embedded/step0000512/layer{cell.layer:02d}/{cell.folder.name}"
        assert f"| {name} | embedded | 512 |  | {cell.layer} | topk | 24 | 4 | 1000 | {files} |" in card
        assert f"| {name} | all | 0.125 |  | 4 |  |  |" in card and f"| {name} | ja | 0.15 |" in card
    assert "_target_: bisae.corpus.embedded.EmbeddedCorpus" in card
    assert "python -m bisae convert pull=me/saes" in card and "model.safetensors" in card and "sae_lens" not in card


def test_of_a_repository_only_the_cells_named_are_pulled(hub: Hub, command: Command, tmp_path: Path) -> None:
    cell_in(tmp_path / "runs", 1), cell_in(tmp_path / "runs", 3)
    command("push=me/saes", "cell=embedded")
    (folder,) = command("pull=me/saes", "cell=embedded/*/layer03", runs="elsewhere")
    assert folder.parent.name == "layer03"
    assert not list((tmp_path / "elsewhere").rglob("layer01"))
    with pytest.raises(ConfigError, match="^pull=me/saes: has no cells like cell=other"):
        command("pull=me/saes", "cell=other")


def test_a_damaged_cell_is_not_taken(hub: Hub, command: Command, tmp_path: Path) -> None:
    cell = cell_in(tmp_path / "runs", 2)
    command("push=me/saes", "cell=embedded")
    files = hub.repositories["me/saes"]
    name = next(file for file in files if file.endswith("cell.json"))
    files[name] = files[name].replace(b'"layer": 2', b'"layer": 3')
    with pytest.raises(
        ConfigError, match="^pull=me/saes: .*is damaged: its cell.json says embedded/step0000512/layer03"
    ):
        command("pull=me/saes", runs="elsewhere")
    files[name] = (cell.folder / "cell.json").read_bytes()
    weights = name.replace("cell.json", "sae.safetensors")
    files[weights] = files[weights][:-8]
    with pytest.raises(ConfigError, match="^pull=me/saes: .*cannot be read: .*sae.safetensors"):
        command("pull=me/saes", runs="elsewhere")
    assert not list((tmp_path / "elsewhere").rglob("cell.json"))


def test_what_the_hub_says_against_it_is_passed_on(
    hub: Hub, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell_in(tmp_path / "runs", 2)
    with pytest.raises(ConfigError, match="^pull=me/nothing: the hub says: .*"):
        command("pull=me/nothing")
    with pytest.raises(ConfigError, match="^push=not a name: the hub says: "):
        command("push=not a name", "cell=embedded")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(ConfigError, match="(?s)^push=me/saes: the hub says: .*401.*hf auth login"):
        command("push=me/saes", "cell=embedded")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="^push=me/saes: the Hugging Face hub cannot be reached"):
        command("push=me/saes", "cell=embedded")
    assert not hub.repositories


def test_push_needs_cells_and_pull_goes_alone(command: Command) -> None:
    with pytest.raises(ConfigError, match="^cell=None: give a value"):
        command("push=me/saes")
    with pytest.raises(ConfigError, match="^from=None: give from=.*push"):
        command("push=me/saes", "pull=me/saes")
    with pytest.raises(ConfigError, match="^to=other: choose one of"):
        command("push=me/saes", "cell=runs", "to=other")


def test_a_cell_of_a_class_of_ones_own_is_pulled_where_the_class_is_named(
    hub: Hub, command: Command, tmp_path: Path
) -> None:
    cell_in(tmp_path / "runs", 2, own=True)
    command("push=me/saes", "cell=embedded")
    assert "`sae_classes=[tests.sae.test_own.Half]`" in hub.repositories["me/saes"]["README.md"].decode()
    with pytest.raises(ConfigError, match=r"^pull=me/saes: .*give sae_classes=\[tests\.sae\.test_own\.Half\]"):
        command("pull=me/saes", runs="elsewhere")
    assert not (tmp_path / "elsewhere/embedded").exists()
    (folder,) = command("pull=me/saes", "sae_classes=[tests.sae.test_own.Half]", runs="elsewhere")
    assert type(load(folder, classes=[Half])) is Half
