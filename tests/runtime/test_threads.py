import os
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from bisae.runtime import threads
from bisae.runtime.threads import Look, follow_idle_cores, idle_cores, in_order, look


@pytest.mark.parametrize(
    ("busy", "own", "idle"),
    [(0.0, 0.0, 4), (20.0, 20.0, 4), (20.0, 10.0, 3), (30.0, 10.0, 2), (40.0, 10.0, 1), (40.0, 0.0, 1), (1.0, 3.0, 4)],
)
def test_what_others_keep_busy_is_not_idle_but_what_this_process_does_is(busy: float, own: float, idle: int) -> None:
    assert idle_cores(Look(100.0, 50.0, 7.0), Look(110.0, 50.0 + busy, 7.0 + own), cores=4) == idle


@pytest.mark.skipif(not threads.STAT.exists(), reason="Linux only")
def test_a_look_sees_this_process_work() -> None:
    before = look()
    while (after := look()).own < before.own + 0.3:
        sum(range(10**5))
    assert after.busy - before.busy > 0.2 and after.clock > before.clock


@pytest.mark.skipif(not threads.STAT.exists(), reason="Linux only")
def test_threads_follow_the_cores_unless_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, usual = len(os.sched_getaffinity(0)), torch.get_num_threads()
    looks = iter([Look(0.0, 0.0, 0.0), Look(10.0, 10.0 * cores, 0.0), Look(20.0, 10.0 * cores, 0.0)])
    monkeypatch.setattr(threads, "look", lambda: next(looks))
    monkeypatch.setattr(threads, "_last", None)
    monkeypatch.setattr(threads, "FIRST", 0.0)
    monkeypatch.setattr(threads, "EVERY", -1e9)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    try:
        follow_idle_cores()
        assert torch.get_num_threads() == usual
        monkeypatch.delenv("OMP_NUM_THREADS")
        found = []
        for _ in range(2):  # others were busy on all cores; then nobody was
            follow_idle_cores()
            found.append(torch.get_num_threads())
        assert found == [1, cores]
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize("number", [1, 3])
def test_results_come_in_the_order_of_items_which_are_drawn_as_they_are_needed(number: int) -> None:
    drawn: list[int] = []
    workers: set[int] = set()

    def items() -> Iterator[int]:
        for item in range(12):
            drawn.append(item)
            yield item

    def work(item: int) -> int:
        workers.add(threading.get_ident())
        time.sleep(0.01 * (item % 3 == 0))  # later ones are done before it
        return item * item

    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        results = in_order(work, items())
        assert next(results) == 0 and torch.get_num_threads() == 1
        assert len(drawn) == (1 if number == 1 else number + 1)
        assert list(results) == [item * item for item in range(1, 12)]
        assert torch.get_num_threads() == number
        assert len(workers) <= number and (threading.get_ident() in workers) == (number == 1)
        with pytest.raises(ZeroDivisionError):
            list(in_order(lambda item: 1 // (item - 5), items()))
    finally:
        torch.set_num_threads(usual)
