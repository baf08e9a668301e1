"""Memory for a batch's pre-activations, kept from step to step: fresh pages cost a tenth of the product itself."""

import threading

import torch
from torch import Tensor


class _Kept(threading.local):
    def __init__(self) -> None:
        self.memory: dict[torch.dtype, Tensor] = {}


_kept = _Kept()


def scratch(rows: int, columns: int, like: Tensor) -> Tensor:
    """An uninitialised matrix in the dtype and on the device of `like`, valid until this thread's next call.

    Its memory stays taken, as much as the largest call asked for. PyTorch keeps a GPU's memory itself.
    """
    if like.device.type != "cpu":
        return like.new_empty(rows, columns)
    memory = _kept.memory
    if like.dtype not in memory or len(memory[like.dtype]) < rows * columns:
        memory.pop(like.dtype, None)
        with torch.inference_mode(False):  # else validation would leave memory that training cannot write to
            memory[like.dtype] = torch.empty(rows * columns, dtype=like.dtype)
    return memory[like.dtype][: rows * columns].view(rows, columns)
