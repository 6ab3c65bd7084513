"""Each warning of a run's health fires on a run that is made to fail that way, and on no other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from gan_zoo.callbacks import Checkpoint, Health, TrainingProgress
from gan_zoo.callbacks.health import mean_distance
from gan_zoo.data import ImageBatch, InMemoryDataModule
from gan_zoo.data.base import InMemoryImages
from gan_zoo.models import BEGAN, GAN, WGANGP
from gan_zoo.training.module import Loss
from tests.conftest import small
from tests.same_end import read_checkpoint

Run = Callable[..., CompletedProcess[str]]
STEPS = 40


class Shapes(InMemoryDataModule):
    """Images of 8 x 8 pixels in ten classes, all different."""

    batch_type = ImageBatch

    def setup(self, stage: str | None = None) -> None:
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (64, 1, 8, 8), generator=random, dtype=torch.uint8)
        self.train = InMemoryImages(images, torch.arange(64) % 10)
        self.test = self.train


def health(model: Any, steps: int = STEPS, **options: Any) -> dict[str, int]:
    """Trains under watch, with everything logged; what was warned of, and in which iteration."""
    callback = Health(**{"every_n_steps": 5, "warm_up_steps": 0, **options})
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        callbacks=[callback],
    )  # fmt: skip
    trainer.fit(model, Shapes("shapes", 8, 0, 0))
    return callback.warned


class Constant(nn.Module):
    """A generator that has collapsed: one image, whatever the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, 8, 8))

    def forward(self, noise: Tensor) -> Tensor:
        return self.image.tanh() + 0 * noise.sum(1)[:, None, None, None]


class Certain(nn.Module):
    """A discriminator that knows real images by a mark, and never learns otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, image: Tensor) -> Tensor:
        # Generated images have negative means here.
        return 20 * image.flatten(1).mean(1, keepdim=True).sign() + 0 * self.scale


class Wide(nn.Module):
    """A generator of images that are all different, in [-1 - dark, 1 - dark]."""

    def __init__(self, dark: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 64)
        self.dark = dark

    def forward(self, noise: Tensor) -> Tensor:
        return self.layer(10 * noise).tanh().view(-1, 1, 8, 8) - self.dark


def test_a_sound_run_is_warned_of_nothing() -> None:
    assert health(small(GAN, generator=Wide())) == {}


def test_collapse() -> None:
    warned = health(small(GAN, generator=Constant()))
    # At the second look.
    assert warned == {"collapse": 10}


def test_saturation(monkeypatch: pytest.MonkeyPatch) -> None:
    def setup(self: Shapes, stage: str | None = None) -> None:
        images = torch.randint(200, 256, (64, 1, 8, 8), dtype=torch.uint8)
        self.train = self.test = InMemoryImages(images, torch.arange(64) % 10)

    monkeypatch.setattr(Shapes, "setup", setup)
    warned = health(small(GAN, generator=Wide(dark=1.0), discriminator=Certain()))
    assert warned == {"saturated": 10}


def test_gradients_far_from_their_median() -> None:
    class Jumping(GAN):
        def generator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
            loss, terms = super().generator_loss(batch, fake)
            return loss * (1e4 if self.trainer.global_step >= 25 else 1), terms

    slow = functools.partial(torch.optim.SGD, lr=1e-6)
    warned = health(small(Jumping, generator=Wide(), optimizer_g=slow))
    # From iteration 26 on; warned of at the third value in a row.
    assert warned == {"grad_norm_g": 28}


class Same(nn.Module):
    """An auto-encoder that gives everything back in half."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        return image * self.scale


def test_a_k_that_is_pinned() -> None:
    model = small(BEGAN, discriminator=Same(), lambda_k=1e-9)
    assert health(model)["pinned_k"] == 10


