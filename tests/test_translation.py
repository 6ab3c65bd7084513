"""The models of two domains: CoGAN, DiscoGAN and CycleGAN."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data import ImageBatch, ImagePair, PointPair
from gan_zoo.models import CoGAN, CycleGAN, DiscoGAN
from gan_zoo.models.cyclegan import ImagePool
from gan_zoo.models.translation import Translated
from gan_zoo.networks.cogan import CoupledDiscriminator, CoupledGenerator
from gan_zoo.networks.cyclegan import PatchDiscriminator, ResidualGenerator
from gan_zoo.networks.discogan import (
    DiscoGANDiscriminator,
    DiscoGANGenerator,
    PointDiscriminator,
    PointGenerator,
)
from gan_zoo.plotting import interleaved
from tests.conftest import fit, random_pairs, small

SGD = functools.partial(torch.optim.SGD, lr=0.05)


def cogan(**options: object) -> CoGAN:
    return small(
        CoGAN,
        **{
            "generator": CoupledGenerator(4, 1, 16, base_channels=2),
            "discriminator": CoupledDiscriminator(1, 16, base_channels=2, fc_units=8),
            **options,
        },
    )


def disco(**options: object) -> DiscoGAN:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "generator": functools.partial(DiscoGANGenerator, 1, 16, base_channels=2),
        "discriminator": functools.partial(DiscoGANDiscriminator, 1, 16, base_channels=2),
        "optimizer_g": SGD,
        "optimizer_d": SGD,
        "loss": "non_saturating",
    }
    return DiscoGAN(**{**defaults, **options})


def cycle(**options: object) -> CycleGAN:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "generator": functools.partial(ResidualGenerator, 1, 16, base_channels=2, blocks=1),
        "discriminator": functools.partial(PatchDiscriminator, 1, 16, base_channels=2, layers=1),
        "optimizer_g": SGD,
        "optimizer_d": SGD,
        "loss": "cyclegan_least_squares",
    }
    return CycleGAN(**{**defaults, **options})


def pair(n: int = 3, size: int = 16) -> ImagePair:
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, n, 1, size, size, generator=random) * 2 - 1
    return ImagePair(a, b, torch.arange(n), torch.full((n,), -1))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


class Constant(nn.Module):
    """Judges or draws everything alike, with one weight to train."""

    def __init__(self, value: float, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), *(self.shape or (1,)))


def test_cogans_shared_layers_are_one_object_with_gradients_from_both_domains() -> None:
    generator, discriminator = CoupledGenerator(4, 1, 16), CoupledDiscriminator(1, 16)
    noise, images = torch.randn(3, 4), pair().a.unsqueeze(1).repeat(1, 2, 1, 1, 1)
    first, last = discriminator.body[0].branches, discriminator.body[2].branches
    assert len(first) == 2
    assert len(last) == 1
    assert len(discriminator.to_logit.branches) == 1
    for network, given, shared, private in (
        (generator, noise, generator.shared, generator.private),
        (discriminator, images, last[0], first),
    ):
        for domain in (0, 1):
            network.zero_grad()
            network(given)[:, domain].sum().backward()
            assert all(p.grad is not None and p.grad.any() for p in shared.parameters())
            assert all(p.grad.any() for p in private[domain].parameters())
            grads = [p.grad for p in private[1 - domain].parameters()]
            assert not any(grad is not None and grad.any() for grad in grads)


@pytest.mark.parametrize("shared", [0, 1, 3])
def test_how_many_layers_cogan_shares_is_an_option(shared: int) -> None:
    generator = CoupledGenerator(4, 1, 28, base_channels=2, shared_layers=shared)
    discriminator = CoupledDiscriminator(1, 28, base_channels=2, fc_units=8, shared_layers=shared)
    assert len(generator.shared) == shared
    layers = [*discriminator.body, discriminator.to_logit]
    assert [len(layer.branches) for layer in layers] == [2] * (4 - shared) + [1] * shared
    assert generator(torch.randn(3, 4)).shape == (3, 2, 1, 28, 28)
    assert discriminator(torch.randn(3, 2, 1, 28, 28)).shape == (3, 2)


@pytest.mark.parametrize("shared", [None, 2])
def test_each_image_of_a_pair_is_its_own_branchs(shared: int | None) -> None:
    torch.manual_seed(0)
    generator = CoupledGenerator(4, 3, 28, base_channels=2, shared_layers=shared).eval()
    noise = torch.randn(5, 4)
    pairs = generator(noise)
    for image, branch in zip(pairs.unbind(1), generator.private, strict=True):
        torch.testing.assert_close(image, branch(generator.shared(noise)))
    assert not torch.allclose(*pairs.unbind(1), atol=0.1)


def test_cogans_maps_are_its_authors() -> None:
    generator = CoupledGenerator(100, 1, 28)
    convolutions = [m for m in generator.shared.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in convolutions] == [1024, 512, 256, 128]
    x, sides = torch.randn(2, 100), []
    for layer in generator.shared:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [4, 7, 13, 25]
    for size in (16, 32, 33, 64):
        assert CoupledGenerator(4, 3, size, 2)(torch.randn(2, 4)).shape[2:] == (3, size, size)
    for wrong, remedy in ((5, "0 to 4 can be shared"), (-1, "from 0")):
        with pytest.raises(ValueError, match=f"shared_layers is {wrong}.*{remedy}"):
            CoupledGenerator(4, 1, 28, shared_layers=wrong)


def test_cogan_draws_pairs() -> None:
    model = cogan(ema_decay=0.5)
    fit(model, random_pairs(3))
    assert model.counts == {"images_seen": 12, "d_steps": 3, "g_steps": 3}
    drawn = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 2, 1, 16, 16)
    grid, columns = model.sample_grid(model.grid_inputs(torch.Generator().manual_seed(0), pair()))
    noise = model.grid_inputs(torch.Generator().manual_seed(0), pair())["noise"]
    pairs = model.sample(64, noise=noise)
    assert columns == 8
    assert torch.equal(grid[:8], pairs[:8, 0])
    assert torch.equal(grid[8:16], pairs[:8, 1])


def test_adaptation_learns_from_the_labels_of_a_alone() -> None:
    with pytest.raises(ValueError, match="mnist_usps"):
        cogan(adapt=True)
    model = cogan(adapt=True, num_source_classes=10)
    before = weights(model.classifier)
    fit(model, random_pairs(3))
    assert not torch.equal(weights(model.classifier), before)
    assert {"classification_loss", "match", "source_accuracy"} <= model.latest["d"].keys()
    assert torch.isfinite(model.latest["d"]["loss_d"])


def test_a_pairs_penalty_is_the_sum_of_both_discriminators() -> None:
    with pytest.raises(ValueError, match=r"penalty is wgan_gp"):
        cogan(penalty="wgan_gp")
    model = cogan(penalty="r1", lambda_gp=3, penalty_interval=2)
    images = torch.rand(3, 2, 1, 16, 16)
    loss, _ = model.penalty_loss(ImageBatch(images, torch.arange(3)), torch.rand(3, 2, 1, 16, 16))
    squares = 0.0
    for domain in range(2):
        image = images.clone().requires_grad_()
        model.discriminator(image)[:, domain].sum().backward()
        assert image.grad is not None
        assert not image.grad[:, 1 - domain].any()
        squares += float(image.grad.square().sum())
    # R1 is half of the mean square.
    assert loss.item() == pytest.approx(2 * 3 * 0.5 * squares / 3, rel=1e-4)


def test_adaptation_by_hand() -> None:
    model = cogan(adapt=True, num_source_classes=10, lambda_classification=3, lambda_match=2)
    # A classifier that finds all classes alike.
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    batch = ImageBatch(torch.stack((pair().a, pair().b), 1), torch.arange(3))
    fake = torch.rand(3, 2, 1, 16, 16)
    loss, terms = model.discriminator_loss(batch, fake)
    features = model.discriminator.features(fake)  # type: ignore[operator]
    match = sum(float((a - b).square().sum()) for a, b in features.detach()) / 3
    assert terms["match"].item() == pytest.approx(match, rel=1e-5)
    assert terms["classification_loss"].item() == pytest.approx(math.log(10))
    assert terms["source_accuracy"].tolist() == [1, 0, 0]
    real_logits, fake_logits = model.discriminator(batch.image), model.discriminator(fake)
    game = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    assert loss.item() == pytest.approx(game.item() + 3 * math.log(10) + 2 * match, rel=1e-5)


def test_target_accuracy_is_logged_of_the_validation_set() -> None:
    model = cogan(adapt=True, num_source_classes=10)
    # A classifier that always says 3.
    nn.init.zeros_(model.classifier.weight)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.arange(10.0).eq(3))
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: value.item()})  # type: ignore[method-assign, misc]
    batch = pair(4)._replace(label_a=torch.tensor([3, 3, 3, 1]), label_b=torch.tensor([3, 0, 0, 0]))
    model.validation_step(batch, 0)
    assert logged["val/source_accuracy"] == 0.75
    assert logged["val/target_accuracy"] == 0.25


def test_identity_generators_have_no_cycle_loss() -> None:
    model = cycle(generator=nn.Identity, lambda_gan=0, lambda_identity=0.5)
    batch = pair()
    loss, terms = model.generator_loss(batch, model.generate(batch))
    assert loss == 0
    assert {name: float(value) for name, value in terms.items()} == {
        "cycle_a": 0.0, "cycle_b": 0.0, "identity": 0.0,
    }  # fmt: skip


def test_cyclegans_objective_by_hand() -> None:
    # Generators that draw .5 everywhere, discriminators that say .25 of everything.
    model = cycle(
        generator=functools.partial(Constant, 0.5, (1, 16, 16)),
        discriminator=functools.partial(Constant, 0.25),
        lambda_identity=0.5,
    )
    a, b = torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    batch = ImagePair(a, b, torch.zeros(2), torch.zeros(2))
    fake = model.generate(batch)
    loss, terms = model.generator_loss(batch, fake)
    assert terms["game"].item() == pytest.approx(2 * 0.75**2)
    assert terms["cycle_a"].item() == pytest.approx(0.5)
    assert terms["cycle_b"].item() == pytest.approx(0.5)
    assert terms["identity"].item() == pytest.approx(1.0)
    assert loss.item() == pytest.approx(2 * 0.75**2 + 10 * 0.5 + 10 * 0.5 + 0.5 * 10 * 1.0)
    loss, terms = model.discriminator_loss(batch, fake)
    assert loss.item() == pytest.approx(2 * 0.5 * (0.75**2 + 0.25**2))


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"lambda_gan": 0}, {"cycle_a", "cycle_b"}),
        ({"lambda_cycle_a": 0, "lambda_cycle_b": 0}, {"game"}),
        ({"lambda_cycle_b": 0}, {"game", "cycle_a"}),
        ({"lambda_cycle_a": 0}, {"game", "cycle_b"}),
        ({}, {"game", "cycle_a", "cycle_b"}),
        ({"lambda_identity": 0.5}, {"game", "cycle_a", "cycle_b", "identity"}),
    ],
)
def test_cyclegans_ablation_is_made_by_weights(options: dict[str, float], terms: set[str]) -> None:
    model = cycle(**options)
    judges = weights(model.discriminator_a)
    fit(model, random_pairs(2))
    assert model.latest["g"].keys() - {"loss_g", "grad_norm_g"} == terms
    assert torch.equal(weights(model.discriminator_a), judges) == ("game" not in terms)


def test_measured_images_are_translated_from_anywhere_in_the_source() -> None:
    class Source:
        def __len__(self) -> int:
            return 20

        def __getitems__(self, rows: list[int]) -> ImagePair:
            images, labels = torch.rand(2, len(rows), 1, 16, 16), torch.tensor(rows)
            return ImagePair(*images, labels, labels)

    def labels(n: int) -> list[int]:
        (part,) = cycle().generated_images(n, Source(), torch.Generator())
        return part["b"].label.tolist()  # type: ignore[union-attr]

    assert len(set(labels(6))) == 6
    assert labels(6) == labels(6) != list(range(6))
    assert labels(50) == list(range(20))


def test_a_pool_of_none_returns_what_comes_and_a_young_one_keeps_it() -> None:
    images = torch.randn(4, 1, 2, 2)
    assert ImagePool(0)(images) is images
    pool = ImagePool(6)
    assert torch.equal(pool(images), images)
    later = torch.randn(4, 1, 2, 2)
    shown = pool(later)
    assert pool.images is not None
    assert len(pool.images) == 6
    # The first two still fit in; what the others show is theirs or of the pool.
    assert torch.equal(shown[:2], later[:2])
    known = torch.cat((images, later)).flatten(1)
    assert (torch.cdist(shown.flatten(1), known).amin(1) == 0).all()
    with pytest.raises(ValueError, match="size is -1"):
        ImagePool(-1)


@pytest.mark.parametrize("batch_size", [1, 4, 13])
def test_a_full_pool_shows_each_of_its_images_by_the_right_odds(batch_size: int) -> None:
    torch.manual_seed(0)
    size, shown_at = 10, torch.zeros(10)
    fresh = count = 0
    for _ in range(3000 // batch_size):
        pool = ImagePool(size)
        pool(torch.arange(size).float().view(size, 1))
        shown = pool(torch.full((batch_size, 1), -1.0)).flatten()
        fresh += int((shown == -1).sum())
        count += batch_size
        assert pool.images is not None
        assert len(pool.images) == size
        shown_at += shown[shown >= 0].long().bincount(minlength=size)
    # The last 3 of 13 draw from a pool half of which are already new ones.
    expected = 0.5 if batch_size <= size else (10 * 0.5 + 3 * 0.75) / 13
    assert fresh / count == pytest.approx(expected, abs=0.04)
    assert (shown_at / shown_at.sum()).tolist() == pytest.approx([0.1] * size, abs=0.03)


def test_what_a_pool_shows_is_replaced_by_the_new_image() -> None:
    torch.manual_seed(0)
    pool = ImagePool(3)
    seen = list(pool(torch.arange(3.0).view(3, 1)).flatten())
    for n in range(3, 60):
        seen += pool(torch.tensor([[float(n)]])).flatten()
    assert pool.images is not None
    # Nothing is lost: each image was shown by now, or waits in the pool.
    assert {float(x) for x in seen} | {float(x) for x in pool.images} == set(range(60))


def test_the_pools_travel_in_the_checkpoint(tmp_path: Path) -> None:
    model = cycle(pool_size=5)
    trainer = fit(model, random_pairs(3), enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = cycle(pool_size=5)
    again.on_load_checkpoint(torch.load(tmp_path / "a.ckpt", weights_only=True))
    for domain in ("a", "b"):
        kept, before = again.pools[domain].images, model.pools[domain].images
        assert kept is not None
        assert before is not None
        assert torch.equal(kept, before)
        assert len(kept) == 5


def test_discogans_objective_by_hand() -> None:
    discriminator = functools.partial(Constant, 0.0)
    generator = functools.partial(Constant, 0.5, (1, 16, 16))
    a, b = torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    batch = ImagePair(a, b, torch.zeros(2), torch.zeros(2))
    for options, expected in (
        ({}, 0.5 * 2 * math.log(2) + 0.5 * (0.25 + 0.25)),
        ({"reconstruction_rate": 0.9}, 0.1 * 2 * math.log(2) + 0.9 * 0.5),
        ({"reconstruct": "none"}, 2 * math.log(2)),
    ):
        model = disco(generator=generator, discriminator=discriminator, **options)
        fake = model.generate(batch)
        assert model.generator_loss(batch, fake)[0].item() == pytest.approx(expected)
        assert model.discriminator_loss(batch, fake)[0].item() == pytest.approx(4 * math.log(2))


class Mean(nn.Module):
    """A logit: the mean of the image and a constant."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.tensor(constant))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] + self.constant


