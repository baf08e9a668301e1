from concurrent.futures import ThreadPoolExecutor

import torch

from bisae.sae.scratch import scratch

LIKE = torch.empty(0)


def test_memory_is_used_again_while_it_is_large_enough() -> None:
    large = scratch(30, 50, LIKE)
    assert scratch(10, 20, LIKE).data_ptr() == large.data_ptr()
    assert scratch(10, 20, LIKE).shape == (10, 20)
    assert scratch(300, 50, LIKE).shape == (300, 50)


def test_dtypes_and_threads_do_not_share_memory() -> None:
    here = scratch(10, 10, LIKE)
    assert scratch(10, 10, LIKE.double()).dtype == torch.float64
    with ThreadPoolExecutor(1) as other:
        there = other.submit(scratch, 10, 10, LIKE).result()
    assert len({here.data_ptr(), there.data_ptr()}) == 2


def test_memory_taken_in_validation_can_be_written_in_training() -> None:
    with torch.inference_mode():
        scratch(1000, 1000, LIKE)
    weights = torch.zeros(5, requires_grad=True)
    (scratch(1000, 1000, LIKE).zero_()[0, :5] * weights).sum().backward()
    assert weights.grad is not None
