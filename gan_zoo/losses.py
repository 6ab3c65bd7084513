"""Adversarial objectives and gradient penalties, as pure functions of tensors.

Every objective takes *logits*: the discriminator's last linear output, of any shape, before any
sigmoid. It returns the mean over all elements, which the players minimise, in float32 where a
network's output has 16 bits.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

Critic = Callable[[Tensor], Tensor]
Objective = TypeVar("Objective", bound=Callable[..., Any])
Named = TypeVar("Named")


def in_float32(objective: Objective) -> Objective:
    """Has an objective compute in float32 what networks under autocast gave it in 16 bits."""

    @functools.wraps(objective)
    def in_full(*tensors: Any, **options: Any) -> Any:
        full = (x.float() if isinstance(x, Tensor) and x.itemsize == 2 else x for x in tensors)
        return objective(*full, **options)

    return cast(Objective, in_full)


class AdversarialLoss(NamedTuple):
    """The two sides of one adversarial game.

        loss = ADVERSARIAL_LOSSES["hinge"]
        loss_d = loss.discriminator(critic(real), critic(fake.detach()))
        loss_g = loss.generator(critic(fake))

    Attributes:
        real, fake: logits of real, of generated images -> scalar; the discriminator minimises their
            sum.
        generator: fake logits -> scalar that the generator minimises.
        output: logits -> the discriminator's output for an image: the probability that it is real
            where the objective is a likelihood, else the score itself.
        gap: the difference between the outputs for real and generated images at which a
            discriminator has nothing left to learn; None where it is unbounded.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    gap: float | None = None

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises, of its logits for real and for generated images."""
        return self.real(real) + self.fake(fake)

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        """How well D tells real from generated images: 0 not at all, 1 with nothing left to learn.

        None without a gap, or without the mean outputs ``d_real`` and ``d_fake`` among the terms.
        """
        if self.gap is None or not {"d_real", "d_fake"} <= terms.keys():
            return None
        return (terms["d_real"] - terms["d_fake"]) / self.gap


@in_float32
def _score(logits: Tensor) -> Tensor:
    return logits


@in_float32
def _probability(logits: Tensor) -> Tensor:
    return logits.sigmoid()


@in_float32
def real_cross_entropy(real: Tensor) -> Tensor:
    """-E[log D(x)], one half of -V(D, G) of Goodfellow et al. 2014 (1406.2661), eq. 1.

    With D = sigmoid(logit), -log D = softplus(-logit) and -log(1 - D) = softplus(logit). At the
    optimum for equal distributions -V is log 4.
    """
    return F.softplus(-real).mean()


@in_float32
def fake_cross_entropy(fake: Tensor) -> Tensor:
    """-E[log(1 - D(G(z)))], the other half of -V(D, G)."""
    return F.softplus(fake).mean()


@in_float32
def minimax_g(fake: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))], G's part of eq. 1 of 1406.2661. Saturates where D is confident."""
    return -F.softplus(fake).mean()


@in_float32
def non_saturating_g(fake: Tensor) -> Tensor:
    """-E[log D(G(z))], the objective that section 3 of 1406.2661 uses for G in practice."""
    return F.softplus(-fake).mean()


@in_float32
def least_squares_from_1(logits: Tensor) -> Tensor:
    """Mao et al. 2017 (1611.04076), eq. 9: E[(D - 1)^2] / 2, of x for D and of G(z) for G."""
    return 0.5 * (logits - 1).square().mean()


@in_float32
def least_squares_from_0(fake: Tensor) -> Tensor:
    """Mao et al. 2017 (1611.04076), eq. 9: E[D(G(z))^2] / 2."""
    return 0.5 * fake.square().mean()


@in_float32
def whole_least_squares_g(fake: Tensor) -> Tensor:
    """Zhu et al. 2017 (1703.10593), section 4: E[(D(G(x)) - 1)^2], not halved.

    Their discriminator's objective is halved, so that it learns more slowly than the generators.
    """
    return (fake - 1).square().mean()


@in_float32
def real_hinge(real: Tensor) -> Tensor:
    """Lim and Ye 2017 (1705.02894): E[max(0, 1 - D(x))]."""
    return F.relu(1 - real).mean()


@in_float32
def fake_hinge(fake: Tensor) -> Tensor:
    """Lim and Ye 2017 (1705.02894): E[max(0, 1 + D(G(z)))]."""
    return F.relu(1 + fake).mean()


@in_float32
def score(fake: Tensor) -> Tensor:
    """E[f(G(z))]. Arjovsky et al. 2017 (1701.07875): the critic minimises E[f(G(z))] - E[f(x)].

    Its negative estimates the Wasserstein-1 distance (times the critic's Lipschitz constant).
    """
    return fake.mean()