@pytest.mark.parametrize(
    ("back", "constant", "real", "error"), [("a", -2.0, 1.0, 0.25), ("b", 3.0, 0.0, 0.25)]
)
def test_a_gan_with_reconstruction_plays_against_one_discriminator(
    back: str, constant: float, real: float, error: float
) -> None:
    # Section 2.2: L_G = L_GAN_B + L_const_A with D_B alone. All of a is 0, all of b 1, and all that
    # is generated 0.5; the logits of D_A are 3 more than that, of D_B 2 less.
    model = disco(reconstruct=back, generator=functools.partial(Constant, 0.5, (1, 16, 16)))
    model.discriminator_a, model.discriminator_b = Mean(3.0), Mean(-2.0)
    a, b = torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    batch = ImagePair(a, b, torch.zeros(2), torch.zeros(2))
    drawn = model.generate(batch)
    cost = {"real": math.log1p(math.exp(-real - constant))}
    cost |= {"fake": math.log1p(math.exp(0.5 + constant))}
    loss = model.discriminator_loss(batch, drawn)[0].item()
    assert loss == pytest.approx(cost["real"] + cost["fake"])
    loss = model.generator_loss(batch, drawn)[0].item()
    assert loss == pytest.approx(0.5 * math.log1p(math.exp(-0.5 - constant)) + 0.5 * error)


