"""Generative Adversarial Nets: Goodfellow et al. 2014, arXiv 1406.2661.

    min_G max_D V(D, G) = E_x[log D(x)] + E_z[log(1 - D(G(z)))]                            (eq. 1)

D ascends V; G descends V (``loss=minimax``) or, as section 3 does in practice and the default here
does, ascends E_z[log D(G(z))] (``loss=non_saturating``).

What differs from the paper in ``model=gan``: simple fully connected networks, noise of 256 uniform
values, Adam with rates that fall linearly to 0, a moving average of the generator, and
the penalty R1 (Mescheder et al. 2018, 1801.04406, eq. 9) in every fourth iteration. Without the
penalty D learns its training images by heart, and longer training makes G's distance no smaller.
``experiment=paper/gan`` brings the paper's own networks, initialisation, noise and SGD schedule.
The authors' code halves D's loss, and updates both players at once from the same weights; here, as
in the paper's Algorithm 1, V is not halved and the players alternate. (The recipe halves D's rate,
which with SGD is the same as halving its loss.)
"""

import functools
from typing import ClassVar

from gan_zoo.models.noise_to_image import ImageGAN
from gan_zoo.networks.mlp import MaxoutDiscriminator, MLPGenerator


class GAN(ImageGAN):
    """The original game, which is ImageGAN's: nothing is added to it.

    model = GAN(loss="minimax")
    pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
    images = model.sample(64)
    """

    graphable = True
    paper_networks = (
        functools.partial(
            MLPGenerator,
            hidden=(1200, 1200),
            negative_slope=0.0,
            norm=False,
            unit_range=True,
            weight_range=0.05,
        ),
        functools.partial(MaxoutDiscriminator, unit_range=True, weight_range=0.005),
    )
    published: ClassVar = {("mnist", "parzen"): "225 ± 2"}