@in_float32
def negative_score(logits: Tensor) -> Tensor:
    """-E[f(x)] for the critic; -E[f(G(z))] for G in the Wasserstein and hinge games."""
    return -logits.mean()


@in_float32
def relativistic(margin: Tensor) -> Tensor:
    """E[softplus(-(D(a) - D(b)))] of pairs in which a is to be more realistic than b.

    Jolicoeur-Martineau 2018 (1807.00734), and Huang et al. 2024 (2501.05441), eq. 2: a is real for
    D, and generated for G.
    """
    return F.softplus(-margin).mean()


_cross_entropies = (real_cross_entropy, fake_cross_entropy)
_least_squares = (least_squares_from_1, least_squares_from_0)
ADVERSARIAL_LOSSES = {
    "minimax": AdversarialLoss(*_cross_entropies, minimax_g, _probability, 1.0),
    "non_saturating": AdversarialLoss(*_cross_entropies, non_saturating_g, _probability, 1.0),
    "least_squares": AdversarialLoss(*_least_squares, least_squares_from_1, _score, 1.0),
    "cyclegan_least_squares": AdversarialLoss(*_least_squares, whole_least_squares_g, _score, 1.0),
    "hinge": AdversarialLoss(real_hinge, fake_hinge, negative_score, _score, 2.0),
    "wasserstein": AdversarialLoss(negative_score, score, negative_score, _score),
}


