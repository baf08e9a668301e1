"""Compare token ids with those of `AutoTokenizer`, which made the caches and cells of earlier versions.

If they differ, caches and cells get another identity; if they are equal, existing caches and cells stay valid.
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
    """Return 16 hex digits of the first documents' ids if `AutoTokenizer` gives other ids, else None.

    The result is kept in the folder `findings`, for the same tokenizer and text. Raises Refused (`tokenizer`) as
    `Checkpoint.load_tokenizer` does.
    """
    name = _digest([checkpoint.tokenizer, corpus.checksum(split), split, list(corpus.languages)])
    file = None if findings is None else findings / f"{name}.json"
    if file is not None and file.is_file():
        kept: str | None = json.loads(file.read_bytes())["ids"]
        return kept
    ids = _compared(checkpoint, corpus, split)
    if file is not None:
        with suppress(OSError):  # a folder that cannot be written is refused where it is needed
            write_json(file, {"ids": ids})
    return ids


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
