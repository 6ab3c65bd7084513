"""MNIST and the datasets of its shape."""

import gzip
import hashlib
import logging
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from gan_zoo.data.base import InMemoryDataModule, InMemoryImages, LabelledImagesDataModule
from gan_zoo.ranges import Count, Range, checked

log = logging.getLogger(__name__)

TORCHVISION_DATASETS: dict[str, type[datasets.MNIST]] = {
    "mnist": datasets.MNIST,
    "fashion_mnist": datasets.FashionMNIST,
    "kmnist": datasets.KMNIST,
}
STAND_IN: Literal["digits"] = "digits"
Name = Literal["mnist", "fashion_mnist", "kmnist", "digits"]
WhenUnavailable = Literal["digits", "error", "offline"]

# File name -> (dimensions of its idx header, MNIST's md5). torchvision knows the checksums of the
# compressed files only, and takes any uncompressed file of the right name for genuine: truncated
# and altered files (tests/test_data.py) are found by these.
_FILES: dict[str, tuple[tuple[int, ...], str]] = {
    "train-images-idx3-ubyte": ((60000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((60000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((10000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((10000,), "27ae3e4e09519cfbb04c329615203637"),
}
_DOWNLOAD_TIMEOUT_SECONDS = 20


@checked
def available_dataset(
    name: Name, root: str | Path, when_unavailable: WhenUnavailable = STAND_IN
) -> str:
    """Verifies the dataset's files under ``root``, and downloads them if they are missing.

    Args:
        name: of the dataset; "digits" needs no files.
        root: torchvision's data folder, which holds ``MNIST/raw`` and the like.
        when_unavailable: if neither disk nor network has the dataset, "digits" falls back on the
            stand-in with a warning, and "error" raises RuntimeError; "offline" raises it if the
            disk has not, and downloads nothing.

    Returns the name of the dataset to train on: ``name``, or "digits"; ValueError for files that
    are not the dataset's.
    """
    if name == STAND_IN:
        return name

    def download(aside: str) -> None:
        TORCHVISION_DATASETS[name](aside, download=True)
        _verify(name, _raw_folder(name, aside))

    raw = _raw_folder(name, root)
    files = [raw / file for file in _FILES]
    if downloaded(name, Path(root), files, download, when_unavailable) == STAND_IN:
        return STAND_IN
    _verify(name, raw)
    return name


def downloaded(
    name: str,
    root: Path,
    files: Sequence[Path],
    download: Callable[[str], object],
    when_unavailable: str,
) -> str:
    """Downloads a dataset if files are missing; see ``available_dataset``.

    Args:
        files: in one folder below ``root``, to which they move once all are complete.
        download: to the folder that it is given.
    """
    folder = files[0].parent
    if all(file.exists() for file in files):
        return name
    if when_unavailable == "offline":
        raise RuntimeError(
            f"{name} is not in '{folder}', and nothing is downloaded there. Put its files there, "
            "or name the data folder by GAN_ZOO_DATA_DIR."
        )
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=root) as aside:
            download(aside)
            folder.mkdir(parents=True, exist_ok=True)
            for file in Path(aside).rglob("*"):
                if file.is_file():
                    os.replace(file, folder / file.name)
    except (OSError, RuntimeError) as error:
        reason = (
            f"{name} is not in '{folder}' and could not be downloaded there "
            f"({' '.join(str(error).split()) or type(error).__name__})."
        )
        if when_unavailable == "error":
            advice = "Put its files there, or name the data folder by GAN_ZOO_DATA_DIR."
            raise RuntimeError(f"{reason} {advice}") from error
        log.warning(
            "%s\nTRAINING ON THE STAND-IN 'digits' INSTEAD: scikit-learn's 1,797 small digits. "
            "dataset.when_unavailable=error stops here instead.",
            reason,
        )
        return STAND_IN
    finally:
        socket.setdefaulttimeout(before)
    return name


def _raw_folder(name: str, root: str | Path) -> Path:
    return Path(root) / TORCHVISION_DATASETS[name].__name__ / "raw"


def _verify(name: str, raw: Path) -> None:
    for file_name, (shape, md5) in _FILES.items():
        file = raw / file_name
        header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
        expected = len(header) + torch.Size(shape).numel()
        content = file.read_bytes()
        if len(content) != expected:
            problem = f"has {len(content):,} bytes instead of {expected:,}"
        elif not content.startswith(header):
            problem = "does not begin with the header of its kind"
        elif name == "mnist" and hashlib.md5(content).hexdigest() != md5:
            problem = "has another checksum than the original"
        elif name != "mnist" and not _matches_archive(name, content, file):
            problem = "differs from the compressed original beside it"
        elif len(shape) == 1 and (label := max(content[len(header) :])) > 9:
            problem = f"has a label {label}; they are 0 to 9"
        else:
            continue
        advice = "Delete it and its neighbours to have them downloaded again."
        raise ValueError(f"The {name} file '{file}' {problem}. {advice}")


def _matches_archive(name: str, content: bytes, path: Path) -> bool:
    """Compares with the .gz that torchvision's download leaves, if it is there and is genuine."""
    archive = path.with_name(path.name + ".gz")
    md5 = dict(TORCHVISION_DATASETS[name].resources)[archive.name]
    return not check_integrity(archive, md5) or gzip.decompress(archive.read_bytes()) == content


class DigitsDataModule(InMemoryDataModule):
    """What the data modules of MNIST and similar datasets share: the images.

    Args:
        root: data folder in torchvision's layout; missing files are downloaded there.
        image_size: side in pixels. 28 is native, 30 and 32 are padded with background, all others
            are resized (antialiased bilinear).
        channels: 1 for grey, 3 to repeat the grey.
        num_classes: keep only the images with labels below this.
        when_unavailable: see available_dataset.
        task: second part of the dataset's title; "edges" makes ``mnist_edges``. None for the
            class's own.
    """

    framed_from = 28
    has_classes = True

    @checked
    def __init__(
        self,
        name: Name = "mnist",
        root: str | Path = "data",
        batch_size: Count = 128,
        image_size: Annotated[int, Range(4, 1024)] = 28,
        channels: Literal[1, 3] = 1,
        num_classes: Annotated[int, Range(1, 10)] = 10,
        when_unavailable: WhenUnavailable = STAND_IN,
        task: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, batch_size, **options)
        self.root = Path(root)
        self.image_size = image_size
        self.channels = channels
        self.num_classes = num_classes
        self.when_unavailable = when_unavailable
        self.task = type(self).task if task is None else task
        self._originals: dict[bool, tuple[Tensor, Tensor]] = {}

    @classmethod
    def available(cls, name: str, root: str | Path, when_unavailable: str) -> str:
        return available_dataset(name, root, when_unavailable)  # type: ignore[arg-type]

    def prepare_data(self) -> None:
        """Has the files ready; once they are read, it is no matter whether they are still there."""
        if self.train is None:
            self.name = self.available(self.name, self.root, self.when_unavailable)

    def originals(self, train: bool) -> tuple[Tensor, Tensor]:
        """(N, 1, 28, 28) uint8 images and (N,) int64 labels of the classes that are kept.

        They are read once, so that what is measured against is what is trained on.
        """
        if train not in self._originals:
            images, labels = load_images(self.name, self.root, train)
            self._originals[train] = of_classes(images[:, None], labels, self.num_classes)
        return self._originals[train]

    def as_dataset(self, images: Tensor, labels: Tensor) -> InMemoryImages:
        """Images (N, 1 or 3, H, H) uint8, of the module's channels and size."""
        return InMemoryImages(images.expand(-1, self.channels, -1, -1), labels, self.image_size)


class MNISTDataModule(DigitsDataModule, LabelledImagesDataModule):
    """MNIST, FashionMNIST, KMNIST, or the embedded stand-in, all as 10-class square images.

    The standard split is kept: 60,000 training images, the last of which are the validation set,
    and 10,000 test images. The stand-in, scikit-learn's 1,797 handwritten digits of 8x8 pixels
    scaled to MNIST's 20x20 in a frame of 4, has 1,500 and 297.

        data = MNISTDataModule(name="mnist", root="data")
        pl.Trainer(max_steps=1000).fit(model, datamodule=data)
    """


def of_classes(images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The images and labels whose label is below ``num_classes``."""
    kept = labels < num_classes
    return images[kept], labels[kept]


def load_images(name: str, root: str | Path, train: bool) -> tuple[Tensor, Tensor]:
    """(N, 28, 28) uint8 images and (N,) int64 labels of an available dataset, as on disk."""
    if name == STAND_IN:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] * (255 / 16)
        images = F.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False)
        images = F.pad(images.round().to(torch.uint8), [4] * 4)[:, 0]
        labels = torch.as_tensor(digits.target, dtype=torch.int64)
        rows = slice(0, 1500) if train else slice(1500, None)
        return images[rows], labels[rows]
    raw = _raw_folder(name, root)
    part = "train" if train else "t10k"
    images = read_image_file(str(raw / f"{part}-images-idx3-ubyte"))
    return images, read_label_file(str(raw / f"{part}-labels-idx1-ubyte"))
