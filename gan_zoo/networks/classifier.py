"""The classifier whose features and logits the metrics compare images by."""

import torch
from torch import Tensor, nn

from gan_zoo.networks.layers import batch_normed
from gan_zoo.ranges import Count, checked

# Side of the images that it sees.
SIDE = 28


class EvaluatorNetwork(nn.Module):
    """A small CNN: images (B, C, 28, 28) in [-1, 1] -> features (B, 128), logits (B, K).

        features, logits = EvaluatorNetwork().eval()(torch.rand(16, 1, 28, 28) * 2 - 1)

    The features are the last hidden layer's before its ReLU, standardised: over the training set
    each has mean 0 and variance 1, so that no unit outweighs the others by its scale. (After the
    ReLU some units are almost always 0; once standardised, these alone would decide the distances.)

    """

    feature_mean: Tensor
    feature_std: Tensor

    @checked
    def __init__(self, channels: Count = 1, num_classes: Count = 10) -> None:
        super().__init__()
        self.channels = channels
        self.num_classes = num_classes
        self.body = nn.Sequential(
            *batch_normed(nn.Conv2d(channels, 32, 5, 2, 2, bias=False), nn.ReLU()),
            *batch_normed(nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.ReLU()),
            nn.MaxPool2d(2),
            *batch_normed(nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.ReLU()),
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
