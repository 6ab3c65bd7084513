"""Lightning data modules. They alone normalise: images leave them as float32 in [-1, 1]."""

from gan_zoo.data.mnist import ImageBatch, MNISTDataModule, available_dataset

__all__ = ["ImageBatch", "MNISTDataModule", "available_dataset"]
