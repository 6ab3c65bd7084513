"""Grids of generated images through a run, from noise that never changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from gan_zoo.models.base import AdversarialModule
from gan_zoo.options import refuse_unless_whole
from gan_zoo.plotting import image_grid, save_png


class SampleGrid(pl.Callback):
    """Draws the model's grid every so many iterations, at the start and at the end.

    Pictures go to TensorBoard as ``samples/generated`` and, once, ``samples/real``, and into the
    folder as ``step-<iteration>.png`` and ``real.png``. The noise is drawn once from the seed and
    travels in the checkpoints, so that a resumed run goes on with the same.

    Args:
        dirpath: folder of the pictures.
        every_n_steps: iterations between grids.
        seed: of the fixed noise.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(self, dirpath: str | Path, every_n_steps: int = 500, seed: int = 0) -> None:
        refuse_unless_whole("callbacks.sample_grid.every_n_steps", every_n_steps, 1)
        refuse_unless_whole("callbacks.sample_grid.seed", seed, 0)
        self.dirpath = Path(dirpath)
        self.every_n_steps = every_n_steps
        self.seed = seed
        self.inputs: dict[str, Tensor] = {}
        self._drawn_at = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        if self.inputs:
            return
        examples = pl_module.transfer_batch_to_device(
            trainer.datamodule.examples(),  # type: ignore[attr-defined]
            pl_module.device,
            0,
        )
        generator = torch.Generator().manual_seed(self.seed)
        self.inputs = pl_module.grid_inputs(generator, examples)
        if trainer.is_global_zero and trainer.global_step == 0:
            self._show(trainer, image_grid(*pl_module.real_grid(examples)), "real", "real.png")
            self._draw(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: AdversarialModule,  # type: ignore[override]
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"inputs": {name: value.cpu() for name, value in self.inputs.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inputs = dict(state_dict["inputs"])

    def _draw(self, trainer: pl.Trainer, model: AdversarialModule) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and step != self._drawn_at:
            picture = image_grid(*model.sample_grid(self.inputs))
            self._show(trainer, picture, "generated", f"step-{step:06d}.png")
            self._drawn_at = step

    def _show(self, trainer: pl.Trainer, picture: Tensor, tag: str, file: str) -> None:
        self.dirpath.mkdir(parents=True, exist_ok=True)
        save_png(picture, self.dirpath / file)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"samples/{tag}", picture, trainer.global_step)
