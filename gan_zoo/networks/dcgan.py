"""The convolutional networks of DCGAN (1511.06434): strided convolutions, batch norm, no pooling.

Generators map noise (B, latent_dim) to images (B, C, H, W) in [-1, 1]; discriminators map images to
logits (B, 1). Both take class labels (B,) int64 beside them where ``num_classes`` is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.ranges import Count

Activation = Callable[[], nn.Module]
_leaky_relu = functools.partial(nn.LeakyReLU, 0.2)


def initialise(network: nn.Module) -> None:
    """Section 4 of 1511.06434: weights ~ N(0, .02); batch norm scales ~ N(1, .02), biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


def halvings(image_size: int) -> int:
    """How many stride-2 layers lead from ``image_size`` down to a map of 4 to 7 pixels.

    Raises:
        ValueError: if the size is not 4, 5, 6 or 7 times a power of two, 8 or more.
    """
    size, count = image_size, 0
    while size > 7 and size % 2 == 0:
        size, count = size // 2, count + 1
    if not (4 <= size <= 7 and count):
        near = min(
            (s * 2**n for s in (4, 5, 6, 7) for n in range(1, 9)), key=lambda s: abs(s - image_size)
        )
        raise ValueError(
            f"Strided layers can't make images of {image_size} pixels: dataset.image_size has to "
            f"be 4, 5, 6 or 7 times a power of two (28, 32, 64 or 128, say; the nearest is {near})."
        )
    return count


def _label_maps(label: Tensor, num_classes: int, like: Tensor) -> Tensor:
    one_hot = F.one_hot(label, num_classes).to(like.dtype)
    return one_hot[:, :, None, None].expand(-1, -1, *like.shape[2:])


