"""Settings of an LM pass. They determine the activations, and are known before anything is loaded."""

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
    """Settings for `checkpoint` reading `split` of `corpus`.

    The cut into batches and shards is fixed, since it changes the last bits of the values.

    Args:
        context: Largest number of tokens of a sequence, BOS not counted.
        shortest: Documents with fewer tokens are left out.
        lm_batch: Sequences of an LM batch, right-padded, in the order of the token stream.
        shard_batches: LM batches of a shard.
        lm_dtype: float32, bfloat16 or float16.
        device: auto, cpu or cuda.
        findings: Folder for results of checking the tokenizer, so that each check runs once; None to keep none.

    Raises:
        Refused: `context` is longer than the LM can read, `shortest` is more than `context`, or `lm_dtype` is unknown.
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
        """All settings that change a value, and no others: no paths, names, layers or token budget."""
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
