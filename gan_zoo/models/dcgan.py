"""Deep Convolutional GAN: Radford, Metz and Chintala 2015, arXiv 1511.06434.

The objective is the GAN paper's with the non-saturating generator loss; the contribution is the
architecture (gan_zoo.networks.dcgan) and a recipe that trains: Adam of rate 2e-4 and beta1 .5,
batches of 128, weights from N(0, .02), images in [-1, 1], noise of 100 uniform values in [-1, 1].

What differs from the paper in ``model=dcgan``: the networks are those of its appendix for MNIST,
without their labels, at half the channels and a quarter of the fully connected units. With two
strided layers alone, whose features see 13 of 28 pixels, the discriminator judges strokes and not
digits. The generator's rate is 1e-3, five times the discriminator's; both are constant for half of
the run, then fall linearly to 0. Samples are drawn from a moving average of the generator.
``experiment=paper/dcgan`` has the appendix' conditional networks at their full width.
"""

from typing import ClassVar

from gan_zoo.models.noise_to_image import ImageGAN
from gan_zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator


class DCGAN(ImageGAN):
    """ImageGAN as it is; the paper's part is in the networks and in conf/model/dcgan.yaml.

        model = DCGAN(DCGANGenerator(image_size=64), DCGANDiscriminator(image_size=64))
        pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(64)

    With ``num_classes`` and networks that take labels it is conditional.

    Its figures on Stacked MNIST are VEEGAN's (1705.07761), which first reported them. The paper's
    own figure, 2.98 % error of 1-nearest-neighbour classification with 50,000 images, could not be
    confirmed from its text, and is of the conditional networks.
    """

    graphable = True
    paper_networks = (DCGANGenerator, DCGANDiscriminator)
    published: ClassVar = {
        ("mnist", "one_nn"): ".0298 of 50,000, unconfirmed",
        ("mnist_stacked", "modes"): "99",
        ("mnist_stacked", "modes_kl"): "3.40",
    }