def input_gradient_norms(critic: Critic, points: Tensor) -> Tensor:
    """||grad_x critic(x)||_2 of each point, which can be differentiated again.

    The critic maps points (B, ...) to a score, or a map of patch scores, of each; they must not
    influence each other's scores (no batch norm), or the gradients mix them. The Euclidean norms
    (B,) are over all elements of a point.
    """
    points = points.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    # 1e-12 keeps the second derivative finite where the gradient vanishes.
    return (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()


def wgan_gp(
    critic: Critic, real: Tensor, fake: Tensor, one_sided: bool = False
) -> tuple[Tensor, Tensor]:
    """Gulrajani et al. 2017 (1704.00028), eq. 3, without lambda: E[(||grad D(x^)||_2 - 1)^2].

    x^ = e x + (1 - e) G(z) with one e ~ U[0, 1] for each image. ``one_sided`` penalises norms above
    1 alone, E[max(0, ||grad D(x^)||_2 - 1)^2], a variant that the paper's section 4 mentions.
    """
    epsilon = _uniform_of_each(real)
    norms = input_gradient_norms(critic, torch.lerp(fake.detach().to(real), real, epsilon))
    excess = F.relu(norms - 1) if one_sided else norms - 1
    return excess.square().mean(), norms


def _uniform_of_each(images: Tensor) -> Tensor:
    """(B, 1, ...), a number from U[0, 1] for each image (B, ...)."""
    shape = len(images), *[1] * (images.dim() - 1)
    return torch.rand(shape, device=images.device, dtype=images.dtype)


def r1(critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Mescheder et al. 2018 (1801.04406), eq. 9, without gamma: E[||grad D(x)||^2] / 2, x real."""
    norms = input_gradient_norms(critic, real)
    return 0.5 * norms.square().mean(), norms


def r1_r2(critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """R1 on real images and, as R2 in Mescheder et al. 2018, the same on generated ones; their sum.

    Without gamma: (E[||grad D(x)||^2] + E[||grad D(G(z))||^2]) / 2.
    """
    norms = torch.cat([input_gradient_norms(critic, x) for x in (real, fake.detach().to(real))])
    return norms.square().mean(), norms


def dragan(critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Kodali et al. 2017 (1705.07215), without lambda: E[(||grad D(x + d)||_2 - 1)^2], x real.

    The paper's d is Gaussian with variance c = 10 on unscaled pixels; here, as in its authors'
    code, d = 0.5 a u std(x) with u ~ U[0, 1] for each pixel, a ~ U[0, 1] for each image, and the
    standard deviation over the whole batch.
    """
    # Not rand_like, whose numbers would follow the layout in memory.
    noise = torch.rand(real.shape, device=real.device, dtype=real.dtype)
    moved = real + 0.5 * real.std() * _uniform_of_each(real) * noise
    norms = input_gradient_norms(critic, moved)
    return (norms - 1).square().mean(), norms


# (critic, real images, fake images) -> (penalty, gradient norms (B,) that it is computed from).
# All have this signature, whether they use the fake images or not.
Penalty = Callable[[Critic, Tensor, Tensor], tuple[Tensor, Tensor]]
GRADIENT_PENALTIES: dict[str, Penalty] = {
    "wgan_gp": wgan_gp,
    "wgan_gp_one_sided": functools.partial(wgan_gp, one_sided=True),
    "r1": r1,
    "r1_r2": r1_r2,
    "dragan": dragan,
}


def categorical_information(logits: Tensor, code: Tensor) -> Tensor:
    """A lower bound in nats on I(c; x) of a uniform categorical code c and an image x.

    Chen et al. 2016 (1606.03657), eq. 4: E[log Q(c | x)] + H(c), with H(c) = log K. It is 0 if Q is
    uniform, and at most log K. ``logits`` (B, K) are Q's; ``code`` is (B, K) one-hot or (B,) int64.
    """
    return math.log(logits.shape[1]) - F.cross_entropy(logits, code)


def gaussian_information(mean: Tensor, log_std: Tensor, code: Tensor) -> Tensor:
    """A lower bound in nats on I(c; x) of independent codes c ~ U(-1, 1) and an image x.

    Chen et al. 2016 (1606.03657), eq. 4, with a Gaussian Q(c | x): E[log Q(c | x)] + H(c) with
    H(c) = log 2 for each code. It grows without bound as Q becomes certain. All are (B, L).
    """
    log_density = -0.5 * ((code - mean) / log_std.exp()).square() - log_std
    entropy = math.log(2) - 0.5 * math.log(2 * math.pi)
    return (log_density + entropy).sum(1).mean()


@in_float32
def reconstruction_error(images: Tensor, reconstructed: Tensor, eta: int) -> Tensor:
    """BEGAN's L(v) = |v - D(v)|^eta (1703.10717, section 3.1): (B,), of images (B, ...).

    The mean over the pixels, where the paper has the sum.
    """
    error = (images - reconstructed).abs()
    return (error if eta == 1 else error.square()).flatten(1).mean(1)


@in_float32
def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Squared difference of batch means of a discriminator's features.

    Salimans et al. 2016 (1606.03498), section 3.1, in the form of DiscoGAN's authors' code
    (1703.05192): averaged over each layer's features (B, ...), and summed over the layers.
    """
    gaps = [(r.mean(0) - f.mean(0)).square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(gaps).sum()


def joint_embedding(images: Tensor, captions: Tensor, describes: Tensor) -> Tensor:
    """The symmetric structured joint embedding of Reed et al. 2016 (1605.05395), eq. 4 to 6.

    With F(v, t) the scalar product of an image's and a caption's embedding: the mean over images i
    and captions j that do not describe them of max(0, 1 + F(v_i, t_j) - F(v_i, t_i)), plus
    that over captions i and such images j of max(0, 1 + F(v_j, t_i) - F(v_i, t_i)). Their
    batches have one image per class; here a batch may have any. The i-th of ``images`` and
    ``captions`` (B, E) belong together; ``describes`` (B, B) bool says whether caption j is true of
    image i.
    """
    scores = images @ captions.T
    right = scores.diagonal()
    wrong = ~describes
    by_image = F.relu(1 + scores - right[:, None])
    by_caption = F.relu(1 + scores - right[None])
    return ((by_image + by_caption) * wrong).sum() / wrong.sum().clamp(min=1)


@in_float32
def kl_from_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, diag(sigma^2)) || N(0, I)) in nats, (B,), of mu and log sigma^2 (B, D).

    StackGAN (1612.03242), eq. 2: summed over the dimensions; the authors' code averages over them.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


@in_float32
def colour_consistency(
    finer: Tensor, coarser: Tensor, lambda_mean: float = 1.0, lambda_covariance: float = 5.0
) -> Tensor:
    """StackGAN++ (1710.10916), eq. 6 and 7: the colours of one image at two scales should agree.

    The batch mean of lambda_mean ||mu_f - mu_c||_2^2 + lambda_covariance ||S_f - S_c||_F^2,
    where mu and S are the mean and covariance of an image's pixels as vectors of C channels; images
    are (B, C, H, W) and (B, C, H', W'). The authors' code averages over the elements of mu and S
    instead of summing.
    """
    statistics = []
    for image in (finer, coarser):
        pixels = image.flatten(2)
        mean = pixels.mean(2, keepdim=True)
        centred = pixels - mean
        statistics.append((mean, centred @ centred.mT / pixels.shape[2]))
    means, covariances = (
        (fine - coarse).square().flatten(1).sum(1) for fine, coarse in zip(*statistics, strict=True)
    )
    return (lambda_mean * means + lambda_covariance * covariances).mean()


def adversarial_loss(choice: str | AdversarialLoss) -> AdversarialLoss:
    """The objective of that name, or the given one itself. ValueError for an unknown name."""
    return _named(choice, ADVERSARIAL_LOSSES, "loss") if isinstance(choice, str) else choice


def gradient_penalty(choice: str | Penalty | None) -> Penalty | None:
    """The penalty of that name, the given function itself, or None. ValueError if unknown."""
    return _named(choice, GRADIENT_PENALTIES, "penalty") if isinstance(choice, str) else choice


def _named(name: str, known: dict[str, Named], kind: str) -> Named:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"There is no {kind} '{name}'{hint} There are: {', '.join(known)}.")
