"""The convolutional networks of DCGAN (1511.06434): strided convolutions, batch norm, no pooling.

Generators map noise (B, latent_dim) to images (B, C, H, W) in [-1, 1]; discriminators map images to
logits (B, 1). Both also take class labels (B,) int64 where ``num_classes`` is given.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from gan_zoo.networks.layers import (
    Activation,
    batch_normed,
    count_halvings,
    doubling,
    halving_blocks,
    initialise_normal,
    join_label,
    leaky_relu,
    quarter_size,
)
from gan_zoo.ranges import Count, checked


class DCGANGenerator(nn.Module):
    """Projects the noise to a small map, which transposed convolutions double up to the image.

    Each layer but the last has batch norm and ReLU and no bias; the last has tanh. Channels halve
    with each doubling and end at ``base_channels`` before the image (the paper, at 64 px: 1024,
    512, 256, 128, image).

        generator = DCGANGenerator(image_size=64, channels=3, base_channels=128)
        images = generator(torch.rand(16, 100) * 2 - 1)  # (16, 3, 64, 64)

    Args:
        image_size: 4, 5, 6 or 7 times a power of two.
        base_channels: channels of the last hidden map.
        kernel_size: of the transposed convolutions; the authors' is 5, later code often has 4.
        num_classes: None for no condition; else the one-hot label is joined to the noise.
        activation: makes the hidden layers' activation.
        zeta: scales the first map up, and so the images; HDCGAN's telescope.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        kernel_size: Count = 5,
        num_classes: Count | None = None,
        activation: Activation = nn.ReLU,
        zeta: Count = 1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        doublings = count_halvings(image_size)
        size, width = image_size >> doublings, base_channels << (doublings - 1)
        features = latent_dim + (num_classes or 0)
        to_map = nn.ConvTranspose2d(features, width, size, bias=False)
        project, *normed = batch_normed(to_map, activation())
        telescope = [nn.Upsample(scale_factor=zeta)] if zeta > 1 else []
        layers = [nn.Unflatten(1, (features, 1, 1)), project, *telescope, *normed]
        for _ in range(doublings - 1):
            layers += batch_normed(doubling(width, width // 2, kernel_size), activation())
            width //= 2
        layers += [doubling(width, channels, kernel_size, bias=True), nn.Tanh()]
        self.net = nn.Sequential(*layers)
        initialise_normal(self)

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            noise = join_label(noise, label, self.num_classes)
        return self.net(noise)


class DCGANDiscriminator(nn.Module):
    """Strided convolutions halve the image to a small map; a last layer makes it a logit.

    Batch norm (and no bias) in all layers but the first. An image larger than ``image_size`` gets
    the mean of the logits at all places of its larger map.

        logits = DCGANDiscriminator()(torch.rand(16, 1, 28, 28))  # (16, 1)

    Args:
        image_size: 4, 5, 6 or 7 times a power of two.
        base_channels: channels of the first hidden map; they double with each halving.
        kernel_size: of the convolutions; the authors' is 5.
        norm: False leaves the batch norm out, as a gradient penalty requires.
        norm_first: batch norm in the first layer too.
        num_classes: None for no condition; else the one-hot label is joined to the image as
            constant maps.
        activation: makes the hidden layers' activation.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        kernel_size: Count = 5,
        norm: bool = True,
        norm_first: bool = False,
        num_classes: Count | None = None,
        activation: Activation = leaky_relu,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        count, width_in = count_halvings(image_size), channels + (num_classes or 0)
        blocks = halving_blocks(
            width_in, base_channels, count, kernel_size, norm, norm_first, activation
        )
        self.net = nn.Sequential(
            *itertools.chain(*blocks),
            nn.Conv2d(base_channels << (count - 1), 1, image_size >> count),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        initialise_normal(self)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            image = join_label(image, label, self.num_classes)
        return self.net(image)


class ConditionalMNISTGenerator(nn.Module):
    """The conditional generator of DCGAN's appendix, as in its authors' code for MNIST.

    [noise, label] -> FC -> [., label] -> FC to a quarter-size map -> [., label] -> transposed
    convolution 5x5 -> [., label] -> transposed convolution 5x5 to the image. Batch norm without
    scale and shift, no biases. tanh replaces the code's sigmoid on [0, 1].

        images = ConditionalMNISTGenerator()(torch.rand(10, 100), torch.arange(10))

    Args:
        image_size: a multiple of 4.
        base_channels: channels of the last hidden map; the map before it has twice as many.
        fc_units: width of the first layer.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        num_classes: Count = 10,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        fc_units: Count = 1024,
    ) -> None:
        super().__init__()
        size, width = quarter_size(image_size), 2 * base_channels
        self.num_classes = num_classes
        fc = nn.Linear(latent_dim + num_classes, fc_units, bias=False)
        self.fc = nn.Sequential(*batch_normed(fc, nn.ReLU(), affine=False))
        to_map = nn.Linear(fc_units + num_classes, width * size**2, bias=False)
        self.project = nn.Sequential(
            *batch_normed(to_map, nn.ReLU(), affine=False), nn.Unflatten(1, (width, size, size))
        )
        up = doubling(width + num_classes, base_channels, 5)
        self.up = nn.Sequential(*batch_normed(up, nn.ReLU(), affine=False))
        self.to_image = nn.Sequential(doubling(base_channels + num_classes, channels, 5), nn.Tanh())
        initialise_normal(self)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        hidden = noise
        for part in (self.fc, self.project, self.up, self.to_image):
            hidden = part(join_label(hidden, label, self.num_classes))
        return hidden


class ConditionalMNISTDiscriminator(nn.Module):
    """The conditional discriminator of DCGAN's appendix, as in its authors' code for MNIST.

    [image, label] -> convolution 5x5 -> [., label] -> convolution 5x5 -> [., label] -> FC ->
    [., label] -> logit. LeakyReLU(.2); batch norm without scale and shift in the middle layers, no
    biases.

        logits = ConditionalMNISTDiscriminator()(torch.rand(10, 1, 28, 28), torch.arange(10))

    Args: as ConditionalMNISTGenerator's.
    """

    @checked
    def __init__(
        self,
        num_classes: Count = 10,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        fc_units: Count = 1024,
    ) -> None:
        super().__init__()
        size, width = quarter_size(image_size), 2 * base_channels
        self.num_classes = num_classes
        self.down = nn.Sequential(
            nn.Conv2d(channels + num_classes, base_channels, 5, 2, 2, bias=False), leaky_relu()
        )
        again = nn.Conv2d(base_channels + num_classes, width, 5, 2, 2, bias=False)
        self.down_again = nn.Sequential(
            *batch_normed(again, leaky_relu(), affine=False), nn.Flatten()
        )
        fc = nn.Linear(width * size**2 + num_classes, fc_units, bias=False)
        self.fc = nn.Sequential(*batch_normed(fc, leaky_relu(), affine=False))
        self.to_logit = nn.Linear(fc_units + num_classes, 1, bias=False)
        initialise_normal(self)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        hidden = image
        for part in (self.down, self.down_again, self.fc, self.to_logit):
            hidden = part(join_label(hidden, label, self.num_classes))
        return hidden
