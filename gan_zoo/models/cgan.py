"""Conditional Generative Adversarial Nets: Mirza and Osindero 2014, arXiv 1411.1784.

    min_G max_D E_x[log D(x | y)] + E_z[log(1 - D(G(z | y) | y))]                          (eq. 2)

Both players are given the label y: the generator its one-hot vector beside the noise, the
discriminator beside the image. Generated images take the labels of the real ones in the batch.

What differs from the paper in ``model=cgan``: Adam; batch norm instead of dropout in the generator;
dropout of .3 in the discriminator, where the paper has .5; a moving average of the generator; the
non-saturating generator loss (the paper does not say which). ``experiment=paper/cgan`` brings its
SGD schedule and dropout of .5 in both players.
"""

import functools
from typing import Any, ClassVar

from torch import nn

from gan_zoo.models.noise_to_image import ImageGAN, Noise
from gan_zoo.networks.mlp import ConditionalMaxoutDiscriminator, ConditionalMLPGenerator
from gan_zoo.ranges import Count, checked

unit_uniform = functools.partial(nn.init.uniform_, a=0.0, b=1.0)


class CGAN(ImageGAN):
    """ImageGAN, conditioned on class labels; the noise is uniform on [0, 1], as the paper's.

    model = CGAN(num_classes=10)
    pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
    threes = model.sample(8, labels=torch.full((8,), 3))
    """

    graphable = True
    paper_networks = (ConditionalMLPGenerator, ConditionalMaxoutDiscriminator)
    published: ClassVar = {("mnist", "parzen"): "132 ± 1.8"}

    @checked
    def __init__(
        self, *args: Any, num_classes: Count = 10, noise: Noise = unit_uniform, **options: Any
    ) -> None:
        super().__init__(*args, num_classes=num_classes, noise=noise, **options)
