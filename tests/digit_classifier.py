"""A judge of generated digits: a small CNN, trained on MNIST's training set, over 99 % right."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data import InMemoryDataModule


def digit_classifier(channels: int = 1) -> nn.Module:
    """Images (B, channels, 28, 28) in [-1, 1] -> logits (B, 10); untrained."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def train_digit_classifier(
    data: InMemoryDataModule,
    epochs: int = 4,
    channels: int = 1,
    mapped: Callable[[Tensor], Tensor] = lambda image: image,
) -> tuple[nn.Module, float]:
    """The trained classifier in eval mode, and its share of right answers on the test set.

    ``mapped`` is applied to all images, in [-1, 1], and gives them ``channels``.
    """
    torch.manual_seed(0)
    net = digit_classifier(channels)
    loader = data.train_dataloader()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=epochs * len(loader)
    )
    for _ in range(epochs):
        for image, label in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(mapped(image)), label).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    right = [classify(net, mapped(image)).eq(label) for image, label in data.test_dataloader()]
    return net, torch.cat(right).float().mean().item()


@torch.no_grad()
def classify(net: nn.Module, images: Tensor) -> Tensor:
    """The digits (N,) that the classifier sees in images (N, 1, 28, 28)."""
    return torch.cat([net(chunk).argmax(1) for chunk in images.split(1000)])
