"""How far paired images agree, categories with classes, and points with a mixture's modes."""

from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
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


def matched_classes(categories: Tensor, classes: Tensor, count: int) -> Tensor:
    """The class (count,) of each category, so that most images are of the class of theirs.

    Each class is given once (InfoGAN, 1606.03657, section 7.2). Both arguments are (N,) int64, the
    categories and classes of N images, below ``count``.
    """
    table = torch.zeros(count, count, dtype=torch.int64)
    table.index_put_((categories, classes), torch.ones_like(classes), accumulate=True)
    return torch.as_tensor(linear_sum_assignment(-table.numpy())[1])


def category_information(logits: Tensor) -> float:
    """H(mean Q) - mean H(Q) in nats, of Q's logits (N, K): high if certain and evenly spread.

    It needs no labels, so that it can choose among runs.
    """
    chances = logits.double().softmax(1)

    def entropy(chance: Tensor) -> Tensor:
        return torch.special.entr(chance).sum(-1)

    return (entropy(chances.mean(0)) - entropy(chances).mean()).item()


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
