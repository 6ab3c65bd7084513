"""WGAN with gradient penalty: Gulrajani et al. 2017, arXiv 1704.00028.

    L_D = E_z[f(G(z))] - E_x[f(x)] + lambda E[(||grad f(x^)||_2 - 1)^2]                    (eq. 3)
    L_G = -E_z[f(G(z))],    x^ = e x + (1 - e) G(z),  one e ~ U[0, 1] for each image

The penalty stands in for WGAN's clipping. It is taken on each image alone, so the critic has no
batch norm; layer norm does instead (section 4). Algorithm 1: lambda = 10, n_critic = 5, Adam of
rate 1e-4, beta1 0 and beta2 .9. The authors' MNIST code has beta1 .5 and batches of 50.

What differs from that code in ``model=wgan_gp``: DCGAN's networks for MNIST, of which the critic
has no norm and He's initialisation, and the generator batch norm; one step of the critic and not
five to a step of the generator; rates of 5e-4 that fall linearly to 0; batches of 64; a moving
average of the generator. ``experiment=paper/wgan_gp`` is that code.

The loss that is logged as ``loss_d`` includes the penalty; ``wasserstein_estimate`` does not.
``gradient_norm`` is the mean of ||grad f(x^)||_2, which should come to about 1.
"""

import functools
from typing import Any, Literal

import torch

from gan_zoo.models.wasserstein import WassersteinGAN
from gan_zoo.networks.wgan_gp import ConvCritic, ConvGenerator
from gan_zoo.ranges import Count, checked
from gan_zoo.training.module import OptimizerFactory

adam = functools.partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.9))


class WGANGP(WassersteinGAN):
    """Keeps the critic Lipschitz by a penalty on its gradient.

        model = WGANGP(lambda_gp=10)
        pl.Trainer(max_steps=5000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(64)

    The networks are those of the authors' MNIST code by default.

    Args:
        latent_dim: length of the noise vector.
        optimizer_g, optimizer_d: by default the paper's Adam.
        penalty: "wgan_gp" is two-sided, the paper's.
    """

    graphable = True
    paper_networks = (ConvGenerator, ConvCritic)

    @checked
    def __init__(
        self,
        *args: Any,
        latent_dim: Count = 128,
        optimizer_g: OptimizerFactory = adam,
        optimizer_d: OptimizerFactory = adam,
        penalty: Literal["wgan_gp", "wgan_gp_one_sided"] = "wgan_gp",
        **options: Any,
    ) -> None:
        super().__init__(
            *args,
            latent_dim=latent_dim,
            optimizer_g=optimizer_g,
            optimizer_d=optimizer_d,
            penalty=penalty,
            **options,
        )
        # A factor of three about 1: early in a sound run the norm is about 2.
        self.targets = {"gradient_norm": (1 / 3 if penalty == "wgan_gp" else 0.0, 3.0)}
