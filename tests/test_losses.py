"""Objectives against values worked out by hand; penalties against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gan_zoo.losses import (
    ADVERSARIAL_LOSSES,
    GRADIENT_PENALTIES,
    adversarial_loss,
    categorical_information,
    dragan,
    feature_matching,
    gaussian_information,
    gradient_penalty,
    input_gradient_norms,
    r1,
    r1_r2,
    relativistic,
    wgan_gp,
)

# sigmoid(ln 3) = 3/4 and sigmoid(-ln 3) = 1/4.
LN_3 = math.log(3.0)
REAL = torch.tensor([[LN_3], [0.0]])
FAKE = torch.tensor([[-LN_3], [0.0]])


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # D: -(ln 3/4 + ln 1/2)/2 for the real and, as 1 - 1/4 = 3/4, the same for the fake.
        ("minimax", -(math.log(3 / 4) + math.log(1 / 2)), (math.log(3 / 4) + math.log(1 / 2)) / 2),
        (
            "non_saturating",
            -(math.log(3 / 4) + math.log(1 / 2)),
            -(math.log(1 / 4) + math.log(1 / 2)) / 2,
        ),
        (
            "least_squares",
            0.5 * (((LN_3 - 1) ** 2 + 1) / 2 + LN_3**2 / 2),
            0.5 * ((LN_3 + 1) ** 2 + 1) / 2,
        ),
        (
            "cyclegan_least_squares",
            0.5 * (((LN_3 - 1) ** 2 + 1) / 2 + LN_3**2 / 2),
            ((LN_3 + 1) ** 2 + 1) / 2,
        ),
        # max(0, 1 - ln 3) = 0 as ln 3 > 1, so each side is 1/2.
        ("hinge", 0.5 + 0.5, LN_3 / 2),
        ("wasserstein", -LN_3 / 2 - LN_3 / 2, LN_3 / 2),
    ],
)
def test_objectives_have_their_hand_worked_values(
    name: str, discriminator: float, generator: float
) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, abs=1e-6)
    assert loss.generator(FAKE).item() == pytest.approx(generator, abs=1e-6)


def test_an_undecided_discriminator_costs_log_4() -> None:
    zero = torch.zeros(5, 1)
    for name in ("minimax", "non_saturating"):
        assert ADVERSARIAL_LOSSES[name].discriminator(zero, zero).item() == pytest.approx(
            math.log(4)
        )


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_the_generator_is_pushed_towards_higher_logits(name: str) -> None:
    logits = torch.tensor([-0.3, 0.2], requires_grad=True)
    ADVERSARIAL_LOSSES[name].generator(logits).backward()
    assert logits.grad is not None
    assert (logits.grad < 0).all()


def test_the_non_saturating_loss_keeps_its_gradient_where_minimax_loses_it() -> None:
    gradients = {}
    for name in ("minimax", "non_saturating"):
        logits = torch.tensor([-10.0], requires_grad=True)
        ADVERSARIAL_LOSSES[name].generator(logits).backward()
        assert logits.grad is not None
        gradients[name] = abs(logits.grad.item())
    assert gradients["minimax"] < 1e-4
    assert gradients["non_saturating"] == pytest.approx(1.0, abs=1e-3)


def linear_critic(slope: float, pixels: int = 12) -> torch.nn.Linear:
    """A critic whose gradient has the length ``slope`` everywhere."""
    critic = torch.nn.Linear(pixels, 1)
    with torch.no_grad():
        critic.weight.copy_(torch.randn(1, pixels, generator=torch.Generator().manual_seed(2)))
        critic.weight.mul_(slope / critic.weight.norm())
    return critic


REAL_IMAGES = torch.rand(64, 3, 2, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
FAKE_IMAGES = torch.rand(64, 3, 2, 2, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.mark.parametrize("penalty", [wgan_gp, dragan])
@pytest.mark.parametrize(("slope", "value"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_slope_penalties_of_a_linear_critic(penalty, slope: float, value: float) -> None:
    critic = linear_critic(slope)
    found, norms = penalty(lambda image: critic(image.flatten(1)), REAL_IMAGES, FAKE_IMAGES)
    assert found.item() == pytest.approx(value, abs=1e-4)
    torch.testing.assert_close(norms, torch.full((64,), slope), atol=1e-5, rtol=0)


def test_dragan_looks_between_real_images_and_perturbed_ones() -> None:
    seen: list[Tensor] = []

    def critic(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.flatten(1).sum(1, keepdim=True)

    real = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    dragan(critic, real, real)
    moved = (seen[0] - real) / (0.5 * real.std())
    assert moved.min() >= 0
    # Of each image, the largest of 256 uniform numbers times a uniform number of its own.
    largest = moved.flatten(1).amax(1)
    assert largest.max() <= 1
    assert largest.min() < 0.15
    assert largest.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(("slope", "value"), [(0.5, 0.0), (1.0, 0.0), (3.0, 4.0)])
def test_the_one_sided_penalty_leaves_flat_critics_alone(slope: float, value: float) -> None:
    critic, penalty = linear_critic(slope), GRADIENT_PENALTIES["wgan_gp_one_sided"]
    found, _ = penalty(lambda image: critic(image.flatten(1)), REAL_IMAGES, FAKE_IMAGES)
    assert found.item() == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("name", GRADIENT_PENALTIES)
@pytest.mark.parametrize("slope", [0.25, 1.0, 3.0])
def test_penalties_keep_their_closed_form_under_autocast(name: str, slope: float) -> None:
    critic = linear_critic(slope)
    expected = {
        "r1": slope**2 / 2,
        "r1_r2": slope**2,
        "wgan_gp_one_sided": max(0.0, slope - 1) ** 2,
    }.get(name, (slope - 1) ** 2)
    with torch.autocast("cpu", torch.bfloat16):
        found, norms = GRADIENT_PENALTIES[name](
            lambda image: critic(image.flatten(1)), REAL_IMAGES, FAKE_IMAGES
        )
    assert found.dtype == norms.dtype == torch.float32
    # bfloat16 rounds each weight by up to one part in 256.
    torch.testing.assert_close(norms, torch.full_like(norms, slope), rtol=1 / 256, atol=0)
    assert found.item() == pytest.approx(expected, rel=2 / 100, abs=2e-4)


@pytest.mark.parametrize("name", GRADIENT_PENALTIES)
def test_penalties_are_the_same_with_channels_last(name: str) -> None:
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 2), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8, 1)
    )
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        critic.to(memory_format=layout).zero_grad()
        torch.manual_seed(1)
        images = (images.contiguous(memory_format=layout) for images in (REAL_IMAGES, FAKE_IMAGES))
        value, norms = GRADIENT_PENALTIES[name](lambda x: 10 * critic(x), *images)
        value.backward()
        found.append([value.detach(), norms.detach(), critic[0].weight.grad.clone()])
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(before, after)
    assert found[0][2].abs().max() > 0


def test_r1_of_a_linear_critic_is_half_its_squared_slope() -> None:
    critic = linear_critic(3.0)
    found, _ = r1(lambda image: critic(image.flatten(1)), REAL_IMAGES, FAKE_IMAGES)
    assert found.item() == pytest.approx(4.5, abs=1e-4)


def test_r1_and_r2_of_a_critic_that_is_steeper_at_generated_images() -> None:
    real, fake = torch.zeros(3, 4), torch.ones(3, 4)
    value, norms = r1_r2(lambda x: 0.5 * x.square().sum(1) + 3 * x[:, 0], real, fake)
    # Gradients: (3, 0, 0, 0) at 0 and (4, 1, 1, 1) at 1.
    torch.testing.assert_close(norms, torch.tensor([3.0] * 3 + [19**0.5] * 3))
    assert value.item() == pytest.approx((9 + 19) / 2)


def test_pairs_are_compared_by_their_margin() -> None:
    # softplus(-ln 3) = ln 4/3 and softplus(0) = ln 2.
    value = relativistic(torch.tensor([[LN_3], [0.0]]))
    assert value.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert relativistic(torch.tensor([LN_3], dtype=torch.bfloat16)).dtype == torch.float32


def test_gradient_norms_are_each_images_own() -> None:
    # The gradient of ||x||^2 / 2 is x.
    norms = input_gradient_norms(lambda x: 0.5 * x.square().flatten(1).sum(1), REAL_IMAGES)
    torch.testing.assert_close(norms, REAL_IMAGES.flatten(1).norm(dim=1))


def test_wgan_gp_looks_between_the_images_with_one_epsilon_each() -> None:
    seen: list[Tensor] = []

    def critic(image: Tensor) -> Tensor:
        seen.append(image.detach())
        return image.flatten(1).sum(1)

    wgan_gp(critic, REAL_IMAGES, FAKE_IMAGES)
    epsilon = (seen[0] - FAKE_IMAGES) / (REAL_IMAGES - FAKE_IMAGES)
    assert (epsilon.flatten(1).std(1) < 1e-3).all()
    assert epsilon.flatten(1).mean(1).std() > 0.1
    assert epsilon.min() >= -1e-3
    assert epsilon.max() <= 1 + 1e-3


@pytest.mark.parametrize("name", GRADIENT_PENALTIES)
def test_penalties_train_the_critic_through_second_derivatives(name: str) -> None:
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    )
    # The one-sided penalty is flat below a slope of 1.
    value, _ = GRADIENT_PENALTIES[name](lambda x: 10 * critic(x), REAL_IMAGES, FAKE_IMAGES)
    value.backward()
    for weight in (critic[1].weight, critic[3].weight):
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", GRADIENT_PENALTIES)
def test_penalties_take_images_generated_in_another_precision(name: str) -> None:
    half, critic = FAKE_IMAGES.bfloat16(), linear_critic(3.0)
    values = []
    for fake in (half, half.float()):
        torch.manual_seed(0)
        values.append(GRADIENT_PENALTIES[name](lambda x: critic(x.flatten(1)), REAL_IMAGES, fake))
    assert torch.equal(values[0][0], values[1][0])


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_objectives_are_computed_in_float32(name: str) -> None:
    # In bfloat16 the mean of these would be 256, and their differences 0.
    logits = torch.full((999,), 256.0)
    logits[0] = 0
    half, loss = logits.bfloat16(), ADVERSARIAL_LOSSES[name]
    for objective in (loss.real, loss.fake, loss.generator, loss.output):
        assert objective(half).dtype == torch.float32
        assert torch.equal(objective(half), objective(logits))


def test_categorical_information() -> None:
    # Q that knows nothing gives 0, Q that is sure and right log K, and p = .7 gives log(.7 K).
    code = torch.tensor([0, 1, 2])
    assert categorical_information(torch.zeros(3, 10), code).item() == pytest.approx(0, abs=1e-6)
    sure = torch.full((3, 10), -100.0).scatter(1, code[:, None], 100.0)
    assert categorical_information(sure, code).item() == pytest.approx(math.log(10))
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log().repeat(3, 1)
    found = categorical_information(logits, torch.zeros(3, dtype=torch.int64))
    assert found.item() == pytest.approx(math.log(0.7 * 3))


def test_gaussian_information_is_the_density_over_the_uniform_one() -> None:
    mean, std = torch.tensor([[0.1, -0.4]]), torch.tensor([[0.5, 2.0]])
    code = torch.tensor([[0.3, 0.9]])
    density = torch.distributions.Normal(mean, std).log_prob(code)
    uniform = torch.distributions.Uniform(-1.0, 1.0).log_prob(code)
    expected = (density - uniform).sum().item()
    assert gaussian_information(mean, std.log(), code).item() == pytest.approx(expected)


def test_feature_matching_by_hand() -> None:
    real = [torch.tensor([[0.0, 2.0], [2.0, 4.0]]), torch.tensor([[1.0]])]
    fake = [torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[4.0]])]
    # Means 1 and 3 against 0 and 0: (1 + 9) / 2 = 5; 1 against 4: 9; 14 in all.
    assert feature_matching(real, fake) == pytest.approx(14.0)


def test_certainty_is_the_share_of_the_gap_that_is_reached() -> None:
    hinge, wasserstein = ADVERSARIAL_LOSSES["hinge"], ADVERSARIAL_LOSSES["wasserstein"]
    # Outputs of 1 and -1, whose gap is 2, leave the hinge nothing to learn.
    assert hinge.discriminator(torch.ones(3), -torch.ones(3)) == 0
    assert hinge.certainty({"d_real": 1.0, "d_fake": -1.0}) == 1
    assert hinge.certainty({"d_real": 0.25, "d_fake": -0.25, "loss_d": 3.0}) == 0.25
    assert ADVERSARIAL_LOSSES["minimax"].certainty({"d_real": 0.5, "d_fake": 0.5}) == 0
    assert wasserstein.certainty({"d_real": 1.0, "d_fake": -1.0}) is None
    assert hinge.certainty({"d_real": 1.0}) is None


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean hinge"):
        adversarial_loss("hing")
    with pytest.raises(
        ValueError, match="There are: wgan_gp, wgan_gp_one_sided, r1, r1_r2, dragan"
    ):
        gradient_penalty("l2")