@pytest.mark.parametrize("idle", ["a", "b"])
def test_the_idle_discriminator_does_not_move(idle: str) -> None:
    model = disco(reconstruct=idle)
    names = ("discriminator_a", "discriminator_b", "generator_a2b", "generator_b2a")
    before = {name: weights(model.get_submodule(name)) for name in names}
    fit(model, random_pairs(2))
    moved = {n for n in names if not torch.equal(before[n], weights(model.get_submodule(n)))}
    assert moved == set(names) - {f"discriminator_{idle}"}


def test_discogans_generators_may_match_features() -> None:
    model, batch = disco(feature_matching=1.0), pair()
    assert model.game(batch.a, batch.a, model.discriminator_a).item() == pytest.approx(0, abs=1e-6)
    assert model.game(batch.a, batch.b, model.discriminator_a) > 0
    with pytest.raises(ValueError, match="tell their features"):
        disco(feature_matching=0.5, discriminator=functools.partial(Constant, 0.0))


def test_reconstruction_may_start_low() -> None:
    model = disco(starting_rate=0.0, starting_steps=2)
    fit(model, random_pairs(2))
    latest = model.latest["g"]
    torch.testing.assert_close(latest["loss_g"], latest["game"])
    fit(model, random_pairs(3))
    latest = model.latest["g"]
    reconstruction = latest["reconstruction_a"] + latest["reconstruction_b"]
    torch.testing.assert_close(latest["loss_g"], 0.5 * latest["game"] + 0.5 * reconstruction)


