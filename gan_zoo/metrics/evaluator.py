"""The evaluator: the classifier whose features and classes generated images are measured by.

MNIST's is part of this package, so that a figure means the same on every machine. Others are
trained when they are first needed, and cached. Report an evaluator's hash with each figure: figures
of two evaluators can't be compared.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gan_zoo.files import atomic_write, made_by_one
from gan_zoo.metrics import Report, silent
from gan_zoo.networks.classifier import SIDE, EvaluatorNetwork
from gan_zoo.ranges import Count, Seed, Share, checked

log = logging.getLogger(__name__)

# Part of a cached evaluator's file name: raise it with any change to how they are trained.
_TRAINING = 2
_LEAST_STEPS = 300
# Few, as a run or a command waits for it.
_EPOCHS_ON_FIRST_USE = 2
_CHUNK = 500


class Judged(NamedTuple):
    """What the evaluator sees: standardised features (N, D), log-probabilities (N, K)."""

    features: Tensor
    log_probabilities: Tensor

    @property
    def classes(self) -> Tensor:
        """(N,) int64, the most likely ones."""
        return self.log_probabilities.argmax(1)

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """The parts put together, in their order."""
        return cls(*(torch.cat(field) for field in zip(*parts, strict=True)))


class LabelledImages(Protocol):
    """A dataset of images and classes."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64 classes; -1 where unknown."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Any) -> Any:
        """A batch, whose first fields are (B, C, H, W) float32 in [-1, 1], and (B,) int64."""

    def stored(self) -> Iterable[Tensor]:
        """The tensors that hold the data, for a hash."""


