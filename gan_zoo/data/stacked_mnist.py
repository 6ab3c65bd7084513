"""Stacked MNIST: three digits as the channels of one image, a thousand modes to cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gan_zoo.data.base import (
    ImageBatch,
    InMemoryImages,
    LabelledDataset,
    normalised,
    resized,
    whole_in_range,
)
from gan_zoo.data.mnist import DigitsDataModule

_CHANNELS = 3


class StackedImages(LabelledDataset):
    """Images of three digits each, put together as batches are fetched.

    Args:
        digits: (M, 1, H, H) uint8.
        classes: (M,) int64.
        stacks: (N, 3) int64, which digits an image has for red, green and blue.
        base: number of classes; a label is the three classes as the digits of a number to it.
        image_size: side to pad or resize to.
    """

    def __init__(
        self, digits: Tensor, classes: Tensor, stacks: Tensor, base: int, image_size: int
    ) -> None:
        self.digits = digits
        self.classes = classes
        self.stacks = stacks
        self.base = base
        self.labels = (classes[stacks] * torch.tensor([base**2, base, 1])).sum(1)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.stacks)

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        chosen = torch.as_tensor(indices)
        images = self.digits[:, 0][self.stacks[chosen]]
        return ImageBatch(normalised(resized(images, self.image_size)), self.labels[chosen])

    def stored(self) -> Iterable[Tensor]:
        return self.digits, self.stacks, self.labels


class StackedMNISTDataModule(DigitsDataModule):
    """Three random digits as the channels of an RGB image: 1,000 modes (1611.02163, 1705.07761).

    As VEEGAN and PacGAN have it there are 128,000 images, drawn once; but here of the training
    digits alone, where theirs are of all 70,000, so that the 26,000 test images are of unseen ones.
    The protocol: 26,000 generated images, each channel classified by itself, how many of the 1,000
    triples are there, and the KL divergence of their frequencies from uniform ones.

    Validation images are stacks of the last training digits, which no training image shows.

    Args:
        task: the second part of the dataset's name.
        num_classes: of the images, a cube: 1000 for all digits, 8 for zeros and ones.
        train_size, test_size: how many images; the training ones include the validation set.
        seed: decides which digits are stacked.
        options: DigitsDataModule's, but ``channels``.

    Raises:
        ValueError: as DigitsDataModule, or for a number of classes that is no cube.
    """

    batch_type = ImageBatch
    measured_images = 26_000
    per_channel = True

    def __init__(
        self,
        *,
        task: str = "stacked",
        num_classes: int = 1000,
        train_size: int = 128_000,
        test_size: int = 26_000,
        seed: int = 0,
        channels: int = _CHANNELS,
        **options: Any,
    ) -> None:
        whole_in_range("num_classes", num_classes, 1, 1000)
        base = round(num_classes ** (1 / _CHANNELS))
        if base**_CHANNELS != num_classes or not 1 <= base <= 10:
            raise ValueError(
                f"dataset.num_classes is {num_classes}; it has to be a cube: 1000 for all digits, "
                "8 for zeros and ones."
            )
        if channels != _CHANNELS:
            raise ValueError(f"dataset.channels is {channels}; Stacked MNIST has {_CHANNELS}.")
        super().__init__(num_classes=base, channels=channels, **options)
        whole_in_range("train_size", train_size, 1, 10_000_000)
        whole_in_range("test_size", test_size, 1, 10_000_000)
        whole_in_range("seed", seed, 0, 2**32 - 1)
        self.task = task
        self.train_size = train_size
        self.test_size = test_size
        self.seed = seed

    def setup(self, stage: str | None = None) -> None:
        if self.train is not None:
            return
        size = self.validation_size(self.train_size)
        digits, classes = self.originals(train=True)
        # As large a part of the digits as of the stacks, at least one.
        end = len(digits) - -(-len(digits) * size // self.train_size)
        random = torch.Generator().manual_seed(2 * self.seed + 1)
        self.train = self._stacked(digits[:end], classes[:end], self.train_size - size, random)
        if size:
            self.val = self._stacked(digits[end:], classes[end:], size, random)
        random = torch.Generator().manual_seed(2 * self.seed)
        self.test = self._stacked(*self.originals(train=False), self.test_size, random)

    def _stacked(
        self, digits: Tensor, classes: Tensor, count: int, random: torch.Generator
    ) -> StackedImages:
        stacks = torch.randint(len(digits), (count, _CHANNELS), generator=random)
        return StackedImages(digits, classes, stacks, self.num_classes, self.image_size)

    def evaluator_images(self, domain: str, train: bool) -> InMemoryImages:
        """Single digits."""
        return InMemoryImages(*self.originals(train), self.image_size)

    def evaluator_name(self, domain: str) -> str:
        return self.name
