"""One paper a file, each a LightningModule on the loop of ``gan_zoo.training``.

Constructors hand on ``args`` and ``options`` to the class that they inherit from.
"""

from gan_zoo.models.began import BEGAN
from gan_zoo.models.cgan import CGAN
from gan_zoo.models.cogan import CoGAN
from gan_zoo.models.cyclegan import CycleGAN
from gan_zoo.models.dcgan import DCGAN
from gan_zoo.models.discogan import DiscoGAN
from gan_zoo.models.gan import GAN
from gan_zoo.models.hdcgan import HDCGAN
from gan_zoo.models.infogan import InfoGAN
from gan_zoo.models.r3gan import R3GAN
from gan_zoo.models.stackgan import StackGAN
from gan_zoo.models.stackgan_pp import StackGANPP
from gan_zoo.models.wgan import WGAN
from gan_zoo.models.wgan_gp import WGANGP

__all__ = [
    "BEGAN",
    "CGAN",
    "DCGAN",
    "GAN",
    "HDCGAN",
    "R3GAN",
    "WGAN",
    "WGANGP",
    "CoGAN",
    "CycleGAN",
    "DiscoGAN",
    "InfoGAN",
    "StackGAN",
    "StackGANPP",
]
