"""Checkpoints: plain data, written whole, enough by themselves to build their model again."""

import io
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.plugins.io import CheckpointIO

from gan_zoo.files import atomic_write
from gan_zoo.training.untrusted import vouched

# What torch and zipfile raise on a file that is cut short or altered.
_OF_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError)


class DamagedCheckpoint(ValueError):
    """A file that is cut short, altered, or no checkpoint at all."""


class _OtherFormat(ValueError):
    """A file that torch could read, but that no checkpoint of this project is."""


class CheckpointFiles(CheckpointIO):
    """Has Lightning write checkpoints atomically and read them as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        # torch says of a full disk that its writer failed, and names no file.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as aside:
            aside.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return _plain_data(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def checkpoint_folder(trainer: pl.Trainer) -> Path:
    """The folder of a run's checkpoints, within the trainer's."""
    return Path(trainer.default_root_dir) / "checkpoints"


def numbered(folder: Path) -> list[Path]:
    """The files ``step-<iteration>.ckpt`` there, by iteration; no copies by other names."""
    files = [file for file in folder.glob("step-*.ckpt") if re.fullmatch("[0-9]+", file.stem[5:])]
    return sorted(files, key=lambda file: int(file.stem[5:]))


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """A checkpoint as it was saved, on the CPU.

    Raises:
        DamagedCheckpoint: if it is cut short or altered.
        ValueError: if it is not one of this project's checkpoints, or holds what would run code.
    """
    checkpoint = _plain_data(Path(file))
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    if not all(isinstance(parts.get(part), dict) for part in ("config", "state_dict")):
        raise ValueError(
            f"'{file}' is not a checkpoint that this project wrote: give a run's folder, or a file "
            "in its folder checkpoints."
        )
    return checkpoint


def _plain_data(path: Path) -> Any:
    try:
        _refuse_damage(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, DamagedCheckpoint, _OtherFormat):
        raise
    except (pickle.UnpicklingError, zipfile.BadZipFile, *_OF_DAMAGE) as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"'{path}' holds more than plain data: reading it would run {code.group(1)}. It is "
                "not read; this project writes no such checkpoint."
            ) from error
        raise DamagedCheckpoint(f"'{path}' is not a checkpoint, or is damaged.") from error


def _refuse_damage(path: Path) -> None:
    """Raises if a file is not a zip as torch writes it: entries stored as they are, and intact.

    torch does not look at the checksums in it, and unpacks compressed entries of any size.
    """
    with path.open("rb") as file:
        if file.read(1) == pickle.PROTO:
            raise _OtherFormat(
                f"'{path}' is in torch's format of before 2020, which is not read: this project "
                "writes no such checkpoint."
            )
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or size > path.stat().st_size:
                raise _OtherFormat(
                    f"'{path}' would unpack to {size:,} bytes. It is not read; this project "
                    "compresses no checkpoint."
                )
            if broken := archive.testzip():
                problem = f"is damaged: {broken} does not fit its checksum."
                raise DamagedCheckpoint(f"'{path}' {problem}")


def model_of(checkpoint: Mapping[str, Any], trust: Sequence[str] = ()) -> Any:
    """The model of a checkpoint, as read, by its configuration; in eval mode on the CPU.

    Args:
        checkpoint: as read_checkpoint gives it.
        trust: what its configuration may name beside what is listed in gan_zoo.training.untrusted:
            full names, or packages.

    Raises:
        ValueError: if its configuration is not plain data, names something else, or does not
            describe a model whose weights these are.
    """
    origin = "The checkpoint's configuration"
    config = vouched(checkpoint["config"], origin, trust, ("model", "dataset"))
    model: Any = instantiate(config.get("model") or {})
    if not isinstance(model, pl.LightningModule):
        raise ValueError(f"{origin} describes no model: it is not as train.py wrote it.")
    model.trust = trust  # type: ignore[assignment]
    restore(model, {**checkpoint, "config": config})
    return model


def restore(model: Any, checkpoint: Mapping[str, Any]) -> None:
    """Puts a checkpoint's weights, counts and configuration into a model, in eval mode.

    Raises:
        ValueError: for weights of other networks, or without what the model keeps besides.
    """
    model.config = checkpoint["config"]
    try:
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            "The checkpoint's weights do not fit the model of its configuration: it is not as "
            "train.py wrote it, or another version did."
        ) from error
    model.eval()