@pytest.mark.parametrize(("interval", "steps"), [(1, (6, 6)), (3, (2, 4))])
def test_discogans_discriminators_may_take_every_third_iteration(
    interval: int, steps: tuple[int, int]
) -> None:
    model = disco(d_interval=interval)
    fit(model, random_pairs(6))
    assert (model.counts["d_steps"], model.counts["g_steps"]) == steps


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("reconstruction_rate", 1.5),
        ("starting_rate", -0.1),
        ("feature_matching", 2),
        ("reconstruct", "c"),
        ("d_interval", 0),
    ],
)
def test_discogan_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{option} is {value}"):
        disco(**{option: value})


def test_cyclegan_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lambda_identity is -1"):
        cycle(lambda_identity=-1)
    with pytest.raises(ValueError, match="nothing is left"):
        cycle(lambda_gan=0, lambda_cycle_a=0, lambda_cycle_b=0)


@pytest.mark.parametrize("make", [disco, cycle])
def test_translating(make: Any) -> None:
    model = make(ema_decay=0.9)
    fit(model, random_pairs(2))
    batch = pair(7)
    there = model.sample(7, source=batch.a, direction="a2b", chunk_size=3)
    model.eval()
    network = model.network("generator_a2b")
    assert network is not model.generator_a2b
    torch.testing.assert_close(there, network(batch.a).detach())
    assert not torch.equal(there, model.sample(7, source=batch.a, direction="b2a"))
    with pytest.raises(ValueError, match="a2b or b2a"):
        model.sample(7, source=batch.a, direction="up")
    with pytest.raises(ValueError, match="8 examples are asked for"):
        model.sample(8, source=batch.a)

    inputs = model.grid_inputs(torch.Generator(), batch)
    grid, columns = model.sample_grid(inputs)
    assert columns == 7
    rows = grid.unflatten(0, (6, 7))
    assert torch.equal(rows[0], batch.a)
    torch.testing.assert_close(rows[1], there)
    torch.testing.assert_close(rows[2], model.sample(7, source=there, direction="b2a"))
    assert torch.equal(rows[3], batch.b)


