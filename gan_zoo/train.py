"""One training run, from a composed configuration to a folder that holds everything about it."""

from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gan_zoo.callbacks import Checkpoint, TrainingProgress
from gan_zoo.console import say
from gan_zoo.run import report
from gan_zoo.run.build import begin_with, build
from gan_zoo.run.checks import check
from gan_zoo.run.folder import RunFolder, refuse_folders_apart
from gan_zoo.run.resume import checkpoint_to_resume


def train(config: DictConfig) -> float | None:
    """Trains as configured and writes the run's folder.

    Args:
        config: conf/train.yaml, composed; with ``resume.folder`` that run's own configuration.

    Returns:
        The best value of the figure that callbacks.metrics monitors; None where it was never
        measured.

    Raises:
        ValueError: for a choice that can't work, before anything is trained; a folder that this run
            made is removed again.
        SystemExit: after Ctrl-C or SIGTERM, with 128 and the signal's number.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(
        Path(hydra.runtime.output_dir),
        bool(OmegaConf.select(config, "resume.folder")),
        f"{hydra.job.name}.log",
        swept=hydra.mode == RunMode.MULTIRUN,
    )
    with folder.session():
        if not folder.swept:
            refuse_folders_apart(hydra)
        checkpoint, step = None, -1
        if folder.resumed:
            checkpoint, step = checkpoint_to_resume(config, folder.path)
        check(config)
        if 0 <= config.trainer.max_steps <= step:
            say(
                f"The run has its {step:,} iterations already. A larger trainer.max_steps trains "
                "it for longer."
            )
            return None
        run = build(config, folder.path, step)
        folder.trainer = run.trainer
        for callback in run.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainingProgress):
                callback.named = folder.swept
        if folder.first_process:
            report.print_start(config, run.about, run.trainer, step)
            if run.mathematics.words:
                say(f"Speed   {run.mathematics.words}")
        if config.init_from and not checkpoint:
            begin_with(run.model, config.init_from)
        run.data.setup()
        if folder.first_process:
            report.begin_session(folder.path, config, run.data, step, run.trainer.precision)
            report.report_start(run, config, resumed=checkpoint is not None)

        run.trainer.fit(
            run.model, run.data, ckpt_path=checkpoint and str(checkpoint), weights_only=True
        )
        if run.trainer.is_global_zero:
            report.print_summary(folder.path)
    ended_by = _ended_by(run.trainer)
    if folder.swept and ended_by:
        # The run is at its end all the same; its sweep is to begin no other.
        raise SystemExit(128 + ended_by)
    return report.monitored(run.trainer)


def _ended_by(trainer: pl.Trainer) -> int | None:
    """The signal that has interrupted the run, if only after its last iteration."""
    found: list[Checkpoint] = [c for c in trainer.callbacks if isinstance(c, Checkpoint)]  # type: ignore[attr-defined]
    return next((callback.ended_by for callback in found if callback.ended_by), None)
