"""What only a GPU shows; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import gan_zoo
from tests.conftest import DIGITS, SMALLER
from tests.test_graphs import GRAPHABLE
from tests.test_resume import MODELS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
LOGGED = 20


class NoWaiting(pl.Callback):
    """Lets no iteration after the first ones wait for the device, unless it is a logging step."""

    def __init__(self, first: int) -> None:
        self.first = first

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step > self.first and (trainer.global_step + 1) % LOGGED:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


def built(model: str, folder: Path, *typed: str) -> Any:
    options = [
        *SMALLER.get(model, ()), "trainer=gpu", "logger=csv", "trainer.max_steps=60",
        f"trainer.log_every_n_steps={LOGGED}", "callbacks.metrics=null",
        "callbacks.sample_grid=null", "dataset.val_size=0", *typed,
    ]  # fmt: skip
    if model in DIGITS:
        options.append(DIGITS[model])
    return gan_zoo.build(model, None if model in DIGITS else "digits", options, folder=folder)


@pytest.mark.parametrize("speed", ["default", "fast"])
@pytest.mark.parametrize("model", MODELS)
def test_an_iteration_does_not_wait_for_the_gpu(model: str, speed: str, tmp_path: Path) -> None:
    run = built(model, tmp_path, f"speed={speed}")
    # Recording may wait, and StackGAN's second stage is recorded after its first.
    run.trainer.callbacks.append(NoWaiting(first=30 if model == "stackgan" else 10))
    try:
        run.trainer.fit(run.model, run.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.trainer.global_step == 60


@pytest.mark.parametrize("model", GRAPHABLE)
def test_graphs_do_what_plain_iterations_do(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Convolutions in TF32, or by atomic additions, may differ from run to run without graphs too.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    logged = {}
    for graphs in (False, True):
        options = (*GRAPHABLE[model], "trainer.max_steps=40", "trainer.deterministic=warn")
        run = built(model, tmp_path / str(graphs), *options)
        run.model.graphs = graphs
        run.trainer.fit(run.model, run.data)
        assert (run.model._graphs is not None) == graphs
        logged[graphs] = run.model.logged
    # Rounding grows with the iterations.
    assert logged[True] == pytest.approx(logged[False], rel=0.02, abs=0.01)


def test_batches_are_cut_on_the_gpu(tmp_path: Path) -> None:
    run = built("gan", tmp_path)
    run.trainer.fit(run.model, run.data)
    loader = run.trainer.train_dataloader
    assert all(t.device.type == "cuda" for t in loader.dataset.dataset.stored())
    assert not loader.pin_memory
    assert all(tensor.device.type == "cpu" for tensor in run.data.train.stored())


def test_a_recorded_run_is_resumed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "half.ckpt"
    whole, half = (built("gan", tmp_path / name, "speed=fast") for name in ("whole", "half"))
    whole.trainer.fit(whole.model, whole.data)
    half.trainer.fit_loop.epoch_loop.max_steps = 30
    half.trainer.fit(half.model, half.data)
    half.trainer.save_checkpoint(checkpoint)
    again = built("gan", tmp_path / "again", "speed=fast")
    again.trainer.fit(again.model, again.data, ckpt_path=checkpoint, weights_only=True)
    assert again.model.counts == whole.model.counts
    assert again.model.logged == pytest.approx(whole.model.logged, rel=0.05, abs=0.02)
