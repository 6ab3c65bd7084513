"""The evaluator: the package's own, those trained on first use, and what they see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gan_zoo.data import (
    MNISTDataModule,
    StackedMNISTDataModule,
    UnpairedFolderDataModule,
    available_dataset,
)
from gan_zoo.metrics import evaluator as evaluators
from gan_zoo.metrics.evaluator import (
    Evaluator,
    Judgements,
    as_seen,
    evaluator_for,
    images_of,
    judged,
    load_evaluator,
    packaged_evaluator,
    packaged_file,
    resize_rule,
    save_evaluator,
)
from gan_zoo.networks.classifier import EvaluatorNetwork
from tests.test_metrics import RandomImages


def untrained(channels: int = 1, classes: int = 10) -> Evaluator:
    torch.manual_seed(0)
    return Evaluator(EvaluatorNetwork(channels, classes), "none", 0.0)


def test_the_package_has_mnists_evaluator_under_a_megabyte() -> None:
    evaluator = packaged_evaluator("mnist")
    assert evaluator is not None
    assert packaged_file("mnist").stat().st_size < 1_000_000
    assert evaluator.accuracy >= 0.993
    assert len(evaluator.hash) == 12
    assert packaged_evaluator("usps") is None


def test_it_has_the_accuracy_that_it_says() -> None:
    root = os.environ.get("GAN_ZOO_DATA_DIR", "data")
    try:
        available_dataset("mnist", root, "error")
    except RuntimeError:
        pytest.skip("needs real MNIST")
    data = MNISTDataModule("mnist", root)
    test = data.evaluator_images("", train=False)
    evaluator = packaged_evaluator("mnist")
    assert evaluator is not None
    seen = judged(evaluator, images_of(test))
    assert seen.classes.eq(test.labels).double().mean().item() == pytest.approx(
        evaluator.accuracy, abs=2e-4
    )
    # Standardised on the training images, so nearly so on the test images.
    assert seen.features.mean(0).abs().max() < 0.2
    assert (seen.features.std(0) - 1).abs().max() < 0.2


def test_images_of_other_sizes_are_seen_by_a_rule() -> None:
    images = torch.rand(2, 1, 28, 28)
    framed = torch.nn.functional.pad(images, [2] * 4, value=-1)
    assert torch.equal(as_seen(framed, framed_from=28), images)
    assert as_seen(images) is images
    assert as_seen(torch.rand(2, 3, 64, 64), framed_from=28).shape == (2, 3, 28, 28)
    assert [resize_rule(size, framed_from=28) for size in (28, 32, 64)] == [
        "none", "frame of 2 cut off", "64 to 28 pixels, bilinear, antialiased",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [30, 32])
def test_only_a_frame_is_cut_off(size: int) -> None:
    # The border of a picture of 30 or 32 pixels is part of it.
    picture = torch.zeros(1, 3, size, size)
    picture[..., 0, :] = 1
    assert as_seen(picture).max() > 0.5
    assert resize_rule(size) == f"{size} to 28 pixels, bilinear, antialiased"
    assert MNISTDataModule.framed_from == 28
    assert UnpairedFolderDataModule.framed_from is None


def test_an_evaluator_sees_images_as_it_was_trained_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    framed = torch.nn.functional.pad(images, [2] * 4, value=-1)
    evaluator = untrained()
    evaluator.framed_from = 28
    assert torch.equal(evaluator(framed).features, evaluator(images).features)
    monkeypatch.setattr(evaluators, "_LEAST_STEPS", 1)
    padded = RandomImages(20, 0)
    padded.images = torch.nn.functional.pad(padded.images, [2] * 4)
    hashes = [
        evaluator_for("noise", lambda train: padded, tmp_path, framed_from).hash
        for framed_from in (28, None)
    ]
    assert hashes[0] != hashes[1]


def test_an_evaluator_of_grey_sees_the_mean_of_colours() -> None:
    evaluator = untrained()
    grey = torch.rand(3, 1, 28, 28)
    for one, other in zip(evaluator(grey), evaluator(grey.expand(-1, 3, -1, -1)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_each_channel_is_a_digit_of_a_stack() -> None:
    evaluator = untrained(classes=4)
    evaluator.per_channel = True
    assert evaluator.classes == 64
    images = torch.rand(3, 3, 28, 28) * 2 - 1
    seen = evaluator(images)
    assert seen.features.shape == (3, 3 * 128)
    assert torch.allclose(seen.log_probabilities.logsumexp(1), torch.zeros(3), atol=1e-5)
    evaluator.per_channel = False
    parts = [evaluator(images[:, [c]]).log_probabilities for c in range(3)]
    # The first channel's class is the most significant digit, as in the labels of the data.
    assert torch.allclose(
        seen.log_probabilities[:, 2 * 16 + 1 * 4 + 3],
        parts[0][:, 2] + parts[1][:, 1] + parts[2][:, 3],
        atol=1e-5,
    )


def test_judgements_collect_batches_and_labels() -> None:
    evaluator, images = untrained(), torch.rand(5, 1, 28, 28)
    collected = Judgements()
    collected.update(evaluator(images[:2]), torch.tensor([3, 4]))
    collected.update(evaluator(images[2:]))
    seen, labels = collected.compute()
    assert labels.tolist() == [3, 4, -1, -1, -1]
    assert torch.allclose(seen.features, evaluator(images).features, atol=1e-5)


def test_one_is_trained_once_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluators, "_LEAST_STEPS", 3)

    def images(train: bool) -> RandomImages:
        return RandomImages(20, 0) if train else RandomImages(10, 1)

    before = torch.get_rng_state()
    first = evaluator_for("noise", images, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    (file,) = (tmp_path / "evaluators").iterdir()
    monkeypatch.setattr(evaluators, "train_evaluator", None)
    assert evaluator_for("noise", images, tmp_path).hash == first.hash
    monkeypatch.undo()
    monkeypatch.setattr(evaluators, "_LEAST_STEPS", 3)
    # Trained again it is the same; other data have another one.
    file.write_bytes(file.read_bytes()[:-100])
    assert evaluator_for("noise", images, tmp_path).hash == first.hash
    assert "is damaged" in caplog.text
    assert evaluator_for("noise", lambda part: RandomImages(20, 2), tmp_path).hash != first.hash


def test_a_damaged_or_altered_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "e.safetensors"
    save_evaluator(untrained(), file)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"e.safetensors' is damaged"):
        load_evaluator(file)
    content[-3] ^= 1
    for key in (b"name", b"accuracy", b"hash", b"channels"):
        file.write_bytes(content.replace(b'"' + key + b'"', b'"' + key[:-1] + b'."'))
        with pytest.raises(ValueError, match="not an evaluator"):
            load_evaluator(file)
    file.write_text("not weights")
    with pytest.raises(ValueError, match="not an evaluator"):
        load_evaluator(file)


def test_stacked_images_are_three_digits_and_their_classes() -> None:
    data = StackedMNISTDataModule(
        name="digits", train_size=50, test_size=20, val_size=10, batch_size=5
    )
    data.setup()
    assert data.train is not None
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.labelled("", "train"))) == (40, 10, 40)
    batch = data.train.__getitems__([0, 7])
    assert batch.image.shape == (2, 3, 28, 28)
    digits, classes = data.originals(train=True)
    # No digit is seen both in training and in validation.
    assert torch.equal(data.train.images, digits[:1200])  # type: ignore[attr-defined]
    assert torch.equal(data.val.images, digits[1200:])  # type: ignore[attr-defined]
    for image, label, stack in zip(*batch, data.train.stacks[[0, 7]], strict=True):  # type: ignore[attr-defined]
        assert torch.allclose(image, digits[stack, 0] / 127.5 - 1, atol=1e-6)
        a, b, c = classes[stack].tolist()
        assert label == 100 * a + 10 * b + c
    few = StackedMNISTDataModule(name="digits", num_classes=8, train_size=200, test_size=50)
    few.setup()
    assert few.labelled("", "train").labels.unique().tolist() == list(range(8))
    for options in ({"num_classes": 500}, {"channels": 1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            StackedMNISTDataModule(name="digits", **options)
