"""What a run has saved: plain data under a checksum, enough by itself to build its model again."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.utils import get_object, instantiate
from pytorch_lightning.plugins.io import CheckpointIO

from gan_zoo.files import atomic_write
from gan_zoo.models.base import AdversarialModule

log = logging.getLogger(__name__)

# torch writes a zip file, whose last field is the length of a comment, and no comment. The seal is
# put there, so that the file is a zip file still.
_SEAL = b"sha256:"
_SEALED = len(_SEAL) + 64
_LENGTH = 2
_REMEDY = "A run's folder stands for its latest checkpoint that is whole."

# Where that lies which a checkpoint's configuration may name: it builds a model or its data, and
# runs nothing.
_BUILDING = (
    *(f"gan_zoo.{part}" for part in ("models", "networks", "losses", "data")),
    *("torch.nn", "torch.optim"),
)
# For a whole run's configuration. Not Lightning's core, whose modules read any file as code.
_RUNNING = (
    *_BUILDING,
    "gan_zoo.callbacks",
    *(f"pytorch_lightning.{part}" for part in ("trainer", "loggers", "callbacks", "profilers")),
)


class DamagedCheckpoint(ValueError):
    """A file that is cut short, altered, or no checkpoint at all."""


class CheckpointFiles(CheckpointIO):
    """Has Lightning write checkpoints whole or not at all, sealed, and read them as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = bytearray(buffer.getbuffer())
        content[-_LENGTH:] = struct.pack("<H", _SEALED)
        seal = _SEAL + hashlib.sha256(content).hexdigest().encode()
        with atomic_write(Path(path)) as aside, aside.open("wb") as file:
            file.write(content)
            file.write(seal)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return _plain_data(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def saved_in(folder: str | Path) -> list[Path]:
    """A run folder's checkpoints to go on from, the latest first."""
    checkpoints = Path(folder) / "checkpoints"
    steps = sorted(checkpoints.glob("step-*.ckpt"), key=step_of, reverse=True)
    return [p for p in (checkpoints / "last.ckpt", *steps) if p.is_file()]


def step_of(file: Path) -> int:
    """The iteration in the name ``step-<iteration>.ckpt``."""
    return int(file.stem.removeprefix("step-"))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A run's checkpoint as it was saved, on the CPU; all else as find_checkpoint."""
    return find_checkpoint(path)[1]


def find_checkpoint(
    path: str | Path, which: Literal["last", "best"] = "last"
) -> tuple[Path, dict[str, Any]]:
    """The file that a path means, and the checkpoint in it as it was saved, on the CPU.

    Args:
        path: a checkpoint, or a run folder.
        which: of a run folder, "last" for its latest checkpoint that is whole, with a warning about
            damaged ones, or "best" for ``best.ckpt``.

    Raises:
        ValueError: if there is none, if it is not one of this project's checkpoints, is damaged, or
            holds what would run code; for "best" with a file.
    """
    path = Path(path)
    if which == "best":
        if path.is_file():
            raise ValueError(f"which=best needs a run's folder, and '{path}' is a file.")
        path = path / "checkpoints" / "best.ckpt"
    files = saved_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
        raise ValueError(
            f"There is no checkpoint '{path}': a run's folder is wanted (RUN_FOLDER), or a file in "
            "its folder checkpoints."
            + (" Runs that callbacks.metrics measured have a best.ckpt." if which == "best" else "")
        )
    damages: list[DamagedCheckpoint] = []
    for file in files:
        try:
            checkpoint = _plain_data(file)
        except DamagedCheckpoint as error:
            damages.append(error)
            continue
        for damage in damages:
            log.warning("%s '%s' is taken instead.", damage, file)
        parts = checkpoint if isinstance(checkpoint, dict) else {}
        if not all(isinstance(parts.get(part), dict) for part in ("config", "state_dict")):
            raise ValueError(
                f"'{file}' is not a checkpoint that this project's train.py wrote. {_REMEDY}"
            )
        return file, checkpoint
    if path.is_dir():
        raise DamagedCheckpoint(
            f"{damages[0]} No other checkpoint there is whole: the run has to begin anew."
        )
    raise DamagedCheckpoint(f"{damages[0]} {_REMEDY}")


def _plain_data(path: Path) -> Any:
    content = _content(path)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise DamagedCheckpoint(f"'{path}' is not a checkpoint, or is damaged.") from error
        raise ValueError(
            f"'{path}' holds more than plain data: reading it would run {code.group(1)}. It is not "
            "read; this project's train.py writes no such checkpoint."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise DamagedCheckpoint(f"'{path}' is not a checkpoint, or is damaged.") from error


def _content(path: Path) -> bytes:
    """A file's bytes; DamagedCheckpoint if they are not those that were sealed.

    A file without a seal, as torch.save writes it, is for torch to judge.
    """
    content = path.read_bytes()
    body, seal = content[:-_SEALED], content[-_SEALED:]
    if seal.startswith(_SEAL):
        if hashlib.sha256(body).hexdigest().encode() == seal[len(_SEAL) :]:
            return content
        raise DamagedCheckpoint(f"'{path}' is damaged: it does not fit its checksum.")
    whole_zip = content.startswith(b"PK\x03\x04") and b"PK\x05\x06" in content[-_SEALED:]
    if not whole_zip and not content.startswith(pickle.PROTO):
        raise DamagedCheckpoint(f"'{path}' is not a checkpoint, or is damaged.")
    return content


def load_model(path: str | Path, trust: Sequence[str] = ()) -> AdversarialModule:
    """The model of a checkpoint, in eval mode on the CPU, with the run's configuration.

    Args:
        path: as read_checkpoint's.
        trust: packages beside this one that its configuration may name.

    Raises:
        ValueError: as read_checkpoint and model_of.
    """
    return model_of(read_checkpoint(path), trust)


def model_of(checkpoint: Mapping[str, Any], trust: Sequence[str] = ()) -> AdversarialModule:
    """``load_model`` of what ``read_checkpoint`` gave.

    Raises:
        ValueError: if its configuration names what is not of this package, torch's nn and optim, or
            a trusted package.
    """
    config = checkpoint["config"]
    for part in ("model", "dataset"):
        refuse_foreign_code({part: config.get(part)}, "The checkpoint's configuration", trust)
    model: Any = instantiate(config.get("model") or {})
    if not isinstance(model, AdversarialModule):
        raise ValueError(
            "The checkpoint's configuration describes no model: it is not as train.py wrote it."
        )
    model.config = config
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            "The checkpoint's weights do not fit the model of its configuration: it is not as "
            "train.py wrote it, or another version did."
        ) from error
    return model.eval()


def refuse_foreign_code(
    config: Mapping[str, Any], origin: str, trust: Sequence[str] = (), run: bool = False
) -> None:
    """Raises ValueError if a configuration would run code that nobody vouches for.

    Args:
        config: plain, not instantiated yet.
        origin: what it is, to say so.
        trust: packages that are vouched for.
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
    """Whether a name stands for something that is defined in one of the places.

    The name alone tells nothing: gan_zoo.data.mnist.os.system is what a module of ours imports.
    """

    def inside(name: str, places: Iterable[str]) -> bool:
        return any(name == place or name.startswith(f"{place}.") for place in places)

    # To look something up imports its package.
    if not isinstance(target, str) or not inside(target, {p.partition(".")[0] for p in places}):
        return False
    try:
        found = get_object(target)
    except Exception:
        # That there is no such thing is said where it is asked for.
        return True
    return inside(getattr(found, "__module__", None) or "", places)


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