def test_points_are_translated_and_plotted() -> None:
    model = disco(
        generator=functools.partial(PointGenerator, [8, 8]),
        discriminator=functools.partial(PointDiscriminator, [8, 8]),
        feature_matching=0.5,
    )
    points = PointPair(*torch.randn(2, 20, 2), torch.arange(20) % 5, torch.arange(20) % 10)
    fake = model.generate(points)
    assert torch.isfinite(model.generator_loss(points, fake)[0])
    assert model.sample(20, source=points.a).shape == (20, 2)
    for picture, columns in (
        model.sample_grid(model.grid_inputs(torch.Generator(), points)),
        model.real_grid(points),
    ):
        assert columns == 1
        assert picture.shape == (1, 3, 400, 800)
        assert picture.max() == 1


def test_validation_measures_cycles_and_where_pairs_are_known_the_translation() -> None:
    model = cycle(generator=nn.Identity)
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: value.item()})  # type: ignore[method-assign, misc]

    class Holder:
        datamodule: Any = None

    holder = Holder()
    model._trainer = holder  # type: ignore[assignment]
    batch = ImagePair(
        torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16), torch.zeros(2), torch.zeros(2)
    )
    model.validation_step(batch, 0)
    assert logged == {"val/cycle_a": 0.0, "val/cycle_b": 0.0}
    holder.datamodule = type("Aligned", (), {"aligned": True})()
    model.validation_step(batch, 0)
    assert logged["val/error_a2b"] == logged["val/error_b2a"] == 1.0


