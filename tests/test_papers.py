"""The papers' own recipes: their networks counted by hand, their options, and that they run.

A layer is counted as inputs x outputs (x the filter's area), plus its biases; batch norm as a scale
and a shift of each output.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from gan_zoo.data import available_dataset
from gan_zoo.files import CONFIG_DIR
from gan_zoo.run.configuration import composed, dotted
from tests.conftest import SHORT, slow_but
from tests.test_networks import parameters

Run = Callable[..., CompletedProcess[str]]

FOLDER = CONFIG_DIR / "experiment" / "paper"
PAPERS = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@functools.cache
def recipe(name: str) -> DictConfig:
    return composed("train", [f"experiment=paper/{name}"])


@functools.cache
def model_of(name: str) -> Any:
    """The recipe's model, without memory for its weights."""
    with torch.device("meta"):
        return instantiate(recipe(name).model)


def test_every_model_has_its_papers_recipe() -> None:
    assert sorted(file.stem for file in (CONFIG_DIR / "model").glob("*.yaml")) == PAPERS


def filters(*channels: int, area: int) -> int:
    """Layers in a row, each without biases and with batch norm."""
    return sum(n * m * area + 2 * m for n, m in itertools.pairwise(channels))


# 1701.07875's code: DCGAN's networks of filters 4 x 4 without biases, batch norm in all layers but
# the generator's last and the critic's first and last.
DCGAN_64_G = filters(100, 512, 256, 128, 64, area=16) + 64 * 16
DCGAN_64_D = 64 * 16 + filters(64, 128, 256, 512, area=16) + 512 * 16
# Here those three layers have biases: of the image, of the first map and of the logit.
OUR_BIASES_G, OUR_BIASES_D = 1, 64 + 1

# 2501.05441's code: a block of 768 channels.
R3_BLOCK = 768 * 1536 + 1536 + 1536 * 16 * 9 + 1536 + 1536 * 768

# 1703.10717, figure 1, with n = 128: a decoder FC 64 -> 8 x 8 x n, two 3 x 3 layers of n at 8, 16
# and 32 pixels, 3 x 3 to the image; all with biases.
DECODER = 65 * 8 * 8 * 128 + 6 * (128 * 9 + 1) * 128 + (128 * 9 + 1)
# Its encoder: 3 x 3 to n; two layers of n, 2n and 3n; FC 8 x 8 x 3n -> 64. Between them, layers of
# stride 2 from n to 2n and 2n to 3n; the figure's second layer of n and of 2n widens instead.
ENCODER = (
    (9 + 1) * 128
    + 2 * (128 * 9 + 1) * 128
    + 2 * (256 * 9 + 1) * 256
    + 2 * (384 * 9 + 1) * 384
    + (128 * 9 + 1) * 256
    + (256 * 9 + 1) * 384
    + (8 * 8 * 384 + 1) * 64
)

# StackGAN's and StackGAN++'s discriminators: 4 x 4 of stride 2 from 3 to 64 (with biases here) and
# on to 512 channels at 4 x 4; text 1024 -> 128; a logit of 4 x 4 x 512.
DOWN_TO_512 = 3 * 64 * 16 + 64 + filters(64, 128, 256, 512, area=16)
TEXT = 1025 * 128
LOGIT = 512 * 16 + 1

