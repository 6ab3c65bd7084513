"""BEGAN's networks (1703.10717, figure 1): a decoder as the generator, and an auto-encoder.

Convolutions 3x3 with ELU, in pairs; nearest-neighbour doubling, strided halving; no normalisation,
no dropout, linear outputs. DenseAutoencoder is not the paper's.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks.layers import (
    Chain,
    batch_normed,
    count_halvings,
    doubling,
    initialise_normal,
)
from gan_zoo.ranges import Count, Natural, UnfitArgument, checked


class _Layer(nn.Module):
    """Convolution 3x3 and ELU; where the shapes agree, part of the input bypasses it."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, 3, stride, 1)

    def forward(self, x: Tensor, carry: Tensor | None) -> Tensor:
        out = F.elu(self.conv(x))
        return out if carry is None or x.shape != out.shape else torch.lerp(out, x, carry)


class BEGANDecoder(nn.Module):
    """FC to a small map of n channels; pairs of convolutions, with doublings between, to the image.

        images = BEGANDecoder()(torch.rand(16, 64) * 2 - 1)  # (16, 1, 28, 28)

    ``latent_dim`` is the length of the noise or of the hidden state h, ``base_channels`` is n (the
    paper: 128). ``skip`` joins the first map, scaled up, to the maps after each doubling: the
    paper's skip connections. With the paper's vanishing residuals (section 3.5.1), a share of the
    layers' inputs bypasses them, which falls from 1 to 0 over ``vanishing_steps`` iterations (the
    paper: 16,000); 0 for none.
    """

    carry: Tensor

    @checked
    def __init__(
        self,
        latent_dim: Count = 64,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 128,
        skip: bool = False,
        vanishing_steps: Natural = 0,
    ) -> None:
        super().__init__()
        count, size = _small_map(image_size)
        width = base_channels
        self.skip = skip
        self.vanishing_steps = vanishing_steps
        self.register_buffer("carry", torch.tensor(float(vanishing_steps > 0)))
        self.to_map = nn.Sequential(
            nn.Linear(latent_dim, width * size**2), nn.Unflatten(1, (width, size, size))
        )
        self.pairs = nn.ModuleList(
            nn.ModuleList([_Layer(width * (1 + (skip and level > 0)), width), _Layer(width, width)])
            for level in range(count + 1)
        )
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        first = x = self.to_map(latent)
        for level, pair in enumerate(self.pairs):
            if level:
                x = F.interpolate(x, scale_factor=2.0)
                if self.skip:
                    x = torch.cat([x, F.interpolate(first, size=x.shape[2:])], 1)
            for layer in cast(nn.ModuleList, pair):
                x = layer(x, self.carried)
        return self.to_image(x)

    def at_iteration(self, iteration: int) -> None:
        """Sets the vanishing residuals' share for this training iteration."""
        if self.vanishing_steps:
            self.carry.fill_(max(0.0, 1 - iteration / self.vanishing_steps))

    @property
    def carried(self) -> Tensor | None:
        """The share of its input that bypasses a layer; None where none ever does."""
        return self.carry if self.vanishing_steps else None


class BEGANAutoencoder(nn.Module):
    """The discriminator: an encoder to a hidden state, and a decoder of its own.

        images = torch.rand(16, 1, 28, 28) * 2 - 1
        error = (BEGANAutoencoder()(images) - images).abs().mean()  # L(x)

    The encoder's channels grow by n with each halving (n, 2n, 3n, ...). The hidden state h has
    ``hidden_dim`` values (the paper: as many as the noise).
    """

    @checked
    def __init__(
        self,
        hidden_dim: Count = 64,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 128,
        skip: bool = False,
        vanishing_steps: Natural = 0,
    ) -> None:
        super().__init__()
        count, size = _small_map(image_size)
        n = base_channels
        self.decoder = BEGANDecoder(hidden_dim, channels, image_size, n, skip, vanishing_steps)
        self.from_image = nn.Conv2d(channels, n, 3, padding=1)
        layers = []
        for level in range(count + 1):
            width = n * (level + 1)
            layers += [_Layer(width, width), _Layer(width, width)]
            if level < count:
                layers.append(_Layer(width, width + n, stride=2))
        self.layers = nn.ModuleList(layers)
        self.to_hidden = nn.Sequential(nn.Flatten(), nn.Linear(width * size**2, hidden_dim))

    def forward(self, image: Tensor) -> Tensor:
        x = F.elu(self.from_image(image))
        for layer in self.layers:
            x = layer(x, self.decoder.carried)
        return self.decoder(self.to_hidden(x))

    def at_iteration(self, iteration: int) -> None:
        self.decoder.at_iteration(iteration)


class DenseAutoencoder(Chain):
    """A small auto-encoder for digits: every value of its code sees the whole image.

        images = torch.rand(16, 1, 28, 28) * 2 - 1
        error = (DenseAutoencoder()(images) - images).square().mean()

    Convolution 4x4 that halves the image -> FC to the code -> FC to the half-size map -> transposed
    convolution 4x4; ReLU, tanh at the end. ``norm`` is batch norm in the FC layers: the losses of
    real and of generated images then come from passes of their own. ``image_size`` is even.
    """

    @checked
    def __init__(
        self,
        hidden_dim: Count = 32,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        norm: bool = True,
    ) -> None:
        size, n = image_size // 2, base_channels
        if image_size % 2:
            raise UnfitArgument("image_size", f"is {image_size} pixels; it has to be even.")
        super().__init__(
            nn.Conv2d(channels, n, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            *batch_normed(nn.Linear(n * size**2, hidden_dim, bias=not norm), nn.ReLU(), norm=norm),
            *batch_normed(nn.Linear(hidden_dim, n * size**2, bias=not norm), nn.ReLU(), norm=norm),
            nn.Unflatten(1, (n, size, size)),
            doubling(n, channels, 4, bias=True),
            nn.Tanh(),
        )
        initialise_normal(self)


def _small_map(image_size: int) -> tuple[int, int]:
    """How often the image is halved, and the side of the map that results: 5 to 8 pixels."""
    count = count_halvings(image_size)
    count -= image_size >> count == 4
    return count, image_size >> count
