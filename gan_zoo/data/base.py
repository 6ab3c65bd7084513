"""What the data modules share: data held in memory as tensors and served in whole batches."""

import atexit
import hashlib
import signal
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from gan_zoo.randomness import derived_seed, seed_generators
from gan_zoo.ranges import Count, Natural, Range, checked, shown

Part = Literal["train", "val", "test"]
_CPU = torch.device("cpu")


class ImageBatch(NamedTuple):
    """Images (B, C, H, W) float32 in [-1, 1], and their classes (B,) int64, counted from 0."""

    image: Tensor
    label: Tensor


def pass_through(batch: Any) -> Any:
    """The collate function of a dataset that fetches whole batches."""
    return batch


class BatchSource(Protocol):
    """What fetches whole batches: an InMemoryDataset, or torch's Subset of one."""

    def __len__(self) -> int: ...
    def __getitems__(self, indices: Any) -> Any: ...


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

    def on(self, device: torch.device) -> "InMemoryDataset":
        """The same in a device's memory, where its batches can be cut there; else itself."""
        return self


class LabelledDataset(InMemoryDataset):
    """A dataset of ImageBatch; its labels (N,) int64, -1 where not known, need no images."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(eq=False, repr=False)
class InMemoryImages(LabelledDataset):
    """Labelled images in memory.

    Args:
        images: (N, C, H, H) uint8.
        labels: (N,) int64.
        image_size: side to pad or resize images to, in pixels; None keeps theirs. It is done batch
            by batch, as all images at once could need more memory than there is.
    """

    images: Tensor
    labels: Tensor
    image_size: int | None = None

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        chosen = torch.as_tensor(indices)
        image = normalised(self.pixels(chosen), self.image_size)
        return ImageBatch(image, self.labels.index_select(0, chosen))

    def pixels(self, chosen: Tensor) -> Tensor:
        """(B, C, H, H) uint8 images of these indices."""
        return self.images.index_select(0, chosen)

    def stored(self) -> Iterable[Tensor]:
        return self.images, self.labels

    def on(self, device: torch.device) -> "InMemoryImages":
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in held.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class BatchPlan(NamedTuple):
    """A training batch: its examples, and the seed of what is drawn for it, such as crops."""

    indices: Any
    seed: int


class TrainingBatches(Sampler[BatchPlan]):
    """Plans the training batches: whole batches, in a new order each epoch.

    A plan depends on the seed and the batch's number alone, so that iteration can start at any
    batch. Processes share the examples of each global batch of ``world_size * batch_size``.

    Args:
        count: number of examples.
        batch_size: examples in a batch, in each process.
        seed: decides the orders.
        trainer: iteration continues at its iteration, as after resuming; an epoch has as many
            batches as it trains on. To overfit, every epoch has the first one's order.
        device: where the examples are; a plan's indices are a tensor there, or an array.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        trainer: pl.Trainer | None = None,
        device: torch.device = _CPU,
    ) -> None:
        self.count, self.batch_size, self.seed, self.trainer = count, batch_size, seed, trainer
        self.device = device
        self.rank = trainer.global_rank if trainer else 0
        self.world_size = trainer.world_size if trainer else 1
        self.same_order = bool(trainer and trainer.overfit_batches)  # type: ignore[attr-defined]
        if not len(self):
            raise ValueError(
                f"{count:,} training images are too few for {self.world_size} batches of "
                f"dataset.batch_size={batch_size}, one for each process."
            )
        limit = trainer.limit_train_batches if trainer else 1.0
        limit = limit if isinstance(limit, int) else int(limit * len(self))
        self.batches_per_epoch = max(1, min(len(self), limit))
        self.next_batch = 0

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[BatchPlan]:
        next_batch = self.trainer.global_step if self.trainer else self.next_batch
        epoch, first = divmod(next_batch, self.batches_per_epoch)
        number = 0 if self.same_order else epoch
        random = torch.Generator().manual_seed(derived_seed("order", self.seed, number))
        order: Any = torch.randperm(self.count, generator=random)
        # A process that loads batches is sent an array faster than a tensor.
        order = order.numpy() if self.device.type == "cpu" else order.to(self.device)
        for batch in range(first, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield BatchPlan(
                order[start : start + self.batch_size],
                derived_seed("batch", self.seed, number, batch, self.rank),
            )
        self.next_batch = (epoch + 1) * self.batches_per_epoch


@dataclass(eq=False, repr=False)
class _PlannedBatches(Dataset[Any]):
    """A dataset whose batches are fetched by their plans."""

    dataset: InMemoryDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, plan: BatchPlan) -> Any:
        with torch.random.fork_rng(devices=[]):
            seed_generators(plan.seed)
            return self.dataset.__getitems__(plan.indices)


