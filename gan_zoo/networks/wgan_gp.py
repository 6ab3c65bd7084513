"""The networks of WGAN-GP (1704.00028): its code's MNIST pair, and the residual pair of appendix F.

No critic has batch norm: a gradient penalty needs each image's score to be its own. The MNIST
pair's ``base_channels`` is the code's DIM; the residual pair's, the channels of every map, is 128
in the paper (CIFAR-10).
"""

import math
from typing import Annotated

from torch import Tensor, nn

from gan_zoo.networks.layers import Chain, Crop, Weighted, doubling, initialise, sizes_up_to
from gan_zoo.ranges import Count, Range, UnfitArgument, checked

# Sides of images from which at least one layer doubles or halves a map.
_ImageSize = Annotated[int, Range(5, 10**6)]


def _as_the_authors(layer: Weighted) -> None:
    """The authors' code: uniform, as He et al. 2015 (1502.01852) for convolutions, Glorot for FC.

    With both fans, a convolution's bound is sqrt(12 / (fan_in + fan_out)), that of a linear layer
    sqrt(6 / (fan_in + fan_out)). For strided layers the fans take the stride into account: only a
    quarter of a transposed convolution's filter contributes to one place of its output.
    """
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        return
    # The filters' first dimension is the outputs, or the inputs if the convolution is transposed.
    first, second = layer.weight.shape[:2]
    area = layer.weight[0, 0].numel()
    bound = math.sqrt(12 / (first * area // math.prod(layer.stride) + second * area))
    nn.init.uniform_(layer.weight, -bound, bound)


class ConvGenerator(Chain):
    """The MNIST generator of the authors' code: FC to a 4x4 map, doubled by convolutions 5x5.

        images = ConvGenerator()(torch.randn(16, 128))  # (16, 1, 28, 28)

    Where twice a map's side is more than is needed, it is cropped (28 pixels: 4, 8 cropped to 7,
    14, 28). ReLU; tanh replaces the code's sigmoid on [0, 1]. With ``norm``, batch norm, which the
    code has in its clipping mode alone.
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
        super().__init__(*layers, nn.Tanh())
        initialise(self, _as_the_authors)


class ConvCritic(Chain):
    """The MNIST critic of the authors' code: convolutions 5x5 that halve the image to 4x4, then FC.

        scores = ConvCritic()(torch.rand(16, 1, 28, 28))  # (16, 1)

    LeakyReLU(.2). ``layer_norm`` adds layer norm, which the paper recommends in place of batch
    norm, after all convolutions but the first.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: _ImageSize = 28,
        base_channels: Count = 64,
        layer_norm: bool = False,
    ) -> None:
        *sizes, _ = sizes_up_to(image_size)
        layers: list[nn.Module] = []
        for layer, size in enumerate(reversed(sizes)):
            width = base_channels << layer
            layers.append(nn.Conv2d(width // 2 if layer else channels, width, 5, 2, 2))
            if layer_norm and layer:
                layers.append(nn.LayerNorm([width, size, size]))
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Flatten(), nn.Linear(width * sizes[0] ** 2, 1))
        initialise(self, _as_the_authors)


class _ResidualBlock(nn.Module):
    """Norm, ReLU, convolution 3x3, twice, added to the input, a map with sides of ``size``.

    A ``scale`` of 2 doubles the map before the first convolution, .5 halves it after the second.
    The ``first`` block's input is the image, so that the block begins with a convolution.
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
        self.grow = nn.Upsample(scale_factor=2) if scale == 2 else nn.Identity()
        self.shrink = nn.AvgPool2d(2) if scale == 0.5 else nn.Identity()
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

        def normed(width: int, size: int) -> list[nn.Module]:
            if norm is nn.LayerNorm:
                return [nn.LayerNorm([width, size, size]), nn.ReLU()]
            return [norm(width), nn.ReLU()] if norm else [nn.ReLU()]

        self.first = nn.Sequential(*([] if first else normed(width_in, size)))
        self.second = nn.Sequential(
            nn.Conv2d(width_in, width, 3, padding=1, bias=norm is None),
            *normed(width, size * 2 if scale == 2 else size),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(self.grow(self.first(x)))
        return self.shrink(self.shortcut(self.grow(x)) + inner)


def _doublings(image_size: int) -> int:
    """From a 4x4 map to the image."""
    if image_size < 16 or image_size & (image_size - 1):
        problem = f"is {image_size} pixels; it has to be a power of two, 16 or more (32, say)."
        raise UnfitArgument("image_size", problem)
    return image_size.bit_length() - 3


class ResNetGenerator(Chain):
    """The residual generator of appendix F: FC to 4x4, blocks that double, norm, ReLU, convolution.

        images = ResNetGenerator(channels=3)(torch.randn(16, 128))  # (16, 3, 32, 32)

    Images have sides of a power of two, 16 or more.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 128,
        channels: Count = 1,
        image_size: Count = 32,
        base_channels: Count = 128,
    ) -> None:
        width, sizes = base_channels, [4 << level for level in range(_doublings(image_size))]
        super().__init__(
            nn.Linear(latent_dim, width * 16),
            nn.Unflatten(1, (width, 4, 4)),
            *(_ResidualBlock(width, width, size, 2, nn.BatchNorm2d) for size in sizes),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )
        initialise(self, _as_the_authors)


class ResNetCritic(Chain):
    """The residual critic of appendix F: blocks that halve to 8x8, two more, mean over the map, FC.

        scores = ResNetCritic(channels=3)(torch.rand(16, 3, 32, 32))  # (16, 1)

    ``layer_norm`` adds layer norm in all blocks but the first. Images are as the generator's.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 32,
        base_channels: Count = 128,
        layer_norm: bool = False,
    ) -> None:
        width, norm = base_channels, nn.LayerNorm if layer_norm else None
        sizes = [image_size >> level for level in range(1, _doublings(image_size) - 1)]
        super().__init__(
            _ResidualBlock(channels, width, image_size, 0.5, first=True),
            *(_ResidualBlock(width, width, size, 0.5, norm) for size in sizes),
            *(_ResidualBlock(width, width, 8, 1, norm) for _ in range(2)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 1),
        )
        initialise(self, _as_the_authors)
