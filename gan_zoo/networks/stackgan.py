"""The generators of StackGAN (1612.03242): a coarse image of a caption, and a fine one of that.

What they take and return is described in ``text_to_image``, where their discriminator is.
"""

import itertools

import torch
from torch import Tensor, nn

from gan_zoo.networks import layers
from gan_zoo.networks.text_to_image import ConditioningAugmentation, ScaleImages
from gan_zoo.ranges import Count, Few, checked


def _convolution(width_in: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, 1, 1, bias=False)


def _doubled(width_in: int, width: int) -> nn.Sequential:
    net = layers.batch_normed(_convolution(width_in, width), nn.ReLU())
    return nn.Sequential(nn.Upsample(scale_factor=2), *net)


def _residual(width: int) -> layers.Residual:
    return layers.Residual(
        *layers.batch_normed(_convolution(width, width), nn.ReLU()),
        _convolution(width, width),
        nn.BatchNorm2d(width),
        activation=nn.ReLU(),
    )


class StageOneGenerator(nn.Module):
    """StackGAN's Stage I: noise and condition -> a small map -> doubled to the coarse image.

        noise, caption = torch.randn(16, 100 + 32), torch.randn(16, 64)
        (coarse,) = StageOneGenerator()(noise, caption).images  # (16, 3, 16, 16)

    A linear layer with batch norm, then nearest-neighbour doublings with 3x3 convolutions, batch
    norm and ReLU, then a 3x3 convolution and tanh. ``residual_blocks`` lie on the first map (the
    authors' first code: bottlenecks there and on the next; their second: none). The noise is (B,
    latent_dim + condition_dim). The authors have 64 ``base_channels``, and 1024 in the first map.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        embedding_dim: Count = 64,
        condition_dim: Count = 32,
        channels: Count = 3,
        image_size: Count = 32,
        factor: Count = 2,
        base_channels: Count = 32,
        residual_blocks: Few = 1,
        augment: bool = True,
    ) -> None:
        super().__init__()
        side = layers.coarse_size(image_size, factor)
        doublings = layers.count_halvings(image_size) - (factor.bit_length() - 1)
        first, width = side >> doublings, base_channels << doublings
        self.latent_dim = latent_dim
        self.condition = ConditioningAugmentation(embedding_dim, condition_dim, augment)
        to_map = nn.Linear(latent_dim + condition_dim, width * first**2, bias=False)
        project = [to_map, nn.BatchNorm1d(width * first**2)]
        self.project = nn.Sequential(
            *(project if residual_blocks else [*project, nn.ReLU()]),
            nn.Unflatten(1, (width, first, first)),
            *(_residual(width) for _ in range(residual_blocks)),
        )
        self.up = nn.Sequential(*(_doubled(width >> i, width >> i + 1) for i in range(doublings)))
        self.to_image = nn.Sequential(nn.Conv2d(base_channels, channels, 3, 1, 1), nn.Tanh())
        layers.initialise_normal(self)
        self.condition.initialise()

    def forward(self, noise: Tensor, caption: Tensor) -> ScaleImages:
        latent, eps = noise[:, : self.latent_dim], noise[:, self.latent_dim :]
        condition, mean, log_variance = self.condition(caption, eps)
        maps = self.up(self.project(torch.cat([condition, latent], 1)))
        return ScaleImages((self.to_image(maps),), mean, log_variance)


class StageTwoGenerator(nn.Module):
    """StackGAN's Stage II: a coarse image and, again, its caption -> the fine image.

        eps, caption = torch.randn(16, 32), torch.randn(16, 64)
        (fine,) = StageTwoGenerator()(coarse, eps, caption).images  # (16, 3, 32, 32)

    The image is halved ``encoder_halvings`` times (by default the paper's 2 from 64 coarse pixels
    on, and 1 below) to an inner map, which the condition joins; residual blocks follow (the paper:
    4, or 2 for 128 pixels), then doublings as in Stage I down to ``base_channels`` (the authors':
    32). The encoder begins with ``encoder_channels`` (128), by default as many. There is no noise
    but conditioning augmentation's.
    """

    @checked
    def __init__(
        self,
        embedding_dim: Count = 64,
        condition_dim: Count = 32,
        channels: Count = 3,
        image_size: Count = 32,
        factor: Count = 2,
        base_channels: Count = 32,
        residual_blocks: Few = 2,
        encoder_halvings: Few | None = None,
        encoder_channels: Count | None = None,
        augment: bool = True,
    ) -> None:
        super().__init__()
        side = layers.coarse_size(image_size, factor)
        down = encoder_halvings or (2 if side >= 64 else 1)
        doublings = down + factor.bit_length() - 1
        self.condition = ConditioningAugmentation(embedding_dim, condition_dim, augment)
        n, inner = encoder_channels or base_channels, base_channels << doublings
        halved = layers.halving_blocks(n, 2 * n, down, norm_first=True, activation=nn.ReLU)
        first = [nn.Conv2d(channels, n, 3, 1, 1), nn.ReLU()]
        self.encode = nn.Sequential(*first, *itertools.chain(*halved))
        joined = _convolution((n << down) + condition_dim, inner)
        self.join = nn.Sequential(*layers.batch_normed(joined, nn.ReLU()))
        self.refine = nn.Sequential(
            *(_residual(inner) for _ in range(residual_blocks)),
            *(_doubled(inner >> i, inner >> i + 1) for i in range(doublings)),
            nn.Conv2d(base_channels, channels, 3, 1, 1),
            nn.Tanh(),
        )
        layers.initialise_normal(self)
        self.condition.initialise()

    def forward(self, image: Tensor, noise: Tensor, caption: Tensor) -> ScaleImages:
        condition, mean, log_variance = self.condition(caption, noise)
        joined = self.join(layers.join_condition(self.encode(image), condition))
        return ScaleImages((self.refine(joined),), mean, log_variance)
