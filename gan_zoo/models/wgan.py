"""Wasserstein GAN: Arjovsky, Chintala and Bottou 2017, arXiv 1701.07875.

    min_G max_{||f||_L <= 1} E_x[f(x)] - E_z[f(G(z))]                                      (eq. 3)

The critic f trains n_critic times to one step of the generator, and after each of its steps every
weight is clipped to [-c, c], which keeps it K-Lipschitz for some K (Algorithm 1: RMSProp of rate
5e-5, c = .01, n_critic = 5, batches of 64). Its negative loss then estimates K times the
Wasserstein-1 distance, and falls as the images get better.

What the authors' code adds and is an option here: ``n_critic_warmup``. It clips before each step of
the critic instead of after; the sequences only differ in the very first step and the last. Its
fully connected generator ends without the tanh that keeps images in [-1, 1] here.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

from gan_zoo.data import ImageBatch
from gan_zoo.losses import AdversarialLoss
from gan_zoo.models.base import ImageGAN, Loss, Phase
from gan_zoo.ranges import Count, Positive, refuse_unfit

# The authors' code: the critic's warm-up is before the first 25 steps of the generator and before
# every 500th.
_FIRST_WARM_STEPS = 25
_WARM_EVERY = 500
# Estimates that the paper's curves take the median of, by its authors' code.
_MEDIAN_OF = 101


class WassersteinGAN(ImageGAN):
    """What both Wasserstein GANs share: the critic's schedule and the estimate of the distance.

    Logged beside the base's figures: ``wasserstein_estimate``, E[f(x)] - E[f(G(z))] of the batch,
    and ``wasserstein_estimate_median`` of the last 101 batches. With a validation set also
    ``val/wasserstein_estimate``: where it falls behind, the critic knows the training set by heart.

    Args:
        n_critic_warmup: the critic's steps before each of the generator's first 25 steps and before
            every 500th; None for n_critic throughout.
        loss: "wasserstein".
        options: ImageGAN's.

    Raises:
        ValueError: for another loss, or a warm-up shorter than n_critic.
    """

    estimates: Tensor

    def __init__(
        self,
        *,
        n_critic: int = 5,
        n_critic_warmup: int | None = None,
        loss: str | AdversarialLoss = "wasserstein",
        **options: Any,
    ) -> None:
        if loss != "wasserstein":
            raise ValueError(
                f"model.loss is {loss}; {type(self).__name__} is its loss, wasserstein. "
                "model=dcgan takes any."
            )
        refuse_unfit("model.n_critic", n_critic, Count)
        refuse_unfit("model.n_critic_warmup", n_critic_warmup, Count | None)
        if n_critic_warmup is not None and n_critic_warmup < n_critic:
            raise ValueError(
                f"model.n_critic_warmup is {n_critic_warmup}; it has to be model.n_critic "
                f"({n_critic}) or more, or null."
            )
        super().__init__(loss=loss, n_critic=n_critic, **options)
        self.n_critic_warmup = n_critic_warmup
        self.register_buffer("estimates", torch.full((_MEDIAN_OF,), torch.nan))

    def phases(self) -> list[Phase]:
        *critic, generator = super().phases()
        if self.n_critic_warmup is None:
            return [*critic, generator]
        schedule = functools.partial(
            generator_steps, n_critic=self.n_critic, n_critic_warmup=self.n_critic_warmup
        )
        return [*critic, generator._replace(interval=schedule)]

    def discriminator_objective(
        self, batch: ImageBatch, fake: Tensor, real_logits: Tensor, fake_logits: Tensor
    ) -> Loss:
        loss, terms = super().discriminator_objective(batch, fake, real_logits, fake_logits)
        estimate = terms["d_real"].mean() - terms["d_fake"].mean()
        return loss, terms | {"wasserstein_estimate": estimate}

    def after_phase(self, phase: Phase) -> None:
        if phase.name == "d":
            slot = self.trainer.global_step % _MEDIAN_OF
            self.estimates[slot] = self.latest["d"]["wasserstein_estimate"]

    def figures(self) -> dict[str, Tensor]:
        return {"wasserstein_estimate_median": self.estimates.nanmedian()}

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        fake = self.generate(batch)
        difference = (
            self.discriminate(batch.image, batch.label).mean()
            - self.discriminate(fake, batch.label).mean()
        )
        self.log(
            "val/wasserstein_estimate", difference, batch_size=len(batch.image), sync_dist=True
        )


class WGAN(WassersteinGAN):
    """Keeps the critic Lipschitz by clipping its weights.

    Args:
        clip_value: c; after each step of the critic its weights are clipped to [-c, c].
        penalty: None.
        options: WassersteinGAN's.

    Raises:
        ValueError: for a clip_value that is not positive, or a penalty.
    """

    def __init__(
        self, *, clip_value: float = 0.01, penalty: str | None = None, **options: Any
    ) -> None:
        refuse_unfit("model.clip_value", clip_value, Positive)
        if penalty is not None:
            raise ValueError(
                f"model.penalty is {penalty}; WGAN clips the critic's weights instead of "
                "penalising its gradients. model=wgan_gp has the penalty."
            )
        super().__init__(**options)
        self.clip_value = clip_value

    def after_phase(self, phase: Phase) -> None:
        super().after_phase(phase)
        if phase.player == "d":
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-self.clip_value, self.clip_value)


def generator_steps(iteration: int, n_critic: int, n_critic_warmup: int) -> int:
    """How many steps the generator has taken by the end of that iteration of the critic.

    The first 25, and those whose number from 0 is a multiple of 500, take ``n_critic_warmup``
    iterations each, the others ``n_critic``.
    """

    def iterations(steps: int) -> int:
        warm = min(steps, _FIRST_WARM_STEPS) + max(0, (steps - 1) // _WARM_EVERY)
        return n_critic * steps + (n_critic_warmup - n_critic) * warm

    return bisect_right(range(iteration // n_critic + 1), iteration, key=iterations) - 1