class DCGANGenerator(nn.Module):
    """Projects the noise to a small map and doubles it with transposed convolutions to the image.

    Each layer but the last has batch norm and ReLU and no bias; the last has tanh. Channels halve
    with each doubling and end at ``base_channels`` before the image (the paper, at 64 px: 1024,
    512, 256, 128, image).

    Args:
        latent_dim: length of the noise vector.
        channels, image_size: shape of the images.
        base_channels: channels of the last hidden map.
        kernel_size: of the transposed convolutions; the authors' is 5, 4 is common since.
        num_classes: None for no condition; else the one-hot label is joined to the noise.
        activation: makes the hidden layers' activation.
        zeta: scales the first map up, and so the images; HDCGAN's telescope.

    Raises:
        ValueError: for an image size that strided layers can't make.
    """

    def __init__(
        self,
        latent_dim: Count,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        kernel_size: Count = 5,
        num_classes: Count | None = None,
        activation: Activation = nn.ReLU,
        zeta: Count = 1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        doublings = halvings(image_size)
        size, width = image_size >> doublings, base_channels << (doublings - 1)
        features = latent_dim + (num_classes or 0)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (features, 1, 1)),
            nn.ConvTranspose2d(features, width, size, bias=False),
            *([nn.Upsample(scale_factor=zeta)] if zeta > 1 else []),
            nn.BatchNorm2d(width),
            activation(),
        ]
        for _ in range(doublings - 1):
            layers += [
                _doubling(width, width // 2, kernel_size, bias=False),
                nn.BatchNorm2d(width // 2),
                activation(),
            ]
            width //= 2
        layers += [_doubling(width, channels, kernel_size, bias=True), nn.Tanh()]
        self.net = nn.Sequential(*layers)
        initialise(self)

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            noise = torch.cat([noise, F.one_hot(label, self.num_classes).to(noise.dtype)], 1)
        return self.net(noise)


class DCGANDiscriminator(nn.Module):
    """Halves the image with strided convolutions to a small map, whose logit is linear in it.

    Batch norm (and no bias) in all layers but the first.

    Args:
        channels, image_size: shape of the images.
        base_channels: channels of the first hidden map; they double with each halving.
        kernel_size: of the convolutions; the authors' is 5.
        norm: False leaves the batch norm out, as a gradient penalty asks.
        norm_first: batch norm in the first layer too.
        num_classes: None for no condition; else the one-hot label is joined to the image as
            constant maps.
        activation: makes the hidden layers' activation; LeakyReLU(.2) by default.

    An image larger than ``image_size`` gives the mean of the logits that its larger map comes to.

    Raises:
        ValueError: for an image size that strided layers can't halve evenly.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        kernel_size: Count = 5,
        norm: bool = True,
        norm_first: bool = False,
        num_classes: Count | None = None,
        activation: Activation = _leaky_relu,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        count = halvings(image_size)
        layers: list[nn.Module] = []
        width_in = channels + (num_classes or 0)
        for layer in range(count):
            width = base_channels << layer
            normed = norm and (norm_first or layer > 0)
            layers.append(
                nn.Conv2d(width_in, width, kernel_size, 2, (kernel_size - 1) // 2, bias=not normed)
            )
            if normed:
                layers.append(nn.BatchNorm2d(width))
            layers.append(activation())
            width_in = width
        layers += [
            nn.Conv2d(width_in, 1, image_size >> count),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        self.net = nn.Sequential(*layers)
        initialise(self)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            image = torch.cat([image, _label_maps(label, self.num_classes, image)], 1)
        return self.net(image)


def _doubling(width_in: int, width_out: int, kernel_size: int, bias: bool) -> nn.ConvTranspose2d:
    padding = (kernel_size - 1) // 2
    return nn.ConvTranspose2d(
        width_in, width_out, kernel_size, 2, padding, output_padding=kernel_size % 2, bias=bias
    )


class ConditionalMNISTGenerator(nn.Module):
    """The conditional generator of DCGAN's appendix, as its authors' code for MNIST has it.

    [noise, label] -> FC -> [., label] -> FC to a quarter-size map -> [., label] -> transposed
    convolution 5x5 -> [., label] -> transposed convolution 5x5 to the image. Batch norm without
    scale and shift, no biases. tanh stands in for the code's sigmoid on [0, 1].

    Args:
        latent_dim, num_classes: lengths of the noise vector and of the one-hot label.
        channels, image_size: shape of the images; the size has to be a multiple of 4.
        base_channels: channels of the last hidden map; the map before it has twice as many.
        fc_units: width of the first layer.

    Raises:
        ValueError: for an image size that is not a multiple of 4.
    """

    def __init__(
        self,
        latent_dim: Count,
        num_classes: Count,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        fc_units: Count = 1024,
    ) -> None:
        super().__init__()
        size = quarter(image_size)
        self.num_classes = num_classes
        self.fc = nn.Sequential(
            nn.Linear(latent_dim + num_classes, fc_units, bias=False),
            nn.BatchNorm1d(fc_units, affine=False),
            nn.ReLU(),
        )
        width = 2 * base_channels
        self.project = nn.Sequential(
            nn.Linear(fc_units + num_classes, width * size**2, bias=False),
            nn.BatchNorm1d(width * size**2, affine=False),
            nn.ReLU(),
            nn.Unflatten(1, (width, size, size)),
        )
        self.up = nn.Sequential(
            _doubling(width + num_classes, base_channels, 5, bias=False),
            nn.BatchNorm2d(base_channels, affine=False),
            nn.ReLU(),
        )
        self.to_image = nn.Sequential(
            _doubling(base_channels + num_classes, channels, 5, bias=False), nn.Tanh()
        )
        initialise(self)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        one_hot = F.one_hot(label, self.num_classes).to(noise.dtype)
        hidden = self.fc(torch.cat([noise, one_hot], 1))
        hidden = self.project(torch.cat([hidden, one_hot], 1))
        hidden = self.up(torch.cat([hidden, _label_maps(label, self.num_classes, hidden)], 1))
        return self.to_image(torch.cat([hidden, _label_maps(label, self.num_classes, hidden)], 1))


class ConditionalMNISTDiscriminator(nn.Module):
    """The conditional discriminator of DCGAN's appendix, as its authors' code for MNIST has it.

    [image, label] -> convolution 5x5 -> [., label] -> convolution 5x5 -> [., label] -> FC ->
    [., label] -> logit. LeakyReLU(.2); batch norm without scale and shift in the middle layers, no
    biases.

    Args and errors: as ConditionalMNISTGenerator's.
    """

    def __init__(
        self,
        num_classes: Count,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        fc_units: Count = 1024,
    ) -> None:
        super().__init__()
        size = quarter(image_size)
        self.num_classes = num_classes
        width = 2 * base_channels
        self.down = nn.Sequential(
            nn.Conv2d(channels + num_classes, base_channels, 5, 2, 2, bias=False), nn.LeakyReLU(0.2)
        )
        self.down_again = nn.Sequential(
            nn.Conv2d(base_channels + num_classes, width, 5, 2, 2, bias=False),
            nn.BatchNorm2d(width, affine=False),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.fc = nn.Sequential(
            nn.Linear(width * size**2 + num_classes, fc_units, bias=False),
            nn.BatchNorm1d(fc_units, affine=False),
            nn.LeakyReLU(0.2),
        )
        self.to_logit = nn.Linear(fc_units + num_classes, 1, bias=False)
        initialise(self)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        one_hot = F.one_hot(label, self.num_classes).to(image.dtype)
        hidden = self.down(torch.cat([image, _label_maps(label, self.num_classes, image)], 1))
        hidden = self.down_again(
            torch.cat([hidden, _label_maps(label, self.num_classes, hidden)], 1)
        )
        hidden = self.fc(torch.cat([hidden, one_hot], 1))
        return self.to_logit(torch.cat([hidden, one_hot], 1))


def quarter(image_size: int) -> int:
    """The side of a map that two doublings bring to the image's.

    Raises:
        ValueError: for an image size that is not a multiple of 4.
    """
    if image_size % 4 or image_size < 4:
        raise ValueError(
            f"Two doublings can't make images of {image_size} pixels: dataset.image_size has to be "
            "a multiple of 4 (28 or 32, say)."
        )
    return image_size // 4
