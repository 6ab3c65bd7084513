"""Shapes, sizes and initialisation, as the papers have them."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import pkgutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_zoo import networks
from gan_zoo.networks import (
    began,
    classifier,
    cogan,
    cyclegan,
    dcgan,
    discogan,
    infogan,
    layers,
    mlp,
    r3gan,
    stackgan,
    stackgan_pp,
    text_to_image,
    upsampling,
    wgan_gp,
)
from gan_zoo.ranges import UnfitArgument

LABEL = torch.tensor([0, 1, 9])
GREY = (3, 1, 28, 28)
RGB = (3, 3, 32, 32)
CAPTION = torch.randn(3, 64)
FORWARD: Any = lambda network, *inputs: network(*inputs)  # noqa: E731


def judged(network: nn.Module, image: Tensor) -> Any:
    return network.judge(image)  # type: ignore[operator]


def fits(network: nn.Module, image: Tensor) -> Tensor:
    return network.fits(network.features(image), CAPTION)  # type: ignore[operator]


def at_each_scale(trees: Any, image: Tensor) -> list[Tensor]:
    return [tree.real(tree.features(image)) + fits(tree, image) for tree in trees]


# (class, what it is given by, inputs, shapes of all that comes out); each built without arguments.
DEFAULTS: list[tuple[type[nn.Module], Any, tuple[Any, ...], list[tuple[int, ...]]]] = [
    (mlp.MLPGenerator, FORWARD, (torch.randn(3, 256),), [GREY]),
    (mlp.MLPDiscriminator, FORWARD, (torch.randn(GREY),), [(3, 1)]),
    (mlp.MaxoutDiscriminator, FORWARD, (torch.randn(GREY),), [(3, 1)]),
    (mlp.ConditionalMLPGenerator, FORWARD, (torch.randn(3, 100), LABEL), [GREY]),
    (mlp.ConditionalMaxoutDiscriminator, FORWARD, (torch.randn(GREY), LABEL), [(3, 1)]),
    (dcgan.DCGANGenerator, FORWARD, (torch.randn(3, 100),), [GREY]),
    (dcgan.DCGANDiscriminator, FORWARD, (torch.randn(GREY),), [(3, 1)]),
    (dcgan.MNISTGenerator, FORWARD, (torch.randn(3, 100), LABEL), [GREY]),
    (dcgan.MNISTDiscriminator, FORWARD, (torch.randn(GREY), LABEL), [(3, 1)]),
    (infogan.InfoGANGenerator, FORWARD, (torch.randn(3, 62 + 10 + 2),), [GREY]),
    (infogan.InfoGANDiscriminator, FORWARD, (torch.randn(GREY),), [(3, 1)]),
    (wgan_gp.ConvGenerator, FORWARD, (torch.randn(3, 128),), [GREY]),
    (wgan_gp.ConvCritic, FORWARD, (torch.randn(GREY),), [(3, 1)]),
    (wgan_gp.ResNetGenerator, FORWARD, (torch.randn(3, 128),), [(3, 1, 32, 32)]),
    (wgan_gp.ResNetCritic, FORWARD, (torch.randn(3, 1, 32, 32),), [(3, 1)]),
    (r3gan.R3Generator, FORWARD, (torch.randn(3, 64),), [GREY]),
    (r3gan.R3Discriminator, FORWARD, (torch.randn(GREY),), [(3, 1)]),
    (upsampling.UpsamplingGenerator, FORWARD, (torch.randn(3, 100),), [(3, 1, 32, 32)]),
    (upsampling.DropoutDiscriminator, FORWARD, (torch.randn(3, 1, 32, 32),), [(3, 1)]),
    (cogan.CoupledGenerator, FORWARD, (torch.randn(3, 100),), [(3, 2, 1, 28, 28)]),
    (cogan.CoupledDiscriminator, FORWARD, (torch.randn(3, 2, 1, 28, 28),), [(3, 2)]),
    (began.BEGANDecoder, FORWARD, (torch.randn(3, 64),), [GREY]),
    (began.BEGANAutoencoder, FORWARD, (torch.randn(GREY),), [GREY]),
    (began.DenseAutoencoder, FORWARD, (torch.randn(GREY),), [GREY]),
    (discogan.DiscoGANGenerator, FORWARD, (torch.randn(GREY),), [GREY]),
    (discogan.DiscoGANDiscriminator, judged, (torch.randn(GREY),), [(3, 1), (3, 128, 7, 7)]),
    (discogan.PointGenerator, FORWARD, (torch.randn(3, 2),), [(3, 2)]),
    (discogan.PointDiscriminator, judged, (torch.randn(3, 2),), [(3, 1), *[(3, 128)] * 3]),
    (cyclegan.ResidualGenerator, FORWARD, (torch.randn(GREY),), [GREY]),
    (cyclegan.PatchDiscriminator, FORWARD, (torch.randn(GREY),), [(3, 1, 5, 5)]),
    (text_to_image.ConditioningAugmentation, FORWARD, (CAPTION, torch.randn(3, 32)),
     [(3, 32)] * 3),
    (text_to_image.TextDiscriminator, fits, (torch.randn(RGB),), [(3, 1)]),
    (stackgan.StageOneGenerator, FORWARD, (torch.randn(3, 132), CAPTION),
     [(3, 3, 16, 16), (3, 32), (3, 32)]),
    (stackgan.StageTwoGenerator, FORWARD, (torch.randn(3, 3, 16, 16), torch.randn(3, 32), CAPTION),
     [RGB, (3, 32), (3, 32)]),
    (stackgan_pp.TreeGenerator, FORWARD, (torch.randn(3, 132), CAPTION),
     [(3, 3, 8, 8), (3, 3, 16, 16), RGB, (3, 32), (3, 32)]),
    (stackgan_pp.TreeDiscriminators, at_each_scale, (torch.randn(RGB),), [(3, 1)] * 3),
    (classifier.EvaluatorNetwork, FORWARD, (torch.randn(GREY),), [(3, 128), (3, 10)]),
]  # fmt: skip


def tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in tensors(part)]


@pytest.mark.parametrize(
    ("kind", "use", "inputs", "shapes"), DEFAULTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_networks_are_built_without_arguments(
    kind: type[nn.Module], use: Any, inputs: tuple[Any, ...], shapes: list[tuple[int, ...]]
) -> None:
    assert [tuple(t.shape) for t in tensors(use(kind(), *inputs))] == shapes


def test_every_network_is_built_without_arguments_above() -> None:
    modules = [
        importlib.import_module(f"{networks.__name__}.{info.name}")
        for info in pkgutil.iter_modules(networks.__path__)
        if info.name not in ("text", "layers")
    ]
    public = {
        kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, nn.Module) and kind.__module__ == module.__name__ and name[0] != "_"
    }
    assert public - {mlp.Maxout} == {kind for kind, *_ in DEFAULTS}


def test_networks_import_no_papers_networks_but_their_familys() -> None:
    for info in pkgutil.iter_modules(networks.__path__):
        module = importlib.import_module(f"{networks.__name__}.{info.name}")
        origins = {getattr(value, "__module__", "") for value in vars(module).values()}
        imported = {o.rpartition(".")[2] for o in origins if str(o).startswith(networks.__name__)}
        assert imported <= {info.name, "layers", "text_to_image"}


def test_hdcgans_networks_are_dcgans_with_selu_and_a_telescope() -> None:
    for kinds in (
        (dcgan.DCGANGenerator, dcgan.DCGANDiscriminator),
        (dcgan.MNISTGenerator, dcgan.MNISTDiscriminator),
    ):
        generator, discriminator = (kind(activation=nn.SELU, zeta=2) for kind in kinds)
        for network in (generator, discriminator):
            assert any(isinstance(module, nn.SELU) for module in network.modules())
            assert not any(isinstance(m, (nn.ReLU, nn.LeakyReLU)) for m in network.modules())
        images = generator(torch.randn(3, 100))
        assert images.shape == (3, 1, 56, 56)
        assert discriminator(images).shape == (3, 1)


def test_stage_one_is_judged_at_its_own_size() -> None:
    judge = text_to_image.TextDiscriminator(factor=2)
    assert fits(judge, torch.randn(3, 3, 16, 16)).shape == (3, 1)


def test_what_does_not_fit_is_refused_by_the_arguments_name() -> None:
    for build, argument in (
        (functools.partial(dcgan.DCGANGenerator, image_size=30), "image_size"),
        (functools.partial(dcgan.MNISTGenerator, image_size=30), "image_size"),
        (functools.partial(dcgan.DCGANDiscriminator, base_channels=0), "base_channels"),
        (functools.partial(infogan.InfoGANGenerator, categorical_codes=[1]), "categorical_codes"),
        (functools.partial(wgan_gp.ConvCritic, image_size=4), "image_size"),
        (functools.partial(wgan_gp.ResNetCritic, image_size=24), "image_size"),
        (functools.partial(cogan.CoupledGenerator, image_size=9), "image_size"),
        (functools.partial(cogan.CoupledDiscriminator, image_size=15), "image_size"),
        (functools.partial(cogan.CoupledDiscriminator, shared_layers=4), "shared_layers"),
        (functools.partial(cyclegan.PatchDiscriminator, layers=4), "layers"),
        (functools.partial(discogan.DiscoGANGenerator, channels=None), "channels"),
        (functools.partial(mlp.MLPGenerator, hidden=[0]), "hidden"),
        (functools.partial(stackgan.StageOneGenerator, factor=3), "factor"),
        # Not the coarse image's size, which nobody has given.
        (functools.partial(stackgan.StageOneGenerator, image_size=36), "image_size is 36"),
        (functools.partial(stackgan_pp.TreeDiscriminators, num_scales=4), "num_scales"),
    ):
        with pytest.raises(UnfitArgument, match=f"^{argument}"):
            build()


def test_labels_and_conditions_join_features_and_maps() -> None:
    joined = layers.join_label(torch.zeros(3, 2), LABEL, 10)
    assert joined.shape == (3, 12)
    assert joined[:, 2:].argmax(1).tolist() == LABEL.tolist()
    maps = layers.join_condition(torch.zeros(3, 2, 4, 5), CAPTION)
    assert maps.shape == (3, 66, 4, 5)
    assert torch.equal(maps[:, 2:, 3, 1], CAPTION)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("generator", "discriminator"),
    [
        (mlp.MLPGenerator(5, 3, 12), mlp.MLPDiscriminator(3, 12)),
        (mlp.MLPGenerator(5, 3, 12, norm=False), mlp.MaxoutDiscriminator(3, 12)),
        (dcgan.DCGANGenerator(5, 3, 12, 4), dcgan.DCGANDiscriminator(3, 12, 4)),
        (dcgan.DCGANGenerator(5, 3, 12, 4, 4), dcgan.DCGANDiscriminator(3, 12, 4, 4)),
        (
            infogan.InfoGANGenerator(2, [2], 1, 3, 12, 4, 8),
            infogan.InfoGANDiscriminator([2], 1, 3, 12, 4, 8, 8),
        ),
        (wgan_gp.ConvGenerator(5, 3, 12, 4), wgan_gp.ConvCritic(3, 12, 4)),
        (wgan_gp.ConvGenerator(5, 3, 12, 4, norm=True), wgan_gp.ConvCritic(3, 12, 4, True)),
    ],
)
def test_noise_becomes_images_becomes_logits(
    generator: nn.Module, discriminator: nn.Module
) -> None:
    images = generator(torch.randn(3, 5) * 10)
    assert images.shape == (3, 3, 12, 12)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (3, 1)


@pytest.mark.parametrize(
    ("generator", "discriminator"),
    [
        (mlp.ConditionalMLPGenerator(5, 10, 1, 8), mlp.ConditionalMaxoutDiscriminator(10, 1, 8)),
        (
            dcgan.DCGANGenerator(5, 1, 8, 4, num_classes=10),
            dcgan.DCGANDiscriminator(1, 8, 4, num_classes=10),
        ),
        (
            dcgan.MNISTGenerator(5, 10, 1, 8, 4, 16),
            dcgan.MNISTDiscriminator(10, 1, 8, 4, 16),
        ),
    ],
)
def test_both_players_see_the_label(generator: nn.Module, discriminator: nn.Module) -> None:
    generator.eval()
    discriminator.eval()
    noise = torch.randn(3, 5)
    images = generator(noise, LABEL)
    assert images.shape == (3, 1, 8, 8)
    other = (LABEL + 1) % 10
    assert not torch.allclose(images, generator(noise, other), atol=1e-6)
    logits = discriminator(images, LABEL)
    assert logits.shape == (3, 1)
    assert not torch.allclose(logits, discriminator(images, other), atol=1e-9)


def test_the_papers_sizes() -> None:
    # 1406.2661's code: 100-1200-1200-784, and maxout layers of 240 units of 5 pieces.
    assert parameters(mlp.MLPGenerator(100, 1, 28, hidden=[1200, 1200], norm=False)) == (
        101 * 1200 + 1201 * 1200 + 1201 * 784
    )
    assert parameters(mlp.MaxoutDiscriminator(1, 28)) == 785 * 1200 + 241 * 1200 + 241
    # 1411.1784, section 4.1: 200 and 1000 joined in 1200; maxout 240x5 and 50x5 joined in 240x4.
    assert parameters(mlp.ConditionalMLPGenerator(100, 10, 1, 28, norm=False)) == (
        101 * 200 + 11 * 1000 + 1201 * 1200 + 1201 * 784
    )
    assert parameters(mlp.ConditionalMaxoutDiscriminator(10, 1, 28)) == (
        785 * 1200 + 11 * 250 + 291 * 960 + 241
    )


def test_the_2014_generators_may_end_in_the_papers_sigmoid() -> None:
    for kind in (mlp.MLPGenerator, mlp.ConditionalMLPGenerator):
        generator: Any = kind(unit_range=True, norm=False)
        logits = []
        layers = generator.net if kind is mlp.MLPGenerator else generator.joint
        layers[-3].register_forward_hook(lambda *given, logits=logits: logits.append(given[2]))
        given = (
            [torch.randn(2, 256)] if kind is mlp.MLPGenerator else [torch.rand(2, 100), LABEL[:2]]
        )
        pixels = (generator(*given) + 1) / 2
        torch.testing.assert_close(pixels.flatten(1), logits[0].sigmoid())


def test_the_mnist_nets_may_have_affine_batch_norm_or_none() -> None:
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    for network in (dcgan.MNISTGenerator(affine=True), dcgan.MNISTDiscriminator(affine=True)):
        assert all(m.affine for m in network.modules() if isinstance(m, norms))
        # Layers have biases where no batch norm follows, which has a shift.
        weighted = [m for m in network.modules() if isinstance(m, layers.Weighted)]
        is_generator = isinstance(network, dcgan.MNISTGenerator)
        ends = weighted[-1:] if is_generator else [weighted[0], weighted[-1]]
        assert [m for m in weighted if m.bias is not None] == ends
    torch.manual_seed(0)
    critic = dcgan.MNISTDiscriminator(norm=False)
    assert not any(isinstance(m, norms) for m in critic.modules())
    for layer in (m for m in critic.modules() if isinstance(m, layers.Weighted)):
        # He et al. 2015 (1502.01852), eq. 15, for a slope of .2.
        fan_in = layer.weight[0].numel()
        expected = math.sqrt(2 / (1 + 0.2**2) / fan_in)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert layer.bias is not None


def test_maxout_takes_the_largest_piece() -> None:
    maxout = mlp.Maxout(1, 2, 3)
    with torch.no_grad():
        maxout.linear.weight.copy_(torch.tensor([[1.0], [2.0], [-1.0], [0.5], [-3.0], [0.0]]))
        maxout.linear.bias.zero_()
    assert maxout(torch.tensor([[1.0], [-1.0]])).tolist() == [[2.0, 0.5], [1.0, 3.0]]


def test_dcgan_at_the_papers_size_has_its_channels() -> None:
    generator = dcgan.DCGANGenerator(100, 3, 64, base_channels=128)
    channels = [m.in_channels for m in generator.net if isinstance(m, nn.ConvTranspose2d)]
    assert channels == [100, 1024, 512, 256, 128]
    assert [m.out_channels for m in generator.net if isinstance(m, nn.ConvTranspose2d)][-1] == 3


@pytest.mark.parametrize("kind", [dcgan.DCGANGenerator, dcgan.DCGANDiscriminator])
def test_dcgan_initialisation_and_biases(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(
        **({"latent_dim": 100} if kind is dcgan.DCGANGenerator else {}), channels=1, image_size=64
    )
    modules = list(network.net)  # type: ignore[arg-type]
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            if module.weight.numel() > 1000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert (module.bias is None) == isinstance(following, nn.BatchNorm2d)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)
            assert module.bias.abs().max() == 0
    # No batch norm on the generator's output or the discriminator's input.
    assert not isinstance(modules[-2], nn.BatchNorm2d)
    assert not isinstance(modules[1], nn.BatchNorm2d) or kind is dcgan.DCGANGenerator


def test_batch_norm_can_be_left_out_of_the_discriminator() -> None:
    network = dcgan.DCGANDiscriminator(1, 28, norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_the_appendix_nets_have_neither_biases_nor_affine_batch_norm() -> None:
    for network in (
        dcgan.MNISTGenerator(100, 10, 1, 28),
        dcgan.MNISTDiscriminator(10, 1, 28),
    ):
        assert all(name.endswith("weight") for name, _ in network.named_parameters())
        norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
        assert norms
        assert not any(m.affine for m in norms)


@pytest.mark.parametrize("size", [4, 7, 30, 100, 27])
def test_sizes_that_strided_layers_cannot_make_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} pixels"):
        dcgan.DCGANGenerator(10, 1, size)


@pytest.mark.parametrize("size", [8, 28, 32, 40, 96])
def test_sizes_that_they_can_make(size: int) -> None:
    images = dcgan.DCGANGenerator(2, 1, size, 2)(torch.randn(2, 2))
    assert images.shape[-1] == size
    assert dcgan.DCGANDiscriminator(1, size, 2)(images).shape == (2, 1)


@pytest.mark.parametrize("size", [5, 28, 30, 32, 64])
def test_wgan_gps_nets_make_any_size(size: int) -> None:
    images = wgan_gp.ConvGenerator(5, 1, size, 2)(torch.randn(2, 5))
    assert images.shape == (2, 1, size, size)
    for layer_norm in (False, True):
        assert wgan_gp.ConvCritic(1, size, 2, layer_norm)(images).shape == (2, 1)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_residual_nets(size: int) -> None:
    images = wgan_gp.ResNetGenerator(5, 3, size, 4)(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    for layer_norm in (False, True):
        critic = wgan_gp.ResNetCritic(3, size, 4, layer_norm)
        assert critic(images).shape == (2, 1)
        # A gradient penalty needs each image's score to be its own.
        torch.testing.assert_close(critic(images[:1]), critic(images)[:1])
    with pytest.raises(ValueError, match="28 pixels"):
        wgan_gp.ResNetGenerator(5, 3, 28, 4)


def test_wgan_gps_mnist_nets_have_the_papers_sizes() -> None:
    # 1704.00028's gan_mnist.py at DIM 64: 128-4096, 256-128-64-1 and 1-64-128-256-1, 5x5.
    assert parameters(wgan_gp.ConvGenerator(128, 1, 28)) == (
        129 * 4096 + (256 * 25 + 1) * 128 + (128 * 25 + 1) * 64 + (64 * 25 + 1)
    )
    assert parameters(wgan_gp.ConvCritic(1, 28)) == (
        (25 + 1) * 64 + (64 * 25 + 1) * 128 + (128 * 25 + 1) * 256 + 4096 + 1
    )


def test_wgan_gps_layers_begin_at_the_authors_bounds() -> None:
    # tflib's glorot, sqrt(6 / (in + out)), for linear layers; its he, sqrt(12 / (in + out)), with
    # in or out a quarter at stride 2, for convolutions.
    torch.manual_seed(0)
    generator, critic = wgan_gp.ConvGenerator(128, 1, 28, 16), wgan_gp.ConvCritic(1, 28, 16)
    # The generator's transposed convolutions and the critic's have filters of the same shapes.
    found = [
        (tuple(layer.weight.shape), layer.weight.abs().max().item())
        for network in (generator, critic)
        for layer in network.net
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]
    expected = {
        (1024, 128): math.sqrt(6 / (128 + 1024)),
        (64, 32, 5, 5): math.sqrt(12 / (64 * 25 // 4 + 32 * 25)),
        (32, 16, 5, 5): math.sqrt(12 / (32 * 25 // 4 + 16 * 25)),
        (16, 1, 5, 5): math.sqrt(12 / (16 * 25 // 4 + 25)),
        (1, 1024): math.sqrt(6 / (1024 + 1)),
    }
    assert expected[1024, 128] == pytest.approx(0.0722, abs=1e-4)
    assert len(found) == 8
    for shape, largest in found:
        assert expected[shape] * 0.98 < largest <= expected[shape]


def test_distorted_images_are_read_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 2, 12, 12)
    torch.testing.assert_close(infogan.distorted(images, 0.0), images)
    torch.testing.assert_close(
        infogan.distorted(torch.ones_like(images), 1.0), torch.ones(4, 2, 12, 12)
    )
    # An image whose values are its x shows where it is read: first in rows, then in columns.
    x = torch.linspace(-1, 1, 12)
    ramp = x.expand(2, 1, 12, 12)
    first, second = infogan.distorted(ramp, 1.0)
    assert not torch.equal(first, second)
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.ones(size))
    rows = (1.15 * x + 0.3 * x[:, None] + 0.14).clamp(-1, 1)
    torch.testing.assert_close(infogan._distorted_rows(ramp, 1.0)[0, 0], rows)
    torch.testing.assert_close(infogan.distorted(ramp.mT, 1.0)[0, 0], rows.mT)


def test_infogans_nets_have_the_papers_sizes() -> None:
    # Table 1 of 1606.03657: the fully connected layers of 1024 and Q's of 128.
    generator = infogan.InfoGANGenerator(62, [10], 2, 1, 28)
    shapes = [tuple(m.weight.shape) for m in generator.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(1024, 74), (7 * 7 * 128, 1024)]
    discriminator = infogan.InfoGANDiscriminator([10], 2, 1, 28)
    shapes = [tuple(m.weight.shape) for m in discriminator.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(1024, 7 * 7 * 128), (1, 1024), (128, 1024), (10 + 4, 128)]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_began_nets(size: int, skip: bool) -> None:
    images = began.BEGANDecoder(5, 3, size, 2, skip, vanishing_steps=10)(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert began.BEGANAutoencoder(5, 3, size, 2, skip)(images).shape == images.shape


def test_began_at_32_pixels_is_the_papers_figure() -> None:
    encoder = began.BEGANAutoencoder(64, 3, 32, base_channels=10)
    widths = [layer.conv.out_channels for layer in encoder.layers]
    assert widths == [10, 10, 20, 20, 20, 30, 30, 30]
    assert encoder.to_hidden[1].in_features == 8 * 8 * 30
    with pytest.raises(ValueError, match="vanishing_steps"):
        began.BEGANDecoder(5, 3, 32, vanishing_steps=-1)


def test_batch_norm_can_be_chosen_for_each_hidden_layer() -> None:
    network = mlp.MLPGenerator(8, hidden=[16, 32], norm=[False, True])
    sizes = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    assert sizes == [32]
    with pytest.raises(UnfitArgument, match="norm has 1 values for 2 hidden layers"):
        mlp.MLPGenerator(8, hidden=[16, 32], norm=[True])


def test_r3gans_maps_are_filtered_by_1_2_1() -> None:
    x = torch.zeros(1, 2, 4, 4)
    x[0, 1, 1, 2] = 1.0
    line = torch.tensor([0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 0.0, 0.0])
    doubled = r3gan._Doubled(2)(x)
    torch.testing.assert_close(doubled[0, 1], line[:, None] * line.roll(2))
    assert not doubled[0, 0].any()
    constant = torch.full((1, 2, 8, 8), 3.0)
    halved = r3gan._Halved(2)(constant)
    assert halved.shape == (1, 2, 4, 4)
    # But at the border, where zeros are outside.
    torch.testing.assert_close(halved[:, :, 1:, 1:], constant[:, :, :3, :3])


def test_r3gans_blocks_begin_as_the_identity_and_scale_by_their_number() -> None:
    torch.manual_seed(0)
    block = r3gan._Block(32, 16, total=16)
    x = torch.randn(2, 32, 8, 8)
    assert torch.equal(block(x), x)
    first, _, grouped, _, last = block.layers
    gain = math.sqrt(2 / 1.04) / 2
    assert first.weight.std().item() == pytest.approx(gain / math.sqrt(32), rel=0.05)
    assert grouped.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.05)
    assert grouped.groups == 4
    assert not last.weight.any()
    assert last.bias is None


def test_r3gans_sizes() -> None:
    for size, first in ((28, 7), (32, 4), (64, 4), (48, 6)):
        images = r3gan.R3Generator(8, 3, size, 8, 16)(torch.randn(2, 8))
        assert images.shape == (2, 3, size, size)
        assert r3gan.R3Generator(8, 3, size, 8, 16).basis.shape == (16, first, first)
        assert r3gan.R3Discriminator(3, size, 8, 16)(images).shape == (2, 1)
    with pytest.raises(UnfitArgument, match="image_size is 30"):
        r3gan.R3Generator(image_size=30)
    with pytest.raises(UnfitArgument, match="group_size is 5"):
        r3gan.R3Generator(group_size=5)
    labels = torch.tensor([0, 2])
    conditional = r3gan.R3Discriminator(num_classes=3)
    image = torch.rand(1, 1, 28, 28).expand(2, -1, -1, -1)
    one, other = conditional(image, labels)
    assert one != other
    images = r3gan.R3Generator(num_classes=3)(torch.randn(1, 64).expand(2, -1), labels)
    assert not torch.equal(images[0], images[1])
