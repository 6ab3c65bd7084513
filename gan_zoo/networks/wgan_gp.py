"""The networks of WGAN-GP (1704.00028): its code's MNIST pair, and the residual pair of appendix F.

Generators map noise (B, latent_dim) to images (B, C, H, W) in [-1, 1]; critics map images to scores
(B, 1). No critic has batch norm: a gradient penalty needs each image's score to be its own.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks.layers import Crop, Weighted, doubling, initialise, sizes_up_to
from gan_zoo.ranges import Count, Range, UnfitArgument, checked

# Sides of images from which at least one layer doubles or halves a map.
_ImageSize = Annotated[int, Range(5, 10**6)]


def _he_uniform(layer: Weighted) -> None:
    """He et al. 2015 (1502.01852), uniform, as in the authors' code.

    For strided layers the fans take the stride into account: only a quarter of a transposed
    convolution's filter contributes to one place of its output.
    """
    fan_in, fan_out = layer.weight.shape[1], layer.weight.shape[0]
    if not isinstance(layer, nn.Linear):
        area, stride = math.prod(layer.kernel_size), math.prod(layer.stride)
        fan_in, fan_out = layer.in_channels * area, layer.out_channels * area
        if isinstance(layer, nn.ConvTranspose2d):
            fan_in //= stride
        else:
            fan_out //= stride
    bound = math.sqrt(3 * 4 / (fan_in + fan_out))
    nn.init.uniform_(layer.weight, -bound, bound)


class ConvGenerator(nn.Module):
    """The MNIST generator of the authors' code: FC to a 4x4 map, doubled by convolutions 5x5.

    Where twice a map's side is more than is needed, it is cropped (28 pixels: 4, 8 cropped to 7,
    14, 28). ReLU; tanh replaces the code's sigmoid on [0, 1].

        images = ConvGenerator()(torch.randn(16, 128))  # (16, 1, 28, 28)

    Args:
        base_channels: channels of the last hidden map (the code's DIM: 64); earlier ones have more.
        norm: batch norm, which the code has in its clipping mode alone.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 128,
        channels: Count = 1,
        image_size: _ImageSize = 28,
        base_channels: Count = 64,
        norm: bool = False,
    ) -> None:
        super().__init__()
        first, *sizes = sizes_up_to(image_size)
        width = base_channels << (len(sizes) - 1)
        to_map = nn.Linear(latent_dim, width * first**2)
        layers: list[nn.Module] = [to_map, nn.Unflatten(1, (width, first, first))]
        for size in sizes:
            if norm:
                layers.append(nn.BatchNorm2d(width))
            width_out = channels if size == image_size else width // 2
            layers += [nn.ReLU(), doubling(width, width_out, 5, bias=True), Crop(size)]
            width = width_out
        self.net = nn.Sequential(*layers, nn.Tanh())
        initialise(self, _he_uniform)

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class ConvCritic(nn.Module):
    """The MNIST critic of the authors' code: convolutions 5x5 that halve the image to 4x4, then FC.

    LeakyReLU(.2).

        scores = ConvCritic()(torch.rand(16, 1, 28, 28))  # (16, 1)

    Args:
        base_channels: channels of the first map (the code's DIM: 64); they double with each.
        layer_norm: layer norm after all convolutions but the first, which the paper recommends in
            place of batch norm.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: _ImageSize = 28,
        base_channels: Count = 64,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        *sizes, _ = sizes_up_to(image_size)
        layers: list[nn.Module] = []
        width_in = channels
        for layer, size in enumerate(reversed(sizes)):
            width = base_channels << layer
            layers.append(nn.Conv2d(width_in, width, 5, 2, 2))
            if layer_norm and layer:
                layers.append(nn.LayerNorm([width, size, size]))
            layers.append(nn.LeakyReLU(0.2))
            width_in = width
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width_in * sizes[0] ** 2, 1))
        initialise(self, _he_uniform)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class _ResidualBlock(nn.Module):
    """Norm, ReLU, convolution 3x3, twice, added to the input; resized by ``scale``.

    Args:
        width_in, width: channels of the input and the output.
        size: side of the input.
        scale: 2 doubles the map before the first convolution, .5 halves it after the second.
        norm: nn.LayerNorm, nn.BatchNorm2d, or None.
        first: the input is the image, so that the block begins with a convolution.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        size: int,
        scale: float = 1,
        norm: type[nn.Module] | None = None,
        first: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        grown = size * 2 if scale == 2 else size
        before = [] if first else [*_normed(norm, width_in, size), nn.ReLU()]
        self.first = nn.Sequential(*before)
        self.second = nn.Sequential(
            nn.Conv2d(width_in, width, 3, padding=1, bias=norm is None),
            *_normed(norm, width, grown),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(x)
        if self.scale == 2:
            x, inner = (F.interpolate(y, scale_factor=2.0) for y in (x, inner))
        x, inner = self.shortcut(x), self.second(inner)
        return F.avg_pool2d(x + inner, 2) if self.scale == 0.5 else x + inner


def _normed(norm: type[nn.Module] | None, width: int, size: int) -> list[nn.Module]:
    if norm is None:
        return []
    return [norm([width, size, size]) if norm is nn.LayerNorm else norm(width)]


def _doublings(image_size: int) -> int:
    doublings = (image_size // 4).bit_length() - 1
    if image_size < 16 or image_size != 4 << doublings:
        problem = (
            f"is {image_size} pixels; it has to be 16, 32, 64, ... (dataset.image_size=32, say)."
        )
        raise UnfitArgument("image_size", problem)
    return doublings


class ResNetGenerator(nn.Module):
    """The residual generator of appendix F: FC to 4x4, blocks that double, norm, ReLU, convolution.

        images = ResNetGenerator(channels=3)(torch.randn(16, 128))  # (16, 3, 32, 32)

    Args:
        image_size: 4 times a power of two, 16 or more.
        base_channels: channels of every map (the paper, CIFAR-10: 128).
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 128,
        channels: Count = 1,
        image_size: Count = 32,
        base_channels: Count = 128,
    ) -> None:
        super().__init__()
        width = base_channels
        self.net = nn.Sequential(
            nn.Linear(latent_dim, width * 16),
            nn.Unflatten(1, (width, 4, 4)),
            *[
                _ResidualBlock(width, width, 4 << level, 2, nn.BatchNorm2d)
                for level in range(_doublings(image_size))
            ],
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )
        initialise(self, _he_uniform)

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class ResNetCritic(nn.Module):
    """The residual critic of appendix F: blocks that halve to 8x8, two more, mean over the map, FC.

        scores = ResNetCritic(channels=3)(torch.rand(16, 3, 32, 32))  # (16, 1)

    Args:
        image_size: 4 times a power of two, 16 or more.
        base_channels: channels of every map (the paper, CIFAR-10: 128).
        layer_norm: layer norm in all blocks but the first.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 32,
        base_channels: Count = 128,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        width, norm = base_channels, nn.LayerNorm if layer_norm else None
        halvings = _doublings(image_size) - 1
        self.net = nn.Sequential(
            _ResidualBlock(channels, width, image_size, 0.5, first=True),
            *[
                _ResidualBlock(width, width, image_size >> level, 0.5, norm)
                for level in range(1, halvings)
            ],
            *[_ResidualBlock(width, width, 8, 1, norm) for _ in range(2)],
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 1),
        )
        initialise(self, _he_uniform)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)
