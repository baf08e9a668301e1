"""Put token sequences of similar length into right-padded batches."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class TokenBatch(NamedTuple):
    """A right-padded batch; `numbers` are the indices of its sequences, row by row."""

    numbers: list[int]
    ids: Int[Tensor, "sequence position"]
    mask: Int[Tensor, "sequence position"]  # 1 where there is a token, 0 on padding


def batches(sequences: Sequence[Sequence[int]], size: int, device: torch.device) -> Iterator[TokenBatch]:
    """Yield batches of at most `size` sequences, of sizes as equal as possible."""
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    for part in np.array_split(np.array(order, np.int64), max(1, math.ceil(len(order) / size))):
        if len(part):
            rows = [torch.tensor(sequences[number], dtype=torch.int64) for number in part]
            ids = pad_sequence(rows, batch_first=True)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            yield TokenBatch(part.tolist(), ids.to(device), mask.to(device))
