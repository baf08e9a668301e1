"""How an LM reads a text: what its activations follow from, known without loading anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bisae.corpus.corpus import Corpus
from bisae.lm.changed_ids import changed_ids
from bisae.lm.model import Checkpoint
from bisae.runtime.device import DTYPES
from bisae.runtime.errors import Refused

LONGEST = 2**15 - 1  # positions are stored as int16


@dataclass
class PassSettings:
    """`checkpoint` reads `split` of `corpus`.

    An LM batch is `lm_batch` sequences in the order of the token stream, each BOS + at most `context` tokens, right-
    padded; a shard is `shard_batches` batches. The partition is fixed, since it changes the values in the last bits.
    `findings`: the folder that keeps what is found out about the tokenizer, so that it is done once; None: none.
    """

    checkpoint: Checkpoint
    corpus: Corpus
    split: str
    context: int
    shortest: int
    lm_batch: int
    shard_batches: int
    lm_dtype: str
    device: str
    findings: Path | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.context > LONGEST:
            raise Refused("context", self.context, f"must be at most {LONGEST}")
        if self.checkpoint.positions is not None and self.context >= self.checkpoint.positions:  # BOS takes one
            most = self.checkpoint.positions - 1
            raise Refused("context", self.context, f"the LM can read at most {most} tokens")
        if self.shortest > self.context:
            raise Refused("shortest", self.shortest, f"is more than context={self.context}")
        if self.lm_dtype not in DTYPES:
            raise Refused("lm_dtype", self.lm_dtype, f"choose one of {', '.join(DTYPES)}")

    @cached_property
    def fingerprint(self) -> Mapping[str, object]:
        """Everything that changes a value, and nothing that does not: no paths, names, layers or token budget."""
        ids = changed_ids(self.checkpoint, self.corpus, self.split, self.findings)
        return {
            "weights": self.checkpoint.weights,
            "tokenizer": self.checkpoint.tokenizer,
            "corpus": self.corpus.checksum(self.split),
            "languages": list(self.corpus.languages),
            "context": self.context,
            "shortest": self.shortest,
            "lm_dtype": self.lm_dtype,
            "lm_batch": self.lm_batch,
            "shard_batches": self.shard_batches,
            **({"hook": self.checkpoint.hook} if self.checkpoint.hook else {}),
            **({"ids": ids} if ids else {}),
        }
