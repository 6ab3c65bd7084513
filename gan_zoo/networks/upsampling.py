"""Networks of nearest upsampling and dropout, as the most copied PyTorch script for DCGAN has them.

Upsampling and then convolving leaves no checkerboards (Odena et al. 2016, Deconvolution and
Checkerboard Artifacts). They are here for ``experiment=peer/dcgan``, which trains as that script.
"""

from typing import Annotated

from torch import nn

from gan_zoo.networks import layers
from gan_zoo.ranges import Count, Range, Share, checked


class UpsamplingGenerator(layers.Chain):
    """A linear layer to a quarter of the size, which is doubled twice, each time to be convolved.

        images = UpsamplingGenerator()(torch.randn(16, 100))  # (16, 1, 32, 32)

    Args:
        image_size: a multiple of 4.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        channels: Count = 1,
        image_size: Count = 32,
        base_channels: Count = 64,
    ) -> None:
        size, width = layers.quarter_size(image_size), 2 * base_channels

        def enlarged(features: int) -> list[nn.Module]:
            convolution = nn.Conv2d(width, features, 3, padding=1)
            normed = layers.batch_normed(convolution, layers.leaky_relu())
            return [nn.Upsample(scale_factor=2), *normed]

        super().__init__(
            nn.Linear(latent_dim, width * size**2),
            nn.Unflatten(1, (width, size, size)),
            nn.BatchNorm2d(width),
            *enlarged(width),
            *enlarged(base_channels),
            nn.Conv2d(base_channels, channels, 3, padding=1),
            nn.Tanh(),
        )
        layers.initialise_normal(self)


class DropoutDiscriminator(layers.Chain):
    """Four strided convolutions, each with dropout of whole channels and then batch norm.

    logits = DropoutDiscriminator()(torch.rand(16, 1, 32, 32))  # (16, 1)
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Annotated[int, Range(16, 10**6)] = 32,
        base_channels: Count = 16,
        dropout: Share = 0.25,
    ) -> None:
        blocks: list[nn.Module] = []
        features, size = channels, image_size
        for number in range(4):
            width = base_channels << number
            convolution = nn.Conv2d(features, width, 3, stride=2, padding=1)
            blocks += [convolution, layers.leaky_relu(), nn.Dropout2d(dropout)]
            if number:
                blocks.append(nn.BatchNorm2d(width))
            features, size = width, (size + 1) // 2
        super().__init__(*blocks, nn.Flatten(), nn.Linear(features * size**2, 1))
        layers.initialise_normal(self)
