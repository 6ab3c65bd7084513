"""Two domains, unpaired in training: digits under a known map, rotated, MNIST and USPS, points.

Where a map makes one domain of MNIST from the other, each half of the training digits feeds one
domain only, so that no pair is ever trained on; validation and test images come with their true
counterparts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import USPS

from gan_zoo.data.base import (
    InMemoryDataModule,
    InMemoryDataset,
    InMemoryImages,
    Part,
    framed,
    normalised,
    resized,
    whole_in_range,
)
from gan_zoo.data.mnist import (
    STAND_IN,
    DigitsDataModule,
    fetched,
    of_classes,
    stood_in,
)
from gan_zoo.ranges import Natural, Positive, Range, refuse_unfit

_UNKNOWN = -1
_USPS_COUNTS = {True: 7291, False: 2007}
_ANGLE_RANGES = 6
_CHUNK = 5000


class ImagePair(NamedTuple):
    """A batch of images of two domains; which of them belong together, if any, see the dataset.

    Attributes:
        a, b: (B, C, H, W) float32 in [-1, 1].
        label_a, label_b: (B,) what is known of the images: int64 classes; -1 where nothing is, as
            of b in training; for rotated digits the float32 angles in degrees.
    """

    a: Tensor
    b: Tensor
    label_a: Tensor
    label_b: Tensor


class PointPair(NamedTuple):
    """A batch of points of two domains.

    Attributes:
        a, b: (B, 2) float32.
        label_a, label_b: (B,) int64 modes that the points come from.
    """

    a: Tensor
    b: Tensor
    label_a: Tensor
    label_b: Tensor


class Domain(NamedTuple):
    """One domain's examples.

    Attributes:
        data: (N, C, H, H) uint8 images or (N, 2) float32 points.
        label: (N,) what ImagePair's or PointPair's label says of them.
        origin: (N,) which of the kept originals each was made from.
    """

    data: Tensor
    label: Tensor
    origin: Tensor


class InMemoryPairs(InMemoryDataset):
    """Two domains side by side, as long as the longer; the shorter begins again.

    Args:
        domains: a and b.
        batch_type: ImagePair or PointPair.
        prepare: data of a batch -> what the batch holds; applied to each domain.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        batch_type: type,
        prepare: Callable[[Tensor], Tensor],
    ) -> None:
        self.a, self.b = domains
        self.batch_type = batch_type
        self.prepare = prepare

    def __len__(self) -> int:
        return max(len(self.a.data), len(self.b.data))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        chosen = torch.as_tensor(indices)
        in_a, in_b = chosen % len(self.a.data), chosen % len(self.b.data)
        return self.batch_type(
            self.prepare(self.a.data.index_select(0, in_a)),
            self.prepare(self.b.data.index_select(0, in_b)),
            self.a.label.index_select(0, in_a),
            self.b.label.index_select(0, in_b),
        )

    def stored(self) -> Iterable[Tensor]:
        return self.a.data, self.b.data


def edges(images: Tensor) -> Tensor:
    """CoGAN's edge rule (1606.07536, its authors' code): 3x3 dilation minus the image.

    Args:
        images: (N, 1, H, W) uint8.
    """
    # Pooling knows no bytes on the CPU.
    chunks = [F.max_pool2d(x.float(), 3, 1, 1).to(torch.uint8) - x for x in images.split(_CHUNK)]
    return torch.cat(chunks)


def negatives(images: Tensor) -> Tensor:
    """CoGAN's second task: white minus the image (uint8)."""
    return 255 - images


