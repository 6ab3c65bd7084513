"""The family of Wasserstein GANs: the critic's schedule, and the estimate of the distance."""

import functools
from typing import Any

import torch
from torch import Tensor

from gan_zoo.data.base import ImageBatch
from gan_zoo.losses import AdversarialLoss
from gan_zoo.models.noise_to_image import ImageGAN, Noise, normal
from gan_zoo.ranges import Count, UnfitArgument, checked
from gan_zoo.schedules import steps_after_warmup
from gan_zoo.training.module import Loss, Phase

# Estimates that the paper's curves take the median of, by its authors' code.
_MEDIAN_OF = 101


class WassersteinGAN(ImageGAN):
    """What both Wasserstein GANs share: the critic's schedule and the estimate of the distance.

    Also logged: ``wasserstein_estimate``, E[f(x)] - E[f(G(z))] of the batch,
    and ``wasserstein_estimate_median`` of the last 101 batches. With a validation set also
    ``val/wasserstein_estimate``: where it is lower, the critic knows the training set by heart.

    Args:
        n_critic: the critic's steps to one of the generator.
        n_critic_warmup: the critic's steps before each of the generator's first 25 steps and before
            every 500th, n_critic or more; None for n_critic throughout.
        loss: "wasserstein".
        noise: by default standard normal.
    """

    estimates: Tensor

    @checked
    def __init__(
        self,
        *args: Any,
        n_critic: Count = 5,
        n_critic_warmup: Count | None = None,
        loss: str | AdversarialLoss = "wasserstein",
        noise: Noise = normal,
        **options: Any,
    ) -> None:
        if loss != "wasserstein":
            raise UnfitArgument(
                "loss",
                f"is {loss}; {type(self).__name__} is its loss, wasserstein. DCGAN takes any "
                "(model=dcgan).",
            )
        if n_critic_warmup is not None and n_critic_warmup < n_critic:
            raise UnfitArgument(
                "n_critic_warmup",
                f"is {n_critic_warmup}; it has to be n_critic ({n_critic}) or more, or null.",
            )
        super().__init__(*args, loss=loss, n_critic=n_critic, noise=noise, **options)
        self.n_critic_warmup = n_critic_warmup
        self.register_buffer("estimates", torch.full((_MEDIAN_OF,), torch.nan))

    def phases(self) -> list[Phase]:
        *critic, generator = super().phases()
        if self.n_critic_warmup is None:
            return [*critic, generator]
        schedule = functools.partial(
            steps_after_warmup, n_critic=self.n_critic, n_critic_warmup=self.n_critic_warmup
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
            self.estimates.copy_(self.estimates.roll(1))
            self.estimates[0] = self.latest["d"]["wasserstein_estimate"]

    def extra_terms(self) -> dict[str, Tensor]:
        return {"wasserstein_estimate_median": self.estimates.nanmedian()}

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        fake = self.generate(batch)
        estimate = (
            self.discriminate(batch.image, batch.label).mean()
            - self.discriminate(fake, batch.label).mean()
        )
        self.log("val/wasserstein_estimate", estimate, batch_size=len(batch.image), sync_dist=True)
