"""CoGAN's coupled networks (1606.07536, its authors' MNIST code): two branches that share layers.

A pair of images is one tensor (B, 2, C, H, W), domain a first.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks.layers import batch_normed, initialise, sizes_up_to
from gan_zoo.ranges import Count, Few, Range, Share, UnfitArgument, checked


def _initialise(network: nn.Module) -> None:
    """The authors' code: Xavier uniform of gain sqrt 2, biases of .1."""
    initialise(network, lambda x: nn.init.xavier_uniform_(x.weight, math.sqrt(2)), bias=0.1)


class CoupledGenerator(nn.Module):
    """Noise -> a pair of images: the layers near the noise are shared, the others are not.

    The noise becomes a 4 x 4 map, which transposed 3 x 3 convolutions of stride 2 enlarge to the
    image's size less 3 (at 28 pixels: 4, 7, 13, 25), halving the channels; a 6 x 6 one makes the
    image. Batch norm without scale and shift, PReLU; tanh replaces the code's sigmoid on [0, 1].

        pairs = CoupledGenerator()(torch.randn(16, 100))  # (16, 2, 1, 28, 28)

    ``shared_layers`` is how many layers are shared, counted from the noise; None for all but the
    last, which can't be, as in the paper. The authors have 128 ``base_channels``.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        channels: Count = 1,
        image_size: Annotated[int, Range(10, 10**6)] = 28,
        base_channels: Count = 128,
        shared_layers: Few | None = None,
    ) -> None:
        super().__init__()
        sizes = sizes_up_to(image_size - 3)
        widths = [base_channels << n for n in reversed(range(len(sizes)))]
        last = len(sizes)
        shared = last if shared_layers is None else shared_layers
        if shared > last:
            problem = f"is {shared}; of {last + 1} layers 0 to {last} can be shared."
            raise UnfitArgument("shared_layers", problem)

        def layer(n: int) -> nn.Module:
            if n == last:
                return nn.Sequential(nn.ConvTranspose2d(widths[-1], channels, 6, 1, 1), nn.Tanh())
            if n == 0:
                first = nn.ConvTranspose2d(latent_dim, widths[0], sizes[0])
                to_map = nn.Unflatten(1, (latent_dim, 1, 1))
                return nn.Sequential(to_map, *batch_normed(first, nn.PReLU(), False))
            larger = sizes[n] - (2 * sizes[n - 1] - 1)
            enlarge = nn.ConvTranspose2d(widths[n - 1], widths[n], 3, 2, 1, output_padding=larger)
            return nn.Sequential(*batch_normed(enlarge, nn.PReLU(), False))

        self.shared = nn.Sequential(*map(layer, range(shared)))
        self.private = nn.ModuleList(
            nn.Sequential(*map(layer, range(shared, last + 1))) for _ in range(2)
        )
        _initialise(self)

    def forward(self, noise: Tensor) -> Tensor:
        hidden = self.shared(noise)
        if len(self.private[0]) > 1:  # type: ignore[arg-type]
            return torch.stack([branch(hidden) for branch in self.private], 1)
        # The last layers have the same input: one convolution for both is faster than two.
        (one, tanh), (other, _) = cast(Any, [branch[0] for branch in self.private])  # type: ignore[index]
        weight = torch.cat([one.weight, other.weight], 1)
        bias = torch.cat([one.bias, other.bias])
        images = F.conv_transpose2d(hidden, weight, bias, one.stride, one.padding)
        return tanh(images).unflatten(1, (2, -1))


class CoupledDiscriminator(nn.Module):
    """A pair of images -> a logit each: the layers near the logit are shared, the others are not.

        logits = CoupledDiscriminator()(torch.rand(16, 2, 1, 28, 28))  # (16, 2)

    As LeNet: convolution 5 x 5, max pooling, convolution 5 x 5, max pooling, FC with PReLU, logit;
    ``shared_layers`` of these 4, counted from the logit, are shared. The first convolution has
    ``base_channels`` (the authors': 20), the second 2.5 times as many. One of the authors' versions
    has a dropout of .5, of the features. One logit is equivalent to the authors' softmax over two.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Annotated[int, Range(16, 10**6)] = 28,
        base_channels: Count = 20,
        fc_units: Count = 500,
        dropout: Share = 0.0,
        shared_layers: Annotated[int, Range(0, 3)] = 3,
    ) -> None:
        super().__init__()
        self.fc_units = fc_units
        side, wider = ((image_size - 4) // 2 - 4) // 2, base_channels * 5 // 2
        makers: list[Callable[[], nn.Module]] = [
            lambda: nn.Sequential(nn.Conv2d(channels, base_channels, 5), nn.MaxPool2d(2)),
            lambda: nn.Sequential(
                nn.Conv2d(base_channels, wider, 5), nn.MaxPool2d(2), nn.Flatten()
            ),
            lambda: nn.Sequential(
                nn.Linear(wider * side**2, fc_units), nn.PReLU(), nn.Dropout(dropout)
            ),
            lambda: nn.Linear(fc_units, 1),
        ]
        private = len(makers) - shared_layers
        *body, self.to_logit = (_Coupled(make, n >= private) for n, make in enumerate(makers))
        self.body = nn.Sequential(*body)
        _initialise(self)

    def forward(self, pair: Tensor) -> Tensor:
        return self.logits(self.features(pair))

    def features(self, pair: Tensor) -> Tensor:
        """(B, 2, C, H, W) -> (B, 2, fc_units)."""
        return self.body(pair)

    def logits(self, features: Tensor) -> Tensor:
        """(B, 2, fc_units) -> (B, 2)."""
        return self.to_logit(features).squeeze(2)


class _Coupled(nn.Module):
    """A layer of both branches: one module for both, or one for each."""

    def __init__(self, make: Callable[[], nn.Module], shared: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make() for _ in range(1 if shared else 2))

    def forward(self, pair: Tensor) -> Tensor:
        if len(self.branches) == 1:
            return self.branches[0](pair.flatten(0, 1)).unflatten(0, (-1, 2))
        return torch.stack(
            [branch(x) for branch, x in zip(self.branches, pair.unbind(1), strict=True)], 1
        )
