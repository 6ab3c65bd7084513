"""The networks of StackGAN++ (1710.10916): a tree of generators, with a discriminator per scale.

What they take and return is described in ``text_to_image``.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gan_zoo.networks import layers
from gan_zoo.networks.text_to_image import ConditioningAugmentation, ScaleImages, TextDiscriminator
from gan_zoo.ranges import Count, Few, checked


def _gated(width_in: int, width: int) -> nn.Sequential:
    layer = nn.Conv2d(width_in, 2 * width, 3, 1, 1, bias=False)
    return nn.Sequential(*layers.batch_normed(layer, nn.GLU(1)))


def _gated_doubled(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), _gated(width_in, width))


def _residual(width: int) -> layers.Residual:
    last = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    return layers.Residual(*_gated(width, width), last, nn.BatchNorm2d(width))


scale_discriminator = functools.partial(
    TextDiscriminator, unconditional=True, joint_kernel_size=3, orthogonal=True
)


class TreeGenerator(nn.Module):
    """StackGAN++'s generator: one trunk of hidden maps that branches into an image at each scale.

    h_0 is made of noise and condition, h_i of h_(i-1) and the condition, twice as large; each scale
    has a 3x3 convolution and tanh to its image. Gated linear units throughout. Without text the
    noise takes the condition's place at every scale, as in the authors' code.

        noise, caption = torch.randn(16, 100 + 32), torch.randn(16, 64)
        images = TreeGenerator()(noise, caption).images  # of 8, 16 and 32 pixels

    With text the noise is (B, latent_dim + condition_dim). There are 2 scales or more, each twice
    as large as the one before; the coarsest has 8 pixels or more. ``residual_blocks`` lie between
    two scales (the authors': 2).
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        embedding_dim: Count | None = 64,
        condition_dim: Count = 32,
        channels: Count = 3,
        image_size: Count = 32,
        num_scales: Few = 3,
        base_channels: Count = 16,
        residual_blocks: Few = 2,
        augment: bool = True,
    ) -> None:
        super().__init__()
        doublings = layers.count_halvings(image_size) - (num_scales - 1)
        first = layers.scale_sizes(image_size, num_scales)[0] >> doublings
        self.latent_dim = latent_dim
        self.condition = None
        if embedding_dim is not None:
            self.condition = ConditioningAugmentation(embedding_dim, condition_dim, augment, True)
        given = latent_dim if embedding_dim is None else latent_dim + condition_dim
        joined = latent_dim if embedding_dim is None else condition_dim
        widths = [base_channels << scale for scale in reversed(range(num_scales))]
        inner = widths[0] << doublings
        to_map = nn.Linear(given, 2 * inner * first**2, bias=False)
        root = nn.Sequential(
            *layers.batch_normed(to_map, nn.GLU(1)),
            nn.Unflatten(1, (inner, first, first)),
            *(_gated_doubled(inner >> i, inner >> i + 1) for i in range(doublings)),
        )
        branches = (
            nn.Sequential(
                _gated(width + joined, width),
                *(_residual(width) for _ in range(residual_blocks)),
                _gated_doubled(width, width // 2),
            )
            for width in widths[:-1]
        )
        self.trunk = nn.ModuleList([root, *branches])
        self.to_image = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 3, 1, 1, bias=False), nn.Tanh())
            for width in widths
        )
        layers.initialise_orthogonal(self)
        if self.condition is not None:
            self.condition.initialise()

    def forward(self, noise: Tensor, caption: Tensor | None = None) -> ScaleImages:
        mean = log_variance = None
        condition = noise
        if self.condition is not None:
            latent, eps = noise[:, : self.latent_dim], noise[:, self.latent_dim :]
            condition, mean, log_variance = self.condition(caption, eps)
            noise = torch.cat([condition, latent], 1)
        hidden, images = noise, []
        for depth, (branch, to_image) in enumerate(zip(self.trunk, self.to_image, strict=True)):
            if depth:
                hidden = layers.join_condition(hidden, condition)
            hidden = branch(hidden)
            images.append(to_image(hidden))
        return ScaleImages(tuple(images), mean, log_variance)


class TreeDiscriminators(nn.ModuleList):
    """A discriminator for each of StackGAN++'s scales, the coarsest first.

        fine = TreeDiscriminators()[-1]
        logits = fine.real(fine.features(torch.rand(16, 3, 32, 32)))  # (16, 1)

    ``discriminator`` makes one of an ``image_size``.
    """

    @checked
    def __init__(
        self,
        discriminator: Callable[..., TextDiscriminator] = scale_discriminator,
        image_size: Count = 32,
        num_scales: Few = 3,
    ) -> None:
        sizes = layers.scale_sizes(image_size, num_scales)
        super().__init__(discriminator(image_size=size) for size in sizes)