def test_a_critic_whose_gradient_is_off_its_target() -> None:
    model = small(WGANGP, discriminator=nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
    with torch.no_grad():
        model.discriminator[1].weight.fill_(10.0)
    model.lambda_gp = 0.0
    assert health(model)["target_gradient_norm"] == 10


def test_strict_stops_at_the_first_trouble() -> None:
    with pytest.raises(ArithmeticError, match=r"stops the run in iteration 10\..*Diversity"):
        health(small(GAN, generator=Constant()), action="stop")


def test_what_was_seen_travels_in_the_checkpoint() -> None:
    first = Health()
    list(first._lasting("saturated", True, "text"))
    list(first._gradient("grad_norm_d", 2.0))
    again = Health()
    again.load_state_dict(first.state_dict())
    assert again.state_dict() == first.state_dict()
    assert again._strikes == {"saturated": 1}


def test_a_progress_line_has_the_images_since_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Trainer:
        global_step, log_every_n_steps, estimated_stepping_batches = 10, 10, 90

    class Model:
        logged: ClassVar = {"train/images_seen": 30 * 8.0, "train/loss_d": 1.0}

    trainer, now = Trainer(), 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = TrainingProgress()
    # Resumed after 10 iterations; 20 iterations of 8 images in 40 seconds.
    progress.on_train_start(trainer, Model())  # type: ignore[arg-type]
    trainer.global_step, now = 30, 140.0
    progress.on_train_batch_end(trainer, Model(), None, None, 0)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "step 30  loss_d 1.000  4 images/s  2.0 min left\n"


def test_distances_within_classes() -> None:
    images = torch.tensor([0.0, 1, 10, 13]).view(4, 1, 1, 1)
    assert mean_distance(images) == pytest.approx((1 + 10 + 13 + 9 + 12 + 3) / 6)
    assert mean_distance(images, torch.tensor([0, 0, 1, 1])) == pytest.approx((1 + 3) / 2)
    assert math.isnan(mean_distance(images, torch.arange(4)))


class Breaking(GAN):
    """Its penalty is not a number from the seventh iteration on."""

    def discriminator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        loss, terms = super().discriminator_loss(batch, fake)
        value = math.nan if self.trainer.global_step >= 6 else 0.0
        return loss + value, {**terms, "penalty": torch.tensor(value)}


def breaking_run(tmp_path: Path, **options: Any) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=40, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Checkpoint(every_n_train_steps=4)],
        default_root_dir=tmp_path,
        **options,
    )  # fmt: skip
    trainer.fit(small(Breaking), Shapes("shapes", 8, 0, 0))


@pytest.mark.parametrize("log_every", [1, 10, 0])
def test_not_a_number_stops_with_its_iteration_and_term(tmp_path: Path, log_every: int) -> None:
    # Without logging it is found before a checkpoint is written.
    with pytest.raises(ArithmeticError, match="train/penalty is nan in iteration 7:"):
        breaking_run(tmp_path, log_every_n_steps=log_every)
    saved = tmp_path / "checkpoints"
    assert sorted(file.name for file in saved.iterdir()) == ["last.ckpt", "step-000004.ckpt"]
    weights = torch.load(saved / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    model = small(GAN)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, Shapes("shapes", 8, 0, 0))
    with torch.no_grad():
        next(model.generator.parameters()).fill_(math.inf)
    with pytest.raises(ArithmeticError, match=r"weights generator\..* not finite"):
        trainer.save_checkpoint(tmp_path / "broken.ckpt")
    assert not (tmp_path / "broken.ckpt").exists()


BROKEN = (
    "train.py", "model=gan", "dataset=digits", "trainer=cpu", "trainer.log_every_n_steps=1",
    "callbacks.checkpoint.every_n_train_steps=2", "hydra.run.dir=here",
)  # fmt: skip


def test_a_diverged_run_names_the_checkpoint_that_is_good(run: Run, tmp_path: Path) -> None:
    result = run(*BROKEN, "trainer.max_steps=60", "model/optimizer@model.optimizer_d=sgd",
                 "model.optimizer_d.lr=1e3", "model.loss=least_squares",
                 "callbacks.checkpoint.every_n_train_steps=1", check=False)  # fmt: skip
    assert result.returncode == 1
    assert "diverged" in result.stderr
    assert len(result.stderr.splitlines()) <= 3
    assert "The last good checkpoint is here/checkpoints/last.ckpt" in result.stderr
    weights = read_checkpoint(tmp_path / "here")["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_warnings_are_text_in_tensorboard_and_off_is_off(run: Run, tmp_path: Path) -> None:
    # A generator that never learns is as collapsed as it began.
    still = ("model.optimizer_g.lr=0", "callbacks.health.every_n_steps=2",
             "callbacks.health.warm_up_steps=0", "trainer.max_steps=6")  # fmt: skip
    result = run(*BROKEN, *still)
    assert "Diversity is collapsing" in result.stdout + result.stderr
    events = EventAccumulator(str(tmp_path / "here")).Reload()
    assert "health/collapse/text_summary" in events.Tags()["tensors"]
    options = ("model.optimizer_g.lr=0", "trainer.max_steps=6", "hydra.run.dir=quiet", "health=off")
    result = run(*BROKEN, *options)
    assert "collapsing" not in result.stdout + result.stderr
    result = run(*BROKEN, *still, "health=strict", "hydra.run.dir=strict", check=False)
    assert result.returncode == 1
    assert "health=strict stops the run in iteration 4" in result.stderr
