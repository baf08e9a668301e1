"""Run the LM over a split of a corpus: the source that fills the stores of activations."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import BFloat16
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bisae.activations.store import TokenShard
from bisae.corpus.read_so_far import ReadSoFar
from bisae.corpus.tokens import TokenizedDocument, balanced, heads
from bisae.lm.pass_settings import PassSettings
from bisae.runtime.device import torch_device


@dataclass
class LMPass(PassSettings):
    """Residual streams of `checkpoint` on `split` of `corpus`; a `bisae.activations.store.Source`.

    The arguments are those of `PassSettings`, and `gpu`, the index of the GPU.
    """

    gpu: int = 0
    _shards: dict[int, list[TokenizedDocument]] = field(default_factory=dict, init=False)
    _next: int = field(default=0, init=False)  # the shard that `_stream` gives next
    _read: ReadSoFar = field(init=False)
    _reader: Any = field(default=None, init=False)
    _beside: Any = field(default=None, init=False)  # the stream of a GPU on which the LM runs

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read = ReadSoFar(self.corpus.languages)
        torch_device(self.device)  # refused now, not when the LM is loaded

    @property
    def d_model(self) -> int:
        return self.checkpoint.d_model

    @cached_property
    def tokenizer(self) -> Any:
        return self.checkpoint.load_tokenizer()

    @cached_property
    def _stream(self) -> Iterator[TokenizedDocument]:
        return balanced(self.corpus, self.split, self.tokenizer, self.context, self.shortest)

    @property
    def depth(self) -> int:
        return self.checkpoint.layers

    def forget(self, shard: int) -> None:
        self._shards.pop(shard, None)

    def _sequences(self, shard: int) -> list[TokenizedDocument]:
        if shard not in self._shards and shard < self._next:  # forgotten: the corpus is read from its beginning
            self.__dict__.pop("_stream", None)
            self._next, self._read = 0, ReadSoFar(self.corpus.languages)
        while self._next <= shard:
            sequences = list(islice(self._stream, self.lm_batch * self.shard_batches))
            self._read.add(sequences)
            self._shards[self._next] = sequences
            self._next += 1
        return self._shards[shard]

    def tokens(self, shard: int) -> TokenShard | None:
        """Return the tokens of a shard without running the LM; None past the end of the split."""
        sequences = self._sequences(shard)
        if not sequences:
            return None
        lengths = [len(s.ids) for s in sequences]
        return TokenShard(
            token_ids=np.concatenate([s.ids for s in sequences]),
            language=np.repeat(np.array([s.language for s in sequences], np.uint8), lengths),
            document=np.repeat(np.array([s.document for s in sequences], np.int32), lengths),
            position=np.concatenate([np.arange(n, dtype=np.int16) for n in lengths]),
        )

    def ended(self) -> str:
        return self._read.ended()

    def remarks(self) -> list[str]:
        left_out = getattr(self.corpus, "left_out", {})  # of corpora of records
        bad = [str(rows) for (split, _), rows in left_out.items() if split == self.split and rows.count]
        return [*self._read.remarks(), *bad]

    def release(self) -> None:
        """Free the LM and the tokens: the cache holds what is needed from here on."""
        self._reader, self._shards, self._next = None, {}, 0
        self._read = ReadSoFar(self.corpus.languages)
        self.__dict__.pop("_stream", None)

    def ready(self, layers: Sequence[int]) -> None:
        """Load the LM up to the deepest layer. Raises Refused if it cannot be read (see `bisae.lm.residual`)."""
        if self._reader is None or set(self._reader.layers) != set(layers):
            device = torch_device(self.device)
            if device.type == "cuda":
                device = torch.device("cuda", self.gpu)
            self._reader = self.checkpoint.reader(sorted(layers), getattr(torch, self.lm_dtype), device)
            if device.type == "cuda":  # the LM runs beside SAEs that are trained, once its weights are there
                torch.cuda.synchronize(device)
                self._beside = torch.cuda.Stream(device)

    def activations(self, shard: int, layers: Sequence[int]) -> dict[int, BFloat16[Tensor, "token d_model"]]:
        """Run the LM once over a shard; BOS and padding are dropped."""
        self.ready(layers)
        sequences = self._sequences(shard)
        bos = self.tokenizer.bos_token_id
        prefix = [] if bos is None else [bos]
        # Filled in place: joining parts would take the shard's memory twice.
        total, done = sum(len(s.ids) for s in sequences), 0
        rows = {layer: torch.empty(total, self.d_model, dtype=torch.bfloat16) for layer in layers}
        for start in range(0, len(sequences), self.lm_batch):
            batch = [torch.tensor([*prefix, *s.ids]) for s in sequences[start : start + self.lm_batch]]
            ids = pad_sequence(batch, batch_first=True, padding_value=0)
            lengths = torch.tensor([len(row) for row in batch])
            at = torch.arange(ids.shape[1])
            kept = (at >= len(prefix)) & (at < lengths[:, None])
            with torch.cuda.stream(self._beside) if self._beside else nullcontext():
                streams = self._reader.read(ids)
                for layer in layers:
                    stream = streams[layer][kept.to(streams[layer].device)].bfloat16()
                    rows[layer][done : done + len(stream)] = stream
            done += int(kept.sum())
        return rows


@dataclass
class PairPass(LMPass):
    """An `LMPass` over sentence pairs (`bisae.corpus.pairs.Sentences`), one language after the other."""

    @cached_property
    def _stream(self) -> Iterator[TokenizedDocument]:
        numbers = range(len(self.corpus.languages))
        return (
            sequence
            for number in numbers
            for sequence in heads(self.corpus, self.split, number, self.tokenizer, self.context, self.shortest)
        )
