"""MNIST's digits in colour, with English captions of what is measured in each image."""

import re
import string
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from gan_zoo.data.base import normalised, resized
from gan_zoo.data.captions import (
    CaptionDataModule,
    Captions,
    InMemoryCaptions,
    Near,
    WithoutCaptions,
)
from gan_zoo.data.mnist import DigitsDataModule
from gan_zoo.ranges import Range, Share, UnfitArgument, checked

INKS = {
    "red": (225, 40, 40),
    "orange": (250, 145, 30),
    "yellow": (250, 235, 70),
    "green": (60, 200, 75),
    "cyan": (70, 215, 230),
    "blue": (75, 115, 250),
    "pink": (245, 115, 195),
    "white": (245, 245, 245),
}
GROUNDS = {
    "black": (12, 12, 12),
    "dark blue": (15, 25, 100),
    "dark green": (10, 75, 30),
    "dark red": (95, 12, 20),
    "purple": (75, 20, 100),
    "grey": (95, 95, 95),
}
# Each channel of a colour is drawn within this distance of the named colour's.
COLOUR_SPREAD = 12

# Attribute -> its values' words.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "digit": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "ink": tuple(INKS),
    "ground": tuple(GROUNDS),
    "thickness": ("thin", "regular", "thick"),
    "slant": ("leaning to the left", "standing upright", "leaning to the right"),
    "size": ("small", "middle-sized", "large"),
}


class Paraphrase(NamedTuple):
    """A way to write a caption: attributes in braces; own words in place of ``ATTRIBUTES``."""

    text: str
    words: Mapping[str, tuple[str, ...]] = {}

    @property
    def mentions(self) -> list[bool]:
        """Which of ``ATTRIBUTES`` it mentions."""
        fields = {field for _, field, _, _ in string.Formatter().parse(self.text)}
        return [attribute in fields for attribute in ATTRIBUTES]

    def of(self, values: Mapping[str, int]) -> str:
        """The caption for these values of all attributes."""
        words = {name: (self.words.get(name) or ATTRIBUTES[name])[v] for name, v in values.items()}
        return re.sub(r"\ba (?=[aeiou])", "an ", self.text.format(**words))


_TILTED = {"slant": ("tilted to the left", "straight", "tilted to the right")}
_PEN = {"thickness": ("fine", "medium", "bold")}
# The first two mention everything.
PARAPHRASES = (
    Paraphrase("a {size} {thickness} {ink} {digit} {slant}, on a {ground} ground"),
    Paraphrase(
        "{ground} background, {ink} {digit}, {thickness} strokes, {slant}, {size}", _TILTED | _PEN
    ),
    Paraphrase("a {thickness} {ink} {digit} {slant}, on a {ground} ground"),
    Paraphrase("a {digit} in {ink} on {ground}, {slant}", _TILTED),
    Paraphrase("a {thickness} {ink} {digit}"),
    Paraphrase(
        "the digit {digit}, {size} and drawn with a {thickness} pen in {ink} on {ground}",
        {"digit": tuple("0123456789")} | _PEN,
    ),
    Paraphrase(
        "a {size} {digit} {slant}, {ink} ink",
        {"size": ("little", "average", "big"), "digit": tuple("0123456789")},
    ),
    Paraphrase("on a {ground} ground stands a {ink} {digit}, {thickness} and {size}"),
)
_CAPTIONS_PER_IMAGE = 4


def stroke_thickness(images: Tensor) -> Tensor:
    """(N,) in pixels: twice the ink over its total variation, of images (N, H, W) in [0, 1].

    A long stroke has a total variation of twice its length, and ink of thickness times length.
    """
    variation = images.diff(dim=1).abs().sum((1, 2)) + images.diff(dim=2).abs().sum((1, 2))
    return 2 * images.sum((1, 2)) / variation.clamp(min=1e-6)


