"""InfoGAN's networks for MNIST (1606.03657, Table 1 of appendix C.1), at widths to choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from gan_zoo.networks.dcgan import initialise, quarter
from gan_zoo.ranges import Count, Range

# How many categories a code has, and how many codes there are.
Categories = Annotated[int, Range(2, 10**6)]
Codes = Annotated[int, Range(0, 1000)]


def _code_length(categorical_codes: Sequence[int], continuous_codes: int) -> int:
    return sum(categorical_codes) + continuous_codes


class Posterior(NamedTuple):
    """What Q reads from B images.

    Attributes:
        logits: of each categorical code, (B, categories).
        mean, log_std: of the L continuous codes' Gaussians, (B, L) each.
    """

    logits: Sequence[Tensor]
    mean: Tensor
    log_std: Tensor


class InfoGANGenerator(nn.Module):
    """FC -> FC to a quarter-size map -> two transposed convolutions 4x4 that double it; tanh.

    ReLU and batch norm in all layers but the last. tanh stands in for the code's sigmoid on [0, 1].

    Args:
        latent_dim: length of the noise vector, without the codes.
        categorical_codes, continuous_codes: the codes that follow the noise: categories of each,
            and how many.
        channels, image_size: shape of the images; the size has to be a multiple of 4.
        base_channels: channels of the last hidden map (the paper: 64); the one before has twice.
        fc_units: width of the first layer (the paper: 1024).

    Raises:
        ValueError: for an image size that is not a multiple of 4.
    """

    def __init__(
        self,
        latent_dim: Count,
        categorical_codes: Sequence[Categories],
        continuous_codes: Codes,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        fc_units: Count = 1024,
    ) -> None:
        super().__init__()
        size, width = quarter(image_size), 2 * base_channels
        features = latent_dim + _code_length(categorical_codes, continuous_codes)
        self.net = nn.Sequential(
            nn.Linear(features, fc_units, bias=False),
            nn.BatchNorm1d(fc_units),
            nn.ReLU(),
            nn.Linear(fc_units, width * size**2, bias=False),
            nn.BatchNorm1d(width * size**2),
            nn.ReLU(),
            nn.Unflatten(1, (width, size, size)),
            nn.ConvTranspose2d(width, base_channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(base_channels),
            nn.ReLU(),
            nn.ConvTranspose2d(base_channels, channels, 4, 2, 1),
            nn.Tanh(),
        )
        initialise(self)

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent)


class InfoGANDiscriminator(nn.Module):
    """Two convolutions 4x4 that halve the image -> FC; from there D's logit, and Q's FC -> codes.

    LeakyReLU; batch norm in all layers but the first and the two outputs.

    Args:
        categorical_codes, continuous_codes: what Q reads: categories of each code, and how many.
        channels, image_size: shape of the images; the size has to be a multiple of 4.
        base_channels: channels of the first map (the paper: 64); the second has twice as many.
        fc_units, q_units: widths of the shared FC layer and of Q's own (the paper: 1024 and 128).
        negative_slope: of LeakyReLU (the paper: .1; its code: .01).
        norm: False leaves the batch norm out, as a gradient penalty asks.
        fixed_std: Q's standard deviations are 1, as in the authors' code; False has Q give them.

    Raises:
        ValueError: for an image size that is not a multiple of 4.
    """

    def __init__(
        self,
        categorical_codes: Sequence[Categories],
        continuous_codes: Codes,
        channels: Count,
        image_size: Count,
        base_channels: Count = 64,
        fc_units: Count = 1024,
        q_units: Count = 128,
        negative_slope: float = 0.1,
        norm: bool = True,
        fixed_std: bool = False,
    ) -> None:
        super().__init__()
        size, width = quarter(image_size), 2 * base_channels
        self.categorical_codes = tuple(categorical_codes)
        self.continuous_codes = continuous_codes
        self.fixed_std = fixed_std

        def normed(layer: nn.Module, normalisation: nn.Module) -> list[nn.Module]:
            return [layer, *([normalisation] if norm else []), nn.LeakyReLU(negative_slope)]

        self.body = nn.Sequential(
            nn.Conv2d(channels, base_channels, 4, 2, 1),
            nn.LeakyReLU(negative_slope),
            *normed(nn.Conv2d(base_channels, width, 4, 2, 1, bias=not norm), nn.BatchNorm2d(width)),
            nn.Flatten(),
            *normed(nn.Linear(width * size**2, fc_units, bias=not norm), nn.BatchNorm1d(fc_units)),
        )
        self.to_logit = nn.Linear(fc_units, 1)
        outputs = _code_length(
            categorical_codes, continuous_codes if fixed_std else 2 * continuous_codes
        )
        self.q = nn.Sequential(
            *normed(nn.Linear(fc_units, q_units, bias=not norm), nn.BatchNorm1d(q_units)),
            nn.Linear(q_units, outputs),
        )
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.to_logit(self.body(image))

    def recognise(self, image: Tensor) -> tuple[Tensor, Posterior]:
        """D's logits (B, 1) of images (B, C, H, W), and what Q reads from them."""
        features = self.body(image)
        sizes = [*self.categorical_codes, self.continuous_codes]
        read = self.q(features)
        if self.fixed_std:
            *logits, mean = read.split(sizes, 1)
            log_std = torch.zeros_like(mean)
        else:
            *logits, mean, log_std = read.split([*sizes, self.continuous_codes], 1)
        return self.to_logit(features), Posterior(logits, mean, log_std)
