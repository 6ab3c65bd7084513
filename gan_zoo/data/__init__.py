"""Lightning data modules. Only they normalise: their images are float32 in [-1, 1]."""

from gan_zoo.data.base import ImageBatch, InMemoryDataModule
from gan_zoo.data.caption_folder import CaptionFolderDataModule
from gan_zoo.data.captions import CaptionBatch
from gan_zoo.data.digit_pairs import MappedDigitsDataModule, RotatedDigitsDataModule
from gan_zoo.data.gaussian_mixture import GaussianMixtureDataModule
from gan_zoo.data.image_folder import ImageFolderDataModule
from gan_zoo.data.mnist import MNISTDataModule, available_dataset
from gan_zoo.data.mnist_captions import MNISTCaptionsDataModule
from gan_zoo.data.mnist_usps import MNISTUSPSDataModule
from gan_zoo.data.pairs import ImagePair, PointPair
from gan_zoo.data.photos import PhotosDataModule
from gan_zoo.data.pictures import UnpairedFolderDataModule
from gan_zoo.data.stacked_mnist import StackedMNISTDataModule

__all__ = [
    "CaptionBatch",
    "CaptionFolderDataModule",
    "GaussianMixtureDataModule",
    "ImageBatch",
    "ImageFolderDataModule",
    "ImagePair",
    "InMemoryDataModule",
    "MNISTCaptionsDataModule",
    "MNISTDataModule",
    "MNISTUSPSDataModule",
    "MappedDigitsDataModule",
    "PhotosDataModule",
    "PointPair",
    "RotatedDigitsDataModule",
    "StackedMNISTDataModule",
    "UnpairedFolderDataModule",
    "available_dataset",
]