def slant_and_size(images: Tensor) -> tuple[Tensor, Tensor]:
    """By second moments of the ink about its centre, of images (N, H, W) in [0, 1], each (N,).

    The slant is in pixels to the right per pixel of height; the size is the root mean square
    distance from the centre, in pixels.
    """
    ink = images / images.sum((1, 2), keepdim=True).clamp(min=1e-6)
    y, x = torch.meshgrid(*map(torch.arange, images.shape[1:]), indexing="ij")
    dx = x - (ink * x).sum((1, 2), keepdim=True)
    dy = y - (ink * y).sum((1, 2), keepdim=True)
    xx, xy, yy = ((ink * moment).sum((1, 2)) for moment in (dx * dx, dx * dy, dy * dy))
    return -xy / yy.clamp(min=1e-6), (xx + yy).sqrt()


class MNISTCaptionsDataModule(CaptionDataModule, DigitsDataModule):
    """Digits, each in an ink on a ground of its own, with captions of them.

    Captions mention the digit, the colours, which are drawn at random, and what is measured in the
    original: the strokes' thickness and slant, by terciles of all training images, and the size, by
    terciles of those of the same digit. Each image has four captions, paraphrases that mention all
    or some of these.

    One ink of each digit is held out: no training, validation or test image shows it. ``held_out``
    has only these inks, on the test digits.

        data = MNISTCaptionsDataModule(text_encoder=TextEncoder(), root="data", image_size=32)
        data.prepare_data()
        data.setup()    # trains the encoder

    Args:
        train_size: number of training digits to use, drawn by the seed; None for all.
        near_wrong_captions: the share of the wrong captions in training that are of another digit
            in the same ink on the same ground. A caption that is wrong in the colours too tells a
            discriminator nothing of digits.
        measured_wrong_captions: the share of those that are of the same digit in the same colours,
            but of another thickness, slant or size, for the same reason. The others, with neither,
            are of any other digit or ink.

    Attributes:
        held_out_inks: (10,) the ink that each digit lacks.
        held_out: the test digits in those inks.
    """

    task = "captions"

    @checked
    def __init__(
        self,
        *,
        name: Literal["mnist", "digits"] = "mnist",
        train_size: Annotated[int, Range(1, 60000)] | None = None,
        near_wrong_captions: Share = 0.0,
        measured_wrong_captions: Share = 0.0,
        channels: Literal[3] = 3,
        **options: Any,
    ) -> None:
        super().__init__(name=name, channels=channels, **options)
        self.train_size = train_size
        self.near_wrong_captions = near_wrong_captions
        self.measured_wrong_captions = measured_wrong_captions
        if near_wrong_captions + measured_wrong_captions > 1:
            raise UnfitArgument(
                "measured_wrong_captions",
                f"is {measured_wrong_captions}, and near_wrong_captions {near_wrong_captions}: "
                "together they have to be 1 or less.",
            )
        self.held_out: InMemoryCaptions | None = None
        random = torch.Generator().manual_seed(self.seed)
        # Two permutations, so that at most two digits lack the same ink.
        inks = [torch.randperm(len(INKS), generator=random) for _ in range(2)]
        self.held_out_inks = torch.cat(inks)[:10]

    def load(self) -> None:
        images, digits = self.originals(train=True)
        measures = _measured(images)
        bounds = _tercile_bounds(measures, digits)
        originals = [images, digits, _thirds(measures, bounds[digits])]
        if self.train_size is not None:
            random = torch.Generator().manual_seed(self.seed)
            drawn = torch.randperm(len(images), generator=random)[: self.train_size]
            originals = [tensor[drawn] for tensor in originals]
        self._all_originals = originals
        size = self.validation_size(len(originals[0]))
        end = len(originals[0]) - size
        self.train = self._part([tensor[:end] for tensor in originals], 0, training=True)
        if size:
            self.val = self._part([tensor[end:] for tensor in originals], 1)
        images, digits = self.originals(train=False)
        originals = [images, digits, _thirds(_measured(images), bounds[digits])]
        self.test = self._part(originals, 2)
        self.held_out = self._part(originals, 3, held_out=True)
        say, values = PARAPHRASES[2].of, dict.fromkeys(ATTRIBUTES, 1)
        digit = min(3, self.num_classes - 1)
        self.caption_rows = [
            [say({**values, "digit": number, "ink": 2}) for number in range(self.num_classes)],
            # One of these inks is held out.
            [say({**values, "digit": digit, "ink": ink}) for ink in range(len(INKS))],
        ]

    def parts(self) -> list[InMemoryCaptions]:
        return [*super().parts(), *([self.held_out] if self.held_out else [])]

    def evaluator_images(self, domain: str, train: bool) -> WithoutCaptions:
        if not train:
            return self.labelled(domain, "test")
        # In the same colours as without a validation set.
        return WithoutCaptions(self._part(self._all_originals, 0))

    def _part(
        self, originals: list[Tensor], number: int, training: bool = False, held_out: bool = False
    ) -> InMemoryCaptions:
        """Grey images (N, 1, 28, 28) uint8, their digits (N,) and their ``_thirds``, coloured."""
        images, digits, thirds = originals
        random = torch.Generator().manual_seed(self.seed * 10 + number)
        n = len(images)
        ink = missing = self.held_out_inks[digits]
        if not held_out:
            # Uniform over the other inks.
            ink = torch.randint(len(INKS) - 1, (n,), generator=random)
            ink = ink + (ink >= missing)
        ground = torch.randint(len(GROUNDS), (n,), generator=random)
        attributes = torch.stack([digits, ink, ground, *thirds.unbind(1)], 1)
        ways = torch.rand(n, len(PARAPHRASES), generator=random)
        colours = []
        for palette, which in ((INKS, ink), (GROUNDS, ground)):
            spread = torch.rand(n, 3, generator=random) * 2 - 1
            named = torch.tensor(list(palette.values()), dtype=torch.float32)[which]
            colours.append((named + COLOUR_SPREAD * spread).clamp(0, 255))
        captions = written(attributes, ways.topk(_CAPTIONS_PER_IMAGE, 1).indices)
        labels, colour = digits * len(INKS) + ink, ink * len(GROUNDS) + ground
        measured = thirds[:, 0] * 9 + thirds[:, 1] * 3 + thirds[:, 2]
        near = (
            Near(self.near_wrong_captions, colour, labels),
            Near(self.measured_wrong_captions, colour * 10 + digits, measured),
        )
        source = ((images, *colours), self._coloured, labels, attributes)
        return InMemoryCaptions(*source, captions, self.captions_averaged, training, near)

    def _coloured(self, images: Tensor, ink: Tensor, ground: Tensor) -> Tensor:
        share = resized(images, self.image_size) / 255
        return normalised(torch.lerp(ground[:, :, None, None], ink[:, :, None, None], share))


