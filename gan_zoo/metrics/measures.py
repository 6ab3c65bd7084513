"""The measures by name: what each needs, its protocol, and its floor between real images."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gan_zoo.metrics import Report, distances, diversity, neighbours, silent
from gan_zoo.metrics.evaluator import (
    Evaluator,
    Judged,
    Judgements,
    LabelledImages,
    as_seen,
    evaluator_for,
    hash_of,
    images_of,
    judged,
    kept,
    resize_rule,
)

# Generated images whose nearest neighbours are sought among all training images.
_MOST_QUERIES = 2000
_SIGMA_IMAGES = 1000
# A class counts as covered from this part of its share of the real images on.
_LEAST_SHARE = 0.1
# From so many classes on the protocol is Stacked MNIST's.
_MANY_CLASSES = 1000


class Figure(NamedTuple):
    """One measured number.

    Attributes:
        value: the number.
        spread: of kid and score the standard deviation over subsets or splits, of parzen the
            mean's standard error; None where there is none.
        n_fake, n_real: how many generated and real images it is of.
        detail: what else belongs to it, as its protocol says.
    """

    value: float
    spread: float | None
    n_fake: int
    n_real: int
    detail: str = ""


class ImageSet:
    """Images, generated or real, with what the measures ask of them.

    Args:
        labels: (N,) int64 classes, asked for or true; -1 where there are none.
        judged: what the evaluator sees, or what asks it; None without one.
        pixels: (N, C, 28, 28) in [-1, 1], or what makes them; None if no measure asks for them.
    """

    def __init__(
        self,
        labels: Tensor,
        judged: Judged | Callable[[], Judged] | None = None,
        pixels: Tensor | Callable[[], Tensor] | None = None,
    ) -> None:
        self.labels = labels
        self._judged = judged
        self._pixels = pixels
        self._nearest: neighbours.Memorisation | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def judged(self) -> Judged:
        """What the evaluator sees."""
        if callable(self._judged):
            self._judged = self._judged()
        assert self._judged is not None
        return self._judged

    @property
    def pixels(self) -> Tensor:
        """(N, C, 28, 28) in [-1, 1]."""
        if callable(self._pixels):
            self._pixels = self._pixels()
        assert self._pixels is not None
        return self._pixels

    @property
    def labelled(self) -> bool:
        """Whether all classes are known."""
        return bool((self.labels >= 0).all())

    def classes(self) -> Tensor:
        """The classes that were asked for, else those that the evaluator sees."""
        if self.labelled or self._judged is None:
            return self.labels
        return self.judged.classes

    def chosen(self, rows: Tensor) -> ImageSet:
        """Those at these rows."""

        def seen() -> Judged:
            return Judged(*(field[rows] for field in self.judged))

        return ImageSet(
            self.labels[rows],
            None if self._judged is None else seen,
            lambda: self.pixels[rows],
        )

    def nearest_real(
        self, real: Reference, seed: int, report: Report = silent
    ) -> neighbours.Memorisation:
        """The nearest training and test images of the first 2,000; sought once.

        The places of ``nearest_train`` are in ``training_order(real, seed)``.
        """
        if self._nearest is None:
            order = training_order(real, seed)
            count = min(len(real.test), len(order))
            self._nearest = neighbours.memorisation(
                self.pixels[:_MOST_QUERIES],
                torch.cat(list(real.training_pixels(order[:count]))),
                real.training_pixels(order[count:]),
                real.test.pixels[:count],
                len(order) - count,
                report,
            )
        return self._nearest


class Reference:
    """The real images of a dataset that generated ones are measured against.

    Args:
        train, test: its images.
        evaluator: what judges them; None for what has no classes.
        cache_dir: where what is the same each time is kept.
    """

    def __init__(
        self,
        train: LabelledImages,
        test: LabelledImages,
        evaluator: Evaluator | None,
        cache_dir: Path,
    ) -> None:
        self.train = train
        self.test_images = test
        self.evaluator = evaluator
        self.cache_dir = cache_dir
        self.image_size: int = test.__getitems__([0])[0].shape[-1]
        self._drawn: dict[tuple[int, int], ImageSet] = {}

    @functools.cached_property
    def test(self) -> ImageSet:
        """The test images."""
        return self._set(self.test_images, torch.arange(len(self.test_images)))

    @functools.cached_property
    def hash(self) -> str:
        """Of the images and the evaluator."""
        parts = [hash_of(part.stored()) for part in (self.train, self.test_images)]
        judge = self.evaluator.hash if self.evaluator else ""
        about = f"{parts} {judge} {self.image_size}"
        return hashlib.sha256(about.encode()).hexdigest()[:12]

    @property
    def resize(self) -> str:
        """What is done to generated and real images of this size before they are measured."""
        return resize_rule(self.image_size)

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """How often each class should be drawn, up to a factor: as in the test images.

        One more of each, for classes that the evaluator knows and the data has not. With a thousand
        classes all are as likely (Stacked MNIST).
        """
        assert self.evaluator is not None
        count = self.evaluator.classes
        if count >= _MANY_CLASSES:
            return torch.ones(count)
        return self.test.judged.classes.bincount(minlength=count) + 1

    def training_images(self, count: int, seed: int) -> ImageSet:
        """So many of them, drawn by the seed; the same set to all measures."""
        if (count, seed) not in self._drawn:
            rows = training_order(self, seed)[:count]
            self._drawn[count, seed] = self._set(self.train, rows)
        return self._drawn[count, seed]

    def training_images_beside_sigma(self, count: int, seed: int) -> ImageSet:
        """So many of those that a Parzen window's sigma is not chosen by."""
        order = training_order(self, seed)
        return self._set(self.train, order[~torch.isin(order, self.sigma_rows)][:count])

    @property
    def sigma_rows(self) -> Tensor:
        """The training images that a Parzen window's sigma is chosen by."""
        begin = 5 * len(self.train) // 6
        return torch.arange(begin, min(begin + _SIGMA_IMAGES, len(self.train)))

    def training_pixels(self, rows: Tensor) -> Iterable[Tensor]:
        """The training images at these rows, in parts, as measures see them."""
        return (as_seen(part) for part in images_of(self.train, rows))

    def floor(self, name: str, count: int, seed: int) -> dict[str, Figure]:
        """The measure of so many real training images in the generated ones' place; kept."""
        measure = MEASURES[name]
        file = self.cache_dir / "floors" / f"{name}-{self.hash}-{count}-{seed}-{_VERSION}.json"

        def compute() -> dict[str, list[object]]:
            fake, real = measure.real_pair(self, count, seed)
            return {key: list(f) for key, f in measure.function(fake, real, seed, silent).items()}

        return {key: Figure(*values) for key, values in kept(file, compute).items()}

    def of_halves(self) -> tuple[ImageSet, Reference]:
        """One half of the test images, and a reference whose test images are the other half."""
        order = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(0))
        first, second = order.tensor_split(2)
        other = Reference(self.train, self.test_images, self.evaluator, self.cache_dir)
        other.test = self.test.chosen(second)
        return self.test.chosen(first), other

    def _set(self, dataset: LabelledImages, rows: Tensor) -> ImageSet:
        evaluator = self.evaluator
        return ImageSet(
            dataset.labels[rows],
            None if evaluator is None else lambda: judged(evaluator, images_of(dataset, rows)),
            lambda: torch.cat([as_seen(x) for x in images_of(dataset, rows)]),
        )


