"""How far paired images agree, and which modes of a known mixture a set of points covers."""

from typing import Literal

import torch
from torch import Tensor

from gan_zoo.ranges import checked


@checked
def pixel_agreement(
    a: Tensor, b: Tensor, rule: Literal["binary", "difference"] = "binary"
) -> float:
    """Share of pixels in which two sets of images agree: CoGAN's measure (1606.07536, section 4).

    The paper does not say when two pixels agree, so the rule has to be reported with the result.
    By "binary" they do if both or neither are above mid-grey, by "difference" if they differ by
    less than a tenth of the range [-1, 1]. Most pixels of MNIST are background: random pairs reach
    .8, and a blank image .87.
    """
    agree = (a > 0) == (b > 0) if rule == "binary" else (a - b).abs() < 0.2
    return agree.float().mean().item()


def covered_modes(
    points: Tensor, centres: Tensor, std: float, share: float = 0.01
) -> tuple[int, float]:
    """How many modes of a Gaussian mixture are covered, and the share of points that lie on any.

    A point lies on its nearest mode if that is within three standard deviations. A mode is covered
    if at least the given share of all points lies on it.

    Args:
        points: (N, 2).
        centres, std: (M, 2) and the standard deviation of the modes.
    """
    distance, nearest = torch.cdist(points, centres).min(1)
    near = distance < 3 * std
    shares = nearest[near].bincount(minlength=len(centres)) / len(points)
    return int((shares >= share).sum()), near.float().mean().item()
