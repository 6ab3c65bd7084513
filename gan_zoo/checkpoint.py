"""Reads what a run has saved: plain data, enough by itself to build its model again."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from gan_zoo.models.base import AdversarialModule


def checkpoint_file(path: str | Path) -> Path:
    """The file that a path stands for: itself, or a run folder's ``checkpoints/last.ckpt``."""
    path = Path(path)
    return path / "checkpoints" / "last.ckpt" if path.is_dir() else path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A run's checkpoint as it was saved, on the CPU.

    Args:
        path: a checkpoint, or a run folder for its last one.

    Raises:
        ValueError: if there is none, or if it is not one of this project's checkpoints.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint '{path}'.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as e:
        raise ValueError(f"'{path}' is not a checkpoint, or is damaged.") from e
    if not isinstance(checkpoint, dict) or not {"config", "state_dict"} <= checkpoint.keys():
        raise ValueError(f"'{path}' is not a checkpoint that this project's train.py wrote.")
    return checkpoint


def load_model(path: str | Path) -> AdversarialModule:
    """The model of a checkpoint, in eval mode on the CPU, with the run's configuration.

    Errors as read_checkpoint's.
    """
    return model_of(read_checkpoint(path))


def model_of(checkpoint: Mapping[str, Any]) -> AdversarialModule:
    """``load_model`` of what ``read_checkpoint`` gave."""
    model: AdversarialModule = instantiate(checkpoint["config"]["model"])
    model.config = checkpoint["config"]
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def begin_with(model: AdversarialModule, path: str | Path) -> None:
    """Gives a new model the networks of another run; its optimizers and iterations begin anew.

    Args:
        model: with the same networks as that run's.
        path: as read_checkpoint's.

    Raises:
        ValueError: as read_checkpoint, or for a model with other networks.
    """
    try:
        model.load_state_dict(read_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            f"init_from={path}: that run's networks are others than this {type(model).__name__}'s; "
            "its options model and dataset have to be the same but for how it trains."
        ) from error
