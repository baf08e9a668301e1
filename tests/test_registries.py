"""Lists that are extended by hand hold everything there is: a class or module that is forgotten fails here."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

import bisae
from bisae.activations.registry import STORES
from bisae.activations.store import Store
from bisae.cells.recipe import KNOWN
from bisae.config.moved import current
from bisae.convert.formats import FORMATS, Format
from bisae.corpus.corpus import Corpus
from bisae.corpus.pairs import PairSentences
from bisae.lm.model import Checkpoint
from bisae.sae.architectures.raw import RAW
from bisae.sae.store import KINDS, TRAINED_OTHERWISE
from tests.conftest import ROOT


def modules(package: str) -> Iterator[ModuleType]:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        if "triton" not in module.name:  # whose kernels need the package triton
            yield importlib.import_module(module.name)


def classes(package: str) -> set[type]:
    """All that a package defines, but what cannot be made, and protocols."""
    here = (kind for module in modules(package) for _, kind in inspect.getmembers(module, inspect.isclass))
    return {
        kind
        for kind in here
        if kind.__module__.startswith(f"{package}.")
        and not inspect.isabstract(kind)
        and not getattr(kind, "_is_protocol", False)
    }


def has(kind: type, protocol: Any) -> bool:
    """Whether a class has the methods of a protocol."""
    methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"]
    assert methods
    return all(callable(getattr(kind, name, None)) for name in methods)


def named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def targets(group: str) -> dict[str, Any]:
    """The object that each file of a config group makes, but those that only change another one's settings."""
    files = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "conf" / group).glob("*.yaml")
    }
    nodes = {name: node.get("partial", node) for name, node in files.items()}
    assert nodes
    return {
        name: resolve_name(current(node["_target_"]))
        for name, node in nodes.items()
        if node.get("_target_", "???") != "???"
    }


def test_every_store_is_in_the_registry_and_a_choice_of_the_config() -> None:
    assert {kind for kind in classes("bisae.activations") if has(kind, Store)} == set(STORES.values())
    assert targets("activations") == STORES


def test_every_corpus_and_every_model_is_known_to_cells_and_no_choice_of_the_config_is_another() -> None:
    found = classes("bisae.corpus") | classes("bisae.planted")
    corpora = {kind for kind in found if has(kind, Corpus)} - {PairSentences}  # of spaces, not cells
    assert {named(kind) for kind in corpora} == set(KNOWN["corpus"])
    assert set(targets("corpus").values()) == corpora
    found = classes("bisae.lm") | classes("bisae.planted")
    models = {kind for kind in found if callable(getattr(kind, "checkpoint", None))}
    assert {named(kind) for kind in models} == set(KNOWN["model"])
    assert set(targets("model").values()) <= models and Checkpoint not in models


def test_every_format_is_in_the_registry() -> None:
    formats = [module for module in modules("bisae.convert") if isinstance(module, Format)]
    assert {module.__name__.rpartition(".")[2]: module for module in formats} == FORMATS


def test_every_optimizer_of_bisae_is_a_choice_of_the_config() -> None:
    ours = {kind for kind in classes("bisae.training") if issubclass(kind, torch.optim.Optimizer)}
    chosen = set(targets("optimizer").values())
    assert ours and ours <= chosen
    assert all(issubclass(kind, torch.optim.Optimizer) for kind in chosen)


def test_every_architecture_that_is_trained_is_a_choice_of_the_config() -> None:
    pytest.importorskip("bisae.sae.architectures.triton_topk")
    assert set(targets("sae").values()) == {*KINDS, *TRAINED_OTHERWISE} - set(RAW.values())
    assert all(named(kind).startswith(f"{bisae.__name__}.") for kind in KINDS)
