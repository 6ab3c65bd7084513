"""The progress bar: losses, images a second, time left in the whole run."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gan_zoo.models.base import AdversarialModule

_SECONDS_BETWEEN_LINES = 30.0


class TrainingProgress(ProgressBar):
    """One bar over all iterations of the run; where the output is no terminal, a line at times.

    It is drawn at the trainer's logging steps, never between, and shows their losses.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._console = Console()
        self._bar: Progress | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        self._begun = self._drawn = self._printed = time.monotonic()
        self._images_before = pl_module.counts["images_seen"]
        self._images_drawn = self._images_before
        if not self._enabled or not self._console.is_terminal:
            return
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
        )
        total = self._total(trainer)
        self._task = self._bar.add_task(
            "", total=total, completed=trainer.global_step, losses="", speed=""
        )
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: AdversarialModule,  # type: ignore[override]
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        every = trainer.log_every_n_steps
        if not self._enabled or not every or trainer.global_step % every:
            return
        now = time.monotonic()
        images = pl_module.counts["images_seen"]
        speed = (images - self._images_drawn) / max(now - self._drawn, 1e-9)
        self._drawn, self._images_drawn = now, images
        losses = "  ".join(
            f"{name.removeprefix('train/')} {float(value):.3f}"
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/loss_")
        )
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=trainer.global_step,
                losses=losses,
                speed=f"{speed:,.0f} images/s",
                refresh=True,
            )
        elif now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._console.print(
                f"step {trainer.global_step}/{self._total(trainer) or '?'}  {losses}  "
                f"{speed:,.0f} images/s  {self._left(trainer, pl_module, now)}",
                highlight=False,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, refresh=True)
            self._bar.stop()
            self._bar = None

    def _left(self, trainer: pl.Trainer, model: AdversarialModule, now: float) -> str:
        total = self._total(trainer)
        if total is None:
            return ""
        done = (model.counts["images_seen"] - self._images_before) / max(
            model.counts["images_seen"] / trainer.global_step, 1e-9
        )
        minutes = (now - self._begun) / max(done, 1) * (total - trainer.global_step) / 60
        return f"{minutes:.0f} min left"

    @staticmethod
    def _total(trainer: pl.Trainer) -> int | None:
        total = trainer.estimated_stepping_batches
        return int(total) if total not in (-1, float("inf")) else None