def test_the_pool_is_what_discriminators_see() -> None:
    model = cycle(pool_size=1)
    first, second = (Translated(*torch.full((2, 1, 1, 4, 4), value)) for value in (0.0, 1.0))
    assert torch.equal(model.shown_to_discriminator(first).a, first.a)
    shown = [model.shown_to_discriminator(second).a.mean().item() for _ in range(20)]
    assert shown.count(0.0) == 1
    assert shown.count(1.0) == 19


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        (ResidualGenerator(3, 256), 11.378),
        (ResidualGenerator(3, 128), 7.837),
        (PatchDiscriminator(3, 256), 2.765),
    ],
)
def test_cyclegans_networks_have_their_known_sizes(network: nn.Module, millions: float) -> None:
    count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.001)


@pytest.mark.parametrize(("layers", "width"), [(1, 16), (2, 34), (3, 70)])
def test_patches_have_their_width(layers: int, width: int) -> None:
    network = PatchDiscriminator(1, 128, base_channels=1, layers=layers)
    for name, module in network.net.named_children():
        if isinstance(module, nn.InstanceNorm2d):
            setattr(network.net, name, nn.Identity())
    image = torch.randn(1, 1, 128, 128, requires_grad=True)
    logits = network(image)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert image.grad is not None
    assert int(image.grad[0, 0].any(0).sum()) == width


def test_small_pictures_get_small_networks() -> None:
    generator, discriminator = ResidualGenerator(1, 28), PatchDiscriminator(1, 28)
    assert sum(p.numel() for p in generator.parameters()) < 400_000
    assert generator(torch.randn(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    assert discriminator(torch.randn(2, 1, 28, 28)).shape[2:] == (5, 5)
    with pytest.raises(ValueError, match="multiple of 4"):
        ResidualGenerator(1, 30)
    with pytest.raises(ValueError, match="leave too little"):
        PatchDiscriminator(1, 16, layers=3)


def test_discogans_networks() -> None:
    for size in (28, 32, 64):
        generator = DiscoGANGenerator(3, size, base_channels=2, bottleneck=5)
        image = torch.randn(2, 3, size, size)
        assert generator(image).shape == image.shape
        discriminator = DiscoGANDiscriminator(3, size, base_channels=2)
        logits, features = discriminator.judge(image)
        assert logits.shape == (2, 1)
        assert torch.equal(discriminator(image), logits) or discriminator.training
    # At 64 pixels the authors' four strided layers, of which the last three are matched.
    assert [f.shape[1] for f in features] == [4, 8, 16]
    with pytest.raises(ValueError, match="discogan_toy"):
        DiscoGANGenerator(None, None)  # type: ignore[arg-type]


def test_interleaving_fills_the_last_rows() -> None:
    sets = torch.arange(6.0).view(3, 2, 1, 1, 1)
    order = interleaved(sets, 2).flatten().tolist()
    assert order == [0, 2, 1, 3, 4, -1, 5, -1]
    assert interleaved(sets, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
