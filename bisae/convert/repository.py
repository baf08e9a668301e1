"""Cells in a repository on the Hugging Face hub, in folders as in `runs`."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bisae.cells.cell import FEATURES, Cell
from bisae.cells.find import FoundCell, find_cells
from bisae.convert.card import Shared, card
from bisae.runtime.atomic import atomic_folder
from bisae.runtime.errors import Refused
from bisae.runtime.hub import reachable
from bisae.sae import SparseAutoencoder, load

SAE = ("sae.json", "sae.safetensors")
ABOUT = ("cell.json", "config.yaml")
log = logging.getLogger("bisae.convert")


@dataclass(frozen=True)
class Repository:
    """`owner/name` on the hub. Refused naming `push` or `pull` for whatever the hub says against it."""

    name: str

    def push(
        self,
        cells: Sequence[FoundCell],
        export: Callable[[FoundCell, Path], Path] | None,
        private: bool,
        licence: str | None,
        cache: Path,
    ) -> None:
        """One commit of the cells and a README.md on all that are there then. `export` writes a cell as files of
        another library below a folder; those go beside the cell's own. A repository that is not there is made."""
        from huggingface_hub import CommitOperationAdd, HfApi

        shared = []
        with self._answering("push"), TemporaryDirectory() as folder:
            files: dict[str, Path] = {}
            for cell in cells:
                name = _of(cell, Path()).name
                found = [cell.folder / file for file in (*ABOUT, *SAE, FEATURES) if (cell.folder / file).is_file()]
                files |= {f"{name}/{file.name}": file for file in found}
                made = export and export(cell, Path(folder))
                if made:
                    written = [file for file in made.rglob("*") if file.is_file()]
                    files |= {f"{name}/{file.relative_to(made).as_posix()}": file for file in written}
                shared.append(Shared.of(name, cell.folder, made))
            api = HfApi()
            api.create_repo(self.name, private=private, exist_ok=True)
            there = self._download(cache, None, None, (*ABOUT, "bisae.json"))
            ours = {one.name for one in shared}
            shared += [Shared.of(name, place, place) for name, place in there.items() if name not in ours]
            text = card(self.name, sorted(shared, key=lambda one: one.name), licence)
            operations = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
            operations.append(CommitOperationAdd("README.md", text.encode()))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*about to commit a data file")  # features.parquet
                api.create_commit(self.name, operations, commit_message=f"{len(cells)} SAEs by bisae")

    def pull(
        self,
        revision: str | None,
        where: str | None,
        runs: Path,
        cache: Path,
        classes: Sequence[type[SparseAutoencoder]] = (),
    ) -> list[Path]:
        """Its cells, or those below a folder or glob `where` in it, as folders in `runs`; what is there is left.

        Each SAE is read, perhaps as one of `classes`, before its cell is taken.
        """
        with self._answering("pull"):
            there = self._download(cache, revision, where, (*ABOUT, *SAE, FEATURES))
        if not there:
            raise Refused("pull", self.name, f"has no cells{f' like cell={where}' if where else ''}")
        folders = []
        for name, place in there.items():
            (found,) = find_cells(str(place), Path())
            cell = _of(found, runs)
            if cell.name != name or cell.hash != found.hash:
                raise Refused("pull", self.name, f"{name} is damaged: its cell.json says {cell.name}")
            try:
                load(place, classes=classes)
            except (OSError, ValueError) as error:
                raise Refused("pull", self.name, f"{name} cannot be read: {error}") from error
            if not cell.finished:
                with atomic_folder(cell.folder) as temporary:
                    for file in place.iterdir():
                        shutil.copyfile(file, temporary / file.name)
            folders.append(cell.folder)
        return folders

    def _download(self, cache: Path, revision: str | None, where: str | None, files: Sequence[str]) -> dict[str, Path]:
        """The cells' folders, by name, with these files of them."""
        from huggingface_hub import HfApi, snapshot_download

        info: Any = HfApi().model_info(self.name, revision=revision)
        ends = "/cell.json"
        names = [file.rfilename.removesuffix(ends) for file in info.siblings or () if file.rfilename.endswith(ends)]
        if where is not None:
            names = [name for name in names if fnmatch(f"{name}/", f"{where.rstrip('/')}/*")]
        if not names:
            return {}
        folder = cache / "hub" / self.name / info.sha
        wanted = [f"{name}/{file}" for name in names for file in files]
        snapshot_download(self.name, revision=info.sha, local_dir=folder, allow_patterns=wanted)
        return {name: folder / name for name in sorted(names)}

    @contextmanager
    def _answering(self, field: str) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

        if not reachable():
            raise Refused(field, self.name, "the Hugging Face hub cannot be reached, or HF_HUB_OFFLINE is set")
        try:
            yield
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
            raise Refused(field, self.name, f"the hub says: {error}; `hf auth login` gives access") from error


def _of(found: FoundCell, runs: Path) -> Cell:
    return Cell(runs, found.model, found.step, found.layer, found.sae, found.identity)
