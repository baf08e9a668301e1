"""Push cells to a repository on the Hugging Face hub, and pull them from it. Its folders are those of `runs`."""

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
    """The repository `owner/name` on the hub. An error of the hub becomes a refusal of `push` or `pull`."""

    name: str

    def push(
        self,
        cells: Sequence[FoundCell],
        export: Callable[[FoundCell, Path], Path] | None,
        private: bool,
        licence: str | None,
        cache: Path,
    ) -> None:
        """Upload cells in one commit, with a README.md about all cells of the repository.

        Args:
            cells: to upload.
            export: writes a cell below a folder as files of another library, which are uploaded beside the cell's own.
            private: whether a repository that does not exist yet is made private.
            licence: of the SAEs, by the hub's name for it.
            cache: folder for the files that are downloaded to write README.md.

        Raises:
            Refused: as `push`, if the hub cannot be reached or refuses.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        shared = []
        with self._answering("push"), TemporaryDirectory() as folder:
            files: dict[str, Path] = {}
            for cell in cells:
                name = _of(cell, Path()).name
                own = [cell.folder / file for file in (*ABOUT, *SAE, FEATURES) if (cell.folder / file).is_file()]
                files |= {f"{name}/{file.name}": file for file in own}
                exported = export and export(cell, Path(folder))
                if exported:
                    written = [file for file in exported.rglob("*") if file.is_file()]
                    files |= {f"{name}/{file.relative_to(exported).as_posix()}": file for file in written}
                shared.append(Shared.of(name, cell.folder, exported))
            api = HfApi()
            api.create_repo(self.name, private=private, exist_ok=True)
            there = self._download(cache, None, None, (*ABOUT, "bisae.json"))
            ours = {cell.name for cell in shared}
            shared += [Shared.of(name, place, place) for name, place in there.items() if name not in ours]
            text = card(self.name, sorted(shared, key=lambda cell: cell.name), licence)
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
        """Download cells into `runs`. Each SAE is read first; a cell that is in `runs` already is left unchanged.

        Args:
            revision: branch, tag or commit; None: the newest.
            where: folder or glob in the repository that names cells; None: all.
            runs: folder of cells.
            cache: folder for the downloaded files.
            classes: SAE classes of the user's own, for `load`.

        Returns:
            The cells' folders in `runs`.

        Raises:
            Refused: as `pull`, if the hub cannot be reached or refuses, there are no such cells, or one is damaged.
        """
        with self._answering("pull"):
            there = self._download(cache, revision, where, (*ABOUT, *SAE, FEATURES))
        if not there:
            raise Refused("pull", self.name, f"has no cells{f' like cell={where}' if where else ''}")
        folders = []
        for name, place in there.items():
            (downloaded,) = find_cells(str(place), Path())
            cell = _of(downloaded, runs)
            if cell.name != name or cell.hash != downloaded.hash:
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
        """Download these files of the cells; returns the cells' folders by name."""
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
        """Turn an error of the hub into a refusal of `field`."""
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

        if not reachable():
            raise Refused(field, self.name, "the Hugging Face hub cannot be reached, or HF_HUB_OFFLINE is set")
        try:
            yield
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
            raise Refused(field, self.name, f"the hub says: {error}; `hf auth login` gives access") from error


def _of(cell: FoundCell, runs: Path) -> Cell:
    return Cell(runs, cell.model, cell.step, cell.layer, cell.sae, cell.identity)
