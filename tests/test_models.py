"""What each model adds to the base."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn.utils import parametrize

import gan_zoo
from gan_zoo.data import ImageBatch, MNISTDataModule
from gan_zoo.models import BEGAN, CGAN, DCGAN, HDCGAN, WGAN, WGANGP, CoGAN, InfoGAN
from gan_zoo.networks.began import BEGANAutoencoder, BEGANDecoder, DenseAutoencoder
from gan_zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_zoo.networks.infogan import InfoGANDiscriminator, InfoGANGenerator
from gan_zoo.networks.mlp import (
    ConditionalMaxoutDiscriminator,
    ConditionalMLPGenerator,
    MLPDiscriminator,
    MLPGenerator,
)
from gan_zoo.ranges import UnfitArgument
from gan_zoo.run.configuration import composed
from gan_zoo.schedules import steps_after_warmup
from tests.conftest import SMALLER, fit, random_batches, small, small_gan


def small_cgan() -> CGAN:
    torch.manual_seed(0)
    return CGAN(
        num_classes=10,
        generator=ConditionalMLPGenerator(4, 10, 1, 8, 8, 8, 16),
        discriminator=ConditionalMaxoutDiscriminator(10, 1, 8, 8, 4, 8),
        optimizer_g=functools.partial(torch.optim.Adam, lr=1e-3),
        optimizer_d=functools.partial(torch.optim.Adam, lr=1e-3),
        noise=functools.partial(nn.init.uniform_, a=0.0, b=1.0),
        latent_dim=4,
    )


def test_a_gan_may_begin_at_the_mean_image(tmp_path: Path) -> None:
    data = MNISTDataModule(name="digits", image_size=8, batch_size=50)
    data.prepare_data()
    data.setup()
    assert data.train is not None
    images = data.train.__getitems__(range(len(data.train))).image
    mean = images.double().mean(0).clamp(-1 + 2e-7, 1 - 2e-7).float()
    network = MLPGenerator(
        4, 1, 8, hidden=[16], norm=False, weight_range=1e-9, unit_range=True, marginal_bias=True
    )
    still = functools.partial(torch.optim.SGD, lr=1e-9)
    model = small_gan(generator=network, optimizer_g=still, optimizer_d=still, ema_decay=0.5)
    options: dict[str, Any] = {
        "accelerator": "cpu", "max_steps": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": tmp_path,
    }  # fmt: skip
    trainer = pl.Trainer(**options)
    trainer.fit(model, data)
    for ema in (False, True):
        drawn = model.sample(1, ema=ema)[0]
        torch.testing.assert_close(drawn, mean, atol=1e-5, rtol=0)
    # What it has become is not begun anew.
    with torch.no_grad():
        network.net[-3].bias.zero_()
    pl.Trainer(**options).fit(model, data)
    torch.testing.assert_close(
        model.sample(1, ema=False)[0], torch.zeros(1, 8, 8), atol=1e-5, rtol=0
    )
    model = small_gan(generator=MLPGenerator(4, 1, 8, hidden=[16], norm=False, marginal_bias=True))
    with pytest.raises(ValueError, match="marginal_bias"):
        fit(model, batches=1)


def test_cgans_label_is_not_hidden_by_a_narrow_initialisation() -> None:
    # At weight_range .005 for all layers the label's part of the joint layer was a thirtieth of the
    # image's; at N(0, 1) for the label's it would be 30 times as large.
    torch.manual_seed(0)
    judge = ConditionalMaxoutDiscriminator(unit_range=True, weight_range=0.005, dropout=0.0)
    images = MNISTDataModule(name="digits")
    images.prepare_data()
    images.setup()
    assert images.train is not None
    batch = images.train.__getitems__(range(64))
    with torch.no_grad():
        image = judge.image_branch((batch.image + 1) / 2)
        label = judge.label_branch(nn.functional.one_hot(batch.label, 10).float())
        weight = judge.joint[0].linear.weight
        parts = [image @ weight[:, :240].T, label @ weight[:, 240:].T]
    # What differs from image to image, and from class to class, as the biases can't.
    by_image, by_label = ((part - part.mean(0)).std() for part in parts)
    assert 0.5 < by_label / by_image < 2
    assert weight.abs().max() <= 0.005


def test_cgan_gives_both_players_the_batches_labels() -> None:
    model = small_cgan()
    seen: dict[str, list[torch.Tensor]] = {"generator": [], "discriminator": []}
    for name, labels in seen.items():
        getattr(model, name).register_forward_pre_hook(
            lambda _, inputs, labels=labels: labels.append(inputs[1])
        )
    fit(model, batches=2)
    batches = [batch.label for batch in random_batches(2)]
    assert [torch.equal(*pair) for pair in zip(seen["generator"], batches, strict=True)] == [
        True
    ] * 2
    # Real and fake together in D's phase, and the fake again in G's.
    expected = [labels.repeat(times) for labels in batches for times in (2, 1)]
    assert all(torch.equal(*pair) for pair in zip(seen["discriminator"], expected, strict=True))


def test_cgan_shows_a_row_a_digit_and_a_column_a_noise() -> None:
    model = small_cgan()
    inputs = model.grid_inputs(torch.Generator().manual_seed(0), None)
    assert inputs["labels"].view(10, 8).eq(torch.arange(10)[:, None]).all()
    assert inputs["noise"].view(10, 8, 4).eq(inputs["noise"][:8]).all()
    images, columns = model.sample_grid(inputs)
    assert images.shape == (80, 1, 8, 8)
    assert columns == 8


@pytest.mark.parametrize(
    ("labels", "culprit"),
    [
        ([0, 10], r"labels\[1\] is 10; .*whole number from 0 to 9"),
        ([-1, 0], r"labels\[0\] is -1; .*whole number from 0 to 9"),
        ([1], "labels has 1 values for 2 images"),
    ],
)
def test_cgan_refuses_labels_out_of_range(labels: list[int], culprit: str) -> None:
    with pytest.raises(ValueError, match=culprit):
        small_cgan().sample(2, labels=torch.tensor(labels))


class Watch(pl.Callback):
    """Keeps what ``look`` sees of the model after each iteration."""

    def __init__(self, look: Callable[[Any], Any]) -> None:
        self.look = look
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.seen.append(self.look(pl_module))


def test_the_critic_trains_n_critic_times_to_one_step_of_the_generator() -> None:
    model = small(WGAN, n_critic=3)
    fit(model, batches=10)
    assert model.counts == {"images_seen": 40, "d_steps": 10, "g_steps": 3}


def test_wgan_clips_every_weight_after_every_step_of_the_critic() -> None:
    watch = Watch(lambda model: max(p.abs().max().item() for p in model.discriminator.parameters()))
    model = small(WGAN, clip_value=0.02)
    fit(model, batches=6, callbacks=[watch])
    assert len(watch.seen) == 6
    assert all(largest == pytest.approx(0.02) for largest in watch.seen)
    assert max(p.abs().max().item() for p in model.generator.parameters()) > 0.02


@pytest.mark.parametrize(("n_critic", "warm"), [(5, 100), (1, 7), (5, 5)])
def test_the_critics_warm_up(n_critic: int, warm: int) -> None:
    # The authors' code warms up before step i of the generator if i < 25 or i % 500 == 0.
    iteration, expected = 0, {}
    for step in range(1002):
        iteration += warm if step < 25 or step % 500 == 0 else n_critic
        expected[iteration] = step + 1
    found = [steps_after_warmup(i, n_critic, warm) for i in range(iteration + 1)]
    changes = {i: found[i] for i in range(1, len(found)) if found[i] != found[i - 1]}
    assert changes == expected
    assert found[0] == 0


def test_a_warm_up_delays_the_generator() -> None:
    model = small(WGAN, n_critic=2, n_critic_warmup=4)
    fit(model, batches=9)
    assert model.counts["g_steps"] == 2


@pytest.mark.parametrize(("kind", "options"), [(WGAN, {}), (WGANGP, {"lambda_gp": 3.0})])
def test_the_estimate_is_the_negative_critic_loss_without_the_penalty(
    kind: type, options: dict[str, Any]
) -> None:
    model = small(kind, **options)
    real, fake = torch.rand(6, 1, 8, 8), -torch.rand(6, 1, 8, 8)
    loss, terms = model.discriminator_loss(ImageBatch(real, torch.zeros(6)), fake)
    expected = model.discriminator(real).mean() - model.discriminator(fake).mean()
    torch.testing.assert_close(terms["wasserstein_estimate"], expected)
    penalty = 3 * terms["penalty"] if "penalty" in terms else 0
    torch.testing.assert_close(loss, -expected + penalty)


def test_the_smoothed_estimate_is_the_median_of_the_last_101() -> None:
    watch = Watch(lambda model: model.latest["d"]["wasserstein_estimate"].item())
    model = small(WGAN)
    fit(model, batches=3, callbacks=[watch])
    median = model.extra_terms()["wasserstein_estimate_median"].item()
    assert median == pytest.approx(sorted(watch.seen)[1])
    fit(model, batches=120, callbacks=[watch])
    median = model.extra_terms()["wasserstein_estimate_median"].item()
    assert median == pytest.approx(sorted(watch.seen[-101:])[50])


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (WGAN, {"loss": "hinge"}, "wasserstein"),
        (WGAN, {"penalty": "wgan_gp"}, "model=wgan_gp"),
        (WGAN, {"clip_value": 0.0}, "above 0"),
        (WGAN, {"n_critic": 5, "n_critic_warmup": 4}, "n_critic_warmup"),
        (WGAN, {"n_critic": 0}, "n_critic is 0"),
        (WGANGP, {"loss": "hinge"}, "wasserstein"),
        (WGANGP, {"penalty": None}, "wgan_gp_one_sided"),
        (WGANGP, {"discriminator": DCGANDiscriminator(1, 8, 4, norm_first=True)}, "batch norm"),
        (WGANGP, {"discriminator": torch.compile(MLPDiscriminator(1, 8, [4]))}, "inductor"),
        (InfoGAN, {"categorical_codes": [1]}, r"categorical_codes is \[1\].*from 2"),
        (InfoGAN, {"continuous_codes": -1}, r"continuous_codes is -1.*from 0"),
        (InfoGAN, {"categorical_codes": [], "continuous_codes": 0}, "is a GAN"),
        (InfoGAN, {"lambda_info": -1.0}, r"lambda_info is -1\.0.*from 0"),
        (HDCGAN, {"zeta": 0}, "zeta is 0"),
        (DCGAN, {"packing": 0}, "packing is 0"),
        (DCGAN, {"packing": 2, "penalty": "r1"}, "packing is 2; with a penalty"),
        (InfoGAN, {"packing": 2}, "packing is 2; InfoGAN takes 1"),
        (CoGAN, {"packing": 2}, "packing is 2; CoGAN takes 1"),
        (
            WGANGP,
            {"accumulate_grad_batches": 2, "penalty_interval": 4},
            "accumulate_grad_batches is 2; with model.penalty_interval=4",
        ),
        (BEGAN, {"gamma": 0.0}, "gamma is 0"),
        (BEGAN, {"gamma": 1.5}, "gamma is 1.5"),
        (BEGAN, {"lambda_k": 0.0}, "lambda_k is 0"),
        (BEGAN, {"eta": 3}, "eta is 3"),
    ],
)
def test_what_would_make_another_model_is_refused(
    kind: type, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        small(kind, **options)


def test_packed_images_are_judged_together_and_apart_from_the_other_kind() -> None:
    # 1712.04086, section 3: m images are the channels of one.
    judge = MLPDiscriminator(2, 8, hidden=[16], dropout=0.0)
    model: DCGAN = small(DCGAN, discriminator=judge, packing=2)
    (batch,) = random_batches(1, batch_size=4)
    fake = torch.rand(4, 1, 8, 8)
    real_logits, fake_logits = model.logits_of_both(batch, fake)
    for images, logits in ((batch.image, real_logits), (fake, fake_logits)):
        packed = torch.stack([torch.cat(list(pair)) for pair in images.split(2)])
        torch.testing.assert_close(logits, model.discriminator(packed))
    assert len(model.discriminate(fake[:3], batch.label[:3])) == 1
    with pytest.raises(ValueError, match=r"packing=2 takes .*\.batch_size is 3"):
        model.discriminator_loss(ImageBatch(batch.image[:3], batch.label[:3]), fake[:3])
    fit(model, 2)


def small_infogan(categorical: list[int], continuous: int, **options: Any) -> InfoGAN:
    torch.manual_seed(0)
    codes = (categorical, continuous)
    model: InfoGAN = small(
        InfoGAN,
        generator=InfoGANGenerator(4, *codes, 1, 8, 4, 16),
        discriminator=InfoGANDiscriminator(*codes, 1, 8, 4, 16, 8),
        categorical_codes=categorical,
        continuous_codes=continuous,
        **options,
    )
    return model


def test_infogan_puts_one_hot_and_continuous_codes_behind_the_noise() -> None:
    model = small_infogan([3, 2], 1)
    latent = model.codes.joined_to(torch.tensor([[9.0, 8, 7, 6]]), torch.tensor([[2.0, 0, -0.5]]))
    assert latent.tolist() == [[9, 8, 7, 6, 0, 0, 1, 1, 0, -0.5]]
    codes = model.draw_codes(1000, torch.Generator().manual_seed(0))
    assert [codes[:, i].unique().tolist() for i in (0, 1)] == [[0, 1, 2], [0, 1]]
    assert -1 <= codes[:, 2].min() < -0.9
    assert 0.9 < codes[:, 2].max() <= 1


@pytest.mark.parametrize(("categorical", "continuous"), [([3], 2), ([4, 2], 0), ([], 1)])
def test_infogans_information_reaches_both_players_and_is_logged(
    categorical: list[int], continuous: int
) -> None:
    model = small_infogan(categorical, continuous)
    batch = next(iter(random_batches(1)))
    # With the adversarial part left out, what is left of the losses is the information.
    model.discriminator_objective = lambda *_: (torch.zeros(()), {})  # type: ignore[assignment]
    model.adversarial = model.adversarial._replace(generator=lambda logits: 0 * logits.sum())
    generated = model.generate(batch)
    loss, _ = model.generator_loss(batch, generated)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.generator.parameters())
    model.discriminator.zero_grad()
    loss, terms = model.discriminator_loss(batch, generated)
    loss.backward()
    assert model.discriminator.q[-1].weight.grad.abs().sum() > 0
    assert model.discriminator.body[0].weight.grad.abs().sum() > 0
    assert loss.item() == pytest.approx(-sum(terms.values()).item())
    assert ("mutual_information" in terms) == bool(categorical)
    assert ("mutual_information_continuous" in terms) == bool(continuous)
    ceilings = [3, 8][len(categorical) - 1] if categorical else None
    if ceilings:
        ceiling = model.extra_terms()["mutual_information_ceiling"].item()
        assert ceiling == pytest.approx(torch.tensor(ceilings).log().item())


def test_infogan_reads_categories_alone_from_distorted_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_infogan([3], 1, distortion=0.5)
    seen = []

    def blank(images: torch.Tensor, strength: float) -> torch.Tensor:
        seen.append(strength)
        return torch.zeros_like(images)

    monkeypatch.setattr("gan_zoo.models.infogan.distorted", blank)
    model.discriminator.eval()
    batch = next(iter(random_batches(1)))
    generated = model.generate(batch)
    (_, terms), (loss, _) = (
        model.discriminator_loss(batch, generated), model.generator_loss(batch, generated)
    )  # fmt: skip
    assert seen == [0.5, 0.5]
    _, of_blank = model.discriminator.recognise(torch.zeros_like(generated.image))
    logits, posterior = model.discriminator.recognise(generated.image)
    read = posterior._replace(logits=of_blank.logits)
    information, expected = model.information(generated.codes, read)
    assert all(terms[name] == value for name, value in expected.items())
    assert loss == model.adversarial.generator(logits) - information


def test_infogan_reads_categories_by_the_statistics_of_real_images() -> None:
    model = small_infogan([3], 0)
    images, like = torch.randn(10, 1, 8, 8), 2 * torch.randn(2500, 1, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model.categories_of(images, like)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    judge = copy.deepcopy(model.discriminator)
    norms = [m for m in judge.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
    for number, batch in enumerate(like.split(500), start=1):
        for norm in norms:
            norm.momentum = 1 / number
        judge.train()(batch)
    torch.testing.assert_close(logits, judge.eval().recognise(images)[1].logits[0])


def test_infogan_learns_to_be_read() -> None:
    adam = functools.partial(torch.optim.Adam, lr=3e-3)
    model = small_infogan([3], 0, optimizer_g=adam, optimizer_d=adam)
    watch = Watch(lambda model: model.latest["d"]["mutual_information"].item())
    fit(model, batches=400, callbacks=[watch])
    assert sum(watch.seen[:20]) / 20 < 0.4
    assert sum(watch.seen[-50:]) / 50 > 0.6


def test_infogan_with_a_fixed_std_has_no_output_for_it() -> None:
    free = InfoGANDiscriminator([3], 2, 1, 8, 4, 16, 8)
    fixed = InfoGANDiscriminator([3], 2, 1, 8, 4, 16, 8, fixed_std=True)
    assert (free.q[-1].out_features, fixed.q[-1].out_features) == (3 + 4, 3 + 2)
    _, posterior = fixed.recognise(torch.rand(5, 1, 8, 8))
    assert posterior.log_std.eq(0).all()
    assert posterior.mean.shape == (5, 2)


def test_infogans_grid_is_a_row_a_category_and_sweeps_each_code() -> None:
    model = small_infogan([3], 2)
    inputs = model.grid_inputs(torch.Generator().manual_seed(0), None)
    codes = inputs["codes"].view(3, 18, 3)
    assert codes[:, :, 0].eq(torch.arange(3)[:, None]).all()
    sweep = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(codes[1, :, 1], torch.cat([sweep, torch.zeros(9)]))
    torch.testing.assert_close(codes[1, :, 2], torch.cat([torch.zeros(9), sweep]))
    assert inputs["noise"].eq(inputs["noise"][0]).all()
    images, columns = model.sample_grid(inputs)
    # Two grids of 9 columns and 3 rows, of images enlarged to 64 pixels, 24 apart and with titles.
    assert (images.shape, columns) == ((1, 3, 20 + 3 * 66 + 2, 2 * (9 * 66 + 2) + 24), 1)
    # Row 1, the second code's first value.
    y, x = 20 + 66 + 2, 9 * 66 + 2 + 24 + 2
    shown = images[0, 0, y : y + 64 : 8, x : x + 64 : 8]
    row = {name: values[18 + 9, None] for name, values in inputs.items()}
    torch.testing.assert_close(shown, model.sample(1, **row)[0, 0], atol=1 / 127, rtol=0)
    for categorical, continuous, rows, columns in (([], 1, 8, 9), ([3], 0, 3, 8)):
        model = small_infogan(categorical, continuous)
        inputs = model.grid_inputs(torch.Generator().manual_seed(0), None)
        assert len(inputs["noise"].unique(dim=0)) == 8
        assert model.sample_grid(inputs)[0].shape == (1, 3, 20 + rows * 66 + 2, columns * 66 + 2)


def test_infogans_codes_can_be_asked_for() -> None:
    model = small_infogan([3], 2)
    inputs = model.sample_inputs({"codes": [[0, 2], [-1.5, 1], None]}, 10, torch.Generator())
    codes = inputs["codes"]
    assert codes[:, 0].tolist() == [0, 0, 2, 2] * 2 + [0, 0]
    assert codes[:, 1].tolist() == [-1.5, 1] * 5
    # What is not asked for is drawn once a round of the combinations.
    for values in (inputs["noise"], codes[:, 2:]):
        assert [len(part.unique(dim=0)) for part in values.split(4)] == [1, 1, 1]
        assert len(values.unique(dim=0)) == 3
    assert (
        len(model.sample_inputs({"codes": [1, None, None]}, None, torch.Generator())["noise"]) == 1
    )
    assert model.sample_inputs({}, None, torch.Generator())["codes"].shape == (64, 3)
    for codes, reason in (
        ([1, 0], "3 codes"),
        ([3, 0, 0], "whole number from 0 to 2"),
        ([0.5, 0, 0], "whole number from 0 to 2"),
        ([1, "x", 0], "has to be a number"),
        ([1, [], 0], "empty"),
    ):
        with pytest.raises(ValueError, match=reason):
            model.sample_inputs({"codes": codes}, None, torch.Generator())
    with pytest.raises(ValueError, match="takes no labels"):
        model.sample_inputs({"labels": [1]}, None, torch.Generator())


def small_began(**options: Any) -> BEGAN:
    model: BEGAN = small(
        BEGAN,
        generator=BEGANDecoder(4, 1, 8, 4, vanishing_steps=options.pop("vanishing_steps", 0)),
        discriminator=BEGANAutoencoder(4, 1, 8, 4),
        **options,
    )
    return model


def test_began_by_hand() -> None:
    # An auto-encoder that halves: L(x) = |x| / 2.
    model = small_began(gamma=0.25, lambda_k=0.1)
    model.discriminator = nn.Module()
    model.discriminator.forward = lambda image: image / 2  # type: ignore[method-assign]
    real, fake = torch.full((2, 1, 4, 4), 0.8), torch.full((2, 1, 4, 4), -0.2)
    batch = ImageBatch(real, torch.zeros(2))
    model.k.fill_(0.5)
    loss, _ = model.discriminator_loss(batch, fake)
    assert loss.item() == pytest.approx(0.4 - 0.5 * 0.1)
    assert model.generator_loss(batch, fake)[0].item() == pytest.approx(0.1)
    squared = small_began(eta=2)
    squared.discriminator = model.discriminator
    assert squared.generator_loss(batch, fake)[0].item() == pytest.approx(0.01)


def test_began_controls_k_and_logs_the_balance() -> None:
    watch = Watch(
        lambda m: [m.k.item(), *(m.latest["d"][name].item() for name in ("d_real", "d_fake"))]
    )
    model = small_began(gamma=0.9, lambda_k=0.5)
    fit(model, batches=5, callbacks=[watch])
    k = 0.0
    for found, real, fake in watch.seen:
        k = min(max(k + 0.5 * (0.9 * real - fake), 0.0), 1.0)
        assert found == pytest.approx(k, abs=1e-6)
    assert k > 0
    weights = [0.99 ** (4 - i) for i in range(5)]
    mean = [sum(w * s[i] for w, s in zip(weights, watch.seen, strict=True)) for i in (1, 2)]
    figures = model.extra_terms()
    assert figures["balance"].item() == pytest.approx(mean[1] / mean[0], rel=1e-4)
    measures = [real + abs(0.9 * real - fake) for _, real, fake in watch.seen]
    expected = sum(w * m for w, m in zip(weights, measures, strict=True)) / sum(weights)
    assert figures["convergence"].item() == pytest.approx(expected, rel=1e-4)


def test_began_halves_the_rate_when_convergence_stalls() -> None:
    schedule = functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.99
    )
    frozen = functools.partial(torch.optim.SGD, lr=1e-4)
    model = small_began(scheduler=schedule, optimizer_g=frozen, optimizer_d=frozen)
    watch = Watch(lambda m: m._optimizer_of["g"].param_groups[0]["lr"])
    fit(model, batches=300, callbacks=[watch])
    # The first reading sets the record; the next would have to be a hundredth of it.
    rates = [watch.seen[i] / 1e-4 for i in (98, 99, 199, 299)]
    assert rates == pytest.approx([1, 1, 0.5, 0.25])
    with pytest.raises(ValueError, match="no term whose plateau"):
        fit(small_gan(scheduler=schedule), batches=1)


def test_vanishing_residuals_carry_the_input_and_then_nothing() -> None:
    watch = Watch(lambda model: model.generator.carry.item())
    model = small_began(vanishing_steps=4)
    fit(model, batches=6, callbacks=[watch])
    assert watch.seen == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    decoder = BEGANDecoder(4, 1, 8, 4, vanishing_steps=4)
    latent = torch.randn(2, 4)
    # Carried whole, the layers between first map and image do nothing.
    torch.testing.assert_close(decoder(latent), decoder.to_image(decoder.to_map(latent)))


def test_began_shows_samples_above_their_reconstructions() -> None:
    model = small_began()
    images, columns = model.sample_grid(model.grid_inputs(torch.Generator().manual_seed(0), None))
    assert (images.shape, columns) == ((64, 1, 8, 8), 8)
    model.eval()
    again = model.discriminator(images[16:24]).clamp(-1, 1)
    torch.testing.assert_close(images[24:32], again)


def test_began_shows_reconstructions_without_changing_its_statistics() -> None:
    model: BEGAN = small(
        BEGAN,
        generator=BEGANDecoder(4, 1, 8, 4),
        discriminator=DenseAutoencoder(image_size=8, norm=True),
    ).train()
    before = copy.deepcopy(model.discriminator.state_dict())
    model.sample_grid(model.grid_inputs(torch.Generator().manual_seed(0), None))
    assert model.discriminator.training
    after = model.discriminator.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("num_classes", [None, 10])
def test_hdcgans_own_networks_fit_its_telescope(num_classes: int | None) -> None:
    model = HDCGAN(zeta=2, num_classes=num_classes)
    batch = ImageBatch(torch.rand(2, 1, 28, 28), torch.tensor([3, 7]))
    images = model.generate(batch)
    assert images.shape == (2, 1, 56, 56)
    assert model.discriminate(images, batch.label).shape == (2, 1)


@pytest.mark.parametrize("zeta", [1, 2, 3])
def test_both_players_see_through_the_telescope(zeta: int) -> None:
    # Images of 16, 32 and 48 pixels are halved 2, 3 and 3 times.
    layers = {1: 2, 2: 3, 3: 3}[zeta]
    model = small(
        HDCGAN,
        zeta=zeta,
        generator=DCGANGenerator(4, 1, 16, 4, 4, activation=nn.SELU, zeta=zeta),
        discriminator=DCGANDiscriminator(1, 16, 4, 4, True, True, activation=nn.SELU, zeta=zeta),
    )
    seen: set[torch.Size] = set()
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].shape[2:]))
    trainer = fit(model, batches=2, size=16)
    assert seen == {(16 * zeta, 16 * zeta)}
    assert trainer.global_step == 2
    assert model.sample(3).shape == (3, 1, 16, 16)
    large = model.network("generator")(torch.randn(2, 4))
    assert large.shape == (2, 1, 16 * zeta, 16 * zeta)
    corner = model.finished(large)[0, 0, 0, 0]
    torch.testing.assert_close(corner, large[0, 0, :zeta, :zeta].mean())
    # What the discriminator sees of either kind is the enlargement of an image of the size.
    batch = ImageBatch(torch.rand(2, 1, 16, 16), torch.zeros(2, dtype=torch.int64))
    model.noise = lambda noise, generator: noise.zero_()
    generated = model.generate(batch)
    shown = model.finished(model.generator(torch.zeros(2, 4)))
    torch.testing.assert_close(generated, model.enlarged(shown))
    assert sum(isinstance(m, nn.SELU) for m in model.discriminator.modules()) == layers
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.discriminator.modules()) == layers


@pytest.mark.parametrize("model", ["gan", "dcgan", "cyclegan", "stackgan"])
def test_discriminators_are_spectrally_normalised(model: str) -> None:
    config = composed(
        "train", [f"model={model}", "model.spectral_norm=true", *SMALLER.get(model, ())]
    )
    game = instantiate(config.model)
    names = [n for n in ("discriminator", "discriminator_2", "discriminator_a", "discriminator_b")
             if hasattr(game, n)]  # fmt: skip
    for name in names:
        layers = [m for m in getattr(game, name).modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        assert layers
        for layer in layers:
            # Settled by some steps of power iteration, which training does one of each time.
            for _ in range(50):
                weight = layer.weight
            largest = torch.linalg.matrix_norm(weight.detach().flatten(1), 2)
            assert largest.item() == pytest.approx(1, abs=0.05)
    generator = getattr(game, "generator", None) or game.generator_a2b
    assert not any(parametrize.is_parametrized(m) for m in generator.modules())


def test_a_layer_of_zeros_is_not_spectrally_normalised() -> None:
    with pytest.raises(UnfitArgument, match=r"spectral_norm divides layers .* R3Discriminator"):
        gan_zoo.models.R3GAN(spectral_norm=True)


def test_a_spectrally_normalised_run_resumes_exactly(tmp_path: Path) -> None:
    def trained(folder: str, steps: int, checkpoint: Path | None = None) -> Any:
        options = ["model.spectral_norm=true", "trainer=cpu", f"trainer.max_steps={steps}",
                   "logger=none", "callbacks.metrics=null", "callbacks.sample_grid=null",
                   "~model/scheduler", "dataset.batch_size=8"]  # fmt: skip
        run = gan_zoo.build("gan", "digits", options, folder=tmp_path / folder)
        run.trainer.fit(run.model, run.data, ckpt_path=checkpoint, weights_only=True)
        return run.model.state_dict()

    whole = trained("whole", 6)
    trained("half", 3)
    again = trained("again", 6, tmp_path / "half" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
