"""What each model adds to the base."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from gan_zoo.models import CGAN
from gan_zoo.models.gan import MomentumSchedule
from gan_zoo.networks.mlp import ConditionalMaxoutDiscriminator, ConditionalMLPGenerator
from tests.conftest import fit, random_batches


def small_cgan() -> CGAN:
    torch.manual_seed(0)
    return CGAN(
        num_classes=10,
        generator=ConditionalMLPGenerator(4, 10, 1, 8, 8, 8, 16),
        discriminator=ConditionalMaxoutDiscriminator(10, 1, 8, 8, 4, 8),
        optimizer_g=functools.partial(torch.optim.Adam, lr=1e-3),
        optimizer_d=functools.partial(torch.optim.Adam, lr=1e-3),
        noise=functools.partial(nn.init.uniform_, a=0.0, b=1.0),
        latent_dim=4,
    )


def test_cgan_gives_both_players_the_batches_labels() -> None:
    model = small_cgan()
    seen: dict[str, list[torch.Tensor]] = {"generator": [], "discriminator": []}
    for name, labels in seen.items():
        getattr(model, name).register_forward_pre_hook(
            lambda _, inputs, labels=labels: labels.append(inputs[1])
        )
    fit(model, batches=2)
    batches = [batch.label for batch in random_batches(2)]
    assert [torch.equal(*pair) for pair in zip(seen["generator"], batches, strict=True)] == [
        True
    ] * 2
    # Real and fake together in D's phase, and the fake again in G's.
    expected = [labels.repeat(times) for labels in batches for times in (2, 1)]
    assert all(torch.equal(*pair) for pair in zip(seen["discriminator"], expected, strict=True))


def test_cgan_shows_a_row_a_digit_and_a_column_a_noise() -> None:
    model = small_cgan()
    inputs = model.grid_inputs(torch.Generator().manual_seed(0))
    assert inputs["labels"].view(10, 8).eq(torch.arange(10)[:, None]).all()
    assert inputs["noise"].view(10, 8, 4).eq(inputs["noise"][:8]).all()
    images, columns = model.sample_grid(inputs)
    assert images.shape == (80, 1, 8, 8)
    assert columns == 8


@pytest.mark.parametrize("labels", [[0, 10], [-1, 0], [1]])
def test_cgan_refuses_labels_out_of_range(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels have to be 2 whole numbers from 0 to 9"):
        small_cgan().sample(2, labels=torch.tensor(labels))


def test_the_2014_schedule() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.5)
    schedule = MomentumSchedule(optimizer, decay=2.0, min_lr=0.02, momentum_steps=4)
    seen = []
    for _ in range(6):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step()
    assert [lr for lr, _ in seen] == pytest.approx([0.1, 0.05, 0.025, 0.02, 0.02, 0.02])
    assert [momentum for _, momentum in seen] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.7])