def colored(images: Tensor, palette: Sequence[Sequence[int]]) -> Tensor:
    """Grey values to colours, along straight lines between the palette's, darkest first.

    Args:
        images: (N, 1 or 3, H, W) uint8, grey.
        palette: two or more colours (red, green, blue) in 0..255, evenly spaced.

    Returns:
        (N, 3, H, W) uint8.

    Raises:
        ValueError: for a palette of another shape, or that gives two grey values the same colour,
            so that the map can't be inverted.
    """
    colours = torch.as_tensor(palette, dtype=torch.float32)
    if colours.dim() != 2 or colours.shape[1] != 3 or len(colours) < 2:
        raise ValueError("A palette is a list of two or more colours [red, green, blue].")
    table = F.interpolate(colours.T[None], size=256, mode="linear", align_corners=True)[0].T
    table = table.round().clamp(0, 255).to(torch.uint8)
    if len(table.unique(dim=0)) < 256:
        raise ValueError(
            "The palette gives several grey values one colour: colours further apart would do."
        )
    return torch.cat([table[x[:, 0].long()].permute(0, 3, 1, 2) for x in images.split(_CHUNK)])


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """Images (N, C, H, H) uint8 turned counter-clockwise by (N,) degrees about their centres.

    Bilinear; what comes from outside is background (0).
    """
    turned = []
    for chunk, angle in zip(images.split(_CHUNK), angles.split(_CHUNK), strict=True):
        radians = angle.float().deg2rad()
        cos, sin = radians.cos(), radians.sin()
        # From where in the image, y pointing down, each pixel of the turned one comes.
        rows = [torch.stack([cos, -sin, 0 * cos], 1), torch.stack([sin, cos, 0 * cos], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), list(chunk.shape), align_corners=False)
        values = F.grid_sample(chunk.float(), grid, align_corners=False)
        turned.append(values.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(turned)


class TwoDomainsDataModule(DigitsDataModule):
    """What the two-domain modules of digits share.

    Args:
        task: the second part of the dataset's name; "edges" makes ``mnist_edges``.
        seed: decides which original feeds which domain.
        options: DigitsDataModule's.

    Raises:
        ValueError: for an option out of its range.
    """

    batch_type = ImagePair
    domains = ("a", "b")

    def __init__(self, *, task: str, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        whole_in_range("seed", seed, 0, 2**32 - 1)
        self.task = task
        self.seed = seed
        self._domains: dict[str, Sequence[Domain]] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.train is not None:
            return
        train, held = self.split()
        self._domains = {"train": train, "val": held, "test": self.both(train=False)}
        self.train = self.pairs(train, training=True)
        self.val = self.pairs(held)
        self.test = self.pairs(self._domains["test"])

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        """The training images of a and b, and those held out for validation."""
        raise NotImplementedError

    def both(self, train: bool) -> Sequence[Domain]:
        """All training or test images of a and b."""
        raise NotImplementedError

    def labelled(self, domain: str, part: Part) -> InMemoryImages:
        self.part(part)
        return self.images(self._domains[part]["ab".index(domain)])

    def evaluator_images(self, domain: str, train: bool) -> InMemoryImages:
        return self.images(self.both(train)["ab".index(domain)])

    def digits(self, train: bool) -> Domain:
        """The digits that are kept, (N, 1, 28, 28), with their classes."""
        images, labels = self.originals(train)
        return Domain(images, labels, torch.arange(len(images)))

    def pairs(self, domains: Sequence[Domain], training: bool = False) -> InMemoryPairs:
        """The domains as a dataset; in training, without what is known of b."""
        a, b = (d._replace(data=d.data.expand(-1, self.channels, -1, -1)) for d in domains)
        if training:
            b = b._replace(label=torch.full_like(b.label, _UNKNOWN))
        return InMemoryPairs((a, b), ImagePair, self._prepared)

    def images(self, domain: Domain) -> InMemoryImages:
        """A domain's images with their classes, as they are in pairs."""
        pixels = domain.data.expand(-1, self.channels, -1, -1)
        return InMemoryImages(pixels, domain.label, self.image_size)

    def shuffled(self, count: int) -> Tensor:
        """The numbers below ``count`` in an order of the seed's."""
        return torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))

    def _prepared(self, images: Tensor) -> Tensor:
        return normalised(resized(images, self.image_size))


