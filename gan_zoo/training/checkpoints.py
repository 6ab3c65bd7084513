"""Checkpoints: plain data, written whole, enough by themselves to build their model again."""

import io
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from gan_zoo.files import atomic_write

# Where the classes are defined that a checkpoint's configuration may name: they build a model or
# its data, and run nothing.
_BUILDING = (
    *(f"gan_zoo.{part}" for part in ("models", "networks", "losses", "schedules", "data")),
    *("torch.nn", "torch.optim"),
)
# For a whole run's configuration. Not Lightning's core, whose modules read any file as code.
_RUNNING = (
    *_BUILDING,
    "gan_zoo.callbacks",
    *(f"pytorch_lightning.{part}" for part in ("trainer", "loggers", "callbacks", "profilers")),
)
# What torch and zipfile raise on a file that is cut short or altered.
_OF_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError)


class DamagedCheckpoint(ValueError):
    """A file that is cut short, altered, or no checkpoint at all."""


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
    except (FileNotFoundError, PermissionError, DamagedCheckpoint):
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
    """Raises if a zip file, as torch writes it, is not what was written.

    torch does not look at the checksums in it.
    """
    with path.open("rb") as file:
        # The format of old versions of torch has no checksum.
        if file.read(1) != pickle.PROTO:
            with zipfile.ZipFile(file) as archive:
                if broken := archive.testzip():
                    problem = f"is damaged: {broken} does not fit its checksum."
                    raise DamagedCheckpoint(f"'{path}' {problem}")


def model_of(checkpoint: Mapping[str, Any], trust: Sequence[str] = ()) -> Any:
    """The model of a checkpoint, as read, by its configuration; in eval mode on the CPU.

    Args:
        checkpoint: as read_checkpoint gives it.
        trust: packages other than gan_zoo whose classes its configuration may name.

    Raises:
        ValueError: if its configuration names what is not of this package, torch's nn and optim, or
            a trusted package; or does not describe a model whose weights these are.
    """
    from hydra.utils import instantiate

    config = checkpoint["config"]
    for part in ("model", "dataset"):
        refuse_foreign_code({part: config.get(part)}, "The checkpoint's configuration", trust)
    model: Any = instantiate(config.get("model") or {})
    if not isinstance(model, pl.LightningModule):
        raise ValueError(
            "The checkpoint's configuration describes no model: it is not as train.py wrote it."
        )
    restore(model, checkpoint)
    return model


def restore(model: Any, checkpoint: Mapping[str, Any]) -> None:
    """Puts a checkpoint's weights, counts and configuration into a model, in eval mode.

    Raises:
        ValueError: for weights of other networks.
    """
    model.config = checkpoint["config"]
    model.on_load_checkpoint(checkpoint)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            "The checkpoint's weights do not fit the model of its configuration: it is not as "
            "train.py wrote it, or another version did."
        ) from error
    model.eval()


def refuse_foreign_code(
    config: Mapping[str, Any], origin: str, trust: Sequence[str] = (), run: bool = False
) -> None:
    """Raises ValueError if a configuration would run code from a package that is not trusted.

    Args:
        config: plain, not instantiated yet.
        origin: what it is, for the message.
        trust: packages that the user trusts.
        run: whether it is a whole run's, with a trainer, loggers and callbacks.
    """
    allowed = (*(_RUNNING if run else _BUILDING), *trust)
    for key, target in _targets(config):
        if not _defined_in(target, allowed):
            package = str(target).partition(".")[0]
            raise ValueError(
                f"{origin} would run {target} ({key}), which is neither this project's nor of "
                f"torch's nn and optim. If you know it to be harmless, trust={package} allows it."
            )


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node["_target_"]
        items: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return
    for name, value in items:
        yield from _targets(value, f"{key}.{name}" if key else str(name))


def _defined_in(target: Any, places: Sequence[str]) -> bool:
    """Whether a name is that of something defined in one of the places.

    The name alone tells nothing: gan_zoo.data.mnist.os.system is what a module of ours imports.
    """
    from hydra.utils import get_object

    def inside(name: str, places: Iterable[str]) -> bool:
        return any(name == place or name.startswith(f"{place}.") for place in places)

    # To look something up imports its package.
    if not isinstance(target, str) or not inside(target, {p.partition(".")[0] for p in places}):
        return False
    try:
        found = get_object(target)
    except Exception:
        # Hydra says it where it is built.
        return True
    return inside(getattr(found, "__module__", None) or "", places)
