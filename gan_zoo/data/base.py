"""What the data modules share: data held in memory as tensors and served in whole batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from gan_zoo.options import refuse_unless_whole
from gan_zoo.randomness import derived_seed, seed_generators
from gan_zoo.ranges import Natural, refuse_unfit, shown

Part = Literal["train", "val", "test"]


class ImageBatch(NamedTuple):
    """A batch of labelled images.

    Attributes:
        image: (B, C, H, W) float32 in [-1, 1].
        label: (B,) int64 in [0, number of classes).
    """

    image: Tensor
    label: Tensor


def pass_through(batch: Any) -> Any:
    """The collate function of a dataset that fetches whole batches."""
    return batch


class BatchSource(Protocol):
    """What fetches whole batches: an InMemoryDataset, or torch's Subset of one."""

    def __len__(self) -> int:
        """How many examples there are."""

    def __getitems__(self, indices: Any) -> Any:
        """The batch at these indices."""


class InMemoryDataset(Dataset[Any]):
    """A dataset that fetches a batch at a time, as a NamedTuple, by ``__getitems__``."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The batch at these indices."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Any:
        batch = self.__getitems__([index])
        return type(batch)(*(field[0] for field in batch))

    def stored(self) -> Iterable[Tensor]:
        """The tensors that hold it, for a checksum."""
        raise NotImplementedError


class LabelledDataset(InMemoryDataset):
    """A dataset of ImageBatch that tells all labels at once.

    Attributes:
        labels: (N,) int64; -1 where classes are not known.
    """

    labels: Tensor


class InMemoryImages(LabelledDataset):
    """Labelled images in memory.

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

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        chosen = torch.as_tensor(indices)
        image = resized(self.images.index_select(0, chosen), self.image_size)
        return ImageBatch(normalised(image), self.labels.index_select(0, chosen))

    def stored(self) -> Iterable[Tensor]:
        return self.images, self.labels


class Draw(NamedTuple):
    """What makes a training batch.

    Attributes:
        indices: of its examples.
        seed: of what is drawn for it, such as crops and captions.
    """

    indices: list[int]
    seed: int


