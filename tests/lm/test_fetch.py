import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

import bisae.lm.fetch
from bisae.lm.fetch import fetch
from bisae.runtime.errors import Refused

COMMIT = "0123456789" * 4


def test_without_network_a_repository_is_refused_at_once(hub: Callable[[str], None]) -> None:
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        hub(f"http://127.0.0.1:{closed.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(Refused, match="^path=nobody/nothing: neither .* run `hf download nobody/nothing`"):
            fetch("nobody/nothing", COMMIT, False)  # the hub's library alone tries a commit for 23 s
        assert time.monotonic() - start < 3


def write(folder: Path, *files: str) -> None:
    """`files` in `folder`; an index lists shards 1 and 2."""
    folder.mkdir(parents=True)
    for name in files:
        stem, _, suffix = name.removesuffix(".index.json").rpartition(".")
        shards = {f"{n}": f"{stem}-{n}.{suffix}" for n in (1, 2)}
        (folder / name).write_text(json.dumps({"weight_map": shards}) if name.endswith(".index.json") else "{}")


SHARDED = {
    name: [f"{name}.index.json", *(f"{name.replace('.', f'-{n}.')}" for n in (1, 2))]
    for name in ("model.safetensors", "pytorch_model.bin")
}


@pytest.mark.parametrize(
    ("weights", "others"),
    [
        (["model.safetensors"], ["consolidated.safetensors", "pytorch_model.bin"]),
        (SHARDED["model.safetensors"], ["pytorch_model.bin", "model.fp16.safetensors"]),
        (["pytorch_model.bin"], ["tf_model.h5", "training_args.bin"]),
        (SHARDED["pytorch_model.bin"], ["optimizer.bin"]),
    ],
    ids=["safetensors", "safetensors in shards", "bin", "bin in shards"],
)
def test_only_the_weights_that_transformers_would_load_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: list[str], others: list[str]
) -> None:
    tokenizer = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "spiece.model"]
    remote, local = tmp_path / "remote", tmp_path / "local"
    write(remote, "config.json", "README.md", "modeling.py", *tokenizer, *weights, *others)
    local.mkdir()

    def snapshot(repository: str, *, allow_patterns: list[str], **_: object) -> str:
        for name in filter_repo_objects([f.name for f in remote.iterdir()], allow_patterns=allow_patterns):
            shutil.copy(remote / name, local)
        return str(local)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(bisae.lm.fetch, "reachable", lambda: True)
    fetch("some/model", None, False)
    assert {f.name for f in local.iterdir()} == {"config.json", *tokenizer, *weights}
    fetch("some/model", None, True)
    assert (local / "modeling.py").exists()


def test_without_network_the_local_hub_cache_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--model" / "snapshots" / COMMIT
    write(folder, "config.json", *SHARDED["pytorch_model.bin"])
    write(folder.parents[1] / "refs")
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    assert fetch("some/model", None, False) == fetch("some/model", COMMIT, False) == folder
    with pytest.raises(Refused, match="^path=some/model: neither"):
        fetch("some/model", "another", False)
    with pytest.raises(Refused, match="^path=not a name: the hub says: "):
        fetch("not a name", None, False)
