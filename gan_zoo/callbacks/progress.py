"""The progress bar: losses, images per second, and the time left in the whole run."""

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

from gan_zoo.models.protocols import Watched

_SECONDS_BETWEEN_LINES = 30.0


class TrainingProgress(ProgressBar):
    """One bar over all iterations; where the output is no terminal, a line twice a minute.

        pl.Trainer(callbacks=[TrainingProgress()], max_steps=20_000).fit(model, data)

    It is only drawn at logging steps, and shows their losses.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Progress | None = None

    def disable(self) -> None:
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = self._drawn = self._printed = time.monotonic()
        self._first_step = self._drawn_step = trainer.global_step
        total = trainer.estimated_stepping_batches
        self._total = None if total in (-1, float("inf")) else int(total)
        console = Console()
        if self._enabled and console.is_terminal:
            self._bar = Progress(
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                auto_refresh=False,
            )
            self._task = self._bar.add_task(
                "", total=self._total, completed=trainer.global_step, numbers=""
            )
            self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Watched, *_: Any) -> None:  # type: ignore[override]
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not self._enabled or not every or step % every:
            return
        now = time.monotonic()
        # The images of an iteration, times iterations: what was seen before a resume is not logged.
        images = pl_module.logged["train/images_seen"] / step * (step - self._drawn_step)
        speed = images / max(now - self._drawn, 1e-9)
        self._drawn, self._drawn_step = now, step
        losses = "  ".join(
            f"{name.removeprefix('train/')} {value:.3f}"
            for name, value in pl_module.logged.items()
            if name.startswith("train/loss_")
        )
        numbers = f"{losses}  {speed:,.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=numbers, refresh=True)
        elif now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed, left = now, ""
            if self._total is not None:
                pace = (now - self._begun) / (step - self._first_step)
                left = f"  {pace * (self._total - step) / 60:.1f} min left"
            print(f"step {step:,}  {numbers}{left}", flush=True)

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        self.on_train_end(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, refresh=True)
            self._bar.stop()
            self._bar = None
