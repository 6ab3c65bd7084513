"""DiscoGAN's networks (1703.05192, its authors' code): auto-encoder generators, DCGAN-like critics.

Generators map images (B, C, H, W) to images in [-1, 1], or points (B, 2) to points; discriminators
map either to logits (B, 1). Discriminators also tell what is inside them, for feature matching.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from gan_zoo.networks.dcgan import halvings, initialise
from gan_zoo.ranges import Count


def _check_images(channels: int | None) -> None:
    if channels is None:
        raise ValueError(
            "These networks are for images, and this dataset has points: experiment=discogan_toy "
            "has networks for those."
        )


class DiscoGANGenerator(nn.Module):
    """Strided convolutions 4 x 4 down to a small map, transposed ones back up to the image.

    LeakyReLU(.2) on the way down, ReLU on the way up, batch norm in all but the first and the last
    layer. tanh stands in for the code's sigmoid on [0, 1].

    Args:
        channels, image_size: shape of the images.
        base_channels: channels of the first map; they double with each halving (the authors': 64).
        bottleneck: channels of a further layer that reduces the small map to one point (the
            authors' option has 100); None for none.

    Raises:
        ValueError: for an image size that strided layers can't halve evenly, or for points.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        bottleneck: Count | None = None,
    ) -> None:
        super().__init__()
        _check_images(channels)
        count = halvings(image_size)
        widths = [base_channels << n for n in range(count)]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrow, wide in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2),
            ]
        if bottleneck:
            layers += [
                nn.Conv2d(widths[-1], bottleneck, image_size >> count, bias=False),
                nn.BatchNorm2d(bottleneck),
                nn.LeakyReLU(0.2),
                nn.ConvTranspose2d(bottleneck, widths[-1], image_size >> count, bias=False),
                nn.BatchNorm2d(widths[-1]),
                nn.ReLU(),
            ]
        for wide, narrow in itertools.pairwise(reversed(widths)):
            layers += [
                nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(widths[0], channels, 4, 2, 1), nn.Tanh()]
        self.net = nn.Sequential(*layers)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class _FeatureDiscriminator(nn.Module):
    """Blocks in a row; the last makes the logits.

    Args:
        blocks: the layers.
        matched: which of the blocks' outputs feature matching compares.
    """

    def __init__(self, blocks: list[nn.Module], matched: slice) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.matched = matched

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(x)[0]

    def judge(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits (B, 1), and the outputs of the hidden blocks that are to be matched."""
        hidden = []
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        return x, hidden[:-1][self.matched]


class DiscoGANDiscriminator(_FeatureDiscriminator):
    """Strided convolutions 4 x 4 with LeakyReLU(.2), batch norm from the second on, and a logit.

    Args and errors: as DiscoGANGenerator's. Features are those of the second layer on.
    """

    def __init__(self, channels: Count, image_size: Count, base_channels: Count = 64) -> None:
        _check_images(channels)
        count = halvings(image_size)
        blocks: list[nn.Module] = []
        width = channels
        for layer in range(count):
            wider = base_channels << layer
            norm = [nn.BatchNorm2d(wider)] if layer else []
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(width, wider, 4, 2, 1, bias=not layer), *norm, nn.LeakyReLU(0.2)
                )
            )
            width = wider
        blocks.append(nn.Sequential(nn.Conv2d(width, 1, image_size >> count), nn.Flatten()))
        super().__init__(blocks, slice(1, None))
        initialise(self)


class PointGenerator(nn.Module):
    """Points (B, 2) to points, through ReLU layers.

    Args:
        hidden: units of each hidden layer.
    """

    def __init__(self, hidden: list[Count]) -> None:
        super().__init__()
        self.net = nn.Sequential(*_dense(hidden, 2))

    def forward(self, point: Tensor) -> Tensor:
        return self.net(point)


class PointDiscriminator(_FeatureDiscriminator):
    """Points (B, 2) to a logit, through ReLU layers, all of which are features.

    Args:
        hidden: units of each hidden layer.
    """

    def __init__(self, hidden: list[Count]) -> None:
        super().__init__(_dense(hidden, 1), slice(None))


def _dense(hidden: list[int], features_out: int) -> list[nn.Module]:
    widths = [2, *hidden]
    blocks: list[nn.Module] = [
        nn.Sequential(nn.Linear(narrow, wide), nn.ReLU())
        for narrow, wide in itertools.pairwise(widths)
    ]
    return [*blocks, nn.Linear(widths[-1], features_out)]