class Evaluator(nn.Module):
    """Images (N, C, H, H) in [-1, 1] of any size and on any device -> Judged, on the CPU.

        evaluator = packaged_evaluator("mnist")
        judged = evaluator(torch.rand(64, 1, 28, 28) * 2 - 1)
        judged.features, judged.classes    # (64, 128), (64,)

    An evaluator of grey images sees the mean of the channels.

    Args:
        network: trained.
        name: of the data it was trained on.
        accuracy: its share of correct answers on the test images.

    Attributes:
        per_channel: judge each channel as an image, for Stacked MNIST; features are concatenated,
            and a class is a combination of the channels' classes, the first one most significant.
        framed_from: see ``as_seen``, which brings the images to 28 pixels.
    """

    @checked
    def __init__(self, network: EvaluatorNetwork, name: str, accuracy: Share) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.name = name
        self.accuracy = accuracy
        self.per_channel = False
        self.framed_from: int | None = None

    @property
    def classes(self) -> int:
        """How many classes it tells apart; with ``per_channel``, combinations of three."""
        return self.network.num_classes ** (3 if self.per_channel else 1)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the weights."""
        return hash_of(value for _, value in sorted(self.network.state_dict().items()))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Judged:
        return Judged.joined(map(self._judge, images.split(_CHUNK)))

    def _judge(self, images: Tensor) -> Judged:
        images = as_seen(images.to(self.network.feature_mean.device), self.framed_from)
        if self.network.channels == 1 and not self.per_channel:
            images = images.mean(1, keepdim=True)
        views = images.split(self.network.channels, 1)
        features, logits = zip(*map(self.network, views), strict=True)
        joint = logits[0].log_softmax(1)
        for other in logits[1:]:
            joint = (joint[:, :, None] + other.log_softmax(1)[:, None]).flatten(1)
        return Judged(torch.cat(features, 1).cpu(), joint.cpu())


def as_seen(images: Tensor, framed_from: int | None = None) -> Tensor:
    """Images (N, C, H, H) at the 28 pixels that evaluators see, by antialiased bilinear resizing.

    Args:
        framed_from: the side of the originals that the data pads by 1 or 2 pixels on each side, as
            28 -> 32 is usual for MNIST: such a frame is cut off. None for other images.
    """
    frame = _frame(images.shape[-1], framed_from)
    if frame:
        images = images[..., frame:-frame, frame:-frame]
    if images.shape[-1] == SIDE:
        return images
    return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def _frame(size: int, framed_from: int | None) -> int:
    border = size - framed_from if framed_from else 0
    return border // 2 if border in (2, 4) else 0


def resize_rule(size: int, framed_from: int | None = None) -> str:
    """What ``as_seen`` does to images of that size, in words."""
    frame = _frame(size, framed_from)
    if frame or size == SIDE:
        return f"frame of {frame} cut off" if frame else "none"
    return f"{size} to {SIDE} pixels, bilinear, antialiased"


class Judgements(Metric):
    """Collects what the evaluator sees, over batches and processes.

    ``compute`` returns, on the CPU, a Judged of all images and the labels that they were generated
    for, -1 where unknown. Processes exchange tensors on the metric's device.
    """

    full_state_update = False
    states = (*Judged._fields, "labels")

    def __init__(self) -> None:
        super().__init__()
        for name in self.states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, judged: Judged, labels: Tensor | None = None) -> None:
        if labels is None:
            labels = torch.full((len(judged.features),), -1)
        for name, values in {**judged._asdict(), "labels": labels}.items():
            getattr(self, name).append(values.to(self.device))

    def compute(self) -> tuple[Judged, Tensor]:
        *seen, labels = (dim_zero_cat(getattr(self, name)).cpu() for name in self.states)
        return Judged(*seen), labels


@checked
def train_evaluator(
    train: LabelledImages,
    test: LabelledImages,
    name: str,
    epochs: Count = 8,
    seed: Seed = 0,
    framed_from: Count | None = None,
    report: Report = silent,
) -> Evaluator:
    """Trains an evaluator; the state of torch's global random generator is restored.

    AdamW with a one-cycle schedule up to 3e-3, batches of 128, images augmented; at least 300
    iterations, however few images there are. The seed decides weights, order and augmentation.

    Args:
        train, test: to train on, and to measure the accuracy on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        network = EvaluatorNetwork(train.__getitems__([0])[0].shape[1], classes)
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
        batch = min(128, len(train))
        steps = max(_LEAST_STEPS, epochs * (len(train) // batch))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        order = torch.randperm(0)
        for step in range(steps):
            if len(order) < batch:
                order = torch.randperm(len(train))
            chosen, order = order[:batch], order[batch:]
            images, labels = train.__getitems__(chosen)[:2]
            optimizer.zero_grad()
            F.cross_entropy(network(_augmented(as_seen(images, framed_from)))[1], labels).backward()
            optimizer.step()
            schedule.step()
            report((step + 1) / steps)
    evaluator = Evaluator(network, name, 0.0)
    evaluator.framed_from = framed_from
    features = judged(evaluator, images_of(train)).features
    network.feature_mean.copy_(features.mean(0))
    # The features of a unit that never changes stay at 0.
    network.feature_std.copy_(features.std(0).clamp(min=1e-3))
    right = judged(evaluator, images_of(test)).classes.eq(test.labels)
    evaluator.accuracy = round(right.double().mean().item(), 4)
    return evaluator


def _augmented(images: Tensor) -> Tensor:
    """Images scaled by up to a tenth, and shifted by up to 2 pixels; the grid's side is 2."""
    n = len(images)
    move = torch.zeros(n, 2, 3)
    move[:, 0, 0] = move[:, 1, 1] = 1 + 0.1 * (2 * torch.rand(n) - 1)
    move[:, :, 2] = (2 * torch.rand(n, 2) - 1) * 2 * 2.0 / images.shape[-1]
    grid = F.affine_grid(move, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def images_of(dataset: LabelledImages, rows: Tensor | None = None) -> Iterable[Tensor]:
    """A dataset's images, all or those at these rows, in parts."""
    order = torch.arange(len(dataset)) if rows is None else rows
    return (dataset.__getitems__(part)[0] for part in order.split(_CHUNK))


def judged(evaluator: Evaluator, images: Iterable[Tensor]) -> Judged:
    """What an evaluator sees in images that come in parts."""
    return Judged.joined(evaluator(part) for part in images)


def save_evaluator(evaluator: Evaluator, file: Path) -> None:
    """Writes an evaluator as safetensors, with its name, accuracy and hash."""
    about = {
        "name": evaluator.name,
        "accuracy": str(evaluator.accuracy),
        "channels": str(evaluator.network.channels),
        "num_classes": str(evaluator.network.num_classes),
        "hash": evaluator.hash,
    }
    with atomic_write(file) as aside:
        # Its save_file says nothing of a full disk by which that could be told.
        aside.write_bytes(save(evaluator.network.state_dict(), about))


def load_evaluator(file: Path) -> Evaluator:
    """Reads what ``save_evaluator`` wrote; raises ValueError for any other file."""
    if not file.is_file():
        raise ValueError(f"There is no evaluator '{file}': train_evaluator.py writes such files.")
    try:
        with safe_open(file, "pt") as content:
            about = content.metadata()
        network = EvaluatorNetwork(int(about["channels"]), int(about["num_classes"]))
        network.load_state_dict(load_file(file))
        evaluator = Evaluator(network, about["name"], float(about["accuracy"]))
        whole = evaluator.hash == about["hash"]
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"'{file}' is not an evaluator, or is damaged: train_evaluator.py writes such files."
        ) from error
    if not whole:
        raise ValueError(f"'{file}' is damaged: its weights do not match its hash.")
    return evaluator


def packaged_evaluator(name: str) -> Evaluator | None:
    """The evaluator of that name that is part of this package, if there is one."""
    file = packaged_file(name)
    return load_evaluator(file) if file.is_file() else None


def packaged_file(name: str) -> Path:
    """Where the package keeps the evaluator of that name."""
    return Path(__file__).with_name(f"{name}.safetensors")


def evaluator_for(
    name: str,
    images: Callable[[bool], LabelledImages],
    cache_dir: Path,
    framed_from: int | None = None,
    report: Report = silent,
) -> Evaluator:
    """The evaluator of a dataset: the package's, or one that is trained once and then cached.

    Args:
        images: gives the training images for True and the test images for False, as needed.
        cache_dir: folder of trained ones.
    """
    # A run's folder may say what its data is called.
    name = re.sub(r"[^\w.+-]", "-", name)
    if evaluator := packaged_evaluator(name):
        return evaluator
    train = images(True)
    shape = train.__getitems__([0])[0].shape
    about = f"{hash_of(train.stored())} {shape} {resize_rule(shape[-1], framed_from)} {_TRAINING}"
    digest = hashlib.sha256(about.encode()).hexdigest()[:12]
    file = cache_dir / "evaluators" / f"{name}-{digest}.safetensors"
    with made_by_one(file):
        if file.is_file():
            try:
                return load_evaluator(file)
            except (ValueError, OSError) as error:
                log.warning("%s It is trained again.", error)
        log.info("Training the evaluator of %s (cached in '%s').", name, file)
        evaluator = train_evaluator(
            train, images(False), name, _EPOCHS_ON_FIRST_USE, framed_from=framed_from, report=report
        )
        log.info("The evaluator is right on %.2f %% of the test images.", 100 * evaluator.accuracy)
        try:
            save_evaluator(evaluator, file)
        except OSError as error:
            log.warning("The evaluator could not be cached: %s", error)
        return evaluator


def hash_of(tensors: Iterable[Tensor]) -> str:
    """Twelve hexadecimal digits of the tensors' contents."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:12]
