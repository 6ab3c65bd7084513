"""What is measured in pixels: Parzen windows, nearest neighbours, memorisation.

Images are treated as vectors. The distance matrix is computed in blocks, so memory use does not
grow with the number of images.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from gan_zoo.metrics import Report, silent
from gan_zoo.metrics.distances import Estimate

# Rows and columns of the distance matrix that are held at a time.
_QUERIES, _REFERENCES = 1000, 10_000
# The authors' bandwidths: np.logspace(-1, 0, 10).
_SIGMAS = torch.logspace(-1, 0, 10, dtype=torch.float64).tolist()


class Nearest(NamedTuple):
    """The nearest reference of each query: (N,) its Euclidean distance, and (N,) its row."""

    distance: Tensor
    place: Tensor


class ParzenFit(NamedTuple):
    """The test images' mean log-likelihood in nats with its standard error; the window's sigma."""

    log_likelihood: Estimate
    sigma: float


class Memorisation(NamedTuple):
    """Whether images are nearer to the training images than to images the generator never saw.

    Attributes:
        share: of the images whose nearest neighbour among the training images is nearer than among
            equally many unseen ones; about one half without memorisation, 1 for copies.
        train_distance, test_distance: median distance to the nearest training and unseen image.
        nearest_train, nearest_test: the neighbours; ``nearest_train`` among all training images.
    """

    share: float
    train_distance: float
    test_distance: float
    nearest_train: Nearest
    nearest_test: Nearest


def nearest(
    queries: Tensor, references: Iterable[Tensor], count: int = 0, report: Report = silent
) -> Nearest:
    """Searches references (M, ...), given in parts, for the queries (N, ...).

    Args:
        count: M, for the report.
    """
    flat = queries.flatten(1)
    squares = flat.square().sum(1)
    best = torch.full((len(flat),), math.inf, device=flat.device)
    index = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    seen = 0
    for part in references:
        for block in part.flatten(1).to(flat.device).split(_REFERENCES):
            norms = block.square().sum(1)
            for start in range(0, len(flat), _QUERIES):
                rows = slice(start, start + _QUERIES)
                # The query's own square is the same for all references: it is added at the end.
                partial, place = torch.addmm(norms, flat[rows], block.T, alpha=-2).min(1)
                better = partial < best[rows]
                best[rows] = torch.where(better, partial, best[rows])
                index[rows] = torch.where(better, place + seen, index[rows])
            seen += len(block)
            report(seen / max(count, seen))
    return Nearest((best + squares).clamp(min=0).sqrt(), index)


def one_nn_error(
    images: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, report: Report = silent
) -> float:
    """Error on real images of a 1-nearest-neighbour classifier that was given generated ones.

    Radford et al. 2015 (1511.06434), appendix: raw pixels and Euclidean distance. Its authors' code
    takes 1,000 to 100,000 labelled images.

    Args:
        images, labels: (N, ...) generated, and (N,) the classes they were generated for.
        test, test_labels: (M, ...) real, and (M,).
    """
    found = nearest(test, images.split(_REFERENCES), len(images), report)
    return labels.to(test.device)[found.place].ne(test_labels.to(test.device)).float().mean().item()


def parzen_log_likelihood(
    samples: Tensor,
    test: Tensor,
    validation: Tensor,
    sigmas: Iterable[float] = _SIGMAS,
    report: Report = silent,
) -> ParzenFit:
    """Goodfellow et al. 2014 (1406.2661), section 5, by the rule of its authors' parzen_ll.py.

    log p(x) = log mean_i exp(-|x - s_i|^2 / 2 sigma^2) - D log(sigma sqrt(2 pi)), with the sigma
    of ``sigmas`` that is best on the validation images. The paper takes 10,000 samples, the 10,000
    test images and the first 1,000 of the validation set. Blurred samples score higher than real
    images (243 nats with 10,000 of those), so never read this figure alone.

    Args:
        samples, test, validation: images in [-1, 1], of which [0, 1] is made as in the paper.
    """
    by_sigma = _parzen(samples, validation, sigmas, silent)
    sigma = max(by_sigma, key=lambda s: by_sigma[s].mean().item())
    values = _parzen(samples, test, [sigma], report)[sigma]
    error = values.std(correction=0).item() / math.sqrt(len(values))
    return ParzenFit(Estimate(values.mean().item(), error), sigma)


def _parzen(
    samples: Tensor, points: Tensor, sigmas: Iterable[float], report: Report
) -> dict[float, Tensor]:
    """Log-likelihoods (M,) of the points under each sigma."""
    flat, queries = samples.flatten(1), _unit_range(points.flatten(1).to(samples.device))
    count, dimensions = flat.shape
    nothing = torch.full((len(queries),), -math.inf, dtype=torch.float64, device=flat.device)
    sums = {sigma: nothing.clone() for sigma in sigmas}
    done, all_pairs = 0, count * len(queries)
    for part in flat.split(_REFERENCES):
        centres = _unit_range(part)
        norms = centres.square().sum(1)
        for begin in range(0, len(queries), _QUERIES // 4):
            rows = slice(begin, begin + _QUERIES // 4)
            own = queries[rows].square().sum(1)[:, None]
            squares = torch.addmm(norms, queries[rows], centres.T, alpha=-2) + own
            squares = squares.double()
            for sigma, total in sums.items():
                exponents = squares / (-2 * sigma**2)
                total[rows] = torch.logaddexp(total[rows], exponents.logsumexp(1))
            done += squares.numel()
            report(done / all_pairs)
    return {
        sigma: total - math.log(count) - dimensions * math.log(sigma * math.sqrt(2 * math.pi))
        for sigma, total in sums.items()
    }


def _unit_range(images: Tensor) -> Tensor:
    return (images + 1) / 2


def memorisation(
    images: Tensor,
    train: Tensor,
    more_train: Iterable[Tensor],
    test: Tensor,
    count: int = 0,
    report: Report = silent,
) -> Memorisation:
    """Compares generated images (N, ...) with training images and with unseen ones.

    Args:
        train: (K, ...) training images drawn at random; the share compares with these alone.
        more_train: the other training images, in parts; ``nearest_train`` searches them too.
        test: (K, ...) images of the same kind that the generator never saw.
        count: how many images ``more_train`` has, for the report.
    """
    unseen = nearest(images, test.split(_REFERENCES))
    seen = nearest(images, train.split(_REFERENCES))
    more = nearest(images, more_train, count, report)
    nearer = more.distance < seen.distance
    place = torch.where(nearer, more.place + len(train), seen.place)
    return Memorisation(
        share=(seen.distance < unseen.distance).float().mean().item(),
        train_distance=seen.distance.median().item(),
        test_distance=unseen.distance.median().item(),
        nearest_train=Nearest(torch.minimum(more.distance, seen.distance), place),
        nearest_test=unseen,
    )
