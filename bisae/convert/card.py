"""Write the README.md (model card) of a repository of cells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bisae.cells.find import FoundCell, find_cells

METRICS = ("fvu", "fvu_raw", "l0", "cosine", "dead")
LOADERS = {
    "saelens": "from sae_lens import SAE\n\nsae = SAE.load_from_disk(folder)",
    "sparsify": "from sparsify import SparseCoder\n\n(sae,) = SparseCoder.load_many(folder, local=True).values()",
    "dictionary_learning": "from dictionary_learning.utils import load_dictionary\n\n"
    'sae, config = load_dictionary(folder, "cpu")',
    "llm_jp_sae": "from safetensors.torch import load_file\n\n"
    'weights = load_file(f"{folder}/model.safetensors")  # inputs divided by their norm',
}


@dataclass(frozen=True)
class Shared:
    """A cell in the repository. `corpus`: the config of its text, as YAML; `exported`: its `bisae.json`, if any."""

    name: str
    cell: FoundCell
    corpus: str
    exported: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, folder: Path, exported: Path | None) -> "Shared":
        """Read the cell in `folder`, and the `bisae.json` in the folder `exported`."""
        (cell,) = find_cells(str(folder), Path())
        config: Any = OmegaConf.load(folder / "config.yaml")
        about = exported and exported / "bisae.json"
        description = json.loads(about.read_text(encoding="utf-8")) if about and about.is_file() else {}
        return cls(name, cell, OmegaConf.to_yaml(config.get("corpus") or {}), description)


def card(repository: str, shared: Sequence[Shared], licence: str | None) -> str:
    """The card: a YAML head, then Markdown. `licence`: of the SAEs, by the hub's name for it."""
    languages = list(dict.fromkeys(code for entry in shared for code in _languages(entry.cell)))
    formats = list(dict.fromkeys(entry.exported["format"] for entry in shared if entry.exported))
    example = shared[0].name
    return "\n".join(
        [
            "---",
            "library_name: bisae",
            f"language: [{', '.join(json.dumps(code) for code in languages)}]",
            "tags: [sparse-autoencoder, interpretability]",
            *([f"license: {json.dumps(licence)}"] if licence else []),
            "---",
            "",
            f"# {repository}",
            "",
            "Sparse autoencoders (SAEs) on the residual streams of language models, made with bisae. Layer L is the "
            "output of decoder block L (from 1), 0 the embeddings.",
            "",
            *_table(
                (
                    "folder",
                    "LM",
                    "step",
                    "LM tokens",
                    "layer",
                    "SAE",
                    "latents",
                    "k",
                    "trained on tokens",
                    "files also of",
                ),
                map(_about, shared),
            ),
            "",
            "## On held-out text",
            "",
            "FVU: share of the variance left out, of activations divided by their norm (`fvu_raw`: of those as they "
            "are); L0: active latents a token; dead: share of latents that never fired there.",
            "",
            *_table(("folder", "text", *METRICS), [row for entry in shared for row in _measured(entry)]),
            "",
            "## Training text",
            "",
            *(f"```yaml\n{corpus}```\n" for corpus in dict.fromkeys(entry.corpus for entry in shared)),
            "An SAE that was imported was trained elsewhere; the text is then what it was measured on.",
            "",
            "## Load",
            "",
            "```bash",
            f"python -m bisae convert pull={repository}    # cells in runs/, for analyze.py and intervene.py",
            "```",
            "",
            "```python",
            "from bisae.sae import load",
            "from huggingface_hub import snapshot_download",
            "",
            f'name = "{example}"',
            f'folder = snapshot_download("{repository}", allow_patterns=f"{{name}}/*") + "/" + name',
            "sae = load(folder)",
            "codes = sae.encode(activations)  # [token, d_model], as the LM gives them",
            "```",
            *_own_classes(shared),
            *(f"\nWith {name}:\n\n```python\n{LOADERS[name]}\n```" for name in formats),
            "",
            "## Licence",
            "",
            f"Of the SAEs: {licence or 'none is given'}. Those of the LM and the training text may ask for more.",
            "",
        ]
    )


def _languages(cell: FoundCell) -> list[str]:
    return list(cell.identity["activations"]["languages"])


def _own_classes(shared: Sequence[Shared]) -> list[str]:
    targets = {str(entry.cell.identity["sae"].get("_target_", "bisae.")) for entry in shared}
    own = sorted(target for target in targets if not target.startswith("bisae."))
    if not own:
        return []
    names, last = ",".join(own), own[0].rsplit(".", 1)[-1]
    return [
        "",
        f"Some are of classes that are not bisae's ({names}) and come without their code: give `sae_classes=[{names}]` "
        f"to commands, and `classes=[{last}]` to `load`.",
    ]


def _about(entry: Shared) -> tuple[object, ...]:
    cell, sae, seen = entry.cell, entry.cell.identity["sae"], entry.cell.provenance
    files = (
        f"{entry.exported['format']} ({'exact' if entry.exported['exact'] else 'approximate'})"
        if entry.exported
        else ""
    )
    trained = seen.get("sae_tokens", "imported" if "imported" in seen else "")
    lm_tokens = seen.get("lm_tokens_seen") or ""
    kind = cell.sae
    return (
        entry.name,
        cell.model,
        cell.step,
        lm_tokens,
        cell.layer,
        kind,
        sae["latents"],
        sae.get("k", ""),
        trained,
        files,
    )


def _measured(entry: Shared) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for text in ("", *_languages(entry.cell)):
        end = f"/{text}" if text else ""
        values = [entry.cell.metrics.get(f"val/{name}{end}") for name in METRICS]
        rows.append((entry.name, text or "all", *("" if value is None else f"{value:.4g}" for value in values)))
    return rows


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]
