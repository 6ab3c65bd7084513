"""How varied images are: by their classes and by how they look."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from gan_zoo.metrics.distances import Estimate

# Of MS-SSIM: five scales of an 11-pixel window need 160 pixels, three of a 5-pixel one 20.
_WINDOW, _SCALES = 5, (0.2, 0.3, 0.5)
_PAIRS_AT_ONCE = 500


class Modes(NamedTuple):
    """Which classes a generator covers.

    Attributes:
        covered: how many.
        kl: KL divergence of the generated classes' distribution from the reference, in nats.
    """

    covered: int
    kl: float


class Similarity(NamedTuple):
    """Mean MS-SSIM, from 0 to 1: of pairs of one class, and of pairs of two; NaN without such."""

    within: float
    between: float


def classifier_score(log_probabilities: Tensor, splits: int = 10) -> Estimate:
    """Salimans et al. 2016 (1606.03498), section 4: exp E[KL(p(y | x) || p(y))].

    From 1 to the number of classes. The paper's is of Inception's classes, 50,000 images and the
    mean of 10 splits; this is of all images, with the splits' standard deviation for its spread.

    Args:
        log_probabilities: (N, K) of the classifier.
        splits: in the images' order.
    """

    def score(part: Tensor) -> Tensor:
        part = part.double()
        marginal = part.logsumexp(0) - torch.tensor(len(part), dtype=part.dtype).log()
        return (part.exp() * (part - marginal)).sum(1).mean().exp()

    parts = [score(part) for part in log_probabilities.tensor_split(splits) if len(part)]
    spread = torch.stack(parts).std().item() if len(parts) > 1 else 0.0
    return Estimate(score(log_probabilities).item(), spread)


def covered_classes(classes: Tensor, reference: Tensor, least: float = 0.0) -> Modes:
    """How many classes are generated, and the reverse KL divergence of how often.

    For Stacked MNIST (VEEGAN, 1705.07761; PacGAN, 1712.04086): 26,000 images, 1,000 classes, any
    image makes a class covered, and the reference is uniform. KL is sum p log(p / q) over the
    classes that are generated, p their frequencies and q the reference.

    Args:
        classes: (N,) int64 of the generated images, by the classifier.
        reference: (K,) how often each class should be, up to a factor.
        least: a class is covered from this part of its due share on; 0 for any image.
    """
    counts = classes.bincount(minlength=len(reference)).double().cpu()
    p, q = counts / counts.sum(), reference.double().cpu() / reference.double().sum().cpu()
    seen = p > 0
    kl = (p[seen] * (p[seen] / q[seen]).log()).sum().item()
    covered = (p >= least * q) & seen & (q > 0)
    return Modes(int(covered.sum()), kl)


def structural_similarity(
    images: Tensor, classes: Tensor, pairs: int = 1000, seed: int = 0
) -> Similarity:
    """MS-SSIM of random pairs (Odena et al. 2017, 1610.09585, section 4.2): low where varied.

    Three scales and a window of 5 pixels, for small images; the paper's 128-pixel ones have five
    and 11. Negative contrast terms count as 0.

    Args:
        images: (N, C, H, W) in [-1, 1], 20 pixels or more.
        classes: (N,) int64.
        pairs: how many of either kind, drawn at random.
        seed: of the pairs.
    """
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(len(images), (50 * pairs,), generator=random)
    second = torch.randint(len(images), (50 * pairs,), generator=random)
    # The same image is no pair.
    first, second = first[first != second], second[first != second]
    same = (classes.cpu()[first] == classes.cpu()[second]) & (classes.cpu()[first] >= 0)

    def mean(kept: Tensor) -> float:
        a, b = first[kept][:pairs], second[kept][:pairs]
        if not len(a):
            return float("nan")
        values = [
            multiscale_structural_similarity_index_measure(
                (images[x] + 1) / 2,
                (images[y] + 1) / 2,
                kernel_size=_WINDOW,
                sigma=1.5 * _WINDOW / 11,
                betas=_SCALES,
                data_range=1.0,
                normalize="relu",
                reduction="none",
            )
            for x, y in zip(a.split(_PAIRS_AT_ONCE), b.split(_PAIRS_AT_ONCE), strict=True)
        ]
        return torch.cat(values).mean().item()

    return Similarity(mean(same), mean(~same))
