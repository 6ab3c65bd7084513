"""The measures by name: their figures, what they need, their protocol and their floor."""

import json
import logging
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gan_zoo.files import atomic_write
from gan_zoo.metrics import Report, distances, diversity, neighbours, silent
from gan_zoo.metrics.inception import FEATURES
from gan_zoo.metrics.reference import MANY_CLASSES, ImageSet, Reference
from gan_zoo.randomness import some_rows

log = logging.getLogger(__name__)

# A class is covered if its frequency is at least this share of that among the real images.
_LEAST_SHARE = 0.1
# Part of a cached floor's file name: raise it with any change to a measure.
_VERSION = 3


class Figure(NamedTuple):
    """One measured number.

    Attributes:
        spread: kid and score: the standard deviation over subsets or splits; parzen: the mean's
            standard error; None for the others.
        n_fake, n_real: numbers of generated and real images.
        detail: what the protocol says to report with it.
    """

    value: float
    spread: float | None
    n_fake: int
    n_real: int
    detail: str = ""


Figures = dict[str, Figure]


class Measure(NamedTuple):
    """A way to measure generated images.

    Attributes:
        function: (generated, reference, seed, report) -> figures by name.
        needs: what it uses of the images: features, pixels, labels, inception.
        figures: names of its figures -> whether higher is better; None where neither is.
        real_pair: what its floor is measured on: (reference, number, seed) -> real images in the
            generated ones' place, and their reference.
    """

    function: Callable[[ImageSet, Reference, int, Report], Figures]
    needs: Set[str]
    figures: Mapping[str, bool | None]
    real_pair: Callable[[Reference, int, int], tuple[ImageSet, Reference]] = (
        lambda reference, count, seed: (reference.training_images(count, seed), reference)
    )


