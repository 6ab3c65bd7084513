"""Fully connected networks: the survey's simple GAN and the nets of the GAN and cGAN papers.

Generators map noise (B, latent_dim) to images (B, C, H, W) in [-1, 1]; discriminators map images to
logits (B, 1). The conditional ones take class labels (B,) int64 beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.ranges import Count, Positive, Share


def _layers(
    features: int,
    hidden: Sequence[int],
    activation: nn.Module,
    norm: bool = False,
    dropout: float = 0.0,
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(features, width, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(activation)
        if dropout:
            layers.append(nn.Dropout(dropout))
        features = width
    return layers


def _uniform_weights(network: nn.Module, bound: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class MLPGenerator(nn.Module):
    """The survey's simple generator: LeakyReLU layers that widen, tanh at the end.

    Args:
        latent_dim: length of the noise vector.
        channels, image_size: shape of the images, (channels, image_size, image_size).
        hidden: widths of the hidden layers.
        negative_slope: slope of the LeakyReLU; 0 makes it a ReLU.
        norm: batch norm in the hidden layers; without it the generator tends to few digits.
        weight_range: draw the weights from U(-weight_range, weight_range) with zero biases, as the
            2014 nets do; None keeps torch's own initialisation.
    """

    def __init__(
        self,
        latent_dim: Count,
        channels: Count,
        image_size: Count,
        hidden: Sequence[Count] = (256, 512, 1024),
        negative_slope: float = 0.2,
        norm: bool = True,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *_layers(latent_dim, hidden, nn.LeakyReLU(negative_slope), norm),
            nn.Linear([latent_dim, *hidden][-1], channels * image_size**2),
            nn.Tanh(),
            nn.Unflatten(1, (channels, image_size, image_size)),
        )
        if weight_range is not None:
            _uniform_weights(self, weight_range)

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class MLPDiscriminator(nn.Module):
    """The survey's simple discriminator: LeakyReLU layers that narrow, each followed by dropout.

    Args:
        channels, image_size: shape of the images.
        hidden: widths of the hidden layers.
        negative_slope: slope of the LeakyReLU.
        dropout: probability that a hidden unit is dropped in training.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
        hidden: Sequence[Count] = (1024, 512, 256),
        negative_slope: float = 0.2,
        dropout: Share = 0.3,
    ) -> None:
        super().__init__()
        features = channels * image_size**2
        self.net = nn.Sequential(
            nn.Flatten(),
            *_layers(features, hidden, nn.LeakyReLU(negative_slope), dropout=dropout),
            nn.Linear([features, *hidden][-1], 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class Maxout(nn.Module):
    """Goodfellow et al. 2013 (1302.4389), eq. 1: each unit is the largest of some linear pieces.

    Args:
        in_features: length of the input.
        units: length of the output.
        pieces: linear pieces to each unit.
    """

    def __init__(self, in_features: int, units: Count, pieces: Count) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, units * pieces)
        self.shape = (units, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, self.shape).amax(2)


class MaxoutDiscriminator(nn.Module):
    """The discriminator of the GAN paper's MNIST experiment.

    1406.2661 says maxout with dropout; the sizes are in its authors' code: two layers of 240 units
    of 5 pieces, dropout .2 on the image and .5 on both layers.

    Args:
        channels, image_size: shape of the images.
        units, pieces: of each maxout layer.
        input_dropout, dropout: probabilities to drop a pixel, and a hidden unit.
        unit_range: show the network pixels in [0, 1], as the paper's were: smaller inputs, and a
            pixel dropped becomes background instead of grey.
        weight_range: as in MLPGenerator; the authors' is .005.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
        units: Count = 240,
        pieces: Count = 5,
        input_dropout: Share = 0.2,
        dropout: Share = 0.5,
        unit_range: bool = False,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__()
        self.unit_range = unit_range
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(input_dropout),
            Maxout(channels * image_size**2, units, pieces),
            nn.Dropout(dropout),
            Maxout(units, units, pieces),
            nn.Dropout(dropout),
            nn.Linear(units, 1),
        )
        if weight_range is not None:
            _uniform_weights(self, weight_range)

    def forward(self, image: Tensor) -> Tensor:
        return self.net((image + 1) / 2 if self.unit_range else image)


class ConditionalMLPGenerator(nn.Module):
    """The generator of the conditional GAN paper (1411.1784, section 4.1).

    Noise and one-hot label pass through ReLU layers of their own (200 and 1,000 units), are joined
    in a ReLU layer of 1,200 and become an image. The paper ends in a sigmoid on [0, 1]; tanh on
    [-1, 1] is the same function of half the logit, rescaled.

    Args:
        latent_dim, num_classes: lengths of the noise vector and of the one-hot label.
        channels, image_size: shape of the images.
        noise_units, label_units, joint_units: widths of the three hidden layers.
        norm: batch norm in the noise's and the joint layer, so that noise and label set out
            equally loud. The paper has none; without it, Adam leads to one image a class.
        dropout: probability that a hidden unit is dropped in training (the paper: .5).
        weight_range: as in MLPGenerator.
    """

    def __init__(
        self,
        latent_dim: Count,
        num_classes: Count,
        channels: Count,
        image_size: Count,
        noise_units: Count = 200,
        label_units: Count = 1000,
        joint_units: Count = 1200,
        norm: bool = True,
        dropout: Share = 0.0,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.noise_branch = nn.Sequential(
            *_layers(latent_dim, [noise_units], nn.ReLU(), norm, dropout)
        )
        self.label_branch = nn.Sequential(
            *_layers(num_classes, [label_units], nn.ReLU(), dropout=dropout)
        )
        self.joint = nn.Sequential(
            *_layers(noise_units + label_units, [joint_units], nn.ReLU(), norm, dropout),
            nn.Linear(joint_units, channels * image_size**2),
            nn.Tanh(),
            nn.Unflatten(1, (channels, image_size, image_size)),
        )
        if weight_range is not None:
            _uniform_weights(self, weight_range)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        one_hot = F.one_hot(label, self.num_classes).to(noise.dtype)
        return self.joint(torch.cat([self.noise_branch(noise), self.label_branch(one_hot)], 1))


class ConditionalMaxoutDiscriminator(nn.Module):
    """The discriminator of the conditional GAN paper (1411.1784, section 4.1).

    Image and one-hot label pass through maxout layers of their own (240 units of 5 pieces, 50 of
    5), are joined in a maxout layer of 240 units of 4 pieces and become a logit.

    Args:
        num_classes: length of the one-hot label.
        channels, image_size: shape of the images.
        image_units, label_units, joint_units: widths of the maxout layers.
        dropout: probability that a hidden unit is dropped in training (the paper: .5).
        unit_range: as in MaxoutDiscriminator.
        weight_range: as in MLPGenerator.
    """

    def __init__(
        self,
        num_classes: Count,
        channels: Count,
        image_size: Count,
        image_units: Count = 240,
        label_units: Count = 50,
        joint_units: Count = 240,
        dropout: Share = 0.5,
        unit_range: bool = False,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.unit_range = unit_range
        self.image_branch = nn.Sequential(
            nn.Flatten(),
            Maxout(channels * image_size**2, image_units, pieces=5),
            nn.Dropout(dropout),
        )
        embedding = Maxout(num_classes, label_units, pieces=5)
        # A one-hot vector has one input that is not 0. Initialised as for ten, the label would
        # be too faint beside the image for the discriminator to learn what it means.
        nn.init.normal_(embedding.linear.weight)
        self.label_branch = nn.Sequential(embedding, nn.Dropout(dropout))
        self.joint = nn.Sequential(
            Maxout(image_units + label_units, joint_units, pieces=4),
            nn.Dropout(dropout),
            nn.Linear(joint_units, 1),
        )
        if weight_range is not None:
            _uniform_weights(self, weight_range)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        one_hot = F.one_hot(label, self.num_classes).to(image.dtype)
        image = (image + 1) / 2 if self.unit_range else image
        return self.joint(torch.cat([self.image_branch(image), self.label_branch(one_hot)], 1))
