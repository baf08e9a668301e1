"""The formats by name."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from bisae.cells.find import FoundCell
from bisae.convert import dictionary_learning, llm_jp_sae, saelens, sparsify
from bisae.convert.source import Foreign
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder
from bisae.sae.architectures.raw import RAW


@runtime_checkable
class Format(Protocol):
    """A module: the files of one library."""

    @property
    def WRITES(self) -> tuple[type[SparseAutoencoder], ...]:
        """What it can say exactly."""

    def read(self, source: Path, k: int | None) -> Foreign:
        """The SAE in a folder; `k` where its files do not say it. Refused for what cannot be read."""

    def write(self, sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
        """Fill an empty folder with an SAE that is one of WRITES."""


FORMATS: dict[str, Format] = {
    "saelens": saelens,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "llm_jp_sae": llm_jp_sae,
}


def chosen_format(name: str) -> Format:
    """The format of that name; Refused as `format` where there is none."""
    if name not in FORMATS:
        raise Refused("format", name, f"choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def must_fold(sae: SparseAutoencoder, name: str) -> bool:
    """Whether the format knows this SAE only with a norm folded in; Refused if it does not know it at all."""
    writes = chosen_format(name).WRITES
    if type(sae) not in writes and RAW.get(type(sae)) not in writes:
        raise Refused("format", name, f"cannot say what a {sae.architecture} SAE is")
    return type(sae) not in writes
