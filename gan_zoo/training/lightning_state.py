"""All that reaches into Lightning's own counters, so that one iteration is one step to it.

Lightning counts each optimizer's step, and at several moments of a batch. Here ``global_step`` is
the number of iterations that are over, however many optimizers step in one.
"""

import logging
import math
import os
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

# What Lightning and torch warn of though it is meant so here.
_KNOWN_WARNINGS = (
    ".*LeafSpec.*is deprecated",
    ".*does not have many workers",
    ".*Total length of `list` across ranks is zero",
    ".*Checkpoint directory .* exists and is not empty",
    ".*ModelCheckpoint with manual optimization and every_n_train_steps",
    ".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`",
    # Our data modules' loader resumes at the iteration that the run has come to.
    ".*your dataloader is not resumable",
    ".*number of training batches .* is smaller than the logging interval",
    # Of SLURM, where it is installed.
    ".*`srun` command is available on your system but is not used",
    ".*overridden `on_before_batch_transfer` in `LightningModule`",
    # The bare side of a benchmark logs nothing.
    ".*Trainer\\(barebones=True\\)",
    ".*Initializing zero-element tensors is a no-op",
)


def silence_known_warnings() -> None:
    """Leaves out what is meant to be as it is; a launcher's processes need it too."""
    lightning = logging.getLogger("pytorch_lightning")
    lightning.setLevel(logging.WARNING)
    # To the run's log too, as all others.
    lightning.handlers.clear()
    lightning.propagate = True
    # The table of trainer.profiler.
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)
    for message in _KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message)


def forget_absent_gpus() -> None:
    """Has torch's optimizers, which ask for GPUs at each step, not look for those that are absent.

    Lightning has torch ask the driver's library, so that no process is forked with CUDA begun.
    Without a GPU that library is looked for each time in vain, for .06 ms.
    """
    if not torch.cuda.device_count():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def is_logging_step(trainer: pl.Trainer) -> bool:
    """Whether the running iteration's terms are logged: by the trainer's interval, or as the last.

    In all other iterations nothing is read from the device, and nothing logged.
    """
    iteration = trainer.global_step + 1
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (every > 0 and iteration % every == 0) or iteration == trainer.max_steps


def step_optimizer(trainer: pl.Trainer, optimizer: Optimizer) -> None:
    """Steps an optimizer without counting it.

    The strategy's own step serves precision plugins as a LightningOptimizer's does.
    """
    trainer.strategy.optimizer_step(optimizer, closure=_no_closure)


def _no_closure() -> None:
    """A manual step has run forward and backward by itself."""


def loss_scale(trainer: pl.Trainer, optimizer: Optimizer) -> float:
    """By what gradients are still multiplied when ``on_before_optimizer_step`` sees them.

    1, but under float16, where a fused optimizer unscales the gradients within its own step.
    """
    if scales_losses(trainer) and getattr(optimizer, "_step_supports_amp_scaling", False):
        return trainer.precision_plugin.scaler.get_scale()  # type: ignore[attr-defined]
    return 1.0


def scales_losses(trainer: pl.Trainer) -> bool:
    """Whether losses are multiplied before backward passes, as under float16."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def count_iteration(trainer: pl.Trainer) -> None:
    """Adds one to ``trainer.global_step``."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()


def set_between_iterations(checkpoint: dict[str, Any], step: int, batches: int | float) -> None:
    """Has a checkpoint say that ``step`` iterations are over, and that no other has begun.

    Lightning saves its counts of epochs, batches and validations as they are at that moment of a
    batch, and resumes differently from each of these moments. From here it always resumes with the
    next iteration.

    Args:
        checkpoint: as Lightning fills it; changed in place.
        step: iterations done.
        batches: iterations to an epoch; where it is infinite nothing is changed.
    """
    if not math.isfinite(batches):
        return
    epochs, done = divmod(step, int(batches))
    begun = epochs + (done > 0)

    def both(**counts: int) -> dict[str, Any]:
        return {"total": dict(counts), "current": dict(counts)}

    # Within an epoch Lightning counts a batch as completed only when the next one begins.
    left = int(done > 0)
    batch_progress = both(ready=done, started=done, processed=done, completed=done - left)
    batch_progress["total"] = {
        "ready": step, "started": step, "processed": step, "completed": step - left,
    }  # fmt: skip
    checkpoint["epoch"] = epochs
    checkpoint["loops"]["fit_loop"] |= {
        "epoch_progress": both(ready=begun, started=begun, processed=epochs, completed=epochs),
        "epoch_loop.batch_progress": {**batch_progress, "is_last_batch": False},
        "epoch_loop.state_dict": {"_batches_that_stepped": step - left},
        "epoch_loop.manual_optimization.optim_step_progress": both(ready=step, completed=step),
        "epoch_loop.val_loop.batch_progress": {
            **both(ready=0, started=0, processed=0, completed=0),
            "is_last_batch": False,
        },
    }