PARAMETERS = {
    "gan": {
        # mnist.yaml: 100 - 1200 - 1200 - 784.
        "generator": 101 * 1200 + 1201 * 1200 + 1201 * 784,
        # Maxout 784 - 240 x 5 - 240 x 5 - 1.
        "discriminator": 785 * 240 * 5 + 241 * 240 * 5 + 241,
    },
    "cgan": {
        # 4.1: noise 100 - 200, label 10 - 1000, joined 1200 - 1200 - 784.
        "generator": 101 * 200 + 11 * 1000 + 1201 * 1200 + 1201 * 784,
        # Maxout image 784 - 240 x 5, label 10 - 50 x 5, joined 290 - 240 x 4 - 1.
        "discriminator": 785 * 240 * 5 + 11 * 50 * 5 + 291 * 240 * 4 + 241,
    },
    "dcgan": {
        # train_cond_dcgan.py: gw, gw2, gw3, gwx. No biases, no scales, no shifts.
        "generator": 110 * 1024 + 1034 * 128 * 49 + 138 * 64 * 25 + 74 * 25,
        # dw, dw2, dw3, dwy.
        "discriminator": 11 * 64 * 25 + 74 * 128 * 25 + (128 * 49 + 10) * 1024 + 1034,
    },
    "hdcgan": {
        # The telescope's first map is as wide by scaling, so no weight changes.
        "generator": DCGAN_64_G + OUR_BIASES_G,
        # Of 128 pixels: a layer more.
        "discriminator": 64 * 16
        + filters(64, 128, 256, 512, 1024, area=16)
        + 1024 * 16
        + OUR_BIASES_D,
    },
    "infogan": {
        # Table 1: FC 74 - 1024 - 7 x 7 x 128, up 4 x 4 to 64 and to 1; batch norm but at the end.
        "generator": filters(74, 1024, 6272, area=1) + filters(128, 64, area=16) + 64 * 16 + 1,
        # Table 1: 4 x 4 to 64, 4 x 4 to 128, FC 1024 - 1; Q: FC 128 - 12, its deviations fixed.
        "discriminator": 64 * 16
        + 64
        + filters(64, 128, area=16)
        + filters(6272, 1024, area=1)
        + 1024
        + 1
        + filters(1024, 128, area=1)
        + 129 * 12,
    },
    "wgan": {
        "generator": DCGAN_64_G + OUR_BIASES_G,
        "discriminator": DCGAN_64_D + OUR_BIASES_D,
    },
    "wgan_gp": {
        # gan_mnist.py at DIM 64: FC 128 - 4096, 5 x 5 256 - 128 - 64 - 1.
        "generator": 129 * 4096 + (256 * 25 + 1) * 128 + (128 * 25 + 1) * 64 + 64 * 25 + 1,
        # 5 x 5 1 - 64 - 128 - 256, FC 4096 - 1.
        "discriminator": 26 * 64 + (64 * 25 + 1) * 128 + (128 * 25 + 1) * 256 + 4096 + 1,
    },
    "r3gan": {
        # Networks.py: 10 labels to 64; 128 to 768 weights of a map 4 x 4; 8 blocks of 1 x 1 to
        # 1536, 3 x 3 in 96 groups of 16, and 1 x 1 back, with two biases; the image.
        "generator": 10 * 64 + 128 * 768 + 768 * 16 + 8 * R3_BLOCK + 768 * 3,
        # The image; 8 blocks; 4 x 4 of each channel; 768 features by 10 labels.
        "discriminator": 3 * 768 + 8 * R3_BLOCK + 768 * 16 + 768 * 768 + 10 * 768,
    },
    "cogan": {
        # net_cogan_mnistedge.py: 4 x 4 to 1024, 3 x 3 to 512, 256, 128, PReLUs, heads 6 x 6.
        "generator": (100 * 16 + 1) * 1024
        + (1024 * 9 + 1) * 512
        + (512 * 9 + 1) * 256
        + (256 * 9 + 1) * 128
        + 4
        + 2 * (128 * 36 + 1),
        # Two 5 x 5 to 20, 5 x 5 to 50, 4 x 4 to 500, a PReLU; one logit for the code's two.
        "discriminator": 2 * 26 * 20 + (20 * 25 + 1) * 50 + (50 * 16 + 1) * 500 + 1 + 501,
    },
    "began": {"generator": DECODER, "discriminator": ENCODER + DECODER},
    "discogan": {
        # model.py with extra_layers: 4 x 4 to 64 - 128 - 256 - 512 - 100 and back. The first and
        # the last layer have biases here.
        "generator_a2b": 64 * 16
        + filters(64, 128, 256, 512, 100, 512, 256, 128, 64, area=16)
        + 64 * 16
        + 64
        + 1,
        "discriminator_a": 64 * 16 + filters(64, 128, 256, 512, area=16) + 512 * 16 + 64 + 1,
    },
    "cyclegan": {
        # 7.2: c7s1-64, d128, d256, R256 six times, u128, u64, c7s1-3; biases, no scales.
        "generator_a2b": (3 * 49 + 1) * 64
        + (64 * 9 + 1) * 128
        + (128 * 9 + 1) * 256
        + 6 * 2 * (256 * 9 + 1) * 256
        + (256 * 9 + 1) * 128
        + (128 * 9 + 1) * 64
        + (64 * 49 + 1) * 3,
        # 7.2: C64 - C128 - C256 - C512 and one to the logit.
        "discriminator_a": (3 * 16 + 1) * 64
        + (64 * 16 + 1) * 128
        + (128 * 16 + 1) * 256
        + (256 * 16 + 1) * 512
        + 512 * 16
        + 1,
    },
    "stackgan": {
        # mu and log sigma^2 of 128 from 1024; FC 228 - 4 x 4 x 1024; up 3 x 3 to 64; the image.
        "generator": 1025 * 256
        + filters(228, 16 * 1024, area=1)
        + filters(1024, 512, 256, 128, 64, area=9)
        + (64 * 9 + 1) * 3,
        # The caption joins by a layer 1 x 1 of 512.
        "discriminator": DOWN_TO_512 + TEXT + filters(640, 512, area=1) + LOGIT,
        # Encoder 3 x 3 to 128, 4 x 4 to 256 and 512; joint 3 x 3; 4 blocks; up to 32; the image.
        "generator_2": 1025 * 256
        + (3 * 9 + 1) * 128
        + filters(128, 256, 512, area=16)
        + filters(640, 512, area=9)
        + 4 * filters(512, 512, 512, area=9)
        + filters(512, 256, 128, 64, 32, area=9)
        + (32 * 9 + 1) * 3,
        # 4 x 4 on to 2048, 1 x 1 back to 512.
        "discriminator_2": DOWN_TO_512
        + filters(512, 1024, 2048, area=16)
        + filters(2048, 1024, 512, area=1)
        + TEXT
        + filters(640, 512, area=1)
        + LOGIT,
    },
    "stackgan_pp": {
        # A gated layer makes twice its outputs. CA 1024 - 512 gated; FC 228 - 2 x 4 x 4 x 1024.
        "generator": 1025 * 512
        + filters(228, 2 * 16 * 1024, area=1)
        + filters(1024, 2 * 512, area=9)
        + filters(512, 2 * 256, area=9)
        + filters(256, 2 * 128, area=9)
        + filters(128, 2 * 64, area=9)
        # To 128 pixels: joint 64 + 128 - 64, two residual blocks, up to 32.
        + filters(192, 2 * 64, area=9)
        + 2 * (filters(64, 128, area=9) + filters(64, 64, area=9))
        + filters(64, 2 * 32, area=9)
        # To 256 pixels: joint 32 + 128 - 32, two residual blocks, up to 16.
        + filters(160, 2 * 32, area=9)
        + 2 * (filters(32, 64, area=9) + filters(32, 32, area=9))
        + filters(32, 2 * 16, area=9)
        # Images of 64, 32 and 16 channels.
        + (64 + 32 + 16) * 3 * 9,
        # At 64, 128 and 256 pixels; joint 3 x 3; a logit with and one without the caption.
        "discriminator": 3 * (DOWN_TO_512 + TEXT + filters(640, 512, area=9) + 2 * LOGIT)
        + filters(512, 1024, area=16)
        + filters(1024, 512, area=9)
        + filters(512, 1024, 2048, area=16)
        + filters(2048, 1024, 512, area=9),
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_networks_have_the_papers_parameters(name: str) -> None:
    model = model_of(name)
    found = {part: parameters(getattr(model, part)) for part in PARAMETERS[name]}
    assert found == PARAMETERS[name]
    # Both directions of a translator, and nothing else that trains.
    times = 2 if "generator_a2b" in found else 1
    trained = sum(parameters(player) for player in model.players().values())
    assert trained == times * sum(found.values())


def meta(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta")


LABELS = torch.zeros(2, dtype=torch.int64, device="meta")
# Pixels of the generator's images; the discriminator's output of them.
SHAPES = {
    "gan": ((1, 28, 28), (1,)),
    "cgan": ((1, 28, 28), (1,)),
    "dcgan": ((1, 28, 28), (1,)),
    # Of 64 pixels through a telescope of 2.
    "hdcgan": ((1, 128, 128), (1,)),
    "infogan": ((1, 28, 28), (1,)),
    "wgan": ((1, 64, 64), (1,)),
    "wgan_gp": ((1, 28, 28), (1,)),
    "r3gan": ((3, 32, 32), (1,)),
    "cogan": ((2, 1, 28, 28), (2,)),
    "began": ((1, 32, 32), (1, 32, 32)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_noise_becomes_the_papers_images(name: str) -> None:
    model, (image, output) = model_of(name), SHAPES[name]
    codes = 12 if name == "infogan" else 0
    labels = (LABELS,) if name in ("cgan", "dcgan", "r3gan") else ()
    images = model.generator(meta(2, model.latent_dim + codes), *labels)
    assert images.shape == (2, *image)
    assert model.discriminator(images, *labels).shape == (2, *output)


@pytest.mark.parametrize(
    ("name", "image", "output"),
    [("discogan", (1, 64, 64), (1,)), ("cyclegan", (3, 128, 128), (1, 14, 14))],
)
def test_images_become_the_papers_images(
    name: str, image: tuple[int, ...], output: tuple[int, ...]
) -> None:
    model = model_of(name)
    images = model.generator_a2b(meta(2, *image))
    assert images.shape == (2, *image)
    assert model.discriminator_b(images).shape == (2, *output)


def test_captions_become_the_papers_images() -> None:
    model, noise, caption = model_of("stackgan"), meta(2, 100 + 128), meta(2, 1024)
    (coarse,) = model.generator(noise, caption).images
    (fine,) = model.generator_2(coarse, noise[:, 100:], caption).images
    assert (coarse.shape, fine.shape) == ((2, 3, 64, 64), (2, 3, 256, 256))
    for judge, images in ((model.discriminator, coarse), (model.discriminator_2, fine)):
        features = judge.features(images)
        assert features.shape == (2, 512, 4, 4)
        assert judge.fits(features, caption).shape == (2, 1)
    model = model_of("stackgan_pp")
    scales = model.generator(noise, caption).images
    assert [tuple(x.shape) for x in scales] == [(2, 3, side, side) for side in (64, 128, 256)]
    for judge, images in zip(model.discriminator, scales, strict=True):
        features = judge.features(images)
        assert features.shape == (2, 512, 4, 4)
        assert judge.fits(features, caption).shape == judge.real(features).shape == (2, 1)


# What says how a step is computed, not what it comes to.
NO_VALUES = {"_target_", "_partial_", "_convert_", "fused", "accumulate_grad_batches"}
ON_THE_DATA = ("dataset.batch_size", "dataset.image_size", "trainer.max_steps")


def is_off(config: DictConfig, option: str, value: object) -> bool:
    """Whether the model does nothing for this option, or takes it from the data or the model."""
    if isinstance(value, str) and value.startswith("${"):
        return True
    weighs = {"lambda_gp", "penalty_interval"} & {option.rpartition(".")[2]}
    if weighs and config.model.penalty is None:
        return True
    return value is None or value is False or (isinstance(value, (int, float)) and value == 0)


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_has_no_value_of_the_defaults_by_accident(name: str) -> None:
    config, own = recipe(name), OmegaConf.load(FOLDER / f"{name}.yaml")
    chosen = {option for option, _ in dotted(OmegaConf.to_container(own))}
    every = dotted(OmegaConf.to_container(config.model, resolve=False))
    left = [
        f"model.{option}"
        for option, value in every
        if not NO_VALUES & set(option.split(".")) and not is_off(config, option, value)
    ]
    assert [option for option in (*left, *ON_THE_DATA) if option not in chosen] == []
    # The networks, optimizers and schedules too are the recipe's choice, as is the data.
    groups = {key.rpartition("@")[2] for default in own.defaults for key in default}
    groups = {key.removeprefix("override ").removeprefix("/").replace("/", ".") for key in groups}
    parts = [key for key in config.model if OmegaConf.is_dict(config.model[key])]
    assert {f"model.{part}" for part in parts} - groups == set()
    assert {"model", "dataset", "model.scheduler"} <= groups


@pytest.mark.parametrize("name", PAPERS)
def test_every_value_has_its_source_beside_it(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("dataset:"))
    for before, line in zip(lines[start - 1 :], lines[start:], strict=False):
        key, _, value = line.partition(":")
        if value.strip() and not line.lstrip().startswith("#"):
            of_a_block = key.strip() in ("a", "b", "mean", "std", "_target_", "_partial_")
            assert "#" in value or before.lstrip().startswith("#") or of_a_block, line


def test_momentum_and_rates_of_the_2014_recipes() -> None:
    for name, decay in (("gan", 1.000004), ("cgan", 1.00004)):
        weight = nn.Parameter(torch.zeros(1))
        optimizer = instantiate(recipe(name).model.optimizer_g)([weight])
        schedule = instantiate(recipe(name).model.scheduler)(optimizer)
        schedule.last_epoch = 125_000
        (rate,) = schedule.get_lr()
        assert rate == pytest.approx(0.1 * decay**-125_000)
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.7)


SMALL = {
    "gan": ("dataset=digits", "dataset.val_size=0"),
    "cgan": ("dataset=digits", "dataset.val_size=0"),
    "dcgan": ("dataset=digits", "dataset.val_size=0", "dataset.batch_size=8"),
    "infogan": ("dataset=digits", "dataset.val_size=0", "dataset.batch_size=8"),
    "wgan_gp": ("dataset=digits", "dataset.val_size=0", "dataset.batch_size=8"),
}


@pytest.mark.parametrize("name", slow_but(("dcgan", "wgan_gp"), SMALL))
def test_recipes_begin(run: Run, tmp_path: Path, name: str) -> None:
    run("train.py", f"experiment=paper/{name}", *SMALL[name], *SHORT[1:2], "trainer.max_steps=3",
        "trainer.log_every_n_steps=1", "hydra.run.dir=here")  # fmt: skip
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert math.isfinite(metrics["train/loss_d"])


# Iterations; fewer than 50 where one takes more than 10 seconds on one core, and as many as WGAN's
# generator waits for. StackGAN's are of both stages. Batches of 8 of the two took 3.7 and 4.8 GB.
# R3GAN takes digits of CIFAR-10's shape, which need no download.
ITERATIONS = {"hdcgan": 3, "stackgan": 4, "stackgan_pp": 2, "wgan": 100, "r3gan": 2}
BATCHES = {
    "stackgan": ("dataset.batch_size=8",),
    "stackgan_pp": ("dataset.batch_size=8",),
    "r3gan": ("dataset=mnist", "dataset.channels=3", "dataset.batch_size=8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_recipes_run_at_their_own_sizes(run: Run, tmp_path: Path, name: str) -> None:
    root = os.environ.get("GAN_ZOO_DATA_DIR", "data")
    if available_dataset("mnist", root) != "mnist":
        pytest.skip("needs real MNIST")
    steps = ITERATIONS.get(name, 50)
    begun = time.monotonic()
    run("train.py", f"experiment=paper/{name}", "trainer=cpu", f"trainer.max_steps={steps}",
        "trainer.log_every_n_steps=1", "trainer.limit_val_batches=0", "~callbacks.metrics",
        *BATCHES.get(name, ()), "hydra.run.dir=here")  # fmt: skip
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert metrics["steps"] == steps
    losses = {key: value for key, value in metrics.items() if key.startswith("train/loss_")}
    assert {"train/loss_d", "train/loss_g"} <= losses.keys()
    assert all(math.isfinite(loss) for loss in losses.values())
    print(f"\n{name}: {steps} iterations, {time.monotonic() - begun:.0f} s, {losses}", flush=True)
