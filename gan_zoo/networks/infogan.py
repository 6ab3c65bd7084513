"""InfoGAN's networks for MNIST (1606.03657, Table 1 of appendix C.1).

``categorical_codes`` has the number of categories of each categorical code, ``continuous_codes`` is
the number of continuous ones. ``image_size`` is a multiple of 4. The paper's defaults: 64
``base_channels``, and 1024 ``fc_units`` in the layer between images and vectors.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from gan_zoo.networks.layers import Chain, batch_normed, doubling, initialise_normal, quarter_size
from gan_zoo.ranges import Count, Range, checked

# How many categories a code has, and how many codes there are.
Categories = Annotated[int, Range(2, 10**6)]
CodeCount = Annotated[int, Range(0, 1000)]


class Posterior(NamedTuple):
    """What Q reads: logits (B, categories) of each code, Gaussians (B, L) of L continuous ones."""

    logits: Sequence[Tensor]
    mean: Tensor
    log_std: Tensor


class InfoGANGenerator(Chain):
    """FC -> FC to a quarter-size map -> two transposed convolutions 4x4 that double it; tanh.

        codes = torch.cat([F.one_hot(torch.arange(10)), torch.zeros(10, 2)], 1)
        images = InfoGANGenerator()(torch.cat([torch.randn(10, 62), codes], 1))  # (10, 1, 28, 28)

    ReLU and batch norm in all layers but the last. tanh replaces the code's sigmoid on [0, 1].
    ``latent_dim`` is the length of the noise without the codes, which follow it.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 62,
        categorical_codes: Sequence[Categories] = (10,),
        continuous_codes: CodeCount = 2,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        fc_units: Count = 1024,
    ) -> None:
        size, width = quarter_size(image_size), 2 * base_channels
        features = latent_dim + sum(categorical_codes) + continuous_codes
        super().__init__(
            *batch_normed(nn.Linear(features, fc_units, bias=False), nn.ReLU()),
            *batch_normed(nn.Linear(fc_units, width * size**2, bias=False), nn.ReLU()),
            nn.Unflatten(1, (width, size, size)),
            *batch_normed(doubling(width, base_channels, 4), nn.ReLU()),
            doubling(base_channels, channels, 4, bias=True),
            nn.Tanh(),
        )
        initialise_normal(self)


class InfoGANDiscriminator(nn.Module):
    """Two convolutions 4x4 that halve the image -> FC; from there D's logit, and Q's FC -> codes.

        logits, posterior = InfoGANDiscriminator().recognise(torch.rand(16, 1, 28, 28))
        posterior.logits[0]  # (16, 10), of Q(c | x) for the first code

    LeakyReLU; batch norm in all layers but the first and the two outputs.
    Q's own FC layer has ``q_units`` (the paper: 128). The paper's ``negative_slope`` is .1, its
    code's .01. Without ``norm`` there is no batch norm, as a gradient penalty requires.
    ``fixed_std`` fixes Q's standard deviations at 1, as the authors' code does; else Q estimates
    them.
    """

    @checked
    def __init__(
        self,
        categorical_codes: Sequence[Categories] = (10,),
        continuous_codes: CodeCount = 2,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        fc_units: Count = 1024,
        q_units: Count = 128,
        negative_slope: float = 0.1,
        norm: bool = True,
        fixed_std: bool = False,
    ) -> None:
        super().__init__()
        size, width = quarter_size(image_size), 2 * base_channels
        self.categorical_codes = tuple(categorical_codes)
        self.continuous_codes = continuous_codes
        self.fixed_std = fixed_std

        def block(layer: nn.Linear | nn.Conv2d) -> list[nn.Module]:
            return batch_normed(layer, nn.LeakyReLU(negative_slope), norm=norm)

        self.body = nn.Sequential(
            nn.Conv2d(channels, base_channels, 4, 2, 1),
            nn.LeakyReLU(negative_slope),
            *block(nn.Conv2d(base_channels, width, 4, 2, 1, bias=not norm)),
            nn.Flatten(),
            *block(nn.Linear(width * size**2, fc_units, bias=not norm)),
        )
        self.to_logit = nn.Linear(fc_units, 1)
        outputs = sum(categorical_codes) + continuous_codes * (1 if fixed_std else 2)
        self.q = nn.Sequential(
            *block(nn.Linear(fc_units, q_units, bias=not norm)), nn.Linear(q_units, outputs)
        )
        initialise_normal(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.to_logit(self.body(image))

    def recognise(self, image: Tensor) -> tuple[Tensor, Posterior]:
        """D's logits (B, 1) of images (B, C, H, W), and what Q reads from them."""
        features = self.body(image)
        spreads = 0 if self.fixed_std else self.continuous_codes
        sizes = [*self.categorical_codes, self.continuous_codes, spreads]
        *logits, mean, log_std = self.q(features).split(sizes, 1)
        if self.fixed_std:
            log_std = torch.zeros_like(mean)
        return self.to_logit(features), Posterior(logits, mean, log_std)


def distorted(images: Tensor, strength: float) -> Tensor:
    """Images (B, C, H, W), each sheared, scaled and shifted by random amounts of its own.

    At strength 1, rows and then columns are sheared by up to .3 of the image, scaled by up to 15 %
    and shifted by up to 7 % of its size. Linear interpolation, with the border repeated. (The
    gradient of grid_sample is not deterministic on a GPU; that of gather can be.)
    """
    for _ in range(2):
        images = _distorted_rows(images, strength).mT
    return images


def _distorted_rows(images: Tensor, strength: float) -> Tensor:
    height, width = images.shape[2:]

    def drawn(most: float) -> Tensor:
        return most * strength * (2 * torch.rand(len(images), 1, 1, device=images.device) - 1)

    x = torch.linspace(-1, 1, width, device=images.device)
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    read_at = (1 + drawn(0.15)) * x + drawn(0.3) * y + drawn(0.14)
    pixel = (read_at.clamp(-1, 1) + 1) * (width - 1) / 2
    left = pixel.floor().clamp(max=width - 2)
    share = (pixel - left)[:, None].to(images)
    index = left.long()[:, None].expand_as(images)
    return torch.lerp(images.gather(3, index), images.gather(3, index + 1), share)