class MeasuredData(Protocol):
    """What has images to measure generated ones against; see InMemoryDataModule."""

    per_channel: ClassVar[bool]

    def labelled(self, domain: str, part: Literal["train", "val", "test"]) -> LabelledImages:
        """A domain's images."""

    def evaluator_images(self, domain: str, train: bool) -> LabelledImages:
        """What its evaluator is trained on."""

    def evaluator_name(self, domain: str) -> str:
        """What that is called."""


def reference_for(
    data: MeasuredData,
    domain: str,
    cache_dir: Path,
    report: Report = silent,
    evaluator: Evaluator | None = None,
) -> Reference:
    """The real images of a data module's domain, and their evaluator, if they have classes.

    Args:
        data: set up.
        domain: one of its domains.
        cache_dir: where what is made once is kept.
        report: called with the share of the evaluator's training that is done.
        evaluator: in place of the data's own.

    Raises:
        ValueError: where it has no images to measure against.
    """
    train, test = data.labelled(domain, "train"), data.labelled(domain, "test")
    if evaluator is None and (train.labels >= 0).all():
        evaluator = evaluator_for(
            data.evaluator_name(domain),
            functools.partial(data.evaluator_images, domain),
            cache_dir,
            report,
        )
    if evaluator is not None:
        evaluator.per_channel = data.per_channel
    return Reference(train, test, evaluator, cache_dir)


