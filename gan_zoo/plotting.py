"""Images for people to look at. Here alone [-1, 1] is mapped back to pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def to_uint8(images: Tensor) -> Tensor:
    """Images (..., H, W) in [-1, 1] -> bytes of the same shape on the CPU; values are clipped."""
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] -> one RGB picture (3, H', W') uint8, row by row."""
    return make_grid(to_uint8(images), nrow=columns, padding=2, pad_value=64)


def interleaved(sets: Tensor, columns: int) -> Tensor:
    """Images that belong together, one below the other in a grid.

    Args:
        sets: (N, K, C, H, W); each of the N has K images.
        columns: of the grid; rows of it hold the first of each, then the second, and so on.

    Returns:
        (N K, C, H, W) in the grid's order; a last, shorter block of N is filled up with background.
    """
    missing = -len(sets) % columns
    filler = sets.new_full((missing, *sets.shape[1:]), -1)
    blocks = torch.cat((sets, filler)).unflatten(0, (-1, columns))
    return blocks.transpose(1, 2).flatten(0, 2)


def scatter_plots(panels: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Points in the plane as a picture in [-1, 1], (1, 3, H, W), a panel beside the other.

    Args:
        panels: title -> points to show in grey behind, (N, 2); points (M, 2); their groups (M,),
            which colour them.
    """
    figure = Figure(figsize=(4 * len(panels), 4), layout="constrained", dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, (behind, points, group)) in zip(axes, panels.items(), strict=True):
        axis.scatter(*behind.cpu().T, s=4, color="0.8")
        axis.scatter(*points.detach().cpu().T, s=4, c=group.cpu(), cmap="tab10")
        axis.set_title(title)
        reach = 1.4 * float(behind.abs().max())
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    canvas.draw()
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3])
    return pixels.permute(2, 0, 1)[None].float().div(127.5).sub(1)


def save_png(picture: Tensor, path: str | Path) -> None:
    """Writes a picture (3, H, W) uint8 as PNG."""
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)


def display_images(
    images: Tensor, columns: int | None = None, titles: list[str] | None = None
) -> Figure:
    """Images side by side, as the survey displays them; a notebook shows the returned figure.

    Args:
        images: (N, C, H, W) in [-1, 1], grey or RGB.
        columns: images to a row; by default all N in one.
        titles: N captions.

    Returns:
        A matplotlib figure, an inch and a half an image; ``figure.savefig(path)`` keeps it.

    Raises:
        ValueError: for no images, or another number of titles.
    """
    if not len(images) or (titles is not None and len(titles) != len(images)):
        raise ValueError(
            f"display_images got {len(images)} images and "
            f"{'no' if titles is None else len(titles)} titles."
        )
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    pixels = to_uint8(images).permute(0, 2, 3, 1).squeeze(3)
    for index, axis in enumerate(axes):
        axis.axis("off")
        if index < len(images):
            axis.imshow(pixels[index], cmap="gray", vmin=0, vmax=255)
            if titles is not None:
                axis.set_title(titles[index])
    return figure
