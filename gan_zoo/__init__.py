"""Every GAN of the classic survey, trained by one command."""

__version__ = "0.1.0"
