"""Recorded iterations: by a stand-in here, and CUDA graphs where there is a GPU (test_gpu.py)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gan_zoo
from gan_zoo.training.graphs import IterationGraphs, recordable
from gan_zoo.training.module import AdversarialModule
from tests.conftest import DIGITS, FEW, SMALLER, slow_but

# The zoo's models that can be recorded, each with options that make more kinds of iterations.
GRAPHABLE = {
    "gan": ("model.penalty_interval=3",),
    "cgan": (),
    "dcgan": ("dataset.batch_size=16", "model.generator.base_channels=8"),
    "hdcgan": (),
    "infogan": ("dataset.batch_size=16",),
    "wgan": ("model.n_critic=3", "model.gradient_clip_val=1"),
    "wgan_gp": ("model.n_critic=2", "model.n_critic_warmup=4"),
    "r3gan": (),
    "cogan": (),
    "began": ("model/generator=began", "model.generator.vanishing_steps=50"),
    "stackgan": ("dataset.batch_size=16",),
    "stackgan_pp": ("dataset.batch_size=16",),
}
ITERATIONS = 24
LOGGED = 11
SIDES = ("plain", "recorded")


class StandIn:
    """Records a function by its effects: runs it, takes that back, and runs it at each replay.

    As a graph does, each replay writes into the tensors of the recording.
    """

    def __init__(self, model: AdversarialModule) -> None:
        self.model = model
        self.recorded = self.replayed = 0
        self.rates: list[Any] = []

    def warm_up(self, function: Callable[[], None]) -> None:
        function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        model, optimizers = self.model, self.model.trainer.optimizers
        # Under way, so that a rate on the device is seen to be used.
        self.rates += [group["lr"] for o in optimizers for group in o.param_groups]
        rates = [dict(group) for o in optimizers for group in o.param_groups]
        for group in (g for o in optimizers for g in o.param_groups):
            group.update(lr=float(group["lr"]), capturable=False)
        held = [*model.state_dict().values(), *state_of(optimizers)]
        before, random = [tensor.clone() for tensor in held], torch.get_rng_state()
        latest = dict(model.latest)
        function()
        made = {p: terms for p, terms in model.latest.items() if terms is not latest.get(p)}
        inputs = [average.inputs for average in model.network_averages]
        for tensor, was in zip(held, before, strict=True):
            tensor.detach().copy_(was)
        torch.set_rng_state(random)
        for group, rate in zip((g for o in optimizers for g in o.param_groups), rates, strict=True):
            group.update(rate)
        self.recorded += 1

        def replay() -> None:
            counts, kept = dict(model.counts), dict(model.latest)
            for average in model.network_averages:
                average.inputs = None
            function()
            self.replayed += 1
            for phase, terms in made.items():
                for name, term in terms.items():
                    term.copy_(model.latest[phase][name])
            for old, average in zip(inputs, model.network_averages, strict=True):
                for a, b in zip(old or (), average.inputs or (), strict=True):
                    a.copy_(b)
            model.counts, model.latest = counts, kept

        return replay


def state_of(optimizers: Any) -> Iterator[Tensor]:
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def trained(model: str, folder: Path, *typed: str) -> Any:
    options = [
        *SMALLER.get(model, ()), *GRAPHABLE.get(model, ()), "trainer=cpu", "logger=csv",
        f"trainer.max_steps={ITERATIONS}", f"trainer.log_every_n_steps={LOGGED}",
        "callbacks.metrics=null", "callbacks.sample_grid=null", "dataset.batch_size=8",
        "dataset.val_size=0", "model/scheduler=linear", *typed,
    ]  # fmt: skip
    if model in DIGITS:
        options.append(DIGITS[model])
    run = gan_zoo.build(model, None if model in DIGITS else "digits", options, folder=folder)
    run.trainer.fit(run.model, run.data)
    return run


@pytest.mark.parametrize("model", slow_but({*FEW, "infogan"}, GRAPHABLE))
def test_recorded_iterations_do_what_plain_ones_do(
    monkeypatch: pytest.MonkeyPatch, model: str, tmp_path: Path
) -> None:
    plain = trained(model, tmp_path / "plain")
    recorders: list[StandIn] = []

    def graphs(self: AdversarialModule) -> IterationGraphs:
        recorders.append(StandIn(self))
        optimizers = self.trainer.optimizers
        return IterationGraphs(self, self.network_averages, optimizers, recorders[-1])

    monkeypatch.setattr(AdversarialModule, "_iteration_graphs", graphs)
    recorded = trained(model, tmp_path / "recorded")
    assert recorders[0].recorded >= 1
    assert recorders[0].replayed >= ITERATIONS // 4
    assert all(isinstance(rate, Tensor) for rate in recorders[0].rates)
    assert recorded.model.counts == plain.model.counts
    assert recorded.model.logged == plain.model.logged
    weights = recorded.model.state_dict()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(weights[name].nan_to_num(), value.nan_to_num()), name
    rows = [next((tmp_path / side).rglob("metrics.csv")).read_text() for side in SIDES]
    assert rows[0] == rows[1]


def test_a_loss_that_is_not_finite_in_a_recorded_iteration_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def graphs(self: AdversarialModule) -> IterationGraphs:
        return IterationGraphs(self, self.network_averages, self.trainer.optimizers, StandIn(self))

    def loss(self: Any, batch: Any, fake: Any) -> Any:
        value, terms = own(self, batch, fake)
        return value / (self.trainer.global_step != 9), terms

    own = gan_zoo.models.GAN.generator_loss
    monkeypatch.setattr(AdversarialModule, "_iteration_graphs", graphs)
    monkeypatch.setattr(gan_zoo.models.GAN, "generator_loss", loss)
    with pytest.raises(ArithmeticError, match="train/loss_g is inf in iteration 10"):
        trained("gan", tmp_path)


def test_only_optimizers_that_read_their_rate_on_the_device_are_recorded() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1))]
    adam, sgd = torch.optim.Adam(copy.copy(weights)), torch.optim.SGD(weights, lr=0.1)
    assert recordable([adam])
    assert not recordable([adam, sgd])


def test_schedules_of_momentum_are_not_recorded() -> None:
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for cycled in (True, False):
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            adam, 0.1, total_steps=10, cycle_momentum=cycled
        )
        assert recordable([adam], [schedule]) is not cycled


def test_a_model_of_ones_own_is_not_recorded_unless_it_says_so() -> None:
    class Mine(gan_zoo.models.GAN):
        pass

    for kind, expected in ((gan_zoo.models.GAN, True), (Mine, None)):
        assert vars(kind).get("graphable") is expected
