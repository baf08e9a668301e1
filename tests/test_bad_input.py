"""Anything at all in files and configs: a right result, or an error that names key or file."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from bisae.activations import job_activations
from bisae.activations.manifest import Manifest
from bisae.cells import find
from bisae.cells.find import find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.analyze import analyze
from bisae.cli.intervene import intervene
from bisae.cli.train import train
from bisae.corpus.jsonl import JsonlCorpus
from bisae.corpus.pairs import read_pairs
from bisae.grid.job_record import JobRecord, read_record
from bisae.grid.rates import read_rates
from bisae.runtime.errors import ConfigError, Refused, explained
from bisae.sae import TopK, load, save
from bisae.training.saves import check_save
from bisae.translation.tasks import JsonlTasks
from tests.activations.fake_source import FakeSource

pytestmark = pytest.mark.slow

# The fixture is a folder that examples may share.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.integers() | st.integers(-2, 300) | st.floats() | st.sampled_from([2**31, 2**63, 10**30])
leaves = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(["all", "final", "auto", "../x"])
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3))


lines = st.lists(
    st.binary(max_size=20)
    | st.dictionaries(st.sampled_from(["text", "id"]), leaves).map(lambda d: json.dumps(d).encode()),
    max_size=6,
).map(b"\n".join)


@shared
@given(lines, st.sampled_from(["en.jsonl", "en.jsonl.gz"]))
def test_any_bytes_are_a_corpus_or_refused_by_file(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        corpus = JsonlCorpus("mine", "text", 0, 10, {"sae": 1.0}, {"en": str(path)})
        texts = [document.text for document in corpus.documents("sae", 0)]
    except Refused as refused:
        assert str(path) in str(refused)
    else:
        assert all(isinstance(text, str) for text in texts)


@shared
@given(st.binary(max_size=60) | lines, st.sampled_from(["", "id\ten\tja\n"]), st.sampled_from(["a.tsv", "a.tsv.xz"]))
def test_any_bytes_are_pairs_or_refused_by_file(tmp_path: Path, data: bytes, start: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(start.encode() + data)
    try:
        languages, pairs = read_pairs(path)
    except ValueError as refused:
        assert str(path) in str(refused)
    else:
        assert all(len(pair.texts) == len(languages) for pair in pairs)


@shared
@given(lines, st.dictionaries(st.text(max_size=3), st.text(max_size=4), max_size=3))
def test_any_bytes_are_translation_tasks_or_refused_by_key(tmp_path: Path, data: bytes, keys: dict[str, str]) -> None:
    (tmp_path / "tasks.jsonl").write_bytes(data)
    try:
        assert JsonlTasks("mine", str(tmp_path / "tasks.jsonl"), keys, 0, None, 5).read()
    except Refused as refused:
        assert refused.field in ("file", "keys", "shots")


ABOUT: dict[str, Any] = {
    **{"model": "tiny", "step": 1, "layer": 2, "sae": "topk", "hash": "0123456789ab"},
    **{"identity": {"activations": {}}, "provenance": {}, "metrics": {}},
}


@shared
@given(st.dictionaries(st.sampled_from(sorted(ABOUT)), values), values, st.binary(max_size=20))
def test_any_cell_is_read_or_refused_by_its_folder(
    tmp_path: Path, changes: dict[str, Any], config: Any, tail: bytes
) -> None:
    folder = tmp_path / "runs" / "cell"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.json").write_text(json.dumps({**ABOUT, **changes}))
    (folder / "config.yaml").write_bytes(yaml.safe_dump({"model": config, "corpus": config}).encode() + tail)
    try:
        (cell,) = find_cells(str(tmp_path / "runs"), tmp_path)
        Recipe.of(cell, None, None, tmp_path)
    except Refused as refused:
        assert str(folder) in str(refused)


@shared
@given(values | st.fixed_dictionaries({"m": st.dictionaries(st.integers(), st.floats())}), st.binary(max_size=10))
def test_any_records_and_rates_are_read_or_refused(tmp_path: Path, found: Any, tail: bytes) -> None:
    file = tmp_path / "file"
    for text in (json.dumps(found).encode(), yaml.safe_dump(found).encode()):
        file.write_bytes(text + tail)
        record = read_record(file)
        assert record is None or isinstance(record, JobRecord)
        try:
            rates = read_rates(str(file))
        except Refused as refused:
            assert refused.field == "rates" and str(file) in str(refused)
        else:
            assert all(rate > 0 for layers in rates.values() for rate in layers.values())


@shared
@given(st.data())
def test_a_file_with_any_part_changed_is_refused_by_name_or_means_the_same(tmp_path: Path, data: st.DataObject) -> None:
    source = FakeSource()
    torch.manual_seed(0)
    save(TopK(d_model=4, latents=8, k=2, seed=0), tmp_path, layer=1)
    Manifest.empty(source).save(tmp_path)
    torch.save({"state": torch.arange(99.0)}, tmp_path / "save.ckpt")
    name = data.draw(st.sampled_from(["sae.json", "sae.safetensors", "manifest.json", "save.ckpt"]))
    whole = (tmp_path / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 20)))
    (tmp_path / name).write_bytes(whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:])
    try:
        load(tmp_path)
        Manifest.load(tmp_path, source)
        check_save(tmp_path / "save.ckpt")
    except Exception as refused:
        assert name in str(refused) and (explained(refused) or isinstance(refused, ValueError | FileNotFoundError))


GONE = "gone"
# No text but these, since some of it becomes the name of a folder; no large numbers, since memory would be asked for;
# no 0 and 1, which the checks of types under test do not take for floats.
nodes: st.SearchStrategy[Any] = st.sampled_from(
    [GONE, None, False, -1, 2.5, float("nan"), "", "x", "final", [], ["x"], [1, 1], [{}], {}]
)


class Started(Exception):
    """The work would start now."""


def paths(node: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = node.items() if isinstance(node, dict) else ()
    return [path for key, inner in below for path in [(*at, key), *paths(inner, (*at, key))]]


@pytest.mark.parametrize("command", [train, analyze, intervene], ids=lambda command: command.__name__)
@shared
@given(data=st.data())
def test_a_config_with_any_nodes_replaced_is_taken_or_refused_by_key(
    config: Callable[..., DictConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: Callable[[DictConfig], object],
    data: st.DataObject,
) -> None:
    def start(*_: object, **__: object) -> None:
        raise Started

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_activations, "open_activations", start)
    monkeypatch.setattr(find, "chosen_cells", start)
    monkeypatch.setattr("bisae.cli.analyze.run_first", start)
    if command.__name__ not in COMPOSED:
        COMPOSED[command.__name__] = OmegaConf.to_container(config(name=command.__name__), resolve=True)
    changed = deepcopy(COMPOSED[command.__name__])
    changed |= {"runs": "runs", "cache": "cache"} | ({"output": "out"} if "output" in changed else {})
    for _ in range(data.draw(st.integers(1, 2))):
        *above, key = data.draw(st.sampled_from([path for path in paths(changed) if path[0] != "size"]))
        place = changed
        for name in above:
            place = place[name]
        place[key] = deepcopy(data.draw(nodes))
        if place[key] == GONE:
            del place[key]
    try:
        command(OmegaConf.create(changed))
    except (ConfigError, Started):
        pass
    else:
        raise AssertionError("went through without work")


COMPOSED: dict[str, Any] = {}
