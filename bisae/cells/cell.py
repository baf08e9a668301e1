"""A cell: one model x checkpoint x layer x SAE x seed, the folder it lives in and what lies there."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bisae.runtime.atomic import atomic_folder, sync, write_json

FEATURES = "features.parquet"


@dataclass(frozen=True)
class Cell:
    """`runs/<model>/step<7 digits>/layer<2 digits>/<sae name>-<hash>/`.

    `identity` is everything that changes the result, as JSON; its hash names the folder. Names and paths are not in
    it: the same computation on renamed files is the same cell.
    """

    runs: Path
    model: str
    step: int
    layer: int
    sae: str
    identity: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the identity's SHA-256."""
        text = json.dumps(self.identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """What people read: model, step, layer, SAE."""
        return f"{self.model}/step{self.step:07d}/layer{self.layer:02d}/{self.sae}-{self.hash}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def run_id(self) -> str:
        """Id of the cell's W&B run: the same when a job is resumed, another after `force`."""
        aside = len(list(self.folder.parent.glob(f"{self.folder.name}.old*")))
        name = hashlib.sha256(self.name.encode()).hexdigest()[:12]  # not the hash: equal weights may have two names
        return f"{name}-{aside}" if aside else name

    @property
    def finished(self) -> bool:
        """Whether it is trained: a cell folder appears complete or not at all."""
        return (self.folder / "cell.json").is_file()

    def read(self) -> dict[str, Any]:
        """The `cell.json` of a finished cell."""
        content: dict[str, Any] = json.loads((self.folder / "cell.json").read_text(encoding="utf-8"))
        return content

    def move_aside(self) -> Path:
        """Rename a finished cell to `<folder>.old<n>`, so that it can be trained again."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old{number}")).exists():
            number += 1
        self.folder.rename(aside)
        sync(aside.parent)
        return aside

    def write(self, sae: Any, config: str, metrics: Mapping[str, float], provenance: Mapping[str, Any]) -> None:
        """Write the finished cell at once: the `bisae.sae.SparseAutoencoder`, resolved `config` (YAML), `cell.json`."""
        from bisae.sae import save  # slow to import, and most cells are only looked up

        about = {
            "model": self.model,
            "step": self.step,
            "layer": self.layer,
            "sae": self.sae,
            "hash": self.hash,
            "identity": self.identity,
            "provenance": {"bisae": version("bisae"), **provenance},
            "metrics": metrics,
        }
        with atomic_folder(self.folder) as temporary:
            save(sae, temporary, model=self.model, step=self.step, layer=self.layer)
            (temporary / "config.yaml").write_text(config, encoding="utf-8")
            write_json(temporary / "cell.json", about)


def code_version() -> str | None:
    """The commit of the checkout the code runs from, `+` where it has changes; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