def image_sets(
    chunks: Iterable[Mapping[str, tuple[Tensor, Tensor | None]]],
    references: Mapping[str, Reference],
    count: int,
    pixels: bool = False,
    report: Report = silent,
) -> dict[str, ImageSet]:
    """Generated images as measures take them, by domain; of all processes together.

    Args:
        chunks: domain -> (images (B, C, H, W), the classes (B,) that were asked for or None).
        references: of all domains; their evaluators go to the images' device.
        count: how many images are expected, for the report.
        pixels: keep the pixels too, of this process alone.
        report: called with the share that is done.
    """
    collected: dict[str, Judgements] = {}
    kept_pixels: dict[str, list[Tensor]] = {domain: [] for domain in references}
    done = 0
    for chunk in chunks:
        for domain, (images, labels) in chunk.items():
            evaluator = references[domain].evaluator
            if evaluator is not None:
                device = images.device
                judgements = collected.setdefault(domain, Judgements().to(device))
                judgements.update(evaluator.to(device)(images), labels)
            if pixels:
                kept_pixels[domain].append(as_seen(images.cpu()))
        done += len(images)
        report(done / max(count, done))
    sets = {}
    for domain, parts in kept_pixels.items():
        image = torch.cat(parts) if parts else None
        if domain in collected:
            judged, labels = collected[domain].compute()
            sets[domain] = ImageSet(labels, judged, image)
        elif image is not None:
            sets[domain] = ImageSet(torch.full((len(image),), -1), None, image)
    return sets


def in_domain(name: str, domain: str) -> str:
    """What something is called in one of a model's domains, "" for the only one."""
    return f"{name}_{domain}" if domain else name


Function = Callable[[ImageSet, Reference, int, Report], dict[str, Figure]]


def _train_for_generated(reference: Reference, count: int, seed: int) -> tuple[ImageSet, Reference]:
    return reference.training_images(count, seed), reference


def _others_for_generated(
    reference: Reference, count: int, seed: int
) -> tuple[ImageSet, Reference]:
    # A window on an image that chooses its sigma would make that as narrow as can be.
    return reference.training_images_beside_sigma(count, seed), reference


def _test_for_generated(reference: Reference, count: int, seed: int) -> tuple[ImageSet, Reference]:
    return reference.test, reference


def _half_for_generated(reference: Reference, count: int, seed: int) -> tuple[ImageSet, Reference]:
    return reference.of_halves()


class Measure(NamedTuple):
    """How something is measured.

    Attributes:
        function: (generated, reference, seed, report) -> figures by name.
        needs: of the generated images: features, pixels, labels.
        real_pair: what is measured for the floor: (reference, number, seed) -> real images in the
            generated ones' place, and their reference.
    """

    function: Function
    needs: frozenset[str]
    real_pair: Callable[[Reference, int, int], tuple[ImageSet, Reference]] = _train_for_generated


