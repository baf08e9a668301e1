import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bisae.corpus.corpus import Document
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.changed_ids import changed_ids
from bisae.lm.model import Checkpoint
from tests.lm.test_tokenizer import LLAMA, folder, unigram


@dataclass(frozen=True)
class Texts:
    """A corpus of one language."""

    texts: tuple[str, ...]
    name: str = "texts"
    languages: tuple[str, ...] = ("en",)

    def checksum(self, split: str) -> str:
        return str(hash(self.texts))

    def documents(self, split: str, language: int) -> Iterator[Document]:
        return (Document(number, text) for number, text in enumerate(self.texts))


def test_the_shipped_text_keeps_the_identity_of_its_caches_and_cells(step512: Checkpoint) -> None:
    corpus = EmbeddedCorpus("embedded", 0)
    for split in ("sae", "validation", "shots"):
        assert changed_ids(step512, corpus, split, None) is None
    tokenizer = step512.load_tokenizer()  # beyond the documents compared
    texts = [d.text for split in ("sae", "validation") for n in (0, 1) for d in corpus.documents(split, n)]
    assert not tokenizer.spells_special(texts)


def test_text_that_spells_a_special_token_has_an_identity_of_its_own(step512: Checkpoint) -> None:
    assert changed_ids(step512, Texts(("a dog",)), "sae", None) is None
    found = changed_ids(step512, Texts(("a </s> dog",)), "sae", None)
    assert found is not None and found != changed_ids(step512, Texts(("a <s> dog",)), "sae", None)


def test_a_tokenizer_that_transformers_reads_otherwise_has_an_identity_of_its_own(
    step512: Checkpoint, tmp_path: Path
) -> None:
    shutil.copytree(step512.folder, tmp_path / "lm")
    folder(tmp_path / "tokenizer", unigram(), LLAMA)
    checkpoint = replace(step512, tokenizer_folder=tmp_path / "tokenizer")
    assert changed_ids(checkpoint, Texts(("The old dog sleeps.",)), "sae", None) is not None


def test_what_was_found_is_kept_and_not_found_out_again(step512: Checkpoint, tmp_path: Path) -> None:
    corpus, kept = Texts(("a </s> dog",)), tmp_path / "kept"
    found = changed_ids(step512, corpus, "sae", kept)
    (file,) = kept.glob("*.json")
    assert json.loads(file.read_bytes()) == {"ids": found}
    gone = replace(step512, folder=tmp_path / "gone")  # cannot be read any more
    assert changed_ids(gone, corpus, "sae", kept) == found