class TrainingBatches(Sampler[Draw]):
    """Which examples make which batch: a new order each epoch, of whole batches.

    All of it follows from the seed and the number of the batch, so that it can begin anywhere.
    Several processes share each batch of ``world_size * batch_size`` examples out.

    Args:
        count: of examples.
        batch_size: examples to a batch, in each process.
        seed: decides the orders.
        rank, world_size: this process's number, and how many there are.
        batches_an_epoch: how many are drawn before the next order; None for all.
        same_order: have every epoch in the first one's order, to overfit to its first batches.

    Attributes:
        begun: how many batches have been drawn before the next iteration over it.

    Raises:
        ValueError: for too few examples to give each process a batch.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batches_an_epoch: int | None = None,
        same_order: bool = False,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.same_order = same_order
        self.begun = 0
        if not len(self):
            raise ValueError(
                f"{count:,} training images are too few for {world_size} batches of dataset."
                f"batch_size={batch_size}, one for each process."
            )
        self.batches_an_epoch = batches_an_epoch or len(self)

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[Draw]:
        epoch, first = divmod(self.begun, self.batches_an_epoch)
        number = 0 if self.same_order else epoch
        random = torch.Generator().manual_seed(derived_seed("order", self.seed, number))
        order = torch.randperm(self.count, generator=random)
        for batch in range(first, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield Draw(
                order[start : start + self.batch_size].tolist(),
                derived_seed("batch", self.seed, number, batch, self.rank),
            )
        self.begun = (epoch + 1) * self.batches_an_epoch


class _Drawn(Dataset[Any]):
    """A dataset as a loader of TrainingBatches fetches it."""

    def __init__(self, dataset: InMemoryDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, draw: Draw) -> Any:
        with torch.random.fork_rng(devices=[]):
            seed_generators(draw.seed)
            return self.dataset.__getitems__(draw.indices)


class _TrainingLoader(DataLoader[Any]):
    """Begins each epoch at the iteration that its trainer has come to."""

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Any:
        if self.trainer is not None:
            self.batch_sampler.begun = self.trainer.global_step  # type: ignore[union-attr]
        return super().__iter__()


class InMemoryDataModule(pl.LightningDataModule):
    """Loaders over datasets in memory.

    Subclasses set ``train``, ``val`` (None without validation data) and ``test`` (None where there
    is none) in ``setup``.

    Args:
        name: of what is trained on; a folder or a run is named by it.
        batch_size: examples to a batch, in each process.
        num_workers: loader processes; 0 is fastest for data in memory.
        val_size: training examples to hold out for validation; None for a twelfth of them, 0 for
            none.

    Attributes:
        batch_type: NamedTuple of a batch; models say which they take.
        num_examples: how many ``examples`` gives at most.
        domains: names of the sets of images that it has: "a" and "b", or "" for one.
        measured_images: how many generated images are measured where nobody says.
        per_channel: whether each channel is an image of its own to the evaluator.
        framed_from: side of the originals that ``framed`` pads; None if images are never padded.
        order_seed: decides the order of the training data and what is drawn for each batch; by
            default torch's seed when the data module was made.

    Raises:
        ValueError: for an option out of its range.
    """

    name: str
    batch_type: ClassVar[type]
    num_examples: ClassVar[int] = 64
    domains: ClassVar[tuple[str, ...]] = ("",)
    measured_images: ClassVar[int] = 10_000
    per_channel: ClassVar[bool] = False
    framed_from: ClassVar[int | None] = None

    def __init__(
        self, name: str, batch_size: int, num_workers: int, val_size: Natural | None
    ) -> None:
        super().__init__()
        whole_in_range("batch_size", batch_size, 1, 60000)
        whole_in_range("num_workers", num_workers, 0, 1024)
        refuse_unfit("dataset.val_size", val_size, Natural | None)
        self.name = name
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.val_size = val_size
        self.order_seed = torch.initial_seed()
        self.train: InMemoryDataset | None = None
        self.val: InMemoryDataset | None = None
        self.test: InMemoryDataset | None = None

    @classmethod
    def available(cls, name: str, root: str | Path, when_unavailable: str) -> str:
        """The name of what a data module with these options will train on.

        Raises:
            ValueError, RuntimeError: where the data can't be had, or is not what it should be.
        """
        return name

    def prepare_data(self) -> None:
        """Nothing to do where the data is made or read in ``setup``."""

    def setup(self, stage: str | None = None) -> None:
        """Makes the datasets; a second call changes nothing."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        dataset, trainer = self._present(self.train), self.trainer
        batches = TrainingBatches(
            len(dataset),
            self.batch_size,
            self.order_seed,
            trainer.global_rank if trainer else 0,
            trainer.world_size if trainer else 1,
            same_order=bool(trainer and trainer.overfit_batches),  # type: ignore[attr-defined]
        )
        if trainer:
            limit = trainer.limit_train_batches
            share = limit if isinstance(limit, int) else int(limit * len(batches))
            batches.batches_an_epoch = max(1, min(len(batches), share))
        loader = _TrainingLoader(_Drawn(dataset), batch_sampler=batches, **self._loading())  # type: ignore[arg-type]
        loader.trainer = trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._in_order(self.val) if self.val else []

    def test_dataloader(self) -> DataLoader[Any]:
        return self._in_order(self.test)

    def examples(self) -> Any:
        """A batch to draw grids of, the same each time, held out from training where it can be."""
        dataset = self.source()
        return dataset.__getitems__(range(min(self.num_examples, len(dataset))))

    @property
    def title(self) -> str:
        """The name, and the task where there is one."""
        return "_".join(filter(None, (self.name, getattr(self, "task", ""))))

    def source(self, part: Literal["val", "test"] = "test") -> InMemoryDataset:
        """What models translate, or draw the captions of, when they are measured.

        Without such a part it is the test set, and without that the training set.
        """
        dataset = (self.val if part == "val" else None) or self.test or self.train
        if dataset is None:
            raise RuntimeError("Call setup() before asking a data module for its images.")
        return dataset

    @property
    def has_classes(self) -> bool:
        """Whether ``labelled`` has test images of known classes, for an evaluator to judge by."""
        return False

    def labelled(self, domain: str, part: Part) -> LabelledDataset:
        """The images of a domain with their classes, -1 where these are not known.

        What generated images are measured against: "train" are the images that are trained on,
        without augmentation, "val" those held out of the training set, "test" the test images.

        Raises:
            ValueError: where there are none.
        """
        dataset = self.part(part)
        if not isinstance(dataset, LabelledDataset):
            raise ValueError(
                f"{self.name} has no images to measure generated ones against: a dataset of images "
                "would do."
            )
        return dataset

    def part(self, part: Part) -> InMemoryDataset:
        """The training, validation or test set.

        Raises:
            ValueError: where there is no such part.
            RuntimeError: before ``setup``.
        """
        dataset = {"train": self.train, "val": self.val, "test": self.test}[part]
        if self.train is None:
            raise RuntimeError("Call setup() before asking a data module for its images.")
        if dataset:
            return dataset
        if part == "val":
            raise ValueError(
                f"{self.name} has no validation images, as dataset.val_size is "
                f"{shown(self.val_size)}: a number above 0 holds so many training images out."
            )
        raise ValueError(f"{self.name} has no test images to measure generated ones against.")

    def evaluator_images(self, domain: str, train: bool) -> LabelledDataset:
        """What the evaluator of a domain's images is trained on, or judged by.

        All training images, validation images included, so that it does not depend on val_size.
        """
        return self.labelled(domain, "train" if train else "test")

    def evaluator_name(self, domain: str) -> str:
        """What that evaluator is called."""
        return f"{self.title}_{domain}" if domain else self.title

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        if batch[0].device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, index)

    def checksum(self) -> str:
        """sha256 of the training data, for provenance."""
        digest = hashlib.sha256()
        for tensor in self.train.stored() if self.train else ():
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def validation_size(self, count: int, least: int | None = None) -> int:
        """How many of ``count`` training examples are held out for validation.

        Raises:
            ValueError: if fewer than ``least`` are left to train on, by default a batch.
        """
        size = count // 12 if self.val_size is None else self.val_size
        least = self.batch_size if least is None else least
        if size + least > count:
            raise ValueError(
                f"{self.name} has {count:,} training images here: too few for dataset."
                f"val_size={size} and {least:,} to train on (dataset.batch_size={self.batch_size})."
            )
        return size

    def _in_order(self, dataset: InMemoryDataset | None) -> DataLoader[Any]:
        dataset, trainer = self._present(dataset), self.trainer
        shared_out: DistributedSampler[Any] | None = (
            DistributedSampler(dataset, trainer.world_size, trainer.global_rank, shuffle=False)
            if trainer and trainer.world_size > 1
            else None
        )
        return DataLoader(dataset, self.batch_size, sampler=shared_out, **self._loading())

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": pass_through,
        }

    def _present(self, dataset: InMemoryDataset | None) -> InMemoryDataset:
        if dataset is None:
            raise RuntimeError(
                f"{self.name} has no such part, or setup() has not been called before asking for "
                "its loader."
            )
        return dataset


def whole_in_range(option: str, value: object, low: int, high: int) -> None:
    """Raises ValueError unless dataset.<option> is a whole number in the range."""
    refuse_unless_whole(f"dataset.{option}", value, low, high)


def framed(images: Tensor, size: int) -> Tensor:
    """(B, C, H, H) uint8 in a frame of zeros up to ``size``, if that takes 1 or 2 pixels a side.

    28 -> 32 is usual for MNIST; other sizes are left for ``resized``.
    """
    border = size - images.shape[-1]
    return F.pad(images, [border // 2] * 4) if border in (2, 4) else images


def resized(images: Tensor, size: int) -> Tensor:
    """(B, C, H, H) uint8 -> (B, C, size, size) in [0, 255], framed or resized.

    What can't be framed is resized, antialiased bilinear.
    """
    images = framed(images, size)
    if images.shape[-1] == size:
        return images
    scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    # Rounding can carry a mean of 255s a little over.
    return scaled.clamp_(0, 255)


def normalised(images: Tensor) -> Tensor:
    """Bytes, or floats in [0, 255], to [-1, 1]: (x - .5) / .5 of x = byte / 255."""
    return (images - 127.5).div_(127.5)
