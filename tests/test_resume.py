"""A run that was interrupted ends where one that was not ends, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from gan_zoo.checkpoint import read_checkpoint
from gan_zoo.models.base import AdversarialModule
from tests.conftest import DIGITS, ROOT, SMALLER

Run = Callable[..., CompletedProcess[str]]

TRAIN = str(ROOT / "scripts" / "train.py")
MODELS = (
    "gan", "cgan", "dcgan", "hdcgan", "infogan", "wgan", "wgan_gp", "cogan", "began", "discogan",
    "cyclegan", "stackgan", "stackgan_pp",
)  # fmt: skip
ITERATIONS = 10
# Epochs of three iterations with validation after each, and a checkpoint every two.
SHORT = (
    "trainer=cpu", "trainer.log_every_n_steps=1", f"trainer.max_steps={ITERATIONS}",
    "trainer.limit_train_batches=3", "callbacks.checkpoint.every_n_train_steps=2",
    "callbacks.sample_grid.every_n_steps=4",
)  # fmt: skip
# What each model has of its own to keep.
OWN = {
    "gan": ("model.accumulate_grad_batches=4",),
    "wgan": ("model.n_critic=3",),
    "wgan_gp": ("model.n_critic=3",),
    "began": ("model/scheduler=plateau", "dataset.batch_size=8"),
    "cyclegan": ("model.pool_size=6",),
    "dcgan": ("dataset.batch_size=32", "model.generator.base_channels=8"),
    "infogan": ("dataset.batch_size=32",),
}


def small(model: str) -> tuple[str, ...]:
    """A short run of that model."""
    digits = DIGITS.get(model, "dataset=digits")
    own = (*SMALLER.get(model, ()), *OWN.get(model, ()))
    return (f"model={model}", digits, "dataset.val_size=20", *SHORT, *own)


class Killed(BaseException):
    """Ends a run where it stands, as nothing in it expects."""


@contextmanager
def killed_in(iteration: int) -> Iterator[None]:
    """Ends runs in the midst of that iteration."""

    def break_off(model: AdversarialModule, batch_size: int) -> None:
        if model.trainer.global_step + 1 == iteration:
            raise Killed
        end_iteration(model, batch_size)

    end_iteration = AdversarialModule._end_iteration
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialModule, "_end_iteration", break_off)
        with pytest.raises(Killed):
            yield


def differing(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two nested structures of plain data and tensors are not bitwise the same."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(
            a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
        )
        return [] if same else [place]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differing(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i in range(len(a)) for d in differing(a[i], b[i], f"{place}/{i}")]
    return [] if type(a) is type(b) and (a == b or a != a) else [place]


def state(folder: Path) -> dict[str, Any]:
    """All of a run's last checkpoint but what tells of time and place."""
    checkpoint = read_checkpoint(folder)
    del checkpoint["config"], checkpoint["callbacks"]["_Result"]["seconds"]
    return checkpoint


def logged(folder: Path) -> dict[str, list[Any]]:
    """Tag -> (step, value) of all event files together, as they stand there."""
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, str(e.value)) for e in events.Scalars(tag))
        for tag in events.Tags()["images"]:
            found.setdefault(tag, []).extend(
                (e.step, e.encoded_image_string) for e in events.Images(tag)
            )
        for tag in events.Tags()["tensors"]:
            found.setdefault(tag, []).extend(
                (e.step, make_ndarray(e.tensor_proto).tolist()) for e in events.Tensors(tag)
            )
    return found


def figures(folder: Path) -> dict[str, Any]:
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    return metrics


def assert_same_end(folder: Path, straight: Path) -> None:
    assert differing(state(folder), state(straight)) == []
    assert differing(logged(folder), logged(straight)) == []
    assert figures(folder) == figures(straight)
    pictures = sorted(path.name for path in (straight / "samples").iterdir())
    assert sorted(path.name for path in (folder / "samples").iterdir()) == pictures
    for name in pictures:
        assert (folder / "samples" / name).read_bytes() == (
            straight / "samples" / name
        ).read_bytes()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_goes_on_as_if_nothing_had_happened(
    run: Run, tmp_path: Path, model: str
) -> None:
    command = ("train.py", *small(model))
    run(*command, "hydra.run.dir=straight")
    run(*command, "hydra.run.dir=again")
    assert_same_end(tmp_path / "again", tmp_path / "straight")
    with killed_in(6):
        run(*command, "hydra.run.dir=broken")
    # From within the second epoch, and then from its end; its loader has processes of its own.
    assert read_checkpoint(tmp_path / "broken")["global_step"] == 4
    with killed_in(7):
        run("train.py", "resume=broken")
    assert read_checkpoint(tmp_path / "broken")["global_step"] == 6
    run("train.py", "resume=broken", "dataset.num_workers=2", "resume.allow=[dataset.num_workers]")
    assert_same_end(tmp_path / "broken", tmp_path / "straight")