def _fid(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    a, b = fake.judged.features, reference.real.judged.features
    return {"fid": Figure(distances.frechet_distance(a, b), None, len(a), len(b))}


def _inception_fid(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    a, b = fake.inception, reference.real.inception
    few = min(len(a), len(b)) <= FEATURES
    detail = f"too few images for {FEATURES:,} features: compare equal numbers only" if few else ""
    value = distances.frechet_distance(a, b)
    return {"inception_fid": Figure(value, None, len(a), len(b), detail)}


def _kid(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    a, b = fake.judged.features, reference.real.judged.features
    value = distances.kernel_distance(a, b, seed=seed)
    return {"kid": Figure(*value, len(a), len(b), "spread: 100 subsets")}


def _score(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    value = diversity.classifier_score(fake.judged.log_probabilities)
    return {"score": Figure(*value, len(fake), 0, "spread: 10 splits")}


def _prdc(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    n = min(len(fake), len(reference.real))
    real, generated = (x.judged.features[some_rows(len(x), n)] for x in (reference.real, fake))
    values = distances.fidelity_and_diversity(real, generated)
    return {key: Figure(value, None, n, n, "k=5") for key, value in values._asdict().items()}


def _modes(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    counts = reference.class_counts
    many = len(counts) >= MANY_CLASSES
    least = 0.0 if many else _LEAST_SHARE
    modes = diversity.covered_classes(fake.judged.classes, counts, least)
    detail = f"of {len(counts):,}" + ("" if many else ", by a tenth of their share")
    shares = fake.judged.classes.bincount(minlength=len(counts)).double() / len(fake)
    values = {
        "modes": (modes.covered, detail),
        "modes_kl": (modes.kl, "nats"),
        "rarest": (shares.min().item(), "share of the rarest class"),
        "commonest": (shares.max().item(), "share of the commonest class"),
    }
    return {key: Figure(value, None, len(fake), 0, text) for key, (value, text) in values.items()}


def _accuracy(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    right = fake.judged.classes.eq(fake.labels).double().mean().item()
    return {"accuracy": Figure(right, None, len(fake), 0, "shown as asked for")}


def _ms_ssim(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    values = diversity.structural_similarity(fake.pixels, fake.classes(), seed=seed)
    return {
        f"ms_ssim_{key}": Figure(value, None, len(fake), 0, "1,000 pairs")
        for key, value in values._asdict().items()
        if value == value
    }


def _parzen(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    """Sigma is chosen on training images; the paper's authors held these out of the training."""
    validation = torch.cat(list(reference.training_pixels(reference.sigma_rows)))
    real = reference.real.pixels
    fit = neighbours.parzen_log_likelihood(fake.pixels, real, validation, report=report)
    detail = f"nats, sigma {fit.sigma:.4f}"
    return {"parzen": Figure(*fit.log_likelihood, len(fake), len(real), detail)}


def _one_nn(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    real = reference.real
    error = neighbours.one_nn_error(fake.pixels, fake.labels, real.pixels, real.labels, report)
    return {"one_nn": Figure(error, None, len(fake), len(real), "error on real images")}


def _memorisation(fake: ImageSet, reference: Reference, seed: int, report: Report) -> Figures:
    rows, found = fake.nearest_real(reference, seed, report)
    n, m = len(rows), len(reference.real)
    return {
        "memorisation": Figure(found.share, None, n, m, "nearer to training images"),
        "nearest_train": Figure(found.train_distance, None, n, m, "median distance"),
        "nearest_test": Figure(found.test_distance, None, n, m, "median distance"),
    }


MEASURES: Mapping[str, Measure] = {
    "fid": Measure(_fid, {"features"}, {"fid": False}),
    "inception_fid": Measure(_inception_fid, {"inception"}, {"inception_fid": False}),
    "kid": Measure(_kid, {"features"}, {"kid": False}),
    "score": Measure(_score, {"features"}, {"score": True}),
    "prdc": Measure(_prdc, {"features"}, dict.fromkeys(distances.Fidelity._fields, True)),
    "modes": Measure(
        _modes,
        {"features"},
        {"modes": True, "modes_kl": False, "rarest": True, "commonest": False},
    ),
    "accuracy": Measure(
        _accuracy, {"features", "labels"}, {"accuracy": True}, lambda r, count, seed: (r.real, r)
    ),
    "ms_ssim": Measure(_ms_ssim, {"pixels"}, {"ms_ssim_within": False, "ms_ssim_between": False}),
    "parzen": Measure(
        _parzen,
        {"pixels"},
        {"parzen": True},
        lambda r, count, seed: (r.training_images_beside_sigma(count, seed), r),
    ),
    "one_nn": Measure(_one_nn, {"pixels", "labels"}, {"one_nn": False}),
    "memorisation": Measure(
        _memorisation,
        {"pixels"},
        {"memorisation": False, "nearest_train": None, "nearest_test": None},
        lambda r, count, seed: r.of_halves(),
    ),
}


def available(
    real: Mapping[str, tuple[Tensor, Tensor | None]], judged: bool, inception: bool = False
) -> Set[str]:
    """What of Measure.needs a model's images have, judged by an evaluator or Inception or not.

    ``real`` has, by domain, real images as the model's, and labels if it is asked for classes.
    """
    asked = all(labels is not None for _, labels in real.values())
    having = {"features": judged, "labels": asked, "inception": inception}
    return {"pixels", *(what for what, has in having.items() if has)}


def floor_of(name: str, reference: Reference, count: int, seed: int) -> dict[str, Figure]:
    """The measure of so many real images in the generated ones' place; computed once and cached."""
    measure = MEASURES[name]
    about = f"{name}-{reference.part}-{reference.hash}-{count}-{seed}-{_VERSION}"
    file = reference.cache_dir / "floors" / f"{about}.json"
    if file.is_file():
        try:
            return _cached_floor(file, measure)
        except (ValueError, TypeError, AttributeError):
            log.warning("'%s' is damaged and is computed again.", file)
    figures = measure.function(*measure.real_pair(reference, count, seed), seed, silent)
    try:
        with atomic_write(file) as aside:
            aside.write_text(json.dumps(figures))
    except OSError as error:
        log.warning("'%s' could not be cached: %s", file, error)
    return figures


def _cached_floor(file: Path, measure: Measure) -> dict[str, Figure]:
    """ValueError, TypeError or AttributeError for what ``floor_of`` did not write."""
    figures = {key: Figure(*values) for key, values in json.loads(file.read_text()).items()}
    numbers = all(isinstance(figure.value, (int, float)) for figure in figures.values())
    if not figures or not figures.keys() <= measure.figures.keys() or not numbers:
        raise ValueError
    return figures
