"""The formats of other libraries, by name."""

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
    """What a module for one library's files must provide."""

    @property
    def WRITES(self) -> tuple[type[SparseAutoencoder], ...]:
        """The SAE classes that the format can hold exactly."""

    def read(self, source: Path, k: int | None) -> Foreign:
        """Read the SAE in a folder, or refuse it.

        `k`: latents that a token keeps, needed if the files do not say it.
        """

    def write(self, sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
        """Write an SAE of one of WRITES into an empty folder."""


FORMATS: dict[str, Format] = {
    "saelens": saelens,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "llm_jp_sae": llm_jp_sae,
}


def chosen_format(name: str) -> Format:
    """The format of that name; an unknown name is refused as `format`."""
    if name not in FORMATS:
        raise Refused("format", name, f"choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def must_fold(sae: SparseAutoencoder, name: str) -> bool:
    """True if the format can hold this SAE only with a norm folded in.

    Raises:
        Refused: the format cannot hold an SAE of this architecture at all.
    """
    writes = chosen_format(name).WRITES
    if type(sae) not in writes and RAW.get(type(sae)) not in writes:
        raise Refused("format", name, f"cannot hold a {sae.architecture} SAE")
    return type(sae) not in writes
