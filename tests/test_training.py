"""The loop that all models stand on: who steps, when, on what, and what is counted."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from gan_zoo.data import ImageBatch
from gan_zoo.models import GAN
from gan_zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_zoo.networks.mlp import MLPDiscriminator, MLPGenerator
from gan_zoo.randomness import derived_seed
from gan_zoo.training.module import Phase
from tests.conftest import fit, small_gan


def test_each_batch_is_one_step_with_one_update_of_each_player() -> None:
    model = small_gan()
    trainer = fit(model, batches=7)
    assert trainer.global_step == 7
    assert model.counts["d_steps"] == model.counts["g_steps"] == 7
    assert model.counts["images_seen"] == 7 * 4


def test_max_steps_counts_iterations() -> None:
    model = small_gan()
    trainer = fit(model, batches=4, max_epochs=-1, max_steps=10)
    assert trainer.global_step == 10
    assert model.counts["d_steps"] == model.counts["g_steps"] == 10


def test_each_optimizer_owns_exactly_its_players_parameters() -> None:
    model = small_gan(ema_decay=0.9)
    optimizers = model.configure_optimizers()
    owned = [{id(p) for group in o.param_groups for p in group["params"]} for o in optimizers]
    assert owned[0] == {id(p) for p in model.discriminator.parameters()}
    assert owned[1] == {id(p) for p in model.generator.parameters()}


class OnlyOnePhase(type(small_gan())):  # type: ignore[misc]
    """A GAN in which one of the two phases never runs."""

    kept = ""

    def phases(self) -> list[Phase]:
        return [phase for phase in super().phases() if phase.name == self.kept]


@pytest.mark.parametrize(
    ("kept", "moves", "stays"),
    [("d", "discriminator", "generator"), ("g", "generator", "discriminator")],
)
def test_a_phase_moves_its_player_and_leaves_the_other_without_gradients(
    kept: str, moves: str, stays: str
) -> None:
    model = small_gan()
    model.__class__ = OnlyOnePhase
    model.kept = kept  # type: ignore[attr-defined]
    before = copy.deepcopy(model.state_dict())
    found: dict[str, Any] = {}

    original = model.step_player

    def step(player: str) -> None:
        found["stays"] = [p.grad for p in getattr(model, stays).parameters()]
        found["moves"] = [p.grad for p in getattr(model, moves).parameters()]
        original(player)

    model.step_player = step  # type: ignore[method-assign]
    fit(model, batches=3)
    assert all(gradient is None for gradient in found["stays"])
    assert all(gradient is not None for gradient in found["moves"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(stays)


def test_one_iteration_is_the_papers_two_updates_by_hand() -> None:
    model = small_gan()
    reference = copy.deepcopy(model)
    seen: list[Any] = []

    class Record(pl.Callback):
        def on_train_batch_start(self, trainer: Any, m: Any, batch: Any, i: int) -> None:
            seen.append(batch)

    fit(model, batches=1, callbacks=[Record()])
    (batch,), g, d = seen, reference.generator, reference.discriminator
    # What the first iteration of a run of seed 0 draws, in the first process.
    torch.manual_seed(derived_seed("iteration", 0, 1, 0))
    fake = g(reference.draw_noise(4))
    loss_d = -(torch.sigmoid(d(batch.image)).log() + (1 - torch.sigmoid(d(fake.detach()))).log())
    gradients = torch.autograd.grad(loss_d.mean(), list(d.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(d.parameters(), gradients, strict=True):
            parameter -= 0.05 * gradient
    loss_g = -torch.sigmoid(d(fake)).log().mean()
    gradients = torch.autograd.grad(loss_g, list(g.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(g.parameters(), gradients, strict=True):
            parameter -= 0.05 * gradient
    torch.testing.assert_close(model.state_dict(), reference.state_dict())


def test_the_generator_runs_forward_once_an_iteration() -> None:
    model = small_gan()
    calls: list[int] = []
    model.generator.register_forward_hook(lambda *_: calls.append(1))
    fit(model, batches=5)
    assert len(calls) == 5


def test_phases_run_at_their_interval() -> None:
    model = small_gan(penalty="r1", penalty_interval=3)
    fit(model, batches=10)
    # The lazy penalty steps the discriminator's optimizer once more in iterations 3, 6 and 9.
    assert model.counts["d_steps"] == 13
    assert model.counts["g_steps"] == 10


def test_a_lazy_penalty_weighs_as_much_as_a_constant_one() -> None:
    batch_model, lazy = small_gan(penalty="r1"), small_gan(penalty="r1", penalty_interval=4)
    batch = next(iter(fit(small_gan(), 1).train_dataloader))
    fake = batch_model.generate(batch)
    torch.testing.assert_close(
        4 * batch_model.penalty_loss(batch, fake)[0], lazy.penalty_loss(batch, fake)[0]
    )


def test_accumulated_batches_equal_one_large_batch() -> None:
    small, large = small_gan(accumulate_grad_batches=2), small_gan()
    noise = torch.rand(8, 4)
    parts = iter([noise[:4], noise[4:]])
    small.draw_noise = lambda n, generator=None: next(parts)  # type: ignore[method-assign]
    large.draw_noise = lambda n, generator=None: noise  # type: ignore[method-assign]
    trainer = fit(small, batches=2)
    assert trainer.global_step == 2
    assert small.counts["d_steps"] == small.counts["g_steps"] == 1
    # With accumulation both players see the weights from before the step, so D has to be compared.
    two = trainer.train_dataloader
    merged = torch.utils.data.DataLoader(two.dataset, batch_size=8, collate_fn=two.collate_fn)
    pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(large, merged)
    torch.testing.assert_close(small.discriminator.state_dict(), large.discriminator.state_dict())


def test_clipping_bounds_each_step() -> None:
    free, clipped = small_gan(), small_gan(gradient_clip_val=1e-3)
    start = copy.deepcopy(free.state_dict())
    for model in (free, clipped):
        fit(model, batches=1)

    def moved(model: nn.Module, player: str) -> float:
        return (
            sum(
                (value - start[name]).square().sum().item()
                for name, value in model.state_dict().items()
                if name.startswith(player)
            )
            ** 0.5
        )

    for player in ("generator", "discriminator"):
        assert moved(clipped, player) == pytest.approx(0.05 * 1e-3, rel=1e-3)
        assert moved(free, player) > moved(clipped, player)


def test_schedules_step_once_an_iteration() -> None:
    halving = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    model = small_gan(scheduler=halving)
    trainer = fit(model, batches=7)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [0.0125, 0.0125]


def test_the_average_follows_the_generator_and_samples_use_it() -> None:
    model = small_gan(ema_decay=0.5)
    weights = [model.generator.net[0].weight.detach().clone()]

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer: Any, m: Any, *_: Any) -> None:
            weights.append(m.generator.net[0].weight.detach().clone())

    fit(model, batches=3, callbacks=[Record()])
    # The decay warms up as (1 + n) / (10 + n): 1/10, 2/11, 3/12.
    expected = weights[0]
    for decay, weight in zip((1 / 10, 2 / 11, 3 / 12), weights[1:], strict=True):
        expected = decay * expected + (1 - decay) * weight
    average = model.network("generator")
    torch.testing.assert_close(average.net[0].weight, expected)  # type: ignore[union-attr]
    noise = model.draw_noise(2)
    with torch.no_grad():
        torch.testing.assert_close(model.sample(2, noise=noise), average(noise))
        torch.testing.assert_close(model.sample(2, noise=noise, ema=False), model.generator(noise))
    assert not any(p.requires_grad for p in average.parameters())


def normed_gan(ema_decay: float) -> GAN:
    torch.manual_seed(0)
    generator = MLPGenerator(4, 1, 8, hidden=[16], norm=True)
    generator.net.insert(0, nn.Dropout(0.5))
    return small_gan(generator=generator, ema_decay=ema_decay)


def test_the_averages_batch_norm_has_the_statistics_of_the_averaged_weights() -> None:
    model = normed_gan(0.5)
    means: list[torch.Tensor] = []

    class Record(pl.Callback):
        def on_train_batch_start(self, trainer: Any, m: Any, *_: Any) -> None:
            def keep(network: Any, inputs: Any) -> None:
                self.noise = inputs[0]

            self.handle = m.generator.register_forward_pre_hook(keep)

        def on_train_batch_end(self, trainer: Any, m: Any, *_: Any) -> None:
            self.handle.remove()
            # In eval mode the dropout before it does nothing.
            means.append(m.ema["generator"].net[1](self.noise).mean(0).detach())

    fit(model, batches=20, callbacks=[Record()])
    norm = model.ema["generator"].net[2]  # type: ignore[index,union-attr]
    # Taken of the first and the 17th iteration, half each; later ones would count a tenth or more.
    torch.testing.assert_close(norm.running_mean, (means[0] + means[16]) / 2)
    assert not torch.allclose(norm.running_mean, model.generator.net[2].running_mean)  # type: ignore[union-attr,index]
    assert model.ema["generator"].training


def test_averaging_leaves_the_training_alone() -> None:
    runs = []
    for decay in (0.0, 0.9):
        model = normed_gan(decay)
        torch.manual_seed(1)
        fit(model, batches=20)
        runs.append([*model.generator.parameters(), *model.generator.buffers()])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


def test_nothing_is_logged_between_logging_steps() -> None:
    model = small_gan()
    logged: list[int] = []
    model.log_dict = lambda *_, **__: logged.append(model.trainer.global_step)  # type: ignore
    fit(model, batches=10, log_every_n_steps=4)
    assert logged == [4, 8]
    # The last figures are the run's result.
    logged.clear()
    fit(model, batches=10, log_every_n_steps=4, max_steps=6)
    assert logged == [4, 6]


def test_a_run_that_diverged_stops_and_says_so() -> None:
    model = small_gan(optimizer_d=functools.partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(ArithmeticError, match=r"in iteration \d+: the run has diverged"):
        fit(model, batches=10)


def test_what_is_logged() -> None:
    trainer = fit(small_gan(penalty="wgan_gp"), batches=2)
    assert set(trainer.callback_metrics) == {
        "train/loss_d",
        "train/loss_g",
        "train/d_real",
        "train/d_fake",
        "train/penalty",
        "train/gradient_norm",
        "train/grad_norm_d",
        "train/grad_norm_g",
        "train/images_seen",
        "train/d_steps",
        "train/g_steps",
    }
    assert 0 < trainer.callback_metrics["train/d_real"] < 1


def test_samples_are_images_in_eval_mode_without_gradients() -> None:
    torch.manual_seed(0)
    model = small_gan(
        generator=DCGANGenerator(4, 1, 8, base_channels=4),
        discriminator=DCGANDiscriminator(1, 8, base_channels=4),
    )
    noise = model.draw_noise(6)
    images = model.sample(6, noise=noise)
    assert images.shape == (6, 1, 8, 8)
    assert images.min() >= -1
    assert images.max() <= 1
    assert not images.requires_grad
    assert model.generator.training
    # In eval mode an image does not depend on the others made with it.
    torch.testing.assert_close(model.sample(6, noise=noise, chunk_size=1), images)


def test_unconditional_models_take_no_labels() -> None:
    with pytest.raises(ValueError, match="unconditional"):
        small_gan().sample(2, labels=torch.tensor([1, 2]))


@pytest.mark.parametrize("norm", [True, False])
def test_the_discriminator_sees_real_and_generated_images_apart(norm: bool) -> None:
    torch.manual_seed(0)
    discriminator = DCGANDiscriminator(1, 16, base_channels=4, norm=norm)
    model = small_gan(discriminator=discriminator)
    real, fake = torch.rand(6, 1, 16, 16), -torch.rand(6, 1, 16, 16)
    loss, _ = model.discriminator_loss(ImageBatch(real, torch.zeros(6)), fake)
    expected = model.adversarial.discriminator(discriminator(real), discriminator(fake))
    torch.testing.assert_close(loss, expected)
    together = discriminator(torch.cat((real, fake))).chunk(2)
    # With batch norm, one pass over both is another function: the test can tell.
    apart = torch.allclose(loss, model.adversarial.discriminator(*together))
    assert apart is not norm


def test_batch_norm_under_a_gradient_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match="batch norm"):
        small_gan(discriminator=DCGANDiscriminator(1, 16, base_channels=4), penalty="wgan_gp")
    small_gan(discriminator=DCGANDiscriminator(1, 16, base_channels=4, norm=False), penalty="r1")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gradient_clip_val", -1.0),
        ("accumulate_grad_batches", 0),
        ("ema_decay", 1.0),
        ("penalty_interval", 0),
        ("loss", "hing"),
        ("penalty", "l1"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=str(value)):
        small_gan(**{option: value})


def test_dropout_is_off_only_while_sampling() -> None:
    model = small_gan(discriminator=MLPDiscriminator(1, 8, hidden=[16], dropout=0.5))
    fit(model, batches=1)
    model.sample(2)
    assert model.discriminator.training
