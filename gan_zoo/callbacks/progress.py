"""The progress bar: losses, images per second, and the time left in the whole run."""

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
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

from gan_zoo.console import say
from gan_zoo.models.protocols import Watched

_SECONDS_BETWEEN_LINES = 30.0
# The time left is by the pace since so many lines ago: a second stage may have another than the
# first.
_LINES_OF_PACE = 10
_SECONDS_BETWEEN_COUNTS = 0.2


class TrainingProgress(ProgressBar):
    """One bar over all iterations; where the output is no terminal, a line twice a minute.

        pl.Trainer(callbacks=[TrainingProgress()], max_steps=20_000).fit(model, data)

    Its iterations and its clock move by time, however slow they are, the clock already while the
    run is prepared. Losses and images per second are those of the last logging step: nothing is
    read from the device for it.

    Attributes:
        named: whether lines begin with the run's name, as those of a sweep's jobs, of which several
            may run side by side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.named = False
        self._enabled = True
        self._bar: Progress | None = None
        self._numbers = ""

    def disable(self) -> None:
        self._enabled = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        console = Console()
        if stage != "fit" or not self._enabled or not console.is_terminal:
            return
        before = sys.stdout
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
        )
        self._task = self._bar.add_task("", total=None, numbers="preparing")
        self._bar.start()
        # Their lines stand above the bar then.
        self._moved = [(handler, before) for handler in _handlers_to(before)]
        for handler, _ in self._moved:
            handler.setStream(sys.stdout)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._drawn = self._counted = time.monotonic()
        self._drawn_step = trainer.global_step
        self._lines = deque([(self._drawn, self._drawn_step)], maxlen=_LINES_OF_PACE)
        total = trainer.estimated_stepping_batches
        self._total = None if total in (-1, float("inf")) else int(total)
        if self._bar is not None:
            step = trainer.global_step
            self._bar.update(self._task, total=self._total, completed=step, numbers="")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Watched, *_: Any) -> None:  # type: ignore[override]
        if not self._enabled:
            return
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        now = time.monotonic()
        if every and step % every == 0:
            self._numbers = self._logged(pl_module, step, now)
        if self._bar is not None and now - self._counted >= _SECONDS_BETWEEN_COUNTS:
            # Its own thread draws it.
            self._counted = now
            self._bar.update(self._task, completed=step, numbers=self._numbers)
        elif self._bar is None and now - self._lines[-1][0] >= _SECONDS_BETWEEN_LINES:
            left = ""
            if self._total is not None:
                then, before = self._lines[0]
                pace = (now - then) / (step - before)
                left = f"  {pace * (self._total - step) / 60:.1f} min left"
            self._lines.append((now, step))
            name = f"{Path(trainer.default_root_dir).name}: " if self.named else ""
            say(name + "  ".join(filter(None, (f"step {step:,}", self._numbers))) + left)

    def _logged(self, model: Watched, step: int, now: float) -> str:
        """The losses, and how fast images went by since they were logged before."""
        # The images of an iteration, times iterations: what was seen before a resume is not logged.
        images = model.logged["train/images_seen"] / step * (step - self._drawn_step)
        speed = images / max(now - self._drawn, 1e-9)
        self._drawn, self._drawn_step = now, step
        losses = "  ".join(
            f"{name.removeprefix('train/')} {value:.3f}"
            for name, value in model.logged.items()
            if name.startswith("train/loss_")
        )
        return f"{losses}  {speed:,.0f} images/s"

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        self.on_train_end(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._bar is not None:
            step = trainer.global_step
            self._bar.update(self._task, completed=step, numbers=self._numbers, refresh=True)
            for handler, stream in self._moved:
                handler.setStream(stream)
            self._bar.stop()
            self._bar = None


def _handlers_to(stream: object) -> Iterator[logging.StreamHandler[Any]]:
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            yield handler
