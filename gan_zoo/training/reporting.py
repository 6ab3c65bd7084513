"""Figures, pictures and texts, to all loggers: each gets what it can take."""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch import Tensor

# Titles of pages -> titles of charts -> regular expressions of the tags in them.
Pages = Mapping[str, Mapping[str, list[str]]]


def report_figures(loggers: Iterable[Any], figures: Mapping[str, float], step: int) -> None:
    """Logs numbers by their tags, at an iteration."""
    for logger in loggers:
        logger.log_metrics(dict(figures), step)


@rank_zero_only
def report_picture(loggers: Iterable[Any], tag: str, picture: Tensor, step: int) -> None:
    """Logs a picture (3, H, W) uint8 where a logger shows such."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [Image.fromarray(picture.movedim(0, 2).numpy())], step)
        elif isinstance(logger, MLFlowLogger):
            client, run = logger.experiment, logger.run_id
            # As MLflow names it; it would keep what a killed run has logged beside it.
            name = f"images/{tag.replace('/', '~')}+step+{step}+"
            if not any(kept.path.startswith(name) for kept in client.list_artifacts(run, "images")):
                client.log_image(run, picture.movedim(0, 2).numpy(), key=tag, step=step)


@rank_zero_only
def report_text(loggers: Iterable[Any], tag: str, text: str, step: int) -> None:
    """Logs a text, as Markdown, where a logger shows such."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, step)
        elif isinstance(logger, WandbLogger):
            import wandb

            # A table would be an artifact, which wandb keeps outside of the run's folder.
            page: Any = wandb.Html(f"<pre>{html.escape(text)}</pre>")
            logger.log_metrics({tag: page}, step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, text, f"{tag}.md")


@rank_zero_only
def report_hparams(
    loggers: Iterable[Any], hparams: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Logs a run's options, once, at its start; ``settings`` are more, for other loggers.

    TensorBoard's table of runs has a column for each of them and for each tag of a figure. It puts
    the options that differ between runs first, each part by the alphabet, and ticks five of each.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            # For its hparams.yaml.
            logger.hparams.update(hparams)
            # The table cuts what a row is called. Of rows that are called the same it shows means.
            folder = Path(logger.log_dir).resolve()
            row = f"{folder.name} ({folder.parent})"
            # Lightning's own would name the columns, and that of one run would hold for all.
            logger.experiment.file_writer.add_summary(hparams_pb(dict(hparams), trial_id=row), 0)
        else:
            logger.log_hyperparams({**settings, **hparams})


@rank_zero_only
def report_pages(loggers: Iterable[Any], pages: Pages) -> None:
    """Logs what the charts of TensorBoard's Custom Scalars show, once, at a run's start."""
    charts = {
        page: {chart: ["Multiline", tags] for chart, tags in charts.items()}
        for page, charts in pages.items()
    }
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars(charts)