def _fid(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    a, b = fake.judged.features, real.test.judged.features
    return {"fid": Figure(distances.frechet_distance(a, b), None, len(a), len(b))}


def _kid(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    a, b = fake.judged.features, real.test.judged.features
    value = distances.kernel_distance(a, b, seed=seed)
    return {"kid": Figure(*value, len(a), len(b), "spread: 100 subsets")}


def _score(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    value = diversity.classifier_score(fake.judged.log_probabilities)
    return {"score": Figure(*value, len(fake), 0, "spread: 10 splits")}


def _prdc(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    n = min(len(fake), len(real.test))
    values = distances.fidelity_and_diversity(
        real.test.judged.features[:n], fake.judged.features[:n]
    )
    return {key: Figure(value, None, n, n, "k=5") for key, value in values._asdict().items()}


def _ms_ssim(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    values = diversity.structural_similarity(fake.pixels, fake.classes(), seed=seed)
    return {
        f"ms_ssim_{key}": Figure(value, None, len(fake), 0, "1,000 pairs")
        for key, value in values._asdict().items()
        if value == value
    }


def _modes(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    counts = real.class_counts
    many = len(counts) >= _MANY_CLASSES
    least = 0.0 if many else _LEAST_SHARE
    modes = diversity.covered_classes(fake.judged.classes, counts, least)
    detail = f"of {len(counts):,}" + ("" if many else ", by a tenth of their share")
    return {
        "modes": Figure(modes.covered, None, len(fake), 0, detail),
        "modes_kl": Figure(modes.kl, None, len(fake), 0, "nats"),
    }


def _accuracy(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    right = fake.judged.classes.eq(fake.labels).double().mean().item()
    return {"accuracy": Figure(right, None, len(fake), 0, "shown as asked for")}


def _parzen(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    validation = torch.cat(list(real.training_pixels(real.sigma_rows)))
    samples, test, validation = ((x + 1) / 2 for x in (fake.pixels, real.test.pixels, validation))
    fit = neighbours.parzen_log_likelihood(samples, test, validation, report=report)
    detail = f"nats, sigma {fit.sigma:.4f}"
    return {"parzen": Figure(*fit.log_likelihood, len(fake), len(real.test), detail)}


def _one_nn(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    test = real.test
    error = neighbours.one_nn_error(fake.pixels, fake.labels, test.pixels, test.labels, report)
    return {"one_nn": Figure(error, None, len(fake), len(test), "error on test images")}


def _memorisation(fake: ImageSet, real: Reference, seed: int, report: Report) -> dict[str, Figure]:
    found = fake.nearest_real(real, seed, report)
    n, m = len(found.nearest_test.place), len(real.test)
    return {
        "memorisation": Figure(found.share, None, n, m, "nearer to training images"),
        "nearest_train": Figure(found.train_distance, None, n, m, "median distance"),
        "nearest_test": Figure(found.test_distance, None, n, m, "median distance"),
    }


def training_order(real: Reference, seed: int) -> Tensor:
    """The training images' rows in a random order of the seed's."""
    return torch.randperm(len(real.train), generator=torch.Generator().manual_seed(seed))


_FEATURES = frozenset({"features"})
_PIXELS = frozenset({"pixels"})
# Part of a kept floor's name: to be raised with any change to a measure.
_VERSION = 1
MEASURES: Mapping[str, Measure] = {
    "fid": Measure(_fid, _FEATURES),
    "kid": Measure(_kid, _FEATURES),
    "score": Measure(_score, _FEATURES),
    "prdc": Measure(_prdc, _FEATURES),
    "modes": Measure(_modes, _FEATURES),
    "accuracy": Measure(_accuracy, frozenset({"features", "labels"}), _test_for_generated),
    "ms_ssim": Measure(_ms_ssim, _PIXELS),
    "parzen": Measure(_parzen, _PIXELS, _others_for_generated),
    "one_nn": Measure(_one_nn, frozenset({"pixels", "labels"})),
    "memorisation": Measure(_memorisation, _PIXELS, _half_for_generated),
}
