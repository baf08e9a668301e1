"""How far the other libraries' own programs and ours are apart, on random SAEs: the table of docs/convert.md.

    BISAE_PEERS=saelens=<python>,sparsify=<python>,dictionary_learning=<python> python -m tests.convert.parity

Each interpreter has that library and need not have bisae; docs/convert.md says how to make them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bisae.convert.formats import FORMATS
from bisae.sae import SparseAutoencoder
from bisae.sae.architectures.raw import RawInputs
from tests.convert.peer import D_MODEL, activations
from tests.convert.saes import CELL, apart, random_sae, results

PEERS = dict(one.split("=", 1) for one in os.environ.get("BISAE_PEERS", "").split(",") if one)


def ask(library: str, verb: str, folder: Path) -> None:
    """Run peer.py with the interpreter of a library."""
    command = [PEERS[library], str(Path(__file__).with_name("peer.py")), library, verb, str(folder)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def differences(library: str, folder: Path) -> Iterator[tuple[str, str, float, float]]:
    """Direction, what SAE, and the largest differences of codes and reconstructions, of their largest value."""
    ask(library, "make", folder / "theirs")
    for path in sorted((folder / "theirs").glob("*/answers.safetensors")):
        answers = load_file(path)
        sae = FORMATS[library].read(path.parent, None).sae
        yield compared("to ours", path.parent.name, results(sae, answers["x"]), answers, scale_of(library, sae))
    saes = {kind.architecture: random_sae(kind) for kind in FORMATS[library].WRITES}
    for name, sae in saes.items():
        place = folder / "ours" / name
        (place / "sae").mkdir(parents=True)
        save_file({"x": activations()}, place / "question.safetensors")
        FORMATS[library].write(sae, CELL, place / "sae")
    ask(library, "use", folder / "ours")
    for name, sae in saes.items():
        answers = load_file(folder / "ours" / name / "answers.safetensors")
        yield compared("from ours", name, results(sae, answers["x"]), answers, scale_of(library, sae))


def scale_of(library: str, sae: SparseAutoencoder) -> float:
    """Their codes are so many times ours."""
    return D_MODEL**0.5 if library == "saelens" and not isinstance(sae, RawInputs) else 1.0


def compared(
    direction: str, case: str, ours: tuple[torch.Tensor, torch.Tensor], theirs: dict[str, torch.Tensor], scale: float
) -> tuple[str, str, float, float]:
    codes, reconstruction = ours
    return direction, case, apart(codes * scale, theirs["codes"]), apart(reconstruction, theirs["reconstruction"])


def main() -> None:
    torch.manual_seed(1)
    rows = ["| library | direction | SAE | codes | reconstructions |", "|---|---|---|---|---|"]
    for library in PEERS:
        with tempfile.TemporaryDirectory() as folder:
            for direction, case, codes, reconstruction in differences(library, Path(folder)):
                rows.append(f"| {library} | {direction} | {case} | {codes:.1e} | {reconstruction:.1e} |")
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
