"""Lightning data modules. They alone normalise: images leave them as float32 in [-1, 1]."""

from gan_zoo.data.base import InMemoryDataModule
from gan_zoo.data.mnist import ImageBatch, MNISTDataModule, available_dataset
from gan_zoo.data.pictures import UnpairedFolderDataModule
from gan_zoo.data.two_domains import (
    GaussianMixtureDataModule,
    ImagePair,
    MappedDigitsDataModule,
    MNISTUSPSDataModule,
    PointPair,
    RotatedDigitsDataModule,
)

__all__ = [
    "GaussianMixtureDataModule",
    "ImageBatch",
    "ImagePair",
    "InMemoryDataModule",
    "MNISTDataModule",
    "MNISTUSPSDataModule",
    "MappedDigitsDataModule",
    "PointPair",
    "RotatedDigitsDataModule",
    "UnpairedFolderDataModule",
    "available_dataset",
]
