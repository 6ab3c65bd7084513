"""Two domains of digits: under a known map, or each turned by an angle of its own."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_zoo.data.base import InMemoryImages, Part, framed, normalised
from gan_zoo.data.mnist import DigitsDataModule
from gan_zoo.data.pairs import Domain, ImagePair, InMemoryPairs
from gan_zoo.ranges import Range, Seed, UnfitArgument, checked

_ANGLE_RANGES = 6
_CHUNK = 5000
_Digit = Annotated[int, Range(0, 9)]


def edges(images: Tensor) -> Tensor:
    """CoGAN's edge rule (1606.07536, authors' code): 3x3 dilation - image, (N, 1, H, W) uint8."""
    # The CPU has no max pooling of uint8.
    chunks = [F.max_pool2d(x.float(), 3, 1, 1).to(torch.uint8) - x for x in images.split(_CHUNK)]
    return torch.cat(chunks)


def negatives(images: Tensor) -> Tensor:
    """CoGAN's second task: white minus the image (uint8)."""
    return 255 - images


def colored(images: Tensor, palette: Sequence[Sequence[int]]) -> Tensor:
    """Grey (N, 1 or 3, H, W) to colours (N, 3, H, W), uint8, interpolated linearly.

    The palette is two or more colours (red, green, blue) in 0..255, evenly spaced, darkest first.
    No two grey values may get the same colour, so that the map has an inverse.
    """
    colours = torch.as_tensor(palette, dtype=torch.float32)
    if colours.dim() != 2 or colours.shape[1] != 3 or len(colours) < 2:
        raise ValueError("A palette is a list of two or more colours [red, green, blue].")
    table = F.interpolate(colours.T[None], size=256, mode="linear", align_corners=True)[0].T
    table = table.round().clamp(0, 255).to(torch.uint8)
    if len(table.unique(dim=0)) < 256:
        problem = "gives several grey values one colour: choose colours further apart."
        raise ValueError(f"The palette {problem}")
    return torch.cat([table[x[:, 0].long()].permute(0, 3, 1, 2) for x in images.split(_CHUNK)])


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """Images (N, C, H, H) uint8 turned counter-clockwise by (N,) degrees about their centres.

    Bilinear; outside of the image is background (0).
    """
    turned = []
    for chunk, angle in zip(images.split(_CHUNK), angles.split(_CHUNK), strict=True):
        radians = angle.float().deg2rad()
        cos, sin, none = radians.cos(), radians.sin(), torch.zeros_like(radians)
        # Maps each pixel of the turned image to its place in the original; y points down.
        theta = torch.stack([cos, -sin, none, sin, cos, none], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(chunk.shape), align_corners=False)
        values = F.grid_sample(chunk.float(), grid, align_corners=False)
        turned.append(values.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(turned)


class TwoDomainsDataModule(DigitsDataModule):
    """What the data modules of two domains of digits share.

    Args:
        seed: decides which original feeds which domain.
    """

    batch_type = ImagePair
    domains = ("a", "b")

    @checked
    def __init__(self, *, seed: Seed = 0, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed
        self._domains: dict[Part, Sequence[Domain]] = {}

    def load(self) -> None:
        (a, b), held_out = self.split()
        self._domains = {"train": (a, b), "val": held_out, "test": self.both(train=False)}
        unlabelled = b._replace(label=torch.full_like(b.label, -1))
        self.train = self.pairs((a, unlabelled))
        self.val = self.pairs(held_out)
        self.test = self.pairs(self._domains["test"])

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        """The training images of a and b, and those held out for validation."""
        both = self.both(train=True)
        cut = [domain.cut(self.validation_size(len(domain.data))) for domain in both]
        return [train for train, _ in cut], [held_out for _, held_out in cut]

    def both(self, train: bool) -> Sequence[Domain]:
        """All training images, or all test images, of a and b."""
        raise NotImplementedError

    def labelled(self, domain: str, part: Part) -> InMemoryImages:
        self.part(part)
        return self._images(self._domains[part], domain)

    def evaluator_images(self, domain: str, train: bool) -> InMemoryImages:
        return self._images(self.both(True), domain) if train else self.labelled(domain, "test")

    def digits(self, train: bool) -> Domain:
        """The digits of the classes that are kept, (N, 1, 28, 28)."""
        images, labels = self.originals(train)
        return Domain(images, labels, torch.arange(len(images)))

    def pairs(self, domains: Sequence[Domain]) -> InMemoryPairs:
        """The domains as a dataset, of the module's channels and size."""
        both = [d._replace(data=d.data.expand(-1, self.channels, -1, -1)) for d in domains]
        return InMemoryPairs(both, ImagePair, functools.partial(normalised, size=self.image_size))

    def shuffled(self, domain: Domain) -> Domain:
        """The domain in an order that the seed decides."""
        random = torch.Generator().manual_seed(self.seed)
        return domain.chosen(torch.randperm(len(domain.data), generator=random))

    def _images(self, domains: Sequence[Domain], domain: str) -> InMemoryImages:
        images, labels, _ = domains["ab".index(domain)]
        return self.as_dataset(images, labels)


class MappedDigitsDataModule(TwoDomainsDataModule):
    """Domain a: digits. Domain b: other digits under a known map.

    Half of the training digits are a's, and the map of the other half is b's, so that no true pair
    is trained on. Validation and test images b are the map of the same images a. So that no
    translation is measured against the very image that it should become, models translate every
    other validation or test image, and are measured against the rest.

        data = MappedDigitsDataModule(task="edges", counterpart=edges, root="data")
        data.prepare_data()
        data.setup()

    Args:
        counterpart: the map, (N, 1, 28, 28) uint8 -> (N, 1 or 3, 28, 28) uint8.

    Attributes:
        aligned: whether validation and test images correspond.
    """

    aligned = True
    task = "mapped"

    @checked
    def __init__(self, *, counterpart: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.counterpart = counterpart
        if counterpart(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape[1] > self.channels:
            problem = "is 1; it has to be 3, as the map of this dataset makes colours."
            raise UnfitArgument("channels", problem)

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        digits = self.shuffled(self.digits(train=True))
        size = self.validation_size(len(digits.data), least=2 * self.batch_size)
        kept, held_out = digits.cut(size)
        half = len(kept.data) // 2
        a, b = kept.chosen(slice(half)), kept.chosen(slice(half, 2 * half))
        return (a, self._mapped(b)), (held_out, self._mapped(held_out))

    def both(self, train: bool) -> Sequence[Domain]:
        digits = self.digits(train)
        return digits, self._mapped(digits)

    def source(self, part: Literal["val", "test"] = "test") -> InMemoryPairs:
        pairs = super().source(part)
        assert isinstance(pairs, InMemoryPairs)
        return self.pairs([domain.chosen(slice(0, None, 2)) for domain in (pairs.a, pairs.b)])

    def labelled(self, domain: str, part: Part) -> InMemoryImages:
        images = super().labelled(domain, part)
        rows = slice(None) if part == "train" else slice(1, None, 2)
        return InMemoryImages(images.images[rows], images.labels[rows], images.image_size)

    def evaluator_name(self, domain: str) -> str:
        return self.name if domain == "a" else self.title

    def _mapped(self, domain: Domain) -> Domain:
        # The padding is mapped too: that of a negative is white.
        return domain._replace(data=self.counterpart(framed(domain.data, self.image_size)))


class RotatedDigitsDataModule(TwoDomainsDataModule):
    """DiscoGAN's rotated cars (1703.05192, section 3.2) in digits: two classes, turned at random.

    Domain a is one class and b another. Each image is turned counter-clockwise by an angle that is
    uniform in +-max_angle; the labels are the angles in degrees. The angle is all that the domains
    share, and what a translator should find. So the classes by which generated images are measured
    are six equal ranges of the angle.

        data = RotatedDigitsDataModule(digits=(3, 5), root="data")
        data.prepare_data()
        data.setup()

    Args:
        digits: the classes of a and b, different ones.
        max_angle: in degrees.
    """

    task = "rotated"

    @checked
    def __init__(
        self,
        *,
        digits: tuple[_Digit, _Digit] = (3, 5),
        max_angle: Annotated[float, Range(0, 180, above=True)] = 75.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if digits[0] == digits[1]:
            raise UnfitArgument("digits", f"is {list(digits)}; they have to be different ones.")
        self.classes = tuple(digits)
        self.max_angle = max_angle

    def both(self, train: bool) -> Sequence[Domain]:
        domains = []
        for digit in self.classes:
            digits = self.digits(train)
            digits = digits.chosen(digits.label == digit)
            random = torch.Generator().manual_seed(self.seed + digit + 10 * train)
            angles = (2 * torch.rand(len(digits.data), generator=random) - 1) * self.max_angle
            domains.append(digits._replace(data=rotated(digits.data, angles), label=angles))
        return domains

    def as_dataset(self, images: Tensor, labels: Tensor) -> InMemoryImages:
        share = (labels / self.max_angle + 1) / 2
        ranges = (share * _ANGLE_RANGES).long().clamp(0, _ANGLE_RANGES - 1)
        return super().as_dataset(images, ranges)
