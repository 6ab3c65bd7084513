"""Points of two Gaussian mixtures, DiscoGAN's toy."""

import math
from typing import Any

import torch
from torch import Tensor

from gan_zoo.data.base import InMemoryDataModule
from gan_zoo.data.pairs import Domain, InMemoryPairs, PointPair
from gan_zoo.ranges import Count, Natural, Positive, Seed, checked


class GaussianMixtureDataModule(InMemoryDataModule):
    """DiscoGAN's toy (1703.05192, section 3.1): points of two Gaussian mixtures in the plane.

    Each mixture's modes are evenly spaced on a circle about the origin, and equally frequent.

        data = GaussianMixtureDataModule(modes_a=5, modes_b=10)
        data.setup()
        batch = data.examples()    # a PointPair

    Args:
        modes_a, modes_b: number of modes.
        radius_a, radius_b: of the circles.
        std: standard deviation of each mode.
        num_points: training points of each domain; there are as many test points.
        seed: decides the points.
    """

    batch_type = PointPair
    domains = ("a", "b")
    num_examples = 1000

    @checked
    def __init__(
        self,
        modes_a: Count = 5,
        modes_b: Count = 10,
        radius_a: Positive = 2.0,
        radius_b: Positive = 4.0,
        std: Positive = 0.2,
        num_points: Count = 10_000,
        batch_size: Count = 200,
        val_size: Natural | None = 0,
        seed: Seed = 0,
        name: str = "gaussian_mixture",
        **options: Any,
    ) -> None:
        super().__init__(name, batch_size, val_size=val_size, **options)
        self.centres_a = _circle(modes_a, radius_a)
        self.centres_b = _circle(modes_b, radius_b)
        self.std = std
        self.num_points = num_points
        self.seed = seed

    def load(self) -> None:
        size = self.validation_size(self.num_points)
        random = torch.Generator().manual_seed(self.seed)
        centres = (self.centres_a, self.centres_b)
        cut = [self._domain(modes, random).cut(size) for modes in centres]
        self.train = InMemoryPairs([train for train, _ in cut], PointPair)
        self.val = InMemoryPairs([held_out for _, held_out in cut], PointPair)
        self.test = InMemoryPairs([self._domain(modes, random) for modes in centres], PointPair)

    def _domain(self, centres: Tensor, random: torch.Generator) -> Domain:
        mode = torch.randint(len(centres), (self.num_points,), generator=random)
        spread = torch.randn(self.num_points, 2, generator=random)
        return Domain(centres[mode] + self.std * spread, mode, torch.arange(self.num_points))


def _circle(count: int, radius: float) -> Tensor:
    angles = torch.arange(count) * (2 * math.pi / count)
    return float(radius) * torch.stack([angles.cos(), angles.sin()], 1)
