"""Batches of two domains, and datasets that hold the two side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_zoo.data.base import InMemoryDataset


class ImagePair(NamedTuple):
    """A batch of images of two domains; whether they correspond depends on the dataset.

    Attributes:
        a, b: (B, C, H, W) float32 in [-1, 1].
        label_a, label_b: (B,) int64 classes; -1 where they are not known, as of b in training. Of
            rotated digits the float32 angles in degrees.
    """

    a: Tensor
    b: Tensor
    label_a: Tensor
    label_b: Tensor


class PointPair(NamedTuple):
    """A batch of points of two domains.

    Attributes:
        a, b: (B, 2) float32.
        label_a, label_b: (B,) int64 modes that the points come from.
    """

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

    def chosen(self, rows: Tensor | slice) -> Domain:
        """The examples of these rows."""
        return Domain(*(field[rows] for field in self))

    def cut(self, size: int) -> tuple[Domain, Domain]:
        """All but the last ``size`` examples, and these."""
        end = len(self.data) - size
        return self.chosen(slice(end)), self.chosen(slice(end, None))


class InMemoryPairs(InMemoryDataset):
    """Two domains side by side, as long as the longer one; the shorter one is repeated.

    Args:
        domains: a and b.
        batch_type: ImagePair or PointPair.
        prepare: makes a batch's examples of a domain's data; None to take them as they are.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        batch_type: type,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.a, self.b = domains
        self.batch_type = batch_type
        self.prepare = prepare

    def __len__(self) -> int:
        return max(len(self.a.data), len(self.b.data))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        chosen = torch.as_tensor(indices)
        rows = [chosen % len(domain.data) for domain in (self.a, self.b)]
        data = [d.data.index_select(0, r) for d, r in zip((self.a, self.b), rows, strict=True)]
        if self.prepare is not None:
            data = [self.prepare(examples) for examples in data]
        labels = self.a.label.index_select(0, rows[0]), self.b.label.index_select(0, rows[1])
        return self.batch_type(*data, *labels)

    def stored(self) -> Iterable[Tensor]:
        return self.a.data, self.b.data
