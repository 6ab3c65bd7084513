"""R3GAN: Huang et al. 2024, arXiv 2501.05441, with logits D.

    min_D E[softplus(-(D(x) - D(G(z))))] + gamma / 2 (E[||grad D(x)||^2] + E[||grad D(G(z))||^2])
    min_G E[softplus(-(D(G(z)) - D(x)))]                                   (section 2, eq. 2 to 4)

Real and generated images are judged in pairs (Jolicoeur-Martineau 2018, 1807.00734): a generated
image has to be more realistic than a real one, so that no mode of the data can be dropped. R1 and
R2, zero-centred gradient penalties on real and on generated images, make training converge.

What differs from the paper in ``model=r3gan``: narrow networks of one block a stage, rates of 1e-3
that fall to 0 in the second half (the paper's code for CIFAR-10: 2e-4 to 5e-5), a fixed gamma
(there it falls from .05 to .005) and beta2 (there .9 to .99), no augmentation, and both penalties
in every fourth iteration alone, weighted fourfold. Outputs are not bound: images are clipped to
[-1, 1].
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from gan_zoo.data.base import ImageBatch
from gan_zoo.losses import relativistic
from gan_zoo.models.noise_to_image import PenalisedGAN
from gan_zoo.networks.r3gan import R3Discriminator, R3Generator
from gan_zoo.training.module import Loss


class R3GAN(PenalisedGAN):
    """PenalisedGAN whose losses compare real images with generated ones, in pairs.

        model = R3GAN(latent_dim=64, penalty="r1_r2", lambda_gp=1.0)
        pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(64)

    ``d_real`` is the mean probability sigmoid(D(x) - D(G(z))) of choosing the real image of a pair,
    .5 where D can't tell, and ``d_fake`` that of choosing the generated one.
    """

    graphable = True
    paper_networks = (R3Generator, R3Discriminator)

    def discriminator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        fake = fake.detach()
        real_logits, fake_logits = self.logits_of_both(batch, fake)
        margin = real_logits - fake_logits
        chosen = margin.detach().float().sigmoid()
        terms = {"d_real": chosen, "d_fake": 1 - chosen}
        return self.with_penalty((relativistic(margin), terms), batch, fake)

    def generator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        # Apart, as nothing is propagated back through the real images' pass.
        with torch.no_grad():
            real_logits = self.discriminate(batch.image, batch.label)
        return relativistic(self.discriminate(fake, batch.label) - real_logits), {}

    def finished(self, images: Tensor) -> Tensor:
        """Within [-1, 1], to which the paper's linear outputs are not bound."""
        return images.clamp(-1, 1)

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        """See Watched."""
        return terms["d_real"] - terms["d_fake"] if "d_real" in terms else None

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Of held-out real images: below ``train/d_real`` where D knows those by heart."""
        real_logits, fake_logits = self.logits_of_both(batch, self.generate(batch))
        value = (real_logits - fake_logits).float().sigmoid().mean()
        self.log("val/d_real", value, batch_size=len(batch.image), sync_dist=True)
