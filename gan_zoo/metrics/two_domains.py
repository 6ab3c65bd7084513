"""How well the two domains' images or points fit together."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_agreement(a: Tensor, b: Tensor, rule: str = "binary") -> float:
    """Share of pixels in which two sets of images agree, CoGAN's figure (1606.07536, section 4).

    The paper does not say when pixels agree, so that a rule has to be named with each figure. Most
    pixels of MNIST are background: pairs taken at random reach .8, a blank image .87.

    Args:
        a, b: images in [-1, 1] of one shape.
        rule: "binary": both are above mid-grey, or both not; "difference": they differ by less than
            a tenth of the range.

    Raises:
        ValueError: for another rule.
    """
    if rule == "binary":
        agree = (a > 0) == (b > 0)
    elif rule == "difference":
        agree = (a - b).abs() < 0.2
    else:
        raise ValueError(f"rule is {rule}; it has to be binary or difference.")
    return agree.float().mean().item()


def covered_modes(
    points: Tensor, centres: Tensor, std: float, share: float = 0.01
) -> tuple[int, float]:
    """How many modes of a Gaussian mixture have their part of the points, and what is on any mode.

    A point is on the mode that it is nearest to, if that is within three standard deviations.

    Args:
        points: (N, 2).
        centres: (M, 2) of the modes.
        std: of each mode.
        share: how much of the points a mode has to have to be covered.

    Returns:
        Number of covered modes, and the share of the points that are on some mode.
    """
    distance, nearest = torch.cdist(points, centres).min(1)
    near = distance < 3 * std
    shares = nearest[near].bincount(minlength=len(centres)) / len(points)
    return int((shares >= share).sum()), near.float().mean().item()
