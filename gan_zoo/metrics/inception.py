"""Inception's features, for pictures without classes; its weights are a file of the user's."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_zoo.plotting import to_uint8
from gan_zoo.ranges import UnfitArgument

# The width of its last pooling layer, which the Frechet inception distance is of.
FEATURES = 2048
_CHUNK = 50
_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


class Inception(nn.Module):
    """Images (N, C, H, W) in [-1, 1], on any device -> its last features (N, 2048), on the CPU.

    The network and its antialiased resizing to 299 pixels are those of torchmetrics and
    torch-fidelity, whose weights (TensorFlow's of 2015) the file has. Grey images are repeated.

    Args:
        weights: the file ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity.

    Attributes:
        hash: twelve hexadecimal digits of the file.

    Raises:
        ValueError: for a file that is missing or holds anything else.
        ImportError: without torch-fidelity.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        if not weights.is_file():
            raise UnfitArgument(
                "inception_weights",
                f"is '{weights}', and there is no such file; torch-fidelity's {_WEIGHTS} would do.",
            )
        try:
            # The library would run what a pickle says.
            torch.load(weights, map_location="cpu", weights_only=True)
            self.network = NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], str(weights))
        except ModuleNotFoundError as error:
            raise ImportError(
                "inception_fid needs torch-fidelity: pip install 'gan_zoo[inception]'."
            ) from error
        except Exception as error:
            raise UnfitArgument(
                "inception_weights",
                f"is '{weights}', which does not hold Inception's weights as torch-fidelity's "
                f"{_WEIGHTS} does.",
            ) from error
        self.requires_grad_(False)
        self.hash = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._features(part) for part in images.split(_CHUNK)])

    def _features(self, images: Tensor) -> Tensor:
        colour = to_uint8(images).expand(-1, 3, -1, -1)
        return self.network(colour.to(next(self.parameters()).device)).cpu()
