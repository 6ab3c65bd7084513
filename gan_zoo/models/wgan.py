"""Wasserstein GAN: Arjovsky, Chintala and Bottou 2017, arXiv 1701.07875.

    min_G max_{||f||_L <= 1} E_x[f(x)] - E_z[f(G(z))]                                      (eq. 3)

The critic f trains n_critic times to one step of the generator, and after each of its steps every
weight is clipped to [-c, c], which keeps it K-Lipschitz for some K (Algorithm 1: RMSProp of rate
5e-5, c = .01, n_critic = 5, batches of 64). Its negative loss then estimates K times the
Wasserstein-1 distance, and falls as the images get better.

What the authors' code adds and is an option here: ``n_critic_warmup``. It clips before each step of
the critic instead of after; the sequences only differ in the very first step and the last. Its
fully connected generator ends without the tanh that keeps images in [-1, 1] here.

What differs from the paper in ``model=wgan``: the networks are DCGAN's for MNIST, with a fully
connected layer that sees the whole image; the critic steps once and not five times to a step of the
generator; the rates are 2e-4 and, of the generator, 1e-3, and fall linearly to 0. Samples are drawn
from a moving average of the generator. ``experiment=paper/wgan`` has the paper's networks for 64
pixels and its authors' warm-up.
"""

import functools
from typing import Any

import torch

from gan_zoo.models.wasserstein import WassersteinGAN
from gan_zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_zoo.ranges import Positive, UnfitArgument, checked
from gan_zoo.training.module import OptimizerFactory, Phase

rmsprop = functools.partial(torch.optim.RMSprop, lr=5e-5)


class WGAN(WassersteinGAN):
    """Keeps the critic Lipschitz by clipping its weights.

        model = WGAN(clip_value=0.01)
        pl.Trainer(max_steps=5000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(64)

    The networks are DCGAN's by default, as in most of the paper's experiments.

    Args:
        optimizer_g, optimizer_d: by default the paper's RMSProp.
        clip_value: c; after each step of the critic its weights are clipped to [-c, c].
        penalty: None.
    """

    graphable = True
    paper_networks = (DCGANGenerator, DCGANDiscriminator)

    @checked
    def __init__(
        self,
        *args: Any,
        optimizer_g: OptimizerFactory = rmsprop,
        optimizer_d: OptimizerFactory = rmsprop,
        clip_value: Positive = 0.01,
        penalty: str | None = None,
        **options: Any,
    ) -> None:
        if penalty is not None:
            raise UnfitArgument(
                "penalty",
                f"is {penalty}; WGAN clips the critic's weights instead of penalising its "
                "gradients. WGANGP has the penalty (model=wgan_gp).",
            )
        super().__init__(*args, optimizer_g=optimizer_g, optimizer_d=optimizer_d, **options)
        self.clip_value = clip_value

    def after_phase(self, phase: Phase) -> None:
        super().after_phase(phase)
        if phase.player == "d":
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-self.clip_value, self.clip_value)
