"""Batches made, and copied to a GPU, by a thread while the one before is used."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import torch

from bisae.activations.feed import ActivationBatch


def ahead(batches: Iterator[ActivationBatch], device: torch.device) -> Iterator[ActivationBatch]:
    """Yield the same batches in the same order, on `device`.

    One batch is at hand and one is being made. To a GPU they are copied by a stream of their own, from page-locked
    memory; PyTorch uses that memory again only after the copy. An error reaches the reader of its batch.
    """
    on_gpu = device.type == "cuda"
    copies = torch.cuda.Stream(device) if on_gpu else None

    def make() -> tuple[ActivationBatch | None, torch.cuda.Event | None]:
        with ExitStack() as stack:
            if on_gpu:
                stack.enter_context(torch.cuda.device(device))
            if (batch := next(batches, None)) is None:
                return None, None
            if copies is not None:
                stack.enter_context(torch.cuda.stream(copies))
            batch = batch.to(device, non_blocking=on_gpu)
            return batch, None if copies is None else copies.record_event()

    with ThreadPoolExecutor(1, "batch-ahead") as thread:
        coming = thread.submit(make)
        while True:
            batch, copied = coming.result()
            if batch is None:
                return
            coming = thread.submit(make)
            if copied is not None:
                stream = torch.cuda.current_stream(device)
                stream.wait_event(copied)
                for tensor in batch.tensors:
                    tensor.record_stream(stream)  # its memory is not used again before the step that reads it
            yield batch
