"""CIFAR-10 and SVHN: small colour photos of ten classes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torchvision import datasets

from gan_zoo.data.base import InMemoryImages, LabelledImagesDataModule
from gan_zoo.data.mnist import downloaded, of_classes
from gan_zoo.ranges import Count, Range, checked

_CIFAR10 = datasets.CIFAR10.base_folder
# Of training and test: the files, below the data folder.
_FILES = {
    "cifar10": {
        True: [f"{_CIFAR10}/{name}" for name, _ in datasets.CIFAR10.train_list],
        False: [f"{_CIFAR10}/{name}" for name, _ in datasets.CIFAR10.test_list],
    },
    "svhn": {
        True: [f"SVHN/{datasets.SVHN.split_list['train'][1]}"],
        False: [f"SVHN/{datasets.SVHN.split_list['test'][1]}"],
    },
}


class PhotosDataModule(LabelledImagesDataModule):
    """CIFAR-10 (50,000 and 10,000 photos) or SVHN (73,257 and 26,032), of 32 pixels, in colour.

    The last training photos are the validation set. The files are torchvision's, with its
    checksums: CIFAR-10's are pickles, which are not read unless they match.

        data = PhotosDataModule(name="cifar10", root="data")
        pl.Trainer(max_steps=1000).fit(model, datamodule=data)

    Args:
        root: data folder in torchvision's layout; missing files are downloaded there.
        image_size: side in pixels; others than 32 are resized (antialiased bilinear).
        channels: 3 for colour, 1 for grey (ITU-R 601).
        num_classes: keep only the photos with labels below this.
        when_unavailable: where neither disk nor network has it, "error" raises RuntimeError;
            "offline" raises it if the disk has not, and downloads nothing.
    """

    has_classes = True

    @checked
    def __init__(
        self,
        name: Literal["cifar10", "svhn"] = "cifar10",
        root: str | Path = "data",
        batch_size: Count = 128,
        image_size: Annotated[int, Range(4, 1024)] = 32,
        channels: Literal[1, 3] = 3,
        num_classes: Annotated[int, Range(1, 10)] = 10,
        when_unavailable: Literal["error", "offline"] = "error",
        **options: Any,
    ) -> None:
        super().__init__(name, batch_size, **options)
        self.root = Path(root)
        self.image_size = image_size
        self.channels = channels
        self.num_classes = num_classes
        self.when_unavailable = when_unavailable
        self._originals: dict[bool, tuple[Tensor, Tensor]] = {}

    @classmethod
    def available(cls, name: str, root: str | Path, when_unavailable: str) -> str:
        files = [Path(root) / file for part in _FILES[name].values() for file in part]

        def download(aside: str) -> None:
            for train in (True, False):
                _photos(name, Path(aside), train, download=True)

        return downloaded(name, Path(root), files, download, when_unavailable)

    def prepare_data(self) -> None:
        if self.train is None:
            self.available(self.name, self.root, self.when_unavailable)

    def originals(self, train: bool) -> tuple[Tensor, Tensor]:
        if train not in self._originals:
            self._originals[train] = self._read(train)
        return self._originals[train]

    def as_dataset(self, images: Tensor, labels: Tensor) -> InMemoryImages:
        return InMemoryImages(images, labels, self.image_size)

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        folder = self.root if self.name == "cifar10" else self.root / "SVHN"
        try:
            images, labels = _photos(self.name, folder, train)
        except RuntimeError as error:
            raise ValueError(
                f"The {self.name} files in '{folder}' differ from the originals. "
                "Delete them to have them downloaded again."
            ) from error
        if self.channels == 1:
            weights = torch.tensor([299, 587, 114])[:, None, None]
            images = ((images * weights).sum(1, keepdim=True) / 1000).round().to(torch.uint8)
        return of_classes(images, labels, self.num_classes)


def _photos(name: str, folder: Path, train: bool, download: bool = False) -> tuple[Tensor, Tensor]:
    """(N, 3, 32, 32) uint8 and (N,) int64; RuntimeError for files that are not the originals."""
    if name == "cifar10":
        cifar = datasets.CIFAR10(folder, train, download=download)
        images, labels = torch.from_numpy(cifar.data).movedim(3, 1), torch.tensor(cifar.targets)
    else:
        svhn = datasets.SVHN(folder, "train" if train else "test", download=download)
        images, labels = torch.from_numpy(svhn.data), torch.from_numpy(svhn.labels)
    return images.contiguous(), labels
