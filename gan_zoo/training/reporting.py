"""Figures, pictures and texts, to all loggers: each gets what it can take."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor


def report_figures(loggers: Iterable[Any], figures: Mapping[str, float], step: int) -> None:
    """Logs numbers by their tags, at an iteration."""
    for logger in loggers:
        logger.log_metrics(dict(figures), step)


def report_picture(loggers: Iterable[Any], tag: str, picture: Tensor, step: int) -> None:
    """Logs a picture (3, H, W) uint8 where a logger shows such."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, step)


def report_text(loggers: Iterable[Any], tag: str, text: str, step: int) -> None:
    """Logs a text where a logger shows such."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, step)


def report_hparams(
    loggers: Iterable[Any], hparams: Mapping[str, Any], figures: Iterable[str]
) -> None:
    """Logs a run's options, once, at its start.

    Args:
        loggers: the run's.
        hparams: option -> its value.
        figures: tags that will be logged in the run. TensorBoard's table of runs only has columns
            for those that it was told of here.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(hparams), dict.fromkeys(figures, math.nan))
        else:
            logger.log_hyperparams(dict(hparams))
