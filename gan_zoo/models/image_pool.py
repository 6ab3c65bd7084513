"""The pool of generated images that CycleGAN's discriminators train on."""

import torch
from torch import Tensor

from gan_zoo.ranges import Natural, checked


class ImagePool:
    """Generated images, old and new, for a discriminator to train on (Shrivastava et al. 2017).

    Until it is full it keeps each image and returns it. From then on each image is, by even odds,
    returned itself or put in the place of one drawn from the pool, which is returned.

    Args:
        size: how many to keep; 0 keeps none and returns what comes.
    """

    @checked
    def __init__(self, size: Natural) -> None:
        self.size = size
        self.images: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, ...) detached images -> (B, ...) to train on."""
        if not self.size:
            return images
        # At most as many as the pool has, so that no place is drawn twice and all swap at once.
        return torch.cat([self._swapped(chunk) for chunk in images.split(self.size)])

    def _swapped(self, images: Tensor) -> Tensor:
        # A checkpoint's are on the CPU.
        self.images = images[:0] if self.images is None else self.images.to(images.device)
        room = self.size - len(self.images)
        kept, rest = images[:room], images[room:]
        if len(kept):
            self.images = torch.cat((self.images, kept))
        if not len(rest):
            return images
        # Masked instead of selected: the device need not be waited for.
        old = torch.rand(len(rest), device=images.device) < 0.5
        old = old.view(-1, *[1] * (images.dim() - 1))
        # A randperm of so few would be drawn on the CPU, for which a GPU is waited for.
        places = torch.rand(self.size, device=images.device).argsort()[: len(rest)]
        drawn = self.images[places]
        shown = torch.where(old, drawn, rest)
        self.images[places] = torch.where(old, rest, drawn)
        return torch.cat((kept, shown))
