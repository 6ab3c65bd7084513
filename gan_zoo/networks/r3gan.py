"""R3GAN's networks (2501.05441, section 4, "Config E"): residual, grouped, without norms.

Each stage has a map of one size: a transition that doubles or halves it, and blocks of three
convolutions, 1x1 to twice the channels, 3x3 in groups of 16 channels, and 1x1 back. As in Fix-up
(Zhang et al. 2019, 1901.09321) a block's last convolution begins at 0 and the others at
gain / sqrt(fan_in) times L^(-1/4), L being the number of blocks, so that no norm is needed. Maps
are resampled by the filter [1, 2, 1].
"""

import math
from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks.layers import one_hot
from gan_zoo.ranges import Count, Range, UnfitArgument, checked

_SLOPE = 0.2
_EXPANSION = 2
# The largest side of the first map.
_SMALLEST = 7
_ImageSize = Annotated[int, Range(8, 10**6)]
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class R3Generator(nn.Module):
    """Noise (B, latent_dim), and labels if it takes any -> images (B, C, H, H), not bound.

        images = R3Generator()(torch.randn(16, 64))  # (16, 1, 28, 28)

    The noise weighs the channels of a map that is learned. Labels are embedded and join the noise.

    Args:
        image_size: the first map is that, halved until it has 7 pixels or less.
        base_channels: of the largest maps; each halving doubles it, up to most_channels.
        blocks: in each stage (the paper: 2).
        group_size: channels in a group of the 3x3 convolutions (the paper: 16).
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 64,
        channels: Count = 1,
        image_size: _ImageSize = 28,
        base_channels: Count = 8,
        most_channels: Count = 128,
        blocks: Count = 1,
        group_size: Count = 16,
        num_classes: Count | None = None,
    ) -> None:
        super().__init__()
        first, widths = _stages(image_size, base_channels, most_channels)
        total = blocks * len(widths)
        self.num_classes = num_classes
        if num_classes:
            self.embedding = _linear(num_classes, latent_dim)
        self.basis = nn.Parameter(torch.randn(widths[0], first, first))
        self.weigh = _linear(latent_dim * (1 + bool(num_classes)), widths[0])
        layers: list[nn.Module] = []
        for before, width in zip([widths[0], *widths], widths, strict=False):
            if layers:
                layers += [*_change_of(before, width), _Doubled(width)]
            layers += [_Block(width, group_size, total) for _ in range(blocks)]
        self.stages = nn.Sequential(*layers)
        self.to_image = _convolution(widths[-1], channels)

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes:
            assert label is not None
            vector = one_hot(label, self.num_classes, noise.dtype)
            noise = torch.cat([noise, self.embedding(vector)], 1)
        return self.to_image(self.stages(self.basis * self.weigh(noise)[:, :, None, None]))


class R3Discriminator(nn.Module):
    """Images (B, C, H, H), and labels if it takes any -> logits (B, 1); the generator's mirror.

        logits = R3Discriminator()(torch.rand(16, 1, 28, 28) * 2 - 1)

    With labels the logit is the product of the image's features and the label's embedding. Other
    arguments are the generator's.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: _ImageSize = 28,
        base_channels: Count = 8,
        most_channels: Count = 128,
        blocks: Count = 1,
        group_size: Count = 16,
        num_classes: Count | None = None,
    ) -> None:
        super().__init__()
        first, widths = _stages(image_size, base_channels, most_channels)
        widths = widths[::-1]
        total = blocks * len(widths)
        self.num_classes = num_classes
        self.from_image = _convolution(channels, widths[0])
        layers: list[nn.Module] = []
        for width, after in zip(widths, [*widths[1:], None], strict=True):
            layers += [_Block(width, group_size, total) for _ in range(blocks)]
            if after:
                layers += [_Halved(width), *_change_of(width, after)]
        self.stages = nn.Sequential(*layers)
        last = widths[-1]
        self.basis = _started(nn.Conv2d(last, last, first, groups=last, bias=False))
        self.to_logit = _linear(last, last if num_classes else 1)
        if num_classes:
            self.embedding = _started(nn.Linear(num_classes, last, bias=False), last**-0.5)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.to_logit(self.basis(self.stages(self.from_image(image))).flatten(1))
        if not self.num_classes:
            return features
        assert label is not None
        vector = one_hot(label, self.num_classes, features.dtype)
        return (features * self.embedding(vector)).sum(1, keepdim=True)


class _Block(nn.Module):
    """x plus three convolutions of it; the biases are those before the activations."""

    def __init__(self, width: int, group_size: int, total: int) -> None:
        super().__init__()
        wide = _EXPANSION * width
        if wide % group_size:
            widths = f"{wide} channels, {_EXPANSION} times {width} (base_channels to most_channels)"
            raise UnfitArgument(
                "group_size", f"is {group_size}, and {widths}, can't be divided into such."
            )
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * total**-0.25
        self.layers = nn.Sequential(
            _started(nn.Conv2d(width, wide, 1), gain),
            nn.LeakyReLU(_SLOPE),
            _started(nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_size), gain),
            nn.LeakyReLU(_SLOPE),
            _started(nn.Conv2d(wide, width, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Resampled(nn.Module):
    """Maps filtered by [1, 2, 1] / 4 in both directions, at half or twice the size."""

    kernel: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = (line[:, None] * line).expand(width, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)


class _Halved(_Resampled):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, [1, 0, 1, 0]), self.kernel, stride=2, groups=x.shape[1])


class _Doubled(_Resampled):
    def forward(self, x: Tensor) -> Tensor:
        # Three of four places are empty.
        return F.conv_transpose2d(x, 4 * self.kernel, stride=2, groups=x.shape[1])[..., :-1, :-1]


def _stages(image_size: int, base_channels: int, most_channels: int) -> tuple[int, list[int]]:
    """The first map's side, and the channels of each stage, the smallest map's first."""
    side, widths = image_size, [base_channels]
    while side > _SMALLEST and side % 2 == 0:
        side //= 2
        widths.insert(0, min(2 * widths[0], most_channels))
    if side > _SMALLEST:
        raise UnfitArgument(
            "image_size",
            f"is {image_size}, which has to be a number up to {_SMALLEST} times a power of 2, "
            "such as 28, 32 or 64.",
        )
    return side, widths


def _change_of(before: int, after: int) -> list[nn.Module]:
    return [_convolution(before, after)] if before != after else []


def _convolution(before: int, after: int) -> nn.Conv2d:
    return _started(nn.Conv2d(before, after, 1, bias=False))


def _linear(before: int, after: int) -> nn.Linear:
    return _started(nn.Linear(before, after, bias=False))


def _started(layer: Layer, gain: float = 1.0) -> Layer:
    """Weights from N(0, gain^2 / fan_in), biases at 0."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