class MappedDigitsDataModule(TwoDomainsDataModule):
    """Domain a: digits. Domain b: other digits under a map that is known.

    Half of the training digits are a's, the map of the other half is b's. Validation and test
    images b are the map of the very images a. So that no translation is measured against the image
    that it is meant to be, models translate every other validation or test image, and the rest is
    what they are measured against.

    Attributes:
        aligned: that they are.

    Args:
        counterpart: the map, (N, 1, 28, 28) uint8 -> (N, 1 or 3, 28, 28) uint8.
        options: TwoDomainsDataModule's.

    Raises:
        ValueError: as TwoDomainsDataModule, or where the map makes colours and channels is 1.
    """

    aligned = True

    def __init__(self, *, counterpart: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.counterpart = counterpart
        if counterpart(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape[1] > self.channels:
            raise ValueError(
                f"dataset.channels is {self.channels}; the map of this dataset makes colours: it "
                "has to be 3."
            )

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        digits = self.digits(train=True)
        count = len(digits.data)
        end = count - self.validation_size(count, least=2 * self.batch_size)
        order = self.shuffled(count)
        a, b = (_chosen(digits, half) for half in order[: end // 2 * 2].tensor_split(2))
        held = _chosen(digits, order[end:])
        return (a, self._mapped(b)), (held, self._mapped(held))

    def both(self, train: bool) -> Sequence[Domain]:
        digits = self.digits(train)
        return digits, self._mapped(digits)

    def source(self, part: Literal["val", "test"] = "test") -> InMemoryPairs:
        pairs = super().source(part)
        assert isinstance(pairs, InMemoryPairs)
        domains = [_chosen(domain, slice(0, None, 2)) for domain in (pairs.a, pairs.b)]
        return InMemoryPairs(domains, ImagePair, self._prepared)

    def labelled(self, domain: str, part: Part) -> InMemoryImages:
        images = super().labelled(domain, part)
        return images if part == "train" else _untranslated(images)

    def evaluator_images(self, domain: str, train: bool) -> InMemoryImages:
        images = super().evaluator_images(domain, train)
        return images if train else _untranslated(images)

    def evaluator_name(self, domain: str) -> str:
        return self.name if domain == "a" else self.title

    def _mapped(self, domain: Domain) -> Domain:
        # A frame is part of the picture: that of a negative is white.
        return domain._replace(data=self.counterpart(framed(domain.data, self.image_size)))


class RotatedDigitsDataModule(TwoDomainsDataModule):
    """DiscoGAN's rotated cars (1703.05192, section 3.2) in digits: two classes, turned at random.

    Domain a is the one class and b the other, each image turned by an angle that is uniform in
    +-max_angle; the labels are the angles in degrees, counter-clockwise. What a translator should
    find is the angle, which is all that the domains share. So the classes by which generated images
    are measured are six equal ranges of the angle.

    Args:
        digits: the classes of a and b.
        max_angle: in degrees, up to 180.
        options: TwoDomainsDataModule's.

    Raises:
        ValueError: as TwoDomainsDataModule, or for digits or an angle that can't be.
    """

    def __init__(
        self, *, digits: Sequence[int] = (3, 5), max_angle: float = 75.0, **options: Any
    ) -> None:
        super().__init__(**options)
        digit = Annotated[int, Range(0, 9)]
        refuse_unfit("dataset.digits", digits, tuple[digit, digit])
        if digits[0] == digits[1]:
            raise ValueError(f"dataset.digits is {list(digits)}; they have to be different ones.")
        refuse_unfit("dataset.max_angle", max_angle, Annotated[float, Range(0, 180, above=True)])
        self.classes = tuple(digits)
        self.max_angle = max_angle

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        domains = self.both(train=True)
        cut = [_cut(domain, self.validation_size(len(domain.data))) for domain in domains]
        return [train for train, _ in cut], [held for _, held in cut]

    def both(self, train: bool) -> Sequence[Domain]:
        return [self._domain(digit, train) for digit in self.classes]

    def images(self, domain: Domain) -> InMemoryImages:
        share = (domain.label / self.max_angle + 1) / 2
        ranges = (share * _ANGLE_RANGES).long().clamp(0, _ANGLE_RANGES - 1)
        return super().images(domain._replace(label=ranges))

    def _domain(self, digit: int, train: bool) -> Domain:
        digits = self.digits(train)
        digits = _chosen(digits, digits.label == digit)
        random = torch.Generator().manual_seed(self.seed + digit + 10 * train)
        angles = (2 * torch.rand(len(digits.data), generator=random) - 1) * self.max_angle
        return digits._replace(data=rotated(digits.data, angles), label=angles)


class MNISTUSPSDataModule(TwoDomainsDataModule):
    """Domain a: MNIST, with its labels. Domain b: USPS, whose labels are for evaluation alone.

    USPS's 16 x 16 pixels are framed by 3 and resized to 28, as CoGAN's authors do. Without a
    validation set ``val`` is empty; ``test`` has the two test sets side by side, the shorter
    beginning again. The stand-in takes the embedded digits for both, at 28 and at 16 pixels.

    Args:
        swap: USPS is domain a and MNIST b.
        size_a, size_b: how many training images of each, drawn by the seed; None for all. CoGAN's
            protocol has 2,000 of MNIST and 1,800 of USPS.
        options: TwoDomainsDataModule's.

    Raises:
        ValueError: as TwoDomainsDataModule, or for a size out of range.
    """

    def __init__(
        self,
        *,
        swap: bool = False,
        size_a: int | None = None,
        size_b: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for option, size in (("size_a", size_a), ("size_b", size_b)):
            if size is not None:
                whole_in_range(option, size, 1, 60000)
        self.swap = swap
        self.sizes = (size_a, size_b)

    @classmethod
    def available(cls, name: str, root: str | Path, when_unavailable: str) -> str:
        name = super().available(name, root, when_unavailable)
        if name == STAND_IN or available_usps(root, when_unavailable) == STAND_IN:
            return STAND_IN
        return name

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        train, held = [], []
        for domain, size in zip(self.both(train=True), self.sizes, strict=True):
            count = len(domain.data)
            shuffled = _chosen(domain, self.shuffled(count))
            kept, rest = _cut(shuffled, self.validation_size(count, least=size))
            train.append(_chosen(kept, slice(size)))
            held.append(rest)
        return train, held

    def evaluator_name(self, domain: str) -> str:
        if (domain == "b") != self.swap:
            return "usps" if self.name != STAND_IN else f"{STAND_IN}_usps"
        return self.name

    def both(self, train: bool) -> Sequence[Domain]:
        mnist = self.digits(train)
        if self.name == STAND_IN:
            half = _chosen(mnist, slice(1, None, 2))
            mnist = _chosen(mnist, slice(0, None, 2))
            usps = half._replace(data=_scaled(half.data, 16))
        else:
            images, labels = of_classes(*load_usps(self.root, train), self.num_classes)
            usps = Domain(images, labels, torch.arange(len(images)))
        usps = usps._replace(data=_scaled(F.pad(usps.data, [3] * 4), 28))
        return [usps, mnist] if self.swap else [mnist, usps]


def available_usps(root: str | Path, when_unavailable: str = STAND_IN) -> str:
    """Makes sure that USPS lies in ``root``/USPS, verified, downloading what is missing.

    Returns:
        "usps", or "digits" where it can't be had and ``when_unavailable`` allows it.

    Raises:
        ValueError: for files that are not USPS.
        RuntimeError: where it can't be had and ``when_unavailable`` is "error".
    """
    root = Path(root)
    folder = root / "USPS"
    files = [folder / USPS.split_list[split][1] for split in ("train", "test")]
    if not all(file.exists() for file in files):
        try:
            with fetched(folder, root) as aside:
                for train in (True, False):
                    USPS(str(aside), train=train, download=True)
        except (OSError, RuntimeError) as error:
            return stood_in("usps", folder, when_unavailable, error)
    for train in (True, False):
        load_usps(root, train)
    return "usps"


@functools.cache
def load_usps(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """(N, 1, 16, 16) uint8 images and (N,) int64 labels; 7,291 in training, 2,007 in the test.

    Raises:
        ValueError: for a file that is not USPS's.
    """
    file = root / "USPS" / USPS.split_list["train" if train else "test"][1]
    try:
        data = USPS(str(file.parent), train=train)
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise ValueError(f"The USPS file '{file}' is damaged ({error}).") from error
    labels = torch.as_tensor(data.targets)
    expected = _USPS_COUNTS[train]
    if len(data.data) != expected or not bool(((labels >= 0) & (labels < 10)).all()):
        raise ValueError(
            f"The USPS file '{file}' has {len(data.data):,} images instead of {expected:,}, or "
            "labels that are no digits. Delete it to have it downloaded again."
        )
    return torch.as_tensor(data.data)[:, None], labels


class GaussianMixtureDataModule(InMemoryDataModule):
    """DiscoGAN's toy (1703.05192, section 3.1): points of two Gaussian mixtures in the plane.

    Each mixture's modes are evenly spaced on a circle about the origin, and equally frequent.

    Args:
        modes_a, modes_b: number of modes.
        radius_a, radius_b: of the circles.
        std: standard deviation of each mode.
        num_points: training points of each domain; there are as many test points.
        batch_size, num_workers, val_size: as InMemoryDataModule's.
        seed: decides the points.
        name: what the run is named by.

    Raises:
        ValueError: for an option out of its range.
    """

    batch_type = PointPair
    domains = ("a", "b")
    num_examples = 1000

    def __init__(
        self,
        modes_a: int = 5,
        modes_b: int = 10,
        radius_a: float = 2.0,
        radius_b: float = 4.0,
        std: float = 0.2,
        num_points: int = 10_000,
        batch_size: int = 200,
        num_workers: int = 0,
        val_size: Natural | None = 0,
        seed: int = 0,
        name: str = "gaussian_mixture",
    ) -> None:
        super().__init__(name, batch_size, num_workers, val_size)
        whole_in_range("modes_a", modes_a, 1, 1000)
        whole_in_range("modes_b", modes_b, 1, 1000)
        whole_in_range("num_points", num_points, 1, 10_000_000)
        whole_in_range("seed", seed, 0, 2**32 - 1)
        refuse_unfit("dataset.radius_a", radius_a, Positive)
        refuse_unfit("dataset.radius_b", radius_b, Positive)
        refuse_unfit("dataset.std", std, Positive)
        self.centres_a = _circle(modes_a, radius_a)
        self.centres_b = _circle(modes_b, radius_b)
        self.std = std
        self.num_points = num_points
        self.seed = seed

    def setup(self, stage: str | None = None) -> None:
        if self.train is not None:
            return
        size = self.validation_size(self.num_points)
        random = torch.Generator().manual_seed(self.seed)
        centres = (self.centres_a, self.centres_b)
        train, held = zip(
            *(_cut(self._domain(modes, random), size) for modes in centres), strict=True
        )
        self.train = InMemoryPairs(train, PointPair, _same)
        self.val = InMemoryPairs(held, PointPair, _same)
        test = [self._domain(modes, random) for modes in centres]
        self.test = InMemoryPairs(test, PointPair, _same)

    def _domain(self, centres: Tensor, random: torch.Generator) -> Domain:
        mode = torch.randint(len(centres), (self.num_points,), generator=random)
        spread = torch.randn(self.num_points, 2, generator=random)
        return Domain(centres[mode] + self.std * spread, mode, torch.arange(self.num_points))


def _same(data: Tensor) -> Tensor:
    return data


def _chosen(domain: Domain, which: Tensor | slice) -> Domain:
    return Domain(*(field[which] for field in domain))


def _cut(domain: Domain, size: int) -> tuple[Domain, Domain]:
    """All but the last ``size`` examples, and these."""
    end = len(domain.data) - size
    return _chosen(domain, slice(end)), _chosen(domain, slice(end, None))


def _untranslated(images: InMemoryImages) -> InMemoryImages:
    """What is left where models translate every other image."""
    rows = slice(1, None, 2)
    return InMemoryImages(images.images[rows], images.labels[rows], images.image_size)


def _scaled(images: Tensor, size: int) -> Tensor:
    return resized(images, size).round().to(torch.uint8)


def _circle(count: int, radius: float) -> Tensor:
    angles = torch.arange(count) * (2 * math.pi / count)
    return radius * torch.stack([angles.cos(), angles.sin()], 1)
