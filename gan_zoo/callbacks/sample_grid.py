"""Grids of generated images during a run, from fixed noise."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gan_zoo.models.protocols import Sampled
from gan_zoo.plotting import image_grid, read_png, save_gif, save_png
from gan_zoo.ranges import Count, Seed, Steps, checked
from gan_zoo.training.reporting import report_picture

# Of an animation.
_MOST_FRAMES = 60


class SampleGrid(pl.Callback):
    """Draws the model's grid every so many iterations, at the start and at the end.

        trainer = pl.Trainer(callbacks=[SampleGrid(every_n_steps=100)])
        trainer.fit(model, data)

    Pictures are logged as ``samples/generated`` and, once, ``samples/real``, and written into the
    folder ``samples`` of the trainer's as ``step-<iteration>.png`` and ``real.png``. The noise is
    drawn once from the seed and saved in the checkpoints, so that a resumed run uses the same.
    At the end the grids become ``animation.gif`` in the trainer's folder.

    Args:
        most: how many pictures a run has at most, without those of its start and end. The interval
            is doubled until that holds for ``trainer.max_steps``, or, where these are unlimited,
            for the iterations so far. None for no bound. A run that is trained for longer keeps
            what it has drawn.
    """

    @checked
    def __init__(self, every_n_steps: Steps = 500, most: Count | None = 50, seed: Seed = 0) -> None:
        self.every_n_steps = every_n_steps
        self.most = most
        self.seed = seed
        self.inputs: dict[str, Tensor] = {}
        self._drawn_at = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: Sampled) -> None:  # type: ignore[override]
        if self.inputs:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        examples = trainer.strategy.batch_to_device(data.examples())
        generator = torch.Generator().manual_seed(self.seed)
        self.inputs = pl_module.grid_inputs(generator, examples)
        if trainer.is_global_zero and trainer.global_step == 0:
            self._show(trainer, pl_module.real_grid(examples), "real", "real.png")
            self._draw(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Sampled, *_: Any) -> None:  # type: ignore[override]
        if trainer.global_step % self._interval(trainer) == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Sampled) -> None:  # type: ignore[override]
        self._draw(trainer, pl_module)
        if trainer.is_global_zero:
            _animate(Path(trainer.default_root_dir))

    def state_dict(self) -> dict[str, Any]:
        return {"inputs": {name: value.cpu() for name, value in self.inputs.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inputs = dict(state_dict["inputs"])

    def _interval(self, trainer: pl.Trainer) -> int:
        interval = self.every_n_steps
        length = trainer.max_steps if trainer.max_steps >= 0 else trainer.global_step
        # Doubled, so that a longer run's pictures are among those of a shorter one.
        while self.most and length > self.most * interval:
            interval *= 2
        return interval

    def _draw(self, trainer: pl.Trainer, model: Sampled) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and step != self._drawn_at:
            self._show(trainer, model.sample_grid(self.inputs), "generated", f"step-{step:06d}.png")
            self._drawn_at = step

    def _show(self, trainer: pl.Trainer, grid: tuple[Tensor, int], tag: str, file: str) -> None:
        picture = image_grid(*grid)
        save_png(picture, Path(trainer.default_root_dir) / "samples" / file)
        report_picture(trainer.loggers, f"samples/{tag}", picture, trainer.global_step)


def _animate(folder: Path) -> None:
    """Makes ``animation.gif`` of the run's grids; those that can't be read are left out."""
    files = sorted((folder / "samples").glob("step-*.png"))
    some = files[:-1][:: -(-len(files) // _MOST_FRAMES)] + files[-1:]
    pictures = [picture for picture in map(read_png, some) if picture]
    pictures = [picture for picture in pictures if picture.size == pictures[-1].size]
    if len(pictures) > 1:
        save_gif(pictures, folder / "animation.gif")
