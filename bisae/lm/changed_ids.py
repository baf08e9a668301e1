"""Whether token ids are others than `AutoTokenizer` gives, which made the caches and cells of earlier versions.

Where they are, what follows from them has another identity; where not, what is there stays valid.
"""

import hashlib
import json
from contextlib import suppress
from itertools import islice
from pathlib import Path

from bisae.corpus.corpus import Corpus
from bisae.lm.model import Checkpoint
from bisae.lm.tokenizer import of_transformers
from bisae.runtime.atomic import write_json

DOCUMENTS = 200  # of each language: the beginning of the split
CHARACTERS = 4000  # of each document


def changed_ids(checkpoint: Checkpoint, corpus: Corpus, split: str, findings: Path | None) -> str | None:
    """16 hex digits for the ids of the first documents of a split, where `AutoTokenizer` gives others; else None.

    What is found is kept in the folder `findings`, by the tokenizer and the text. Refused for a tokenizer that the
    LM cannot read with.
    """
    name = _digest([checkpoint.tokenizer, corpus.checksum(split), split, list(corpus.languages)])
    file = None if findings is None else findings / f"{name}.json"
    if file is not None and file.is_file():
        kept: str | None = json.loads(file.read_bytes())["ids"]
        return kept
    found = _compared(checkpoint, corpus, split)
    if file is not None:
        with suppress(OSError):  # a folder that cannot be written is refused where it is needed
            write_json(file, {"ids": found})
    return found


def _compared(checkpoint: Checkpoint, corpus: Corpus, split: str) -> str | None:
    tokenizer = checkpoint.load_tokenizer()
    try:
        before = of_transformers(checkpoint.tokenizer_folder or checkpoint.folder, checkpoint.trust_remote_code)
    except Exception:  # it raises anything; then no earlier version could make a cache
        return None
    numbers = range(len(corpus.languages))
    documents = (d for number in numbers for d in islice(corpus.documents(split, number), DOCUMENTS))
    texts = [document.text[:CHARACTERS] for document in documents]
    if not texts:
        return None
    ids = [tokenizer.bos_token_id, tokenizer(texts).input_ids]
    if ids == [before.bos_token_id, before(texts, add_special_tokens=False).input_ids]:
        return None
    return _digest(ids)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