def _tercile_bounds(measures: Tensor, digits: Tensor) -> Tensor:
    """Terciles (digits, 3, 2) of measures (N, 3): thickness and slant of all, size by the digit."""
    thirds = torch.tensor([1 / 3, 2 / 3])
    thickness, slant = (measure.quantile(thirds) for measure in measures[:, :2].unbind(1))
    sizes = [measures[digits == d, 2].quantile(thirds) for d in range(int(digits.max()) + 1)]
    return torch.stack([torch.stack([thickness, slant, size]) for size in sizes])


def _thirds(measures: Tensor, bounds: Tensor) -> Tensor:
    """(N, 3) int64, from 0 to 2: measures (N, 3) by their bounds (N, 3, 2)."""
    return (measures[..., None] > bounds).sum(2)


def _measured(images: Tensor) -> Tensor:
    """Thickness, slant and size (N, 3) of images (N, 1, H, W) uint8."""
    chunks = (chunk / 255 for chunk in images[:, 0].split(5000))
    return torch.cat([torch.stack([stroke_thickness(x), *slant_and_size(x)], 1) for x in chunks])


def written(attributes: Tensor, ways: Tensor) -> Captions:
    """Captions of N images: (N, 6) int64 values of ``ATTRIBUTES``, (N, K) of ``PARAPHRASES``."""
    speaks = torch.tensor([paraphrase.mentions for paraphrase in PARAPHRASES])
    # Captions that differ only in what they do not mention are the same.
    said = torch.where(speaks[ways], attributes[:, None], 0)
    keys = torch.cat([ways[..., None], said], 2).flatten(0, 1)
    keys, rows = keys.unique(dim=0, return_inverse=True)
    texts = [
        PARAPHRASES[way].of(dict(zip(ATTRIBUTES, values, strict=True)))
        for way, *values in keys.tolist()
    ]
    return Captions(texts, speaks[keys[:, 0]], rows.view(ways.shape))
