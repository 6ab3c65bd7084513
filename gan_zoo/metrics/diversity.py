"""How varied images are, by their classes and by their pixels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from gan_zoo.metrics.distances import Estimate

# MS-SSIM with five scales and an 11-pixel window needs 160 pixels; with three and 5 it needs 20.
_WINDOW, _SCALES = 5, (0.2, 0.3, 0.5)
_PAIRS_AT_ONCE = 500


class Modes(NamedTuple):
    """How many classes are covered, and the reverse KL divergence of their frequencies in nats."""

    covered: int
    kl: float


class Similarity(NamedTuple):
    """Mean MS-SSIM, from 0 to 1, of pairs within a class and between classes; NaN without such."""

    within: float
    between: float


def classifier_score(log_probabilities: Tensor, splits: int = 10) -> Estimate:
    """Salimans et al. 2016 (1606.03498), section 4: exp E[KL(p(y | x) || p(y))].

    From 1 to the number of classes. The paper takes Inception's classes, 50,000 images and the mean
    over 10 splits; this is the score of all images; the spread is the standard deviation over
    splits, which are taken in the images' order.

    Args:
        log_probabilities: (N, K) of the classifier.
    """

    def score(part: Tensor) -> Tensor:
        part = part.double()
        marginal = part.logsumexp(0) - torch.tensor(len(part), dtype=part.dtype).log()
        return (part.exp() * (part - marginal)).sum(1).mean().exp()

    parts = [score(part) for part in log_probabilities.tensor_split(splits) if len(part)]
    spread = torch.stack(parts).std().item() if len(parts) > 1 else 0.0
    return Estimate(score(log_probabilities).item(), spread)


def covered_classes(classes: Tensor, reference: Tensor, least: float = 0.0) -> Modes:
    """For Stacked MNIST (VEEGAN, 1705.07761; PacGAN, 1712.04086): 26,000 images, 1,000 classes, one
    image is enough to cover a class, and the reference is uniform. The divergence is
    sum p log(p / q) over the generated classes, with p their frequencies and q the reference.

    Args:
        classes: (N,) int64, the generated images' classes by the classifier.
        reference: (K,) the expected frequencies, up to a factor.
        least: the share of its expected frequency that covers a class; with 0 one image does.
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
    """MS-SSIM of random pairs (Odena et al. 2017, 1610.09585, section 4.2): lower is more varied.

    Three scales and a 5-pixel window, for small images; the paper, with 128 pixels, has five scales
    and 11. Negative contrast terms are set to 0.

    Args:
        images: (N, C, H, W) in [-1, 1], at least 20 pixels a side.
        classes: (N,) int64; -1 where unknown.
        pairs: how many of each kind; the seed draws them.
    """
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(images), (2, 50 * pairs), generator=random)
    # An image paired with itself is left out.
    drawn = drawn[:, drawn[0] != drawn[1]]
    first, second = classes.cpu()[drawn]
    same = (first == second) & (first >= 0)

    def mean(kept: Tensor) -> float:
        chosen = drawn[:, kept][:, :pairs]
        if not chosen.numel():
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
            for x, y in chosen.split(_PAIRS_AT_ONCE, 1)
        ]
        return torch.cat(values).mean().item()

    return Similarity(mean(same), mean(~same))
