"""One paper a file, each a LightningModule on the loop of ``gan_zoo.models.base``."""

from gan_zoo.models.cgan import CGAN
from gan_zoo.models.dcgan import DCGAN
from gan_zoo.models.gan import GAN

__all__ = ["CGAN", "DCGAN", "GAN"]
