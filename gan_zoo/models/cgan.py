"""Conditional Generative Adversarial Nets: Mirza and Osindero 2014, arXiv 1411.1784.

    min_G max_D E_x[log D(x | y)] + E_z[log(1 - D(G(z | y) | y))]                          (eq. 2)

Both players are given the label y: the generator its one-hot vector beside the noise, the
discriminator beside the image. Generated images take the labels of the real ones in the batch.

What differs from the paper by default: Adam, no dropout in the generator, the non-saturating
generator loss (the paper does not say which). ``experiment=cgan_2014`` brings its SGD schedule and
dropout of .5 in both players.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gan_zoo.models.base import ImageGAN


class CGAN(ImageGAN):
    """ImageGAN, conditioned on class labels.

    Args:
        num_classes: how many classes the labels name.
        options: ImageGAN's.
    """

    published: ClassVar = {("mnist", "parzen"): "132 ± 1.8"}

    def __init__(self, *, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes=num_classes, **options)
