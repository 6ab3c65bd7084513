"""Checkpoints during a run, and a last one when the run is interrupted."""

import functools
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from gan_zoo.files import link
from gan_zoo.ranges import Count, Positive, Steps, checked
from gan_zoo.training.checkpoints import checkpoint_folder, numbered


# Lightning's ModelCheckpoint (2.6) won't do: under manual optimization it saves before the
# iteration's validation, ignores train_time_interval, saves nothing on a signal or after the last
# iteration, and its last.ckpt is a symbolic link to a file that may be removed. test_resume.py and
# test_faults.py need all of this, and one file an iteration for any number of optimizers.
class Checkpoint(pl.callbacks.Checkpoint):
    """Writes ``step-<iteration>.ckpt``; the latest is also ``last.ckpt``.

        trainer = pl.Trainer(callbacks=[Checkpoint(every_n_train_steps=1000)])
        trainer.fit(model, data)

    They are in the folder ``checkpoints`` of the trainer's. One is written between two iterations:
    every so many iterations or minutes (None counts iterations alone), at the end, and on Ctrl-C or
    SIGTERM, after the iteration; a second signal ends the run at once.

    Args:
        keep_last: how many to keep, beside ``best.ckpt``, until the run is at its end, where only
            the last one stays; None for all, also then.

    Attributes:
        ended_by: number of the signal that interrupted the run; None if none did.
    """

    @checked
    def __init__(
        self,
        every_n_train_steps: Steps = 5000,
        every_n_minutes: Positive | None = 10.0,
        keep_last: Count | None = 3,
    ) -> None:
        self.every_n_train_steps = every_n_train_steps
        self.every_n_minutes = every_n_minutes
        self.keep_last = keep_last
        self.ended_by: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        # By gloo the hosts agree each iteration, and no GPU is waited for.
        several = trainer.world_size > 1
        self._hosts: Any = torch.distributed.new_group(backend="gloo") if several else None
        if threading.current_thread() is threading.main_thread():
            # Lightning restores the earlier handlers.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, functools.partial(self.signal_handler, trainer))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        # By now the iteration before is complete, its validation included.
        step = trainer.global_step
        ended_by, is_time = self._agreed()
        due = is_time or bool(ended_by) or step % self.every_n_train_steps == 0
        if due and step != self._saved_step:
            self._save(trainer)
        if ended_by:
            raise SystemExit(128 + ended_by)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        if trainer.is_global_zero and self.keep_last:
            _keep_latest(checkpoint_folder(trainer), 1)

    def _agreed(self) -> tuple[int, bool]:
        """Rank 0's signal that ends the run, or 0, and whether a checkpoint is due by time."""
        minutes = (time.monotonic() - self._saved_time) / 60
        is_time = self.every_n_minutes is not None and minutes > self.every_n_minutes
        answer = [self.ended_by or 0, int(is_time)]
        if self._hosts is not None:
            shared = torch.tensor(answer)
            torch.distributed.broadcast(shared, src=0, group=self._hosts)
            answer = shared.tolist()
        return answer[0], bool(answer[1])

    def _save(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            # A resumed run does not repeat these iterations: what they logged has to be on disk.
            logger.save()
        folder = checkpoint_folder(trainer)
        file = folder / f"step-{trainer.global_step:06d}.ckpt"
        trainer.save_checkpoint(file, weights_only=False)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.is_global_zero:
            link(file, folder / "last.ckpt")
            if self.keep_last:
                _keep_latest(folder, self.keep_last)

    def signal_handler(self, trainer: pl.Trainer, number: int, frame: FrameType | None) -> None:
        """What Ctrl-C and SIGTERM call."""
        if self.ended_by is not None:
            raise SystemExit(128 + self.ended_by)
        self.ended_by = number
        if trainer.is_global_zero:
            print("\nEnding after this iteration; press again to end at once.", flush=True)


def _keep_latest(folder: Path, count: int) -> None:
    for old in numbered(folder)[:-count]:
        old.unlink(missing_ok=True)
