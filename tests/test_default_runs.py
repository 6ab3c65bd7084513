"""The default runs on real MNIST, judged by a classifier. Hours: ``python -m pytest -m slow``.

GAN_ZOO_RUNS names a folder with finished runs (``gan``, ``cgan``, ...) to judge; what is missing
there is trained first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from gan_zoo.checkpoint import load_model
from gan_zoo.data import ImageBatch, MNISTDataModule, available_dataset
from tests.conftest import ROOT
from tests.digit_classifier import classify, train_digit_classifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judge() -> torch.nn.Module:
    root = os.environ.get("GAN_ZOO_DATA_DIR", "data")
    if available_dataset("mnist", root) != "mnist":
        pytest.skip("needs real MNIST")
    torch.set_num_threads(os.cpu_count() or 1)
    data = MNISTDataModule("mnist", root)
    data.setup()
    classifier, accuracy = train_digit_classifier(data)
    print(f"classifier: {accuracy:.4f} of the test set right")
    assert accuracy >= 0.99
    return classifier


def samples(model: str, tmp_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """10,000 images of the model's default run, and the labels asked for (0, 1, ..., 9, 0, ...)."""
    folder = Path(os.environ.get("GAN_ZOO_RUNS", tmp_path)) / model
    if not (folder / "metrics.json").exists():
        script = str(ROOT / "scripts" / "train.py")
        subprocess.run(
            [sys.executable, script, f"model={model}", f"hydra.run.dir={folder}"], check=True
        )
    images = load_model(folder).sample(10_000, generator=torch.Generator().manual_seed(0))
    # The judge knows images of 28 pixels; the datasets frame them to make 32.
    border = (images.shape[-1] - 28) // 2
    images = images[..., border : images.shape[-1] - border, border : images.shape[-1] - border]
    return images, torch.arange(10_000) % 10


@pytest.mark.parametrize("model", ["gan", "dcgan", "infogan", "wgan_gp"])
def test_all_ten_digits_are_drawn(judge: torch.nn.Module, tmp_path: Path, model: str) -> None:
    images, _ = samples(model, tmp_path)
    shares = classify(judge, images).bincount(minlength=10) / len(images)
    print(f"{model}: shares of the digits", [round(share, 4) for share in shares.tolist()])
    assert shares.min() >= 0.05


@pytest.mark.parametrize("model", ["wgan", "began", "hdcgan"])
def test_digits_are_recognisable(judge: torch.nn.Module, tmp_path: Path, model: str) -> None:
    # These draw some digits rarely; docs/results.md has their shares.
    images, _ = samples(model, tmp_path)
    with torch.no_grad():
        odds = torch.cat([judge(chunk).softmax(1) for chunk in images.split(1000)])
    shares = odds.argmax(1).bincount(minlength=10) / len(images)
    sure = odds.amax(1).ge(0.5).float().mean().item()
    print(f"{model}: shares of the digits", [round(share, 4) for share in shares.tolist()])
    print(f"{model}: {sure:.4f} of the images look more like one digit than like all others")
    assert sure >= 0.75
    assert shares.max() < 0.5


def test_cgan_draws_the_digit_asked_for(judge: torch.nn.Module, tmp_path: Path) -> None:
    images, labels = samples("cgan", tmp_path)
    right = classify(judge, images).eq(labels).float()
    print("cgan: share of images that are given their own label", right.mean().item())
    print("by digit:", [round(right[labels == digit].mean().item(), 3) for digit in range(10)])
    assert right.mean() >= 0.98


def test_infogans_category_becomes_the_digit(judge: torch.nn.Module, tmp_path: Path) -> None:
    # 1606.03657, section 7.2: 5 % error after matching each category to a digit.
    samples("infogan", tmp_path)
    model = load_model(Path(os.environ.get("GAN_ZOO_RUNS", tmp_path)) / "infogan")
    data = MNISTDataModule("mnist", os.environ.get("GAN_ZOO_DATA_DIR", "data"))
    data.setup()

    @torch.no_grad()
    def counts(loader: Iterable[ImageBatch]) -> torch.Tensor:
        table = torch.zeros(10, 10)
        for image, label in loader:
            category = model.discriminator.recognise(image)[1].logits[0].argmax(1)
            table.index_put_((category, label), torch.ones(len(label)), accumulate=True)
        return table

    # Categories are matched on training images, and judged on the test set.
    matching = linear_sum_assignment(-counts(data.train_dataloader()))
    table = counts(data.test_dataloader())
    error = 1 - table[matching].sum().item() / table.sum().item()
    print(f"infogan: {error:.4f} of the test set not in its digit's category")
    # One category a digit by chance alone would leave nine tenths.
    assert error < 0.5
