"""BEGAN, Boundary Equilibrium GAN: Berthelot, Schumm and Metz 2017, arXiv 1703.10717.

The discriminator is an auto-encoder, with the loss L(v) = |v - D(v)|^eta (section 3.1). The players
minimise (section 3.4)

    L_D = L(x) - k_t L(G(z)),    L_G = L(G(z)),
    k_{t+1} = k_t + lambda_k (gamma L(x) - L(G(z))),  clipped to [0, 1],  k_0 = 0,

so that proportional control holds the balance E[L(G(z))] / E[L(x)] at gamma: a low gamma gives
sharper and less diverse images. M = L(x) + |gamma L(x) - L(G(z))| measures convergence (section
3.4.1); the learning rate is halved when it stalls.

What differs from the paper: L is the mean over pixels and not the sum, which gives lambda_k its
meaning at any size (common practice); D and G share one batch of noise an iteration; samples are
drawn from a moving average of the generator. With batch norm in D, real and generated images pass
it apart. Images are clamped to [-1, 1], as the paper's generator has no bound.

In ``model=began`` also: DCGAN's generator for MNIST with batch norm, and an auto-encoder of one
convolution and fully connected layers with batch norm, a code of 32 and tanh; eta 2 (section 3.1
has 1 or 2); lambda_k .05, as .001 leaves k near 0 in short runs; gamma .75; batches of 64; rates of
2e-4 and, of the generator, 1e-3, constant for half of the run and then falling linearly, where the
paper has 1e-4 halved at each stall; Adam's beta1 of .5, where the paper names none
(``experiment=paper/began`` has torch's .9). With the paper's networks at an eighth of their
channels, three quarters of the digits were 1, 7 and 9.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gan_zoo.data.base import ImageBatch
from gan_zoo.losses import reconstruction_error
from gan_zoo.models.noise_to_image import NoiseToImage
from gan_zoo.models.passes import on_both
from gan_zoo.networks.began import BEGANAutoencoder, BEGANDecoder
from gan_zoo.plotting import interleaved
from gan_zoo.ranges import Count, Positive, PositiveShare, checked
from gan_zoo.training.averaging import eval_mode, has_batch_norm
from gan_zoo.training.module import Loss, Phase

# Of the moving averages that balance and convergence are taken from: about 100 iterations.
_DECAY = 0.99


class BEGAN(NoiseToImage):
    """An auto-encoder against a generator, in an equilibrium that k keeps.

        model = BEGAN(gamma=0.75)
        pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(64)

    Also logged: ``k``; ``balance``, E[L(G(z))] / E[L(x)], which should come to gamma;
    ``convergence``, the paper's M. The last two are of moving averages over about 100 iterations.

    Args:
        args: NoiseToImage's generator, and a discriminator that maps images (B, C, H, W) to their
            reconstructions. Networks with a method ``at_iteration`` are told the iteration.
        latent_dim: length of the noise vector.
        gamma: the balance to hold.
        lambda_k: gain of the control of k.
        eta: exponent of the pixels' absolute error.
    """

    graphable = True
    paper_networks = (BEGANDecoder, BEGANAutoencoder)
    plateau_term = "convergence"
    steered: ClassVar = {
        "k": ((0.0, 1.0), "A larger model.lambda_k, another model.gamma or other rates may help.")
    }
    k: Tensor
    averages: Tensor

    @checked
    def __init__(
        self,
        *args: Any,
        latent_dim: Count = 64,
        gamma: PositiveShare = 0.5,
        lambda_k: Positive = 0.001,
        eta: Literal[1, 2] = 1,
        **options: Any,
    ) -> None:
        super().__init__(*args, latent_dim=latent_dim, **options)
        self.gamma = gamma
        self.lambda_k = lambda_k
        self.eta = eta
        self._has_batch_norm = has_batch_norm(self.discriminator)
        self.register_buffer("k", torch.zeros(()))
        # Of L(x), L(G(z)), M, and 1, by which the average of the first iterations is corrected.
        self.register_buffer("averages", torch.zeros(4))

    def as_seen(self, batch: ImageBatch) -> ImageBatch:
        for network in (self.generator, self.discriminator):
            at_iteration = getattr(network, "at_iteration", None)
            if callable(at_iteration):
                at_iteration(self.trainer.global_step)
        return batch

    def autoencoder_loss(self, image: Tensor, label: Tensor) -> Tensor:
        """L of each image, (B,)."""
        return reconstruction_error(image, self.discriminate(image, label), self.eta)

    def discriminator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        real_loss, fake_loss = (
            loss.mean()
            for loss in on_both(
                self.autoencoder_loss,
                (batch.image, batch.label),
                (fake.detach(), batch.label),
                apart=self._has_batch_norm,
            )
        )
        return real_loss - self.k * fake_loss, {"d_real": real_loss, "d_fake": fake_loss}

    def generator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        return self.autoencoder_loss(fake, batch.label).mean(), {}

    def after_phase(self, phase: Phase) -> None:
        if phase.name != "d":
            return
        # All processes have to keep the same k.
        losses = torch.stack([self.latest["d"]["d_real"], self.latest["d"]["d_fake"]])
        real_loss, fake_loss = self.trainer.strategy.reduce(losses, reduce_op="mean")
        gap = self.gamma * real_loss - fake_loss
        self.k.add_(self.lambda_k * gap).clamp_(0, 1)
        now = torch.stack([real_loss, fake_loss, real_loss + gap.abs(), torch.ones_like(gap)])
        self.averages.lerp_(now, 1 - _DECAY)

    def extra_terms(self) -> dict[str, Tensor]:
        real_loss, fake_loss, convergence, weight = self.averages
        return {
            "k": self.k,
            "balance": fake_loss / real_loss,
            "convergence": convergence / weight,
        }

    def finished(self, images: Tensor) -> Tensor:
        """Within [-1, 1], to which the paper's linear outputs are not bound."""
        return images.clamp(-1, 1)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """L of held-out real images: above ``train/d_real`` where D knows those by heart."""
        loss = self.autoencoder_loss(batch.image, batch.label).mean()
        self.log("val/d_real", loss, batch_size=len(batch.image), sync_dist=True)

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """Rows of samples, and below each what the discriminator's auto-encoder makes of them."""
        images = super().sample_grid(inputs)[0][:32]
        labels = inputs.get("labels", torch.zeros(len(images)))[:32]
        with torch.no_grad(), eval_mode(self.discriminator):
            again = self.discriminate(images, labels).clamp(-1, 1)
        return interleaved(torch.stack((images, again), 1), 8), 8
