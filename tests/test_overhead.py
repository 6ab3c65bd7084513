"""What an iteration pays whatever the networks are, as far as it can be counted."""

from __future__ import annotations

import functools
import gc
import statistics
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch.utils._python_dispatch import TorchDispatchMode

import gan_zoo
from gan_zoo.run.configuration import composed
from tests.conftest import DIGITS, FEW, SMALLER, fit, slow_but, small_gan
from tests.test_resume import MODELS, OWN

# Reading a number of a tensor, or its size where that depends on numbers: a GPU is waited for.
WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique"}
FIRST, LAST = 3, 8


class Watch(TorchDispatchMode):
    """Counts what waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.ops += 1
        if name in WAITS:
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


class Count(pl.Callback):
    """Looks at the iterations in which nothing is logged, from the end of one to the next's."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.hooks: list[int] = []
        self.objects: list[int] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == FIRST:
            self.watch.__enter__()
        if trainer.global_step == LAST:
            self.watch.__exit__(None, None, None)
        if FIRST <= trainer.global_step <= LAST:
            gc.collect()
            self.objects.append(len(gc.get_objects()))
            self.hooks.append(sum(map(hooks_of, module.modules())))


def hooks_of(module: torch.nn.Module) -> int:
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for kind in kinds)


@pytest.mark.parametrize("model", slow_but(FEW, MODELS))
def test_an_iteration_waits_for_nothing_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, model: str, tmp_path: Path
) -> None:
    # On a CPU alone it looks at the labels' range.
    monkeypatch.setattr(F, "one_hot", lambda x, n: (x[..., None] == torch.arange(n)).long())
    own = [o for o in (*SMALLER.get(model, ()), *OWN.get(model, ())) if "plateau" not in o]
    typed = [
        *own, DIGITS.get(model, ""), "trainer=cpu", f"trainer.max_steps={LAST + 2}",
        "trainer.log_every_n_steps=100", "logger=csv", "callbacks.metrics=null",
        "callbacks.sample_grid=null", "dataset.batch_size=8", "dataset.val_size=0",
    ]  # fmt: skip
    dataset = None if model in DIGITS else "digits"
    run = gan_zoo.build(model, dataset, [t for t in typed if t], folder=tmp_path)
    count = Count()
    run.trainer.callbacks.append(count)  # type: ignore[attr-defined]
    run.trainer.fit(run.model, run.data)
    assert count.watch.ops > 50
    assert count.watch.waits == {}
    # The moving average's is registered for the iterations in which it is due.
    assert count.hooks == [0] * (LAST - FIRST + 1)
    grown = [after - before for before, after in pairwise(count.objects)]
    # Losses are kept to be checked at the next logging step: some objects for each phase.
    assert statistics.median(grown) < 40


def test_noise_is_drawn_without_hydra() -> None:
    model = instantiate(composed("train", ["model=gan"]).model)
    assert type(model.noise) is functools.partial
    noise = model.draw_noise(1000)
    assert noise.min() < -0.9
    assert noise.max() > 0.9


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")
def test_absent_gpus_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    fit(small_gan(), 2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: pytest.fail("looked for"))
        assert not torch.cuda.is_available()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, gan_zoo; print([m for m in sys.modules if m.partition('.')[0] in HEAVY])"
    heavy = ("torch", "pytorch_lightning", "matplotlib", "scipy", "sklearn", "hydra", "omegaconf")
    result = subprocess.run(
        [sys.executable, "-c", code.replace("HEAVY", repr(heavy))], capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"
