"""CycleGAN's networks (1703.10593, section 7.2): residual generators and patch discriminators.

Generators map images (B, C, H, W) to images in [-1, 1] of the same shape, discriminators to maps of
logits, one for each patch. Both are fully convolutional: discriminators take images of any size,
generators of any multiple of 4 from 12 on. ``image_size`` decides the defaults: ``base_channels``,
those of the first layer, are the paper's 64, or 16 under 64 pixels.
"""

from torch import nn

from gan_zoo.networks.layers import Chain, Residual, initialise_normal, leaky_relu
from gan_zoo.ranges import Count, Few, UnfitArgument, checked

# From this side on, the paper's own widths and depths are the defaults.
_PICTURES = 64


class ResidualGenerator(Chain):
    """Down by 4, through residual blocks, up by 4, with instance norm and reflected borders.

        images_b = ResidualGenerator(channels=3, image_size=128)(images_a)  # (B, 3, 128, 128)

    In the paper's notation, with n = base_channels: c7s1-n, d2n, d4n, R4n times ``blocks``, u2n,
    un, c7s1-channels. By default there are the paper's 9 blocks from 256 pixels on and 6 below, or
    3 under 64 pixels.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count | None = None,
        blocks: Few | None = None,
    ) -> None:
        if image_size % 4 or image_size < 12:
            problem = f"is {image_size}; it has to be a multiple of 4 from 12 on (28 or 128, say)."
            raise UnfitArgument("image_size", problem)
        n = base_channels or (16 if image_size < _PICTURES else 64)
        if blocks is None:
            blocks = 3 if image_size < _PICTURES else 6 if image_size < 256 else 9
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, n, 7), *_normed(n)]
        for width in (n, 2 * n):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), *_normed(2 * width)]
        layers += [_residual(4 * n) for _ in range(blocks)]
        for width in (2 * n, n):
            doubled = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
            layers += [doubled, *_normed(width)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(n, channels, 7), nn.Tanh()]
        super().__init__(*layers)
        initialise_normal(self)


def _normed(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU()]


def _residual(width: int) -> Residual:
    first = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), *_normed(width)]
    again = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
    return Residual(*first, *again)


class PatchDiscriminator(Chain):
    """A logit for every patch of the image: 70 x 70 pixels with 3 strided layers.

        logits = PatchDiscriminator(channels=3, image_size=128)(images)  # (B, 1, 14, 14)

    Convolutions 4 x 4 with LeakyReLU(.2): ``layers`` of stride 2, then one of stride 1 and the one
    that makes the logits; instance norm in all but the first and the last. Channels double up to
    eightfold. Patches are 16 pixels wide with 1 layer, 34 with 2, 70 with 3, 142 with 4; the
    default is the paper's 3, or 2 under 64 pixels.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count | None = None,
        layers: Few | None = None,
    ) -> None:
        n = base_channels or (16 if image_size < _PICTURES else 64)
        layers = layers or (2 if image_size < _PICTURES else 3)
        if image_size >> layers < 3:
            problem = f"is {layers}; they leave too little of {image_size} pixels: take fewer."
            raise UnfitArgument("layers", problem)
        net: list[nn.Module] = [nn.Conv2d(channels, n, 4, 2, 1), leaky_relu()]
        width = n
        for stride in [2] * (layers - 1) + [1]:
            wider = min(2 * width, 8 * n)
            net += [nn.Conv2d(width, wider, 4, stride, 1), nn.InstanceNorm2d(wider), leaky_relu()]
            width = wider
        super().__init__(*net, nn.Conv2d(width, 1, 4, 1, 1))
        initialise_normal(self)
