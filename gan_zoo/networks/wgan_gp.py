"""The networks of WGAN-GP (1704.00028): its code's MNIST pair, and the residual pair of appendix F.

Generators map noise (B, latent_dim) to images (B, C, H, W) in [-1, 1]; critics map images to scores
(B, 1). No critic has batch norm, which a gradient penalty rules out.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.ranges import Count


def _sizes(image_size: int) -> list[int]:
    """The maps' sides from at most 4 up to the image's, each half of the next, rounded up."""
    sizes = [image_size]
    while sizes[0] > 4:
        sizes.insert(0, -(-sizes[0] // 2))
    if len(sizes) < 2:
        raise ValueError(
            f"dataset.image_size is {image_size}; it has to be 5 or more for these networks."
        )
    return sizes


def _initialise(network: nn.Module) -> None:
    """He et al. 2015 (1502.01852), uniform, zero biases, as the authors' code has it.

    For strided layers the fans take the stride into account; a transposed convolution's output
    gathers the input through a quarter of its filter.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            fan_in, fan_out = module.weight.shape[1], module.weight.shape[0]
            if not isinstance(module, nn.Linear):
                area, stride = math.prod(module.kernel_size), math.prod(module.stride)
                fan_in, fan_out = module.in_channels * area, module.out_channels * area
                if isinstance(module, nn.ConvTranspose2d):
                    fan_in //= stride
                else:
                    fan_out //= stride
            bound = math.sqrt(3 * 4 / (fan_in + fan_out))
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class _Crop(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :, : self.size, : self.size]


class ConvGenerator(nn.Module):
    """The MNIST generator of the authors' code: FC to a 4x4 map, doubled by convolutions 5x5.

    A map that would outgrow its place is cropped (28 pixels: 4, 8 cropped to 7, 14, 28). ReLU;
    tanh stands in for the code's sigmoid on [0, 1].

    Args:
        latent_dim: length of the noise vector (the code: 128).
        channels, image_size: shape of the images.
        base_channels: channels of the last hidden map (the code's DIM, 64); they double downwards.
        norm: batch norm, which the code has in none but its clipping mode.

    Raises:
        ValueError: for images under 5 pixels.
    """

    def __init__(
        self,
        latent_dim: Count,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        norm: bool = False,
    ) -> None:
        super().__init__()
        first, *sizes = _sizes(image_size)
        width = base_channels << (len(sizes) - 1)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, width * first**2),
            nn.Unflatten(1, (width, first, first)),
        ]
        for size in sizes:
            if norm:
                layers.append(nn.BatchNorm2d(width))
            last = size == image_size
            width_out = channels if last else width // 2
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(width, width_out, 5, 2, 2, output_padding=1),
                _Crop(size),
            ]
            width = width_out
        self.net = nn.Sequential(*layers, nn.Tanh())
        _initialise(self)

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class ConvCritic(nn.Module):
    """The MNIST critic of the authors' code: convolutions 5x5 that halve the image to 4x4, then FC.

    LeakyReLU(.2).

    Args:
        channels, image_size: shape of the images.
        base_channels: channels of the first map (the code's DIM, 64); they double with each.
        layer_norm: layer norm after all convolutions but the first, the paper's stand-in for batch
            norm.

    Raises:
        ValueError: for images under 5 pixels.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        *sizes, _ = _sizes(image_size)
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
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class _ResidualBlock(nn.Module):
    """Norm, ReLU, convolution 3x3, twice; the sum with its input; resized by ``scale``.

    Args:
        scale: 2 doubles the map before the first convolution, .5 halves it after the second.
        norm: makes a norm of (channels, size), or None.
        first: the image comes in, so it begins with a convolution, without norm and ReLU.
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
        raise ValueError(
            f"The residual nets can't make images of {image_size} pixels: the size has to be 4 "
            "times a power of two, 16 or more (dataset.image_size=32, say)."
        )
    return doublings


class ResNetGenerator(nn.Module):
    """The residual generator of appendix F: FC to 4x4, blocks that double, norm, ReLU, convolution.

    Args:
        latent_dim: length of the noise vector (the paper: 128).
        channels, image_size: shape of the images.
        base_channels: channels of every map (the paper, CIFAR-10: 128).

    Raises:
        ValueError: for an image size that is not 4 times a power of two, 16 or more.
    """

    def __init__(
        self, latent_dim: Count, channels: Count, image_size: Count, base_channels: Count = 128
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
        _initialise(self)

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class ResNetCritic(nn.Module):
    """The residual critic of appendix F: blocks that halve to 8x8, two more, mean over the map, FC.

    Args:
        channels, image_size: shape of the images.
        base_channels: channels of every map (the paper, CIFAR-10: 128).
        layer_norm: layer norm in all blocks but the first.

    Raises:
        ValueError: as ResNetGenerator's.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
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
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)
