"""MNIST and USPS as two domains."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import USPS

from gan_zoo.data.base import resized
from gan_zoo.data.digit_pairs import TwoDomainsDataModule
from gan_zoo.data.mnist import STAND_IN, downloaded, of_classes
from gan_zoo.data.pairs import Domain
from gan_zoo.ranges import Count, checked

# Of training and test: the file, and its number of images.
_FILES = {True: ("usps.bz2", 7291), False: ("usps.t.bz2", 2007)}


class MNISTUSPSDataModule(TwoDomainsDataModule):
    """Domain a: MNIST, with its labels. Domain b: USPS, whose labels are for evaluation only.

    USPS's 16 x 16 pixels are padded by 3 and resized to 28, as CoGAN's authors do. ``test`` has the
    two test sets side by side. The stand-in takes the embedded digits for both domains, at 28 and
    at 16 pixels.

        data = MNISTUSPSDataModule(root="data", size_a=2000, size_b=1800)
        data.prepare_data()
        data.setup()

    Args:
        swap: USPS is domain a and MNIST b.
        size_a, size_b: number of training images of each, drawn by the seed; None for all. CoGAN's
            protocol has 2,000 of MNIST and 1,800 of USPS.
    """

    task = "usps"

    @checked
    def __init__(
        self,
        *,
        swap: bool = False,
        size_a: Count | None = None,
        size_b: Count | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.swap = swap
        self.sizes = (size_a, size_b)

    @classmethod
    def available(cls, name: str, root: str | Path, when_unavailable: str) -> str:
        name = super().available(name, root, when_unavailable)
        if name == STAND_IN or available_usps(root, when_unavailable) == STAND_IN:
            return STAND_IN
        return name

    def split(self) -> tuple[Sequence[Domain], Sequence[Domain]]:
        train, held_out = [], []
        for domain, size in zip(self.both(train=True), self.sizes, strict=True):
            held = self.validation_size(len(domain.data), least=size)
            kept, rest = self.shuffled(domain).cut(held)
            train.append(kept.chosen(slice(size)))
            held_out.append(rest)
        return train, held_out

    def both(self, train: bool) -> Sequence[Domain]:
        mnist = self.digits(train)
        if self.name == STAND_IN:
            half = mnist.chosen(slice(1, None, 2))
            mnist = mnist.chosen(slice(0, None, 2))
            usps = half._replace(data=_scaled(half.data, 16))
        else:
            images, labels = of_classes(*load_usps(self.root, train), self.num_classes)
            usps = Domain(images, labels, torch.arange(len(images)))
        usps = usps._replace(data=_scaled(F.pad(usps.data, [3] * 4), 28))
        return [usps, mnist] if self.swap else [mnist, usps]

    def evaluator_name(self, domain: str) -> str:
        if (domain == "b") != self.swap:
            return "usps" if self.name != STAND_IN else f"{STAND_IN}_usps"
        return self.name


def available_usps(root: str | Path, when_unavailable: str = STAND_IN) -> str:
    """Verifies USPS's files in ``root``/USPS, and downloads them if they are missing.

    Returns "usps", or "digits"; see ``available_dataset``.
    """

    def download(aside: str) -> None:
        for train in (True, False):
            USPS(aside, train=train, download=True)

    root = Path(root)
    files = [root / "USPS" / file for file, _ in _FILES.values()]
    if downloaded("usps", root, files, download, when_unavailable) == STAND_IN:
        return STAND_IN
    for train in (True, False):
        load_usps(root, train)
    return "usps"


@functools.cache
def load_usps(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """(N, 1, 16, 16) uint8 images and (N,) int64 labels; ValueError for a damaged file."""
    name, expected = _FILES[train]
    file = root / "USPS" / name
    try:
        data = USPS(str(file.parent), train=train)
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise ValueError(f"The USPS file '{file}' is damaged ({error}).") from error
    problem = ""
    if len(data.data) != expected:
        problem = f"has {len(data.data):,} images instead of {expected:,}"
    elif strange := set(data.targets) - set(range(10)):
        problem = f"has a label {min(strange) + 1}; they are 1 to 10"
    if problem:
        advice = "Delete it to have it downloaded again."
        raise ValueError(f"The USPS file '{file}' {problem}. {advice}")
    return torch.as_tensor(data.data)[:, None], torch.as_tensor(data.targets)


def _scaled(images: Tensor, size: int) -> Tensor:
    return resized(images, size).round().to(torch.uint8)
