"""DiscoGAN's networks (1703.05192, its authors' code): auto-encoder generators, DCGAN-like critics.

Generators map images (B, C, H, W) to images in [-1, 1], or points (B, 2) to points; discriminators
map either to logits (B, 1), and also return their hidden features, for feature matching. The
authors have 64 ``base_channels``. Without ``channels`` and ``image_size``, as for data that are
points, networks for images are refused.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from gan_zoo.networks import layers
from gan_zoo.ranges import Count, UnfitArgument, checked


def _image_shape(channels: int | None, image_size: int | None) -> tuple[int, int]:
    if channels is None or image_size is None:
        problem = "is null, as data that are points have none (experiment=discogan_toy has networks"
        raise UnfitArgument("channels", f"{problem} for them).")
    return channels, image_size


class DiscoGANGenerator(layers.Chain):
    """Strided convolutions 4 x 4 down to a small map, transposed ones back up to the image.

        images_b = DiscoGANGenerator(channels=3, image_size=64)(images_a)  # (B, 3, 64, 64)

    LeakyReLU(.2) on the way down, ReLU on the way up, batch norm in all but the first and the last
    layer. tanh replaces the code's sigmoid on [0, 1]. ``bottleneck`` is the channels of a further
    layer, if any, that reduces the small map to one point (the authors' option has 100).
    """

    @checked
    def __init__(
        self,
        channels: Count | None = 1,
        image_size: Count | None = 28,
        base_channels: Count = 64,
        bottleneck: Count | None = None,
    ) -> None:
        channels, image_size = _image_shape(channels, image_size)
        count = layers.count_halvings(image_size)
        widths = [base_channels << n for n in reversed(range(count))]
        net = list(itertools.chain(*layers.halving_blocks(channels, base_channels, count)))
        if bottleneck:
            wide, side = widths[0], image_size >> count
            down = nn.Conv2d(wide, bottleneck, side, bias=False)
            up = nn.ConvTranspose2d(bottleneck, wide, side, bias=False)
            net += layers.batch_normed(down, layers.leaky_relu())
            net += layers.batch_normed(up, nn.ReLU())
        for wide, narrow in itertools.pairwise(widths):
            net += layers.batch_normed(layers.doubling(wide, narrow, 4), nn.ReLU())
        super().__init__(*net, layers.doubling(base_channels, channels, 4, bias=True), nn.Tanh())
        layers.initialise_normal(self)


class _FeatureDiscriminator(nn.Module):
    """Blocks in a row; the last makes the logits, those from ``matched`` on features to compare."""

    def __init__(self, blocks: list[nn.Module], matched: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.matched = matched

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(x)[0]

    def judge(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits (B, 1), and the hidden features that feature matching compares."""
        hidden = []
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        return x, hidden[self.matched : -1]


class DiscoGANDiscriminator(_FeatureDiscriminator):
    """Strided convolutions 4 x 4 with LeakyReLU(.2), batch norm from the second on, and a logit.

        logits, features = DiscoGANDiscriminator().judge(torch.rand(16, 1, 28, 28))

    The features are those of the second layer and all after it.
    """

    @checked
    def __init__(
        self, channels: Count | None = 1, image_size: Count | None = 28, base_channels: Count = 64
    ) -> None:
        channels, image_size = _image_shape(channels, image_size)
        count = layers.count_halvings(image_size)
        blocks = [nn.Sequential(*b) for b in layers.halving_blocks(channels, base_channels, count)]
        to_logit = nn.Conv2d(base_channels << (count - 1), 1, image_size >> count)
        super().__init__([*blocks, nn.Sequential(to_logit, nn.Flatten())], matched=1)
        layers.initialise_normal(self)


class PointGenerator(layers.Chain):
    """Points (B, 2) to points.

        points_b = PointGenerator()(torch.randn(16, 2))  # (16, 2)

    The hidden layers are ReLU layers.
    """

    @checked
    def __init__(self, hidden: Sequence[Count] = (128, 128, 128)) -> None:
        super().__init__(*_dense(hidden, 2))


class PointDiscriminator(_FeatureDiscriminator):
    """Points (B, 2) to a logit.

        logits, features = PointDiscriminator().judge(torch.randn(16, 2))

    The hidden layers are ReLU layers, all of which are features.
    """

    @checked
    def __init__(self, hidden: Sequence[Count] = (128, 128, 128)) -> None:
        super().__init__(_dense(hidden, 1), matched=0)


def _dense(hidden: Sequence[int], features_out: int) -> list[nn.Module]:
    widths = [2, *hidden]
    blocks = [nn.Sequential(nn.Linear(n, m), nn.ReLU()) for n, m in itertools.pairwise(widths)]
    return [*blocks, nn.Linear(widths[-1], features_out)]
