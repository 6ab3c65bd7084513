"""Checkpoints by iteration."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Keeps ``step-<iteration>.ckpt`` every so many iterations and ``last.ckpt``.

    ``last.ckpt`` is written with each of them, at the end, and when the run is interrupted.

    Args:
        dirpath: folder of the checkpoints.
        every_n_train_steps: iterations between them.

    Raises:
        ValueError: for an interval under 1.
    """

    def __init__(self, dirpath: str | Path, every_n_train_steps: int = 5000) -> None:
        if every_n_train_steps < 1:
            raise ValueError(
                f"callbacks.checkpoint.every_n_train_steps is {every_n_train_steps}; it has to be "
                "1 or more."
            )
        super().__init__(
            dirpath=dirpath,
            filename="step-{step:06d}",
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_train_steps,
            save_top_k=-1,
            save_last=True,
            enable_version_counter=False,
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save_last(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.world_size == 1:
            self._save_last(trainer)
        super().on_exception(trainer, pl_module, exception)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if trainer.global_step > 0:
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")
