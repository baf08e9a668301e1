"""A cell: one SAE of one model, checkpoint and layer, and its folder."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bisae.runtime.atomic import atomic_folder, sync, write_json
from bisae.runtime.naming import name_of

FEATURES = "features.parquet"


@dataclass(frozen=True)
class Cell:
    """`runs/<model>/step<7 digits>/layer<2 digits>/<sae name>-<hash>/`.

    `identity` holds all settings that change the result, as JSON values; its hash names the folder. Names and paths are
    not in it: the same computation on renamed files is the same cell.
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
        return name_of(self.identity)

    @property
    def name(self) -> str:
        """Path below `runs`: model, step, layer, SAE."""
        return f"{self.model}/step{self.step:07d}/layer{self.layer:02d}/{self.sae}-{self.hash}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def run_id(self) -> str:
        """Id of the cell's W&B run. A resumed job has the same id, a job with `force` another one."""
        aside = len(list(self.folder.parent.glob(f"{self.folder.name}.old*")))
        name = hashlib.sha256(self.name.encode()).hexdigest()[:12]  # not the hash: equal weights may have two names
        return f"{name}-{aside}" if aside else name

    @property
    def finished(self) -> bool:
        """True if the cell is trained: its folder appears complete or not at all."""
        return (self.folder / "cell.json").is_file()

    def read(self) -> dict[str, Any]:
        """Return the content of `cell.json` of a finished cell."""
        content: dict[str, Any] = json.loads((self.folder / "cell.json").read_text(encoding="utf-8"))
        return content

    def move_aside(self) -> Path:
        """Rename a finished cell to `<folder>.old<n>`, so that it can be trained again; return the new path."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old{number}")).exists():
            number += 1
        self.folder.rename(aside)
        sync(aside.parent)
        return aside

    def write(self, sae: Any, config: str, metrics: Mapping[str, float], provenance: Mapping[str, Any]) -> None:
        """Write the finished cell, complete or not at all.

        Args:
            sae: The `bisae.sae.SparseAutoencoder`.
            config: The resolved config, as YAML.
            metrics: Validation metrics.
            provenance: Other facts for `cell.json`; the version of bisae is added.
        """
        from bisae.sae import save  # slow to import, and most cells are only looked up

        description = {
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
            write_json(temporary / "cell.json", description)


def code_version() -> str | None:
    """Return the commit of the checkout that runs, with `+` if files have changed; None outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
