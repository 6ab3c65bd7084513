"""Generated and real images in the forms that measures take, and what they are held against."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor

from gan_zoo.metrics import Report, neighbours, silent
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
    resize_rule,
)
from gan_zoo.metrics.inception import Inception
from gan_zoo.randomness import shuffled, some_rows

# How many generated images are compared with all training images.
_MOST_QUERIES = 2000
_SIGMA_IMAGES = 1000
# With at least so many classes the protocol is Stacked MNIST's.
MANY_CLASSES = 1000

Part = Literal["train", "val", "test"]


class ImageSet:
    """Images, generated or real, in the forms that measures take; functions compute these later.

    Args:
        labels: (N,) int64 classes, asked for or true; -1 where unknown.
        judged: what the evaluator sees; None without an evaluator.
        pixels: (N, C, 28, 28) in [-1, 1]; None if no measure needs them.
        inception: (N, 2048), Inception's features; None if no measure needs them.
    """

    def __init__(
        self,
        labels: Tensor,
        judged: Judged | Callable[[], Judged] | None = None,
        pixels: Tensor | Callable[[], Tensor] | None = None,
        inception: Tensor | Callable[[], Tensor] | None = None,
    ) -> None:
        self.labels = labels
        self._judged = judged
        self._pixels = pixels
        self._inception = inception
        self._nearest: tuple[Tensor, neighbours.Memorisation] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def judged(self) -> Judged:
        assert self._judged is not None
        return self._judged() if callable(self._judged) else self._judged

    @property
    def pixels(self) -> Tensor:
        # Made anew each time: those of many real images would take as much memory as their copies.
        assert self._pixels is not None
        return self._pixels() if callable(self._pixels) else self._pixels

    @functools.cached_property
    def inception(self) -> Tensor:
        assert self._inception is not None
        return self._inception() if callable(self._inception) else self._inception

    def classes(self) -> Tensor:
        """The labels where all are known, else the classes that the evaluator sees."""
        if self._judged is None or (self.labels >= 0).all():
            return self.labels
        return self.judged.classes

    def nearest_real(
        self, reference: "Reference", seed: int, report: Report = silent
    ) -> tuple[Tensor, neighbours.Memorisation]:
        """Rows of at most 2,000 of the images, and their neighbours; computed once.

        Places are rows of the training images and of the reference's real ones.
        """
        if self._nearest is None:
            order, real = shuffled(len(reference.train), seed), reference.real
            count = min(len(real), len(order))
            rows, unseen = some_rows(len(self), _MOST_QUERIES), some_rows(len(real), count)
            found = neighbours.memorisation(
                self.pixels[rows],
                torch.cat(list(reference.training_pixels(order[:count]))),
                reference.training_pixels(order[count:]),
                real.pixels[unseen],
                len(order) - count,
                report,
            )
            train, test = found.nearest_train, found.nearest_test
            train = train._replace(place=order[train.place])
            test = test._replace(place=unseen[test.place])
            self._nearest = rows, found._replace(nearest_train=train, nearest_test=test)
        return self._nearest


@dataclass(eq=False)
class Reference:
    """The real images of a dataset that generated ones are measured against.

    Args:
        train: the training images, for floors and for finding copies of them.
        images: what generated images are measured against, which are this part of the data.
        evaluator: its judge; None for images without classes.
        cache_dir: folder of floors.
        framed_from: see ``as_seen``.
        inception: gives Inception's features; None if no measure needs them.
    """

    train: LabelledImages
    images: LabelledImages
    evaluator: Evaluator | None
    cache_dir: Path
    part: Part = "test"
    framed_from: int | None = None
    inception: Inception | None = None
    _drawn: dict[tuple[int, int], ImageSet] = field(default_factory=dict, init=False)

    @functools.cached_property
    def real(self) -> ImageSet:
        """``images`` in the forms that measures take."""
        return self._set(self.images, torch.arange(len(self.images)))

    @functools.cached_property
    def hash(self) -> str:
        """Of the images, the evaluator, and how it sees them."""
        parts = [hash_of(part.stored()) for part in (self.train, self.images)]
        judge = self.evaluator.hash if self.evaluator else ""
        about = f"{parts} {judge} {self.resize}"
        if self.inception:
            about += self.inception.hash
        return hashlib.sha256(about.encode()).hexdigest()[:12]

    @property
    def resize(self) -> str:
        """What is done to generated and real images before they are measured."""
        return resize_rule(self.images.__getitems__([0])[0].shape[-1], self.framed_from)

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """The expected frequencies of the classes, up to a factor: those among the real images.

        Each count is raised by one, as the data may lack classes that the evaluator knows. With a
        thousand classes (Stacked MNIST) they are uniform.
        """
        assert self.evaluator is not None
        count = self.evaluator.classes
        if count >= MANY_CLASSES:
            return torch.ones(count)
        return self.real.judged.classes.bincount(minlength=count) + 1

    def training_images(self, count: int, seed: int) -> ImageSet:
        """So many training images, drawn by the seed; all measures get the same ones."""
        if (count, seed) not in self._drawn:
            rows = shuffled(len(self.train), seed)[:count]
            self._drawn[count, seed] = self._set(self.train, rows)
        return self._drawn[count, seed]

    def training_images_beside_sigma(self, count: int, seed: int) -> ImageSet:
        """So many training images, without those that a Parzen window's sigma is chosen on.

        Samples that are also in that set make the smallest sigma the best.
        """
        order = shuffled(len(self.train), seed)
        return self._set(self.train, order[~torch.isin(order, self.sigma_rows)][:count])

    @property
    def sigma_rows(self) -> Tensor:
        """The training images that a Parzen window's sigma is chosen on.

        As many and at the same place as those of the GAN paper's code, whose training they are no
        part of; here they are trained on.
        """
        begin = 5 * len(self.train) // 6
        return torch.arange(begin, min(begin + _SIGMA_IMAGES, len(self.train)))

    def training_pixels(self, rows: Tensor) -> Iterable[Tensor]:
        """The training images at these rows, in parts, as measures see them."""
        return (as_seen(part, self.framed_from) for part in images_of(self.train, rows))

    def of_halves(self) -> tuple[ImageSet, Self]:
        """One half of the real images, and a reference whose real images are the other half."""
        halves = shuffled(len(self.images), 0).tensor_split(2)
        first, second = (self._set(self.images, rows) for rows in halves)
        other = dataclasses.replace(self)
        other.real = second
        return first, other

    def _set(self, dataset: LabelledImages, rows: Tensor) -> ImageSet:
        evaluator, inception = self.evaluator, self.inception
        return ImageSet(
            dataset.labels[rows],
            None if evaluator is None else lambda: judged(evaluator, images_of(dataset, rows)),
            lambda: torch.cat([as_seen(x, self.framed_from) for x in images_of(dataset, rows)]),
            None
            if inception is None
            else lambda: torch.cat([inception(x) for x in images_of(dataset, rows)]),
        )


class MeasuredData(Protocol):
    """Data that generated images can be measured against; see InMemoryDataModule."""

    per_channel: ClassVar[bool]
    framed_from: ClassVar[int | None]

    def labelled(self, domain: str, part: Part) -> LabelledImages: ...
    def evaluator_images(self, domain: str, train: bool) -> LabelledImages: ...
    def evaluator_name(self, domain: str) -> str: ...


def reference_for(
    data: MeasuredData,
    domain: str,
    part: Part,
    cache_dir: Path,
    report: Report = silent,
    evaluator: Evaluator | None = None,
    inception: Inception | None = None,
) -> Reference:
    """The real images of a domain, and their evaluator if they have classes.

    Args:
        data: a data module that is set up.
        part: which of its images to measure against.
        cache_dir: folder of trained evaluators and floors.
        evaluator: to be used instead of the data's own.
        inception: gives Inception's features, if a measure needs them.
    """
    train, images = data.labelled(domain, "train"), data.labelled(domain, part)
    if evaluator is None and (train.labels >= 0).all():
        evaluator = evaluator_for(
            data.evaluator_name(domain),
            functools.partial(data.evaluator_images, domain),
            cache_dir,
            data.framed_from,
            report,
        )
    if evaluator is not None:
        evaluator.per_channel, evaluator.framed_from = data.per_channel, data.framed_from
    return Reference(train, images, evaluator, cache_dir, part, data.framed_from, inception)


def image_sets(
    chunks: Iterable[Mapping[str, tuple[Tensor, Tensor | None]]],
    references: Mapping[str, Reference],
    count: int,
    pixels: bool = False,
    report: Report = silent,
) -> dict[str, ImageSet]:
    """Generated images of all processes in the forms that measures take, by domain.

    Args:
        chunks: domain -> (images (B, C, H, W), the classes (B,) that were asked for or None).
        references: of all domains; their evaluators are moved to the images' device.
        count: how many images there are at most.
        pixels: keep the pixels too; like Inception's features, only in a single process.
    """
    collected: dict[str, Judgements] = {}
    kept_pixels: dict[str, Tensor] = {}
    features: dict[str, list[Tensor]] = {domain: [] for domain in references}
    done = 0
    for chunk in chunks:
        for domain, (images, labels) in chunk.items():
            reference, device = references[domain], images.device
            if reference.evaluator is not None:
                judgements = collected.setdefault(domain, Judgements().to(device))
                judgements.update(reference.evaluator.to(device)(images), labels)
            if reference.inception is not None:
                features[domain].append(reference.inception.to(device)(images))
            if pixels:
                seen = as_seen(images.cpu(), reference.framed_from)
                if domain not in kept_pixels:
                    # One piece, in place of many that are joined: half of the memory.
                    kept_pixels[domain] = seen.new_empty(count, *seen.shape[1:])
                kept_pixels[domain][done : done + len(seen)] = seen
        done += len(images)
        report(done / max(count, done))
    sets = {}
    for domain in references:
        image = kept_pixels[domain][:done] if domain in kept_pixels else None
        inception = torch.cat(features[domain]) if features[domain] else None
        if domain in collected:
            judged, labels = collected[domain].compute()
            sets[domain] = ImageSet(labels, judged, image, inception)
        elif done:
            sets[domain] = ImageSet(torch.full((done,), -1), None, image, inception)
    return sets


def in_domain(name: str, domain: str) -> str:
    """The name of a figure of one domain; "" is the only domain."""
    return f"{name}_{domain}" if domain else name
