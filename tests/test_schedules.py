"""The rate and the momentum of every step, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gan_zoo.schedules import ConstantThenLinear, MomentumSchedule


def sgd(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.5)


def test_the_2014_schedule() -> None:
    optimizer = sgd(lr=0.1)
    schedule = MomentumSchedule(optimizer, decay=2.0, min_lr=0.02, momentum_steps=4)
    seen = []
    for _ in range(6):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step()
    assert [lr for lr, _ in seen] == pytest.approx([0.1, 0.05, 0.025, 0.02, 0.02, 0.02])
    assert [momentum for _, momentum in seen] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.7])


@pytest.mark.parametrize(
    ("option", "value"),
    [("decay", 0.9), ("min_lr", -1), ("momentum_start", 1), ("momentum_end", -1),
     ("momentum_steps", 0)],
)  # fmt: skip
def test_the_2014_schedule_refuses_what_is_out_of_range(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value}; it has to be"):
        MomentumSchedule(sgd(lr=0.1), **{option: value})  # type: ignore[arg-type]


def test_the_rate_is_constant_then_falls_to_nothing() -> None:
    optimizer = sgd(lr=2.0)
    schedule = ConstantThenLinear(optimizer, constant_share=0.5, total_steps=8)
    rates = []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2, 2, 2, 2, 2, 1.5, 1, 0.5, 0])
    with pytest.raises(ValueError, match="constant_share is 1"):
        ConstantThenLinear(optimizer, 1, 8)
    with pytest.raises(
        ValueError, match=r"total_steps is -1.*trainer\.max_steps.*model\.scheduler=null"
    ):
        ConstantThenLinear(optimizer, 0.5, -1)
