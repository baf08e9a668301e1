import torch

from bisae.training.schedule import warm_up


def rates(steps: int, lr: float, warmup: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, found = warm_up(optimizer, warmup), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_rate_rises_linearly_and_then_stays() -> None:
    assert rates(6, lr=8.0, warmup=4) == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert rates(2, lr=8.0, warmup=1) == [8.0, 8.0]
