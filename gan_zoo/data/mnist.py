"""MNIST and the datasets of its shape, held in memory and served in whole batches."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

log = logging.getLogger(__name__)

TORCHVISION_DATASETS: dict[str, type[datasets.MNIST]] = {
    "mnist": datasets.MNIST,
    "fashion_mnist": datasets.FashionMNIST,
    "kmnist": datasets.KMNIST,
}
STAND_IN = "digits"

# File name -> (dimensions of its idx header, md5 where the uncompressed original's is known).
# torchvision only knows the checksums of the compressed files.
_FILES: dict[str, tuple[tuple[int, ...], str]] = {
    "train-images-idx3-ubyte": ((60000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((60000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((10000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((10000,), "27ae3e4e09519cfbb04c329615203637"),
}
_DOWNLOAD_TIMEOUT_SECONDS = 20


class ImageBatch(NamedTuple):
    """A batch of labelled images.

    Attributes:
        image: (B, C, H, W) float32 in [-1, 1].
        label: (B,) int64 in [0, number of classes).
    """

    image: Tensor
    label: Tensor


class InMemoryImages(Dataset[ImageBatch]):
    """Labelled images in memory, fetched a batch at a time.

    Args:
        images: (N, C, H, H) uint8.
        labels: (N,) int64.
        image_size: side to pad or resize the images of a batch to, which for all of them at once
            could take more memory than there is; None leaves them as they are.
    """

    def __init__(self, images: Tensor, labels: Tensor, image_size: int | None = None) -> None:
        self.images = images
        self.labels = labels
        self.image_size = image_size or images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageBatch:
        batch = self.__getitems__([index])
        return ImageBatch(batch.image[0], batch.label[0])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """The images at ``indices``, in [-1, 1]: (x - .5) / .5 of x = byte / 255."""
        chosen = torch.as_tensor(indices)
        image = _sized(self.images.index_select(0, chosen), self.image_size) - 127.5
        return ImageBatch(image.div_(127.5), self.labels.index_select(0, chosen))


def pass_through(batch: ImageBatch) -> ImageBatch:
    """The collate function of a dataset that fetches whole batches."""
    return batch


def available_dataset(name: str, root: str | Path, when_unavailable: str = STAND_IN) -> str:
    """Makes sure that the dataset lies under ``root``, verified, downloading it if it is missing.

    Args:
        name: one of TORCHVISION_DATASETS, or "digits", which needs no files.
        root: torchvision's data folder, which holds ``MNIST/raw`` and its like.
        when_unavailable: "digits" falls back on the stand-in with a warning where neither disk nor
            network has the dataset; "error" raises.

    Returns:
        The name of the dataset to train on: ``name``, or "digits".

    Raises:
        ValueError: for an unknown name or option, or for files that are not the dataset's.
        RuntimeError: where the dataset can't be had and ``when_unavailable`` is "error".
    """
    if when_unavailable not in (STAND_IN, "error"):
        raise ValueError(
            f"when_unavailable is '{when_unavailable}'; it has to be '{STAND_IN}' or 'error'."
        )
    if name == STAND_IN:
        return name
    if name not in TORCHVISION_DATASETS:
        known = ", ".join([*TORCHVISION_DATASETS, STAND_IN])
        raise ValueError(f"There is no dataset '{name}'. There are: {known}.")
    raw = _raw_folder(name, root)
    if all((raw / file).exists() for file in _FILES):
        _verify(name, raw)
        return name
    try:
        _download(name, Path(root))
    except (OSError, RuntimeError) as error:
        reason = (
            f"{name} is not in '{root}' and could not be downloaded there "
            f"({' '.join(str(error).split()) or type(error).__name__})."
        )
        if when_unavailable == "error":
            raise RuntimeError(
                f"{reason} Put its files into '{raw}', or name their folder by GAN_ZOO_DATA_DIR."
            ) from error
        log.warning(
            "%s\nTRAINING ON THE STAND-IN 'digits' INSTEAD: scikit-learn's 1,797 small digits. "
            "dataset.when_unavailable=error stops here instead.",
            reason,
        )
        return STAND_IN
    return name


def _raw_folder(name: str, root: str | Path) -> Path:
    return Path(root) / TORCHVISION_DATASETS[name].__name__ / "raw"


def _verify(name: str, raw: Path) -> None:
    for file, (shape, md5) in _FILES.items():
        path = raw / file
        header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
        expected = len(header) + torch.Size(shape).numel()
        problem = ""
        if path.stat().st_size != expected:
            problem = f"has {path.stat().st_size:,} bytes instead of {expected:,}"
        else:
            content = path.read_bytes()
            if not content.startswith(header):
                problem = "does not begin with the header of its kind"
            elif name == "mnist" and hashlib.md5(content).hexdigest() != md5:
                problem = "has another checksum than the original"
            elif name != "mnist" and not _matches_archive(name, content, path):
                problem = "differs from the compressed original beside it"
        if problem:
            raise ValueError(
                f"The {name} file '{path}' {problem}. Delete it and its neighbours to have them "
                "downloaded again."
            )


def _matches_archive(name: str, content: bytes, path: Path) -> bool:
    """Compares with the .gz that torchvision's download leaves, if it is there and is genuine."""
    archive = path.with_name(path.name + ".gz")
    genuine = dict(TORCHVISION_DATASETS[name].resources)
    if not archive.exists():
        return True
    compressed = archive.read_bytes()
    if hashlib.md5(compressed).hexdigest() != genuine[archive.name]:
        return True
    # A gzip file ends with the CRC-32 and the size of what it holds.
    return struct.unpack("<I", compressed[-8:-4])[0] == zlib.crc32(content)


@contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(name: str, root: Path) -> None:
    """Downloads beside the final place and moves there once it is whole and verified."""
    kind = TORCHVISION_DATASETS[name]
    root.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        with _network_timeout():
            kind(str(aside), download=True)
        _verify(name, _raw_folder(name, aside))
        final = _raw_folder(name, root)
        final.mkdir(parents=True, exist_ok=True)
        for file in _raw_folder(name, aside).iterdir():
            os.replace(file, final / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class MNISTDataModule(pl.LightningDataModule):
    """MNIST, FashionMNIST, KMNIST, or the embedded stand-in, all as 10-class square images.

    The standard split is kept: ``train`` has 60,000 images (less the validation set where asked
    for), ``test`` 10,000. The stand-in, scikit-learn's 1,797 handwritten digits of 8x8 pixels
    scaled to MNIST's 20x20 in a frame of 4, has 1,500 and 297.

    Args:
        name: "mnist", "fashion_mnist", "kmnist" or "digits".
        root: data folder in torchvision's layout; missing files are downloaded there.
        batch_size: images to a batch, in each process.
        image_size: side in pixels. 28 is native, up to 32 is padded with background, anything
            else is resized (antialiased bilinear).
        channels: 1 for grey, 3 to repeat the grey.
        num_classes: keep only the images with labels below this.
        num_workers: loader processes; 0 is fastest for images in memory.
        val_size: how many of the training images to hold out for validation (the last ones).
        when_unavailable: see available_dataset.

    Raises:
        ValueError: for an option out of its range; the errors of available_dataset in
            ``prepare_data``.
    """

    name: str

    def __init__(
        self,
        name: str,
        root: str | Path = "data",
        batch_size: int = 128,
        image_size: int = 28,
        channels: int = 1,
        num_classes: int = 10,
        num_workers: int = 0,
        val_size: int = 0,
        when_unavailable: str = STAND_IN,
    ) -> None:
        super().__init__()
        for option, value, low, high in (
            ("batch_size", batch_size, 1, 60000),
            ("image_size", image_size, 4, 1024),
            ("num_classes", num_classes, 1, 10),
            ("num_workers", num_workers, 0, 1024),
            ("val_size", val_size, 0, 59999),
        ):
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(
                    f"dataset.{option} is {value}; it has to be a whole number from {low} to "
                    f"{high}."
                )
        if channels not in (1, 3):
            raise ValueError(f"dataset.channels is {channels}; it has to be 1 (grey) or 3.")
        self.name = name
        self.root = Path(root)
        self.batch_size = batch_size
        self.image_size = image_size
        self.channels = channels
        self.num_classes = num_classes
        self.num_workers = num_workers
        self.val_size = val_size
        self.when_unavailable = when_unavailable
        self.train: InMemoryImages | None = None
        self.val: InMemoryImages | None = None
        self.test: InMemoryImages | None = None

    def prepare_data(self) -> None:
        self.name = available_dataset(self.name, self.root, self.when_unavailable)

    def setup(self, stage: str | None = None) -> None:
        if self.train is not None:
            return
        images, labels = self._images(train=True)
        if self.val_size + self.batch_size > len(images):
            raise ValueError(
                f"{self.name} has {len(images):,} training images here: too few for dataset."
                f"val_size={self.val_size} and one batch of dataset.batch_size={self.batch_size}."
            )
        end = len(images) - self.val_size
        self.train = InMemoryImages(images[:end], labels[:end], self.image_size)
        self.val = InMemoryImages(images[end:], labels[end:], self.image_size)
        self.test = InMemoryImages(*self._images(train=False), self.image_size)

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[ImageBatch] | list[DataLoader[ImageBatch]]:
        return self._loader(self.val, shuffle=False) if self.val_size else []

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        return self._loader(self.test, shuffle=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        if batch[0].device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, index)

    def checksum(self) -> str:
        """sha256 of the training images and labels as they are on disk, for provenance."""
        images, labels = self._load(train=True)
        digest = hashlib.sha256(images.numpy().tobytes())
        digest.update(labels.numpy().tobytes())
        return digest.hexdigest()

    def _load(self, train: bool) -> tuple[Tensor, Tensor]:
        """(N, 28, 28) uint8 images and (N,) int64 labels, as they are on disk."""
        if self.name == STAND_IN:
            return _digits(train)
        raw = _raw_folder(self.name, self.root)
        part = "train" if train else "t10k"
        images = read_image_file(str(raw / f"{part}-images-idx3-ubyte"))
        return images, read_label_file(str(raw / f"{part}-labels-idx1-ubyte"))

    def _images(self, train: bool) -> tuple[Tensor, Tensor]:
        """(N, C, 28, 28) uint8 images and (N,) int64 labels, of the classes that are kept."""
        images, labels = self._load(train)
        if self.num_classes < 10:
            kept = labels < self.num_classes
            images, labels = images[kept], labels[kept]
        return images[:, None].expand(-1, self.channels, -1, -1), labels

    def _loader(self, dataset: InMemoryImages | None, shuffle: bool) -> DataLoader[ImageBatch]:
        if dataset is None:
            raise RuntimeError("Call setup() before asking a data module for its loaders.")
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=pass_through,  # type: ignore[arg-type]  # a whole batch, not a list
        )


def _sized(images: Tensor, size: int) -> Tensor:
    """(B, C, H, H) uint8 -> (B, C, size, size) in [0, 255], padded with background or resized."""
    border = size - images.shape[-1]
    if border == 0:
        return images
    if 0 < border <= 4 and border % 2 == 0:
        return F.pad(images, [border // 2] * 4)
    resized = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    # Rounding can carry a mean of 255s a little over.
    return resized.clamp_(0, 255)


def _digits(train: bool) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] * (255 / 16)
    images = F.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(images.round().to(torch.uint8), [4] * 4)[:, 0]
    labels = torch.as_tensor(digits.target, dtype=torch.int64)
    part = slice(0, 1500) if train else slice(1500, None)
    return images[part], labels[part]
