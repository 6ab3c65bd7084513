"""Deep Convolutional GAN: Radford, Metz and Chintala 2015, arXiv 1511.06434.

The objective is the GAN paper's with the non-saturating generator loss; the contribution is the
architecture (gan_zoo.networks.dcgan) and a recipe that trains: Adam of rate 2e-4 and beta1 .5,
batches of 128, weights from N(0, .02), images in [-1, 1], noise of 100 uniform values in [-1, 1].

What differs from the paper by default: images of 28 pixels, so two strided layers instead of four,
and half its 128 base channels or fewer. ``experiment=dcgan_conditional`` brings the conditional
networks with which the paper's appendix draws labelled MNIST digits.
"""

from __future__ import annotations

from typing import ClassVar

from gan_zoo.models.base import ImageGAN


class DCGAN(ImageGAN):
    """ImageGAN as it is; the paper's part is in the networks and in conf/model/dcgan.yaml.

    With ``num_classes`` and networks that take labels it is conditional.

    Its figures on Stacked MNIST are VEEGAN's (1705.07761), which first reported them. The paper's
    own figure, 2.98 % error of 1-nearest-neighbour classification with 50,000 images, could not be
    confirmed from its text, and is of the conditional networks.
    """

    published: ClassVar = {
        ("mnist", "one_nn"): ".0298 of 50,000, unconfirmed",
        ("mnist_stacked", "modes"): "99",
        ("mnist_stacked", "modes_kl"): "3.40",
    }
