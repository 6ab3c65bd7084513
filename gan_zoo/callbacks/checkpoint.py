"""Checkpoints through a run, and a last one when it is asked to end."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from gan_zoo.checkpoint import step_of
from gan_zoo.files import link
from gan_zoo.options import refuse_unless_whole
from gan_zoo.ranges import Count, Positive, refuse_unfit


class Checkpoint(pl.callbacks.Checkpoint):
    """Keeps ``step-<iteration>.ckpt`` of the latest iterations, the last as ``last.ckpt`` too.

    One is written once an iteration is entirely over: every so many iterations, when so many
    minutes have passed, at the end, and when the run is ended by Ctrl-C or SIGTERM, which let it
    finish the iteration; a second one ends it at once.

    Args:
        dirpath: folder of the checkpoints.
        every_n_train_steps: iterations between them.
        every_n_minutes: at most so long between them; None to go by iterations alone.
        keep_last: how many to keep, beside ``best.ckpt``; None for all.

    Attributes:
        ended_by: number of the signal that asked the run to end; None if none did.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        dirpath: str | Path,
        every_n_train_steps: int = 5000,
        every_n_minutes: float | None = 10.0,
        keep_last: int | None = 3,
    ) -> None:
        refuse_unless_whole("callbacks.checkpoint.every_n_train_steps", every_n_train_steps, 1)
        refuse_unfit("callbacks.checkpoint.keep_last", keep_last, Count | None)
        refuse_unfit("callbacks.checkpoint.every_n_minutes", every_n_minutes, Positive | None)
        self.dirpath = Path(dirpath)
        self.every_n_train_steps = every_n_train_steps
        self.every_n_minutes = every_n_minutes
        self.keep_last = keep_last
        self.ended_by: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            # Lightning puts back what was there before.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ender(trainer))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Here all that belongs to the iteration before is over, its validation included.
        step = trainer.global_step
        ended_by, is_time = self._asked(trainer)
        due = is_time or bool(ended_by) or step % self.every_n_train_steps == 0
        if due and step != self._saved_step:
            self._save(trainer)
        if ended_by:
            raise SystemExit(128 + ended_by)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def _asked(self, trainer: pl.Trainer) -> tuple[int, bool]:
        """The signal that asks for the end, 0 if none does, and whether it is time for another.

        All processes go by the first one's.
        """
        minutes = (time.monotonic() - self._saved_time) / 60
        is_time = self.every_n_minutes is not None and minutes > self.every_n_minutes
        if trainer.world_size == 1:
            return self.ended_by or 0, is_time
        answer = torch.tensor([self.ended_by or 0, is_time], device=trainer.strategy.root_device)
        torch.distributed.broadcast(answer, src=0)
        ended_by, is_time = answer.tolist()
        return ended_by, bool(is_time)

    def _save(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            # What is logged of iterations that a run does not repeat has to be there.
            logger.save()
        file = self.dirpath / f"step-{trainer.global_step:06d}.ckpt"
        trainer.save_checkpoint(file, weights_only=False)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.is_global_zero:
            link(file, self.dirpath / "last.ckpt")
            steps = sorted(self.dirpath.glob("step-*.ckpt"), key=step_of)
            for old in steps[: -self.keep_last] if self.keep_last else ():
                old.unlink(missing_ok=True)

    def _ender(self, trainer: pl.Trainer) -> Any:
        def end(number: int, frame: FrameType | None) -> None:
            if self.ended_by is not None:
                raise KeyboardInterrupt
            self.ended_by = number
            if trainer.is_global_zero:
                print("\nEnding after this iteration; once more ends at once.", flush=True)

        return end
