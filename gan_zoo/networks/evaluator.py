"""The classifier whose features generated images are measured in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Side of the images that it sees.
SIDE = 28


class EvaluatorNetwork(nn.Module):
    """A small CNN: images (B, C, 28, 28) in [-1, 1] -> features (B, 128) and logits (B, K).

    The features are the last hidden layer's before its ReLU, standardised: over the training set
    each has mean 0 and variance 1, so that no unit outweighs the others by its scale. (After the
    ReLU some units hardly ever fire; standardised, these alone decide the distances.)

    Args:
        channels: of the images.
        num_classes: K.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_classes = num_classes
        self.body = nn.Sequential(
            *_convolution(channels, 32, 5, 2),
            *_convolution(32, 64, 3, 1),
            nn.MaxPool2d(2),
            *_convolution(64, 64, 3, 1),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 9, 128),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, num_classes))
        self.register_buffer("feature_mean", torch.zeros(128))
        self.register_buffer("feature_std", torch.ones(128))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(images)
        return (hidden - self.feature_mean) / self.feature_std, self.head(hidden)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
