"""Batches of two domains, and datasets that hold the two side by side."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_zoo.data.base import InMemoryDataset


class ImagePair(NamedTuple):
    """Images (B, C, H, W) float32 in [-1, 1] of two domains; in some datasets they correspond.

    Labels are (B,) int64 classes; -1 where they are not known, as of b in training. Of rotated
    digits they are the float32 angles in degrees.
    """

    a: Tensor
    b: Tensor
    label_a: Tensor
    label_b: Tensor


class PointPair(NamedTuple):
    """Points of two domains, (B, 2) float32, and the (B,) int64 modes that they come from."""

    a: Tensor
    b: Tensor
    label_a: Tensor
    label_b: Tensor


class Domain(NamedTuple):
    """The examples of one domain.

    Attributes:
        data: (N, C, H, H) uint8 images or (N, 2) float32 points.
        label: (N,) as the labels of ImagePair or PointPair.
        origin: (N,) int64, the original that each example was made from.
    """

    data: Tensor
    label: Tensor
    origin: Tensor

    def chosen(self, rows: Tensor | slice) -> "Domain":
        """The examples of these rows."""
        return Domain(*(field[rows] for field in self))

    def cut(self, size: int) -> tuple["Domain", "Domain"]:
        """All but the last ``size`` examples, and these."""
        end = len(self.data) - size
        return self.chosen(slice(end)), self.chosen(slice(end, None))


@dataclass(eq=False, repr=False)
class InMemoryPairs(InMemoryDataset):
    """Two domains side by side, as long as the longer one; the shorter one is repeated.

    Args:
        domains: a and b.
        batch_type: ImagePair or PointPair.
        prepare: makes a batch's examples of a domain's data; None to take them as they are.
    """

    domains: InitVar[Sequence[Domain]]
    batch_type: type
    prepare: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self, domains: Sequence[Domain]) -> None:
        self.a, self.b = domains

    def __len__(self) -> int:
        return max(len(self.a.data), len(self.b.data))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        rows = torch.as_tensor(indices)
        chosen = [domain.chosen(rows % len(domain.data)) for domain in (self.a, self.b)]
        data = [self.prepare(domain.data) if self.prepare else domain.data for domain in chosen]
        return self.batch_type(*data, *(domain.label for domain in chosen))

    def stored(self) -> Iterable[Tensor]:
        return self.a.data, self.b.data
