"""Stacked MNIST: three digits as the channels of one image, a thousand modes to cover."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from gan_zoo.data.base import ImageBatch, InMemoryImages
from gan_zoo.data.mnist import DigitsDataModule
from gan_zoo.ranges import Range, Seed, UnfitArgument, checked

_CHANNELS = 3
_Size = Annotated[int, Range(1, 10**7)]


@dataclass(eq=False, repr=False, kw_only=True)
class StackedImages(InMemoryImages):
    """Images of three digits each, put together as batches are fetched.

    ``stacks`` (N, 3) int64 are the rows of ``images`` that are an image's red, green and blue.
    """

    stacks: Tensor

    def pixels(self, chosen: Tensor) -> Tensor:
        return self.images[:, 0][self.stacks[chosen]]

    def stored(self) -> Iterable[Tensor]:
        return self.images, self.stacks, self.labels


class StackedMNISTDataModule(DigitsDataModule):
    """Three random digits as the channels of an RGB image: 1,000 modes (1611.02163, 1705.07761).

    As in VEEGAN and PacGAN there are 128,000 images, drawn once. They show the training digits
    only, where those papers use all 70,000, so that the 26,000 test images show unseen digits.
    Validation images are stacks of the last training digits, which no training image shows.

    The protocol: generate 26,000 images, classify each channel by itself, count which of the 1,000
    triples occur, and take the KL divergence of their frequencies from uniform ones.

        data = StackedMNISTDataModule(root="data", batch_size=64)
        data.prepare_data()
        data.setup()

    Args:
        num_classes: of the images, a cube: 1000 for all digits, 8 for zeros and ones.
        train_size, test_size: number of images; training images include the validation set.
        seed: decides which digits are stacked.
    """

    batch_type = ImageBatch
    task = "stacked"
    measured_images = 26_000
    per_channel = True

    @checked
    def __init__(
        self,
        *,
        num_classes: Annotated[int, Range(1, 1000)] = 1000,
        train_size: _Size = 128_000,
        test_size: _Size = 26_000,
        seed: Seed = 0,
        channels: Literal[3] = 3,
        **options: Any,
    ) -> None:
        base = round(num_classes ** (1 / _CHANNELS))
        if base**_CHANNELS != num_classes:
            cubes = "it has to be a cube: 1000 for all digits, 8 for zeros and ones."
            raise UnfitArgument("num_classes", f"is {num_classes}; {cubes}")
        super().__init__(num_classes=base, channels=channels, **options)
        self.train_size = train_size
        self.test_size = test_size
        self.seed = seed

    def load(self) -> None:
        size = self.validation_size(self.train_size)
        digits, classes = self.originals(train=True)
        # The same share of the digits as of the stacks, rounded up.
        end = len(digits) - -(-len(digits) * size // self.train_size)
        random = torch.Generator().manual_seed(2 * self.seed + 1)
        self.train = self._stacked(digits[:end], classes[:end], self.train_size - size, random)
        if size:
            self.val = self._stacked(digits[end:], classes[end:], size, random)
        random = torch.Generator().manual_seed(2 * self.seed)
        self.test = self._stacked(*self.originals(train=False), self.test_size, random)

    def evaluator_images(self, domain: str, train: bool) -> InMemoryImages:
        """Single digits."""
        return InMemoryImages(*self.originals(train), self.image_size)

    def evaluator_name(self, domain: str) -> str:
        return self.name

    def _stacked(
        self, digits: Tensor, classes: Tensor, count: int, random: torch.Generator
    ) -> StackedImages:
        stacks = torch.randint(len(digits), (count, _CHANNELS), generator=random)
        # The three classes are the digits of a number to this base.
        base = self.num_classes
        labels = (classes[stacks] * torch.tensor([base**2, base, 1])).sum(1)
        return StackedImages(digits, labels, self.image_size, stacks=stacks)
