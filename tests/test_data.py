"""The shared data module: what it serves, and what it makes of missing or damaged files."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.datasets import MNIST, FashionMNIST

from gan_zoo.data import (
    MappedDigitsDataModule,
    MNISTDataModule,
    RotatedDigitsDataModule,
    StackedMNISTDataModule,
    available_dataset,
)
from gan_zoo.data.base import pass_through
from gan_zoo.data.digit_pairs import negatives
from gan_zoo.data.mnist import DigitsDataModule
from gan_zoo.metrics.evaluator import hash_of
from gan_zoo.networks.mlp import MLPDiscriminator, MLPGenerator
from tests.conftest import small_gan


def ready(**options: object) -> MNISTDataModule:
    data = MNISTDataModule("digits", **options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


def write_idx(path: Path, shape: tuple[int, ...], content: bytes = b"") -> None:
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    path.write_bytes(header + content.ljust(torch.Size(shape).numel(), b"\0"))


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A data folder with files of FashionMNIST's shape; their checksum is known only zipped."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60000), ("t10k", 10000)):
        write_idx(raw / f"{part}-images-idx3-ubyte", (count, 28, 28), bytes([0, 127, 255]))
        write_idx(raw / f"{part}-labels-idx1-ubyte", (count,), bytes([7]))
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)


def test_batches_are_named_and_normalised() -> None:
    data = ready(batch_size=32)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (32, 1, 28, 28)
    assert batch.image.dtype == torch.float32
    assert batch.image.min() == -1
    assert batch.image.max() == 1
    assert batch.label.shape == (32,)
    assert batch.label.dtype == torch.int64


def test_normalisation_is_half_minus_half(fashion: Path) -> None:
    data = MNISTDataModule("fashion_mnist", fashion)
    data.prepare_data()
    data.setup()
    assert data.train is not None
    image, label = data.train[0]
    byte = torch.tensor([0.0, 127.0, 255.0])
    torch.testing.assert_close(image[0, 0, :3], (byte / 255 - 0.5) / 0.5)
    assert label == 7


def test_the_standard_split_is_kept_and_a_twelfth_of_training_is_validation(fashion: Path) -> None:
    data = MNISTDataModule("fashion_mnist", fashion)
    data.setup()
    sizes = [len(data.labelled("", part)) for part in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sizes == [55000, 5000, 10000]
    assert len(data.val_dataloader()) == 40
    assert data.source("val") is data.val
    assert data.source() is data.test
    # The evaluator learns from validation images too.
    assert len(data.evaluator_images("", train=True)) == 60000
    data = ready(val_size=20)
    labels = ready(val_size=0).labelled("", "train").labels
    assert torch.equal(data.labelled("", "train").labels, labels[:-20])
    assert torch.equal(data.labelled("", "val").labels, labels[-20:])


def test_no_validation_images_can_be_asked_for() -> None:
    data = ready(val_size=0)
    assert data.val_dataloader() == []
    assert data.source("val") is data.test
    with pytest.raises(ValueError, match=r"no validation images, as dataset\.val_size is 0"):
        data.labelled("", "val")


def test_fewer_training_images_leave_validation_and_evaluator_as_they_are() -> None:
    data, few = ready(batch_size=64), ready(batch_size=64, train_size=100)
    labels = data.labelled("", "train").labels
    assert torch.equal(few.labelled("", "train").labels, labels[:100])
    assert torch.equal(few.labelled("", "val").labels, data.labelled("", "val").labels)
    assert len(few.evaluator_images("", train=True)) == 1500
    for size in (63, 1400):
        with pytest.raises(ValueError, match=rf"train_size is {size:,}; .* to the 1,375 training"):
            ready(batch_size=64, train_size=size)


def test_whole_batches_are_fetched_at_once() -> None:
    data = ready(batch_size=64)
    assert data.train is not None
    data.train.__class__ = type("Once", (type(data.train),), {"__getitem__": None})
    assert sum(len(batch.image) for batch in data.train_dataloader()) == 1375 // 64 * 64


def test_an_epoch_shows_each_image_once_in_another_order_each_time() -> None:
    loader = ready(batch_size=1500, val_size=0).train_dataloader()
    (first,), (second,) = list(loader), list(loader)
    assert not torch.equal(first.label, second.label)
    ordered = [b.image.flatten(1).sort(dim=0).values for b in (first, second)]
    assert torch.equal(*ordered)


def test_workers_and_a_distributed_sampler_divide_the_data() -> None:
    data = ready(batch_size=100, num_workers=2, val_size=0)
    assert sum(len(batch.label) for batch in data.train_dataloader()) == 1500
    halves = []
    for rank in range(2):
        sampler = DistributedSampler(data.train, num_replicas=2, rank=rank, shuffle=False)
        loader = DataLoader(data.train, 250, sampler=sampler, collate_fn=pass_through)
        halves.append(torch.cat([batch.label for batch in loader]))
    assert data.train is not None
    assert torch.equal(torch.stack(halves, 1).flatten(), data.train.labels)


@pytest.mark.parametrize(("size", "background"), [(28, 0), (32, 2), (64, 0), (20, 0)])
def test_any_image_size(size: int, background: int) -> None:
    data = ready(image_size=size)
    assert data.train is not None
    images = data.train.__getitems__(range(500)).image
    assert images.shape == (500, 1, size, size)
    assert images.min() == -1
    assert 0.9 < images.max() <= 1
    if background:
        inner = images[..., background:-background, background:-background]
        assert torch.equal(inner, ready().train.__getitems__(range(500)).image)  # type: ignore[union-attr]
        assert (images + 1).sum() == (inner + 1).sum()


def test_channels_and_classes() -> None:
    data = ready(channels=3, num_classes=4)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape[1] == 3
    assert torch.equal(batch.image[:, 0], batch.image[:, 2])
    assert sorted(data.train.labels.unique().tolist()) == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_missing_data_without_a_network_falls_back_loudly(
    tmp_path: Path, no_network: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert available_dataset("mnist", tmp_path / "data") == "digits"
    assert "TRAINING ON THE STAND-IN" in caplog.text
    assert list((tmp_path / "data").iterdir()) == []
    with pytest.raises(RuntimeError, match="GAN_ZOO_DATA_DIR"):
        available_dataset("mnist", tmp_path / "data", when_unavailable="error")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MNISTDataModule, {}),
        (MNISTDataModule, {"num_classes": 9}),
        (StackedMNISTDataModule, {"train_size": 500, "test_size": 100}),
        (MappedDigitsDataModule, {"counterpart": negatives}),
        (RotatedDigitsDataModule, {}),
    ],
)
def test_files_that_go_after_setup_change_no_data(
    kind: type[DigitsDataModule],
    options: dict[str, Any],
    fashion: Path,
    no_network: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = bytes(n % 10 for n in range(60000))
    raw = fashion / "FashionMNIST" / "raw"
    write_idx(raw / "train-labels-idx1-ubyte", (60000,), labels)
    write_idx(raw / "t10k-labels-idx1-ubyte", (10000,), labels[:10000])

    def seen(data: DigitsDataModule) -> list[str]:
        return [
            hash_of(data.evaluator_images(domain, train).stored())
            for domain in data.domains
            for train in (True, False)
        ] + [data.evaluator_name(domain) for domain in data.domains]

    before, after = (kind(name="fashion_mnist", root=fashion, **options) for _ in range(2))
    for data in (before, after):
        data.prepare_data()
        data.setup()
    expected = seen(before)
    shutil.rmtree(fashion / "FashionMNIST")
    # As a trainer does when fitting starts.
    after.prepare_data()
    after.setup()
    assert after.name == "fashion_mnist"
    assert seen(after) == expected
    assert "STAND-IN" not in caplog.text


def test_a_download_appears_only_when_it_is_whole(
    tmp_path: Path, fashion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        file = filename.removesuffix(".gz")
        shutil.copy(fashion / "FashionMNIST" / "raw" / file, Path(download_root) / file)

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    root = tmp_path / "new"
    assert available_dataset("fashion_mnist", root) == "fashion_mnist"
    assert len(list((root / "FashionMNIST" / "raw").iterdir())) == 4
    assert [path.name for path in root.iterdir()] == ["FashionMNIST"]


def test_a_damaged_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        (Path(download_root) / filename.removesuffix(".gz")).write_bytes(b"cut short")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    monkeypatch.setattr(MNIST, "_load_data", lambda self: ([], []))
    with pytest.raises(ValueError, match="has 9 bytes"):
        available_dataset("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "header", "altered"])
def test_a_damaged_file_is_named(fashion: Path, damage: str) -> None:
    folder = fashion / "MNIST"
    (fashion / "FashionMNIST").rename(folder)
    path = folder / "raw" / "train-images-idx3-ubyte"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "header":
        path.write_bytes(b"PNG!" + path.read_bytes()[4:])
    # What is altered is that these are not MNIST's bytes at all.
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte' (has|does)"):
        available_dataset("mnist", fashion)


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_a_label_that_is_no_class_is_named(fashion: Path, name: str, part: str) -> None:
    if name == "kmnist":
        (fashion / "FashionMNIST").rename(fashion / "KMNIST")
    (path,) = fashion.glob(f"*/raw/{part}-labels-idx1-ubyte")
    path.write_bytes(path.read_bytes()[:-1] + bytes([200]))
    problem = rf"The {name} file '.*{part}-labels-idx1-ubyte' has a label 200; they are 0 to 9\."
    with pytest.raises(ValueError, match=problem):
        available_dataset(name, fashion)  # type: ignore[arg-type]


def test_an_altered_file_differs_from_the_genuine_archive_beside_it(
    fashion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fashion / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    archive = path.with_name(f"{path.name}.gz")
    archive.write_bytes(gzip.compress(path.read_bytes()))
    assert available_dataset("fashion_mnist", fashion) == "fashion_mnist"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    # That the archive is genuine is known by its checksum alone.
    assert available_dataset("fashion_mnist", fashion) == "fashion_mnist"
    known = dict(FashionMNIST.resources)
    known[archive.name] = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(FashionMNIST, "resources", list(known.items()))
    with pytest.raises(ValueError, match="differs from the compressed original"):
        available_dataset("fashion_mnist", fashion)


def test_a_data_module_works_with_a_plain_trainer() -> None:
    model = small_gan(generator=MLPGenerator(4, 1, 28), discriminator=MLPDiscriminator(1, 28))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=MNISTDataModule("digits", batch_size=500))
    assert trainer.global_step == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -3),
        ("batch_size", "many"),
        ("image_size", 2),
        ("channels", 2),
        ("num_classes", 11),
        ("val_size", -1),
        ("num_workers", -1),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{option} is {value}; it has to be"):
        ready(**{option: value})


def test_a_batch_larger_than_the_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        ready(batch_size=2000)


def test_unknown_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has to be mnist, fashion_mnist, kmnist or digits"):
        available_dataset("cifar", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="when_unavailable"):
        available_dataset("mnist", tmp_path, when_unavailable="maybe")  # type: ignore[arg-type]