class _Loader(DataLoader[Any]):
    """A DataLoader whose processes leave Ctrl-C and SIGTERM to the main process.

    Both reach all processes of a terminal's or cluster's job, and the main one needs the loaders
    until its iteration is over. They end when they are told to, or when it is gone.
    """

    def __iter__(self) -> Any:
        # A handler in the process would come too late: it has what is blocked from its start.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            iterator = super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if self.num_workers:
            _WITH_PROCESSES.add(iterator)
        return iterator


def _hush(worker: int) -> None:
    # What a loader raises reaches the main process. All else is of connections that its end breaks.
    sys.excepthook = lambda *_: None


_WITH_PROCESSES: weakref.WeakSet[Any] = weakref.WeakSet()


@atexit.register
def _end_loaders() -> None:
    # Python would wait for them, after a SIGTERM that they do not hear.
    for iterator in list(_WITH_PROCESSES):
        iterator._shutdown_workers()
        for process in iterator._workers:
            process.kill()


class InMemoryDataModule(pl.LightningDataModule):
    """Loaders of datasets in memory.

    Subclasses set ``train``, ``val`` (None or empty without validation data) and ``test`` (None
    where there is none) in ``load``. Their ``options`` are the arguments of the classes that they
    inherit from.

    Args:
        name: of the dataset; folders and runs are named by it.
        batch_size: examples (of each domain where there are two) in a batch, in each process.
        num_workers: loader processes; 0 is fastest for data in memory.
        val_size: training examples (of each domain where there are two) held out for validation;
            None for a twelfth, which is 5,000 of MNIST's, 0 for none.

    Attributes:
        batch_type: NamedTuple of a batch; models say which they take.
        num_examples: size of the batch that ``examples`` gives, at most.
        domains: names of the sets of images that it has: "a" and "b", or "" for one.
        measured_images: number of generated images to measure by default.
        per_channel: whether the evaluator sees each channel as an image of its own.
        framed_from: side of the originals that ``framed`` pads; None if images are never padded.
        task: second part of ``title``.
        has_classes: whether ``labelled`` has test images of known classes, so that an evaluator can
            judge; known after ``setup``.
        order_seed: decides the order of the training data and what is drawn for each batch; by
            default torch's seed when the data module was made.
    """

    batch_type: ClassVar[type]
    num_examples: ClassVar[int] = 64
    domains: ClassVar[tuple[str, ...]] = ("",)
    measured_images: ClassVar[int] = 10_000
    per_channel: ClassVar[bool] = False
    framed_from: ClassVar[int | None] = None
    name: str
    task: str = ""
    has_classes: bool = False

    @checked
    def __init__(
        self,
        name: str,
        batch_size: Count,
        num_workers: Annotated[int, Range(0, 1024)] = 0,
        val_size: Natural | None = None,
    ) -> None:
        super().__init__()
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
        """The name of the dataset that a data module with these arguments trains on.

        ValueError for damaged data, RuntimeError if it is neither on disk nor can be downloaded.
        """
        return name

    def setup(self, stage: str | None = None) -> None:
        """Makes the datasets; a second call changes nothing."""
        if self.train is None:
            self.load()

    def load(self) -> None:
        """Sets ``train``, ``val`` and ``test``."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        dataset = self._existing(self.train)
        if self.trainer and not self.num_workers:
            device = self.trainer.strategy.root_device
            if device.type == "cuda" and _fits(dataset, device):
                dataset = dataset.on(device)
        device = next(iter(dataset.stored())).device
        batches = TrainingBatches(
            len(dataset), self.batch_size, self.order_seed, self.trainer, device
        )
        options = self._loading()
        # Only what is in the host's memory can be pinned.
        options["pin_memory"] &= device.type == "cpu"
        return _Loader(_PlannedBatches(dataset), batch_sampler=batches, **options)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._in_order(self.val) if self.val else []

    def test_dataloader(self) -> DataLoader[Any]:
        return self._in_order(self.test)

    def examples(self) -> Any:
        """A batch for sample grids, the same each time; of the test set where there is one."""
        dataset = self.source()
        return dataset.__getitems__(range(min(self.num_examples, len(dataset))))

    @property
    def title(self) -> str:
        """What people read: the name, and the task where there is one."""
        return f"{self.name}_{self.task}" if self.task else self.name

    def source(self, part: Literal["val", "test"] = "test") -> InMemoryDataset:
        """The examples that models translate, or whose captions they draw, when measured.

        Without such a part it is the test set; without that, the training set.
        """
        dataset = (self.val if part == "val" else None) or self.test or self.train
        return self._existing(dataset)

    def part(self, part: Part) -> InMemoryDataset:
        """The training, validation or test set; ValueError where there is no such part."""
        self._existing(self.train)
        dataset: InMemoryDataset | None = getattr(self, part)
        if dataset:
            return dataset
        if part == "val":
            raise ValueError(
                f"{self.name} has no validation images, as dataset.val_size is "
                f"{shown(self.val_size)}: a number above 0 holds so many training images out."
            )
        raise ValueError(f"{self.name} has no test images to measure generated ones against.")

    def labelled(self, domain: str, part: Part) -> LabelledDataset:
        """The images of a domain with their classes, -1 where these are not known.

        Generated images are measured against these. "train" are the images that are trained on,
        without augmentation; "val" are held out of these. ValueError where there are none.
        """
        dataset = self.part(part)
        if not isinstance(dataset, LabelledDataset):
            problem = "has no images to measure generated ones against: choose a dataset of images."
            raise ValueError(f"{self.name} {problem}")
        return dataset

    def evaluator_images(self, domain: str, train: bool) -> LabelledDataset:
        """What the evaluator of a domain's images is trained on, or tested on.

        All training images, validation images included: the evaluator must not depend on val_size.
        """
        return self.labelled(domain, "train" if train else "test")

    def evaluator_name(self, domain: str) -> str:
        """The name of that evaluator."""
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

        ValueError if fewer than ``least`` are left to train on, by default a batch.
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
        dataset, trainer = self._existing(dataset), self.trainer
        sampler: DistributedSampler[Any] | None = (
            DistributedSampler(dataset, trainer.world_size, trainer.global_rank, shuffle=False)
            if trainer and trainer.world_size > 1
            else None
        )
        return _Loader(dataset, self.batch_size, sampler=sampler, **self._loading())

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": pass_through,
            "worker_init_fn": _hush,
        }

    def _existing(self, dataset: InMemoryDataset | None) -> InMemoryDataset:
        if dataset is None:
            raise RuntimeError(f"{self.name} has no such part, or setup() has not been called yet.")
        return dataset


class LabelledImagesDataModule(InMemoryDataModule):
    """Data modules of labelled images that are trained on as they are.

    The last training images are the validation set. Subclasses give ``originals``.

    Args:
        train_size: how many of the other training images to use, the first ones; None for all.
    """

    batch_type = ImageBatch

    @checked
    def __init__(self, *args: Any, train_size: Count | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.train_size = train_size

    def originals(self, train: bool) -> tuple[Tensor, Tensor]:
        """(N, C, H, H) uint8 images and (N,) int64 labels, which are read once."""
        raise NotImplementedError

    def as_dataset(self, images: Tensor, labels: Tensor) -> InMemoryImages:
        """Such images and labels as the module serves them."""
        raise NotImplementedError

    def load(self) -> None:
        images, labels = self.originals(train=True)
        end = len(images) - self.validation_size(len(images))
        used = end if self.train_size is None else self.train_size
        if not self.batch_size <= used <= end:
            raise ValueError(
                f"dataset.train_size is {used:,}; of {self.name} it can be from a batch, "
                f"{self.batch_size}, to the {end:,} training images that are not held out."
            )
        self.train = self.as_dataset(images[:used], labels[:used])
        self.val = self.as_dataset(images[end:], labels[end:])
        self.test = self.as_dataset(*self.originals(train=False))

    def evaluator_images(self, domain: str, train: bool) -> InMemoryImages:
        return self.as_dataset(*self.originals(train))


def _fits(dataset: InMemoryDataset, device: torch.device) -> bool:
    """Whether it takes a quarter of the device's free memory at most."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in dataset.stored())
    return size <= torch.cuda.mem_get_info(device)[0] / 4


def framed(images: Tensor, size: int) -> Tensor:
    """(B, C, H, H) uint8, padded by zeros to ``size`` if that takes 1 or 2 pixels on each side.

    28 -> 32 is usual for MNIST; images of other sizes are returned as they are.
    """
    border = size - images.shape[-1]
    return F.pad(images, [border // 2] * 4) if border in (2, 4) else images


def resized(images: Tensor, size: int) -> Tensor:
    """(B, C, H, H) uint8 -> (B, C, size, size) in [0, 255]: framed, else antialiased bilinear."""
    images = framed(images, size)
    if images.shape[-1] == size:
        return images
    scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    # By rounding, a mean of 255s can exceed 255 a little.
    return scaled.clamp_(0, 255)


def normalised(images: Tensor, size: int | None = None) -> Tensor:
    """Bytes, or floats in [0, 255], to [-1, 1]: (x - .5) / .5 of x = byte / 255; resized first."""
    images = images if size is None else resized(images, size)
    return (images - 127.5).div_(127.5)
