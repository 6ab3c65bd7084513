"""HDCGAN, first titled HR-DCGAN: Curto et al. 2017, arXiv 1711.06491.

The objective is the GAN paper's with the non-saturating generator loss. Two things are new:

- BS layers. Batch norm followed by SELU takes the place of the activations, in both players.
- Glasses. A telescope enlarges the pictures by a factor zeta while the convolutions' filters stay
  as they are, so that they work on finer detail.

What the paper leaves open, as its training code was never published, and what is chosen here:

- Where zeta acts. The players are networks for zeta times the size, and real images are enlarged to
  that bilinearly. Generated ones are averaged down to the size, which is what people and metrics
  see, and enlarged in the same way before the discriminator sees them. Without that the
  discriminator always wins: enlarged images have as many degrees of freedom as the small ones have
  pixels, and a linear filter tells them from all that a generator draws at the full size.
- Where batch norm stands: where DCGAN has it, so neither at the generator's output nor in the
  discriminator's first layer, whose activation is SELU alone. With it there (``norm_first`` of
  DCGANDiscriminator) the discriminator told MNIST's batches apart at once.
- Adam of rate 2e-4 and beta1 .5, weights from N(0, .02): DCGAN's.

What differs in ``model=hdcgan``: DCGAN's networks for MNIST, which have a fully connected layer, at
a quarter of their channels; batches of 64 (DCGAN: 128); a generator's rate of 1e-3, and rates that
fall linearly to 0; samples from a moving average of the generator. ``experiment=paper/hdcgan`` has
the deep networks without such a layer.
"""

import functools
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data.base import ImageBatch
from gan_zoo.models.noise_to_image import ImageGAN
from gan_zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_zoo.ranges import Count, Range, checked

Zeta = Annotated[int, Range(1, 64)]


class HDCGAN(ImageGAN):
    """ImageGAN that trains on images zeta times as large as those that it is given and shows.

        model = HDCGAN(zeta=2)
        pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(64)

    Args:
        generator, discriminator: of images zeta times as large as the data's.
        zeta: the telescope's factor.
    """

    graphable = True
    paper_networks = (
        functools.partial(DCGANGenerator, activation=nn.SELU),
        functools.partial(DCGANDiscriminator, activation=nn.SELU),
    )

    @checked
    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        latent_dim: Count = 100,
        num_classes: Count | None = None,
        zeta: Zeta = 2,
        **options: Any,
    ) -> None:
        if generator is None:
            generator = self.paper_networks[0](latent_dim, num_classes=num_classes, zeta=zeta)
        if discriminator is None:
            discriminator = self.paper_networks[1](num_classes=num_classes, zeta=zeta)
        super().__init__(
            generator, discriminator, latent_dim=latent_dim, num_classes=num_classes, **options
        )
        self.zeta = zeta

    def generate(self, batch: ImageBatch) -> Tensor:
        """Generated images as the discriminator sees the real ones: of the size, then enlarged.

        Enlarged images have no more degrees of freedom than the size has pixels. A linear filter
        could tell them from images that have all of zeta times the size.
        """
        return self.enlarged(self.finished(super().generate(batch)))

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        super().validation_step(self.as_seen(batch), batch_idx)

    def enlarged(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, zeta H, zeta W), bilinearly."""
        if self.zeta == 1:
            return images
        return F.interpolate(images, scale_factor=self.zeta, mode="bilinear")

    def as_seen(self, batch: ImageBatch) -> ImageBatch:
        return batch._replace(image=self.enlarged(batch.image))

    def finished(self, images: Tensor) -> Tensor:
        """Averages each zeta x zeta block of the generator's output."""
        return F.avg_pool2d(images, self.zeta) if self.zeta > 1 else images
