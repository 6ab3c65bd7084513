"""Images for people to look at; the only place where [-1, 1] is mapped back to bytes."""

import shutil
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from gan_zoo.files import atomic_write

# In pixels, for captions over images: height of a line, mean width of a letter, gaps, the height up
# to which small images are enlarged, and the least width of a sentence.
_LINE, _LETTER, _GAP, _CELL, _SENTENCE = 14, 5.6, 6, 64, 150
# Between grids side by side.
_BLOCK = 24

# Of a picture that is read; larger ones could fill the memory.
_MOST_PIXELS = 2**24


def to_uint8(images: Tensor) -> Tensor:
    """Images (..., H, W) in [-1, 1] -> bytes of the same shape on the CPU; values are clipped."""
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Images (..., H, W) with each pixel as a square of ``scale`` pixels."""
    return images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def image_grid(images: Tensor, columns: int, padding: int = 2) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] -> one RGB picture (3, H', W') uint8, row by row."""
    return make_grid(to_uint8(images), nrow=columns, padding=padding, pad_value=64)


def interleaved(sets: Tensor, columns: int) -> Tensor:
    """N sets of K images, (N, K, C, H, W), in the order of a grid that has a set in each column.

    A row has the first images of ``columns`` sets, the next row their second images, and so on.
    What is returned, (N K, C, H, W), is padded with background in the place of missing sets.
    """
    missing = -len(sets) % columns
    filler = sets.new_full((missing, *sets.shape[1:]), -1)
    blocks = torch.cat((sets, filler)).unflatten(0, (-1, columns))
    return blocks.transpose(1, 2).flatten(0, 2)


def side_by_side(sets: Tensor, gap: int = 2) -> Tensor:
    """Images that belong together as one wide image each: (N, K, C, H, W) -> (N, C, H, W')."""
    return F.pad(sets, [0, gap]).movedim(1, 3).flatten(3)[..., :-gap]


def captioned(
    images: Tensor, captions: Sequence[str], columns: int, common: bool = False
) -> Tensor:
    """Images (N, C, H, W) with the caption over each, as one picture in [-1, 1], (1, 3, H', W').

    Small images are enlarged by a whole factor. ``common``, for captions of equal length, writes
    what all share once, on top, with "..." for the rest, and over each image only the rest.
    """
    title, words = "", list(captions)
    if common:
        places = list(zip(*(caption.split() for caption in captions), strict=True))
        title = " ".join(place[0] if len(set(place)) == 1 else "..." for place in places)
        varied = [place for place in places if len(set(place)) > 1]
        words = [" ".join(place[n] for place in varied) for n in range(len(captions))]
    factor = max(1, _CELL // images.shape[-2])
    pixels = to_uint8(enlarged(images, factor)).numpy()
    height, width = pixels.shape[2:]
    cell = width if common else max(width, _SENTENCE)
    wrapped = [textwrap.wrap(text, max(1, int(cell / _LETTER))) for text in words]
    rows = [wrapped[start : start + columns] for start in range(0, len(wrapped), columns)]
    heads = [_LINE * max(map(len, row)) + _GAP for row in rows]
    top = _LINE + _GAP if title else 0
    size = (columns * (cell + _GAP) + _GAP, top + sum(heads) + len(rows) * (height + _GAP))
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_LINE - 3)
    pen.text((_GAP, 0), title, "black", font)
    for index, (image, lines) in enumerate(zip(pixels, wrapped, strict=True)):
        row, column = divmod(index, columns)
        x = _GAP + column * (cell + _GAP)
        y = top + sum(heads[: row + 1]) + row * (height + _GAP)
        for line, text in enumerate(reversed(lines), 1):
            pen.text((x, y - line * _LINE - _GAP // 2), text, "black", font)
        colour = np.broadcast_to(image, (3, height, width)).transpose(1, 2, 0)
        picture.paste(Image.fromarray(np.ascontiguousarray(colour)), (x, y))
    return _as_images(np.array(picture))


def titled(blocks: Mapping[str, Tensor], columns: int) -> Tensor:
    """Grids side by side, each under its title, on white: one picture in [-1, 1], (1, 3, H', W').

    Small images are enlarged by a whole factor.

    Args:
        blocks: title -> images (N, C, H, W), ``columns`` to a row.
    """
    grids = []
    for images in blocks.values():
        cells = enlarged(images, max(1, _CELL // images.shape[-2]))
        grids.append(image_grid(cells, columns).permute(1, 2, 0).numpy())
    height, width = grids[0].shape[:2]
    top = _LINE + _GAP
    picture = Image.new("RGB", (len(grids) * (width + _BLOCK) - _BLOCK, top + height), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_LINE - 3)
    for number, (title, grid) in enumerate(zip(blocks, grids, strict=True)):
        x = number * (width + _BLOCK)
        pen.text((x, 0), title, "black", font)
        picture.paste(Image.fromarray(grid), (x, top))
    return _as_images(np.array(picture))


def stacked(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures (1, 3, H, W) one below the other, on white."""
    width = max(picture.shape[-1] for picture in pictures)
    padded = [F.pad(picture, [0, width - picture.shape[-1]], value=1.0) for picture in pictures]
    return torch.cat(padded, 2)


def scatter_plots(panels: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Points in the plane as a picture in [-1, 1], (1, 3, H, W), panels side by side.

    By its title, a panel has points (N, 2) in grey in the background, points (M, 2), and the groups
    (M,) of these, shown by colour.
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
    return _as_images(np.array(canvas.buffer_rgba())[..., :3])


def _as_images(pixels: np.ndarray) -> Tensor:
    """A picture (H, W, 3) uint8 as a batch of one image, (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(127.5).sub(1)


def save_png(picture: Tensor, path: str | Path) -> None:
    """Writes a picture (3, H, W) uint8 as PNG; OSError where it can't be written."""
    with atomic_write(Path(path)) as aside:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(aside, "png")


def read_png(path: str | Path) -> Image.Image | None:
    """A PNG of unknown origin as an RGB picture; None if it is none, or far too large."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            too_large = opened.width * opened.height > _MOST_PIXELS
            return None if too_large else opened.convert("RGB")
    # Pillow's plugins raise whatever their parsing runs into.
    except Exception:
        return None


def widened(picture: Image.Image, width: int = 600) -> Image.Image:
    """Enlarged by a whole factor to that width at least."""
    scale = -(-width // picture.width)
    size = (scale * picture.width, scale * picture.height)
    return picture.resize(size, Image.Resampling.NEAREST)


def save_gif(frames: Sequence[Image.Image], path: str | Path, seconds: float = 8.0) -> None:
    """Writes pictures of one size as an animation that begins again at its end.

    Args:
        seconds: how long it takes; each picture stands for .05 to .5 s, the last for 1 s more.
    """
    each = round(1000 * min(max(seconds / len(frames), 0.05), 0.5))
    durations = [each] * (len(frames) - 1) + [each + 1000]
    with atomic_write(Path(path)) as aside:
        frames[0].save(
            aside, "gif", save_all=True, append_images=frames[1:], duration=durations, loop=0
        )


def ffmpeg(path: str | Path) -> str:
    """The program that writes films; ValueError, which names the film, where there is none."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"{path} needs ffmpeg, which is not installed here; a .gif would do without."
        )
    return program


def save_mp4(frames: Sequence[Image.Image], path: str | Path, seconds: float = 8.0) -> None:
    """Writes pictures of one size as an H.264 film by ffmpeg; ValueError where there is none."""
    program = ffmpeg(path)
    width, height = frames[0].size
    rate = max(len(frames) / seconds, 1)
    with atomic_write(Path(path)) as aside:
        command = [
            program, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{width}x{height}", "-r", f"{rate:g}", "-i", "-", "-an",
            # Most players want an even size and halved colours.
            "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-f", "mp4", str(aside),
        ]  # fmt: skip
        content = b"".join(frame.tobytes() for frame in frames)
        result = subprocess.run(command, input=content, capture_output=True)
        if result.returncode:
            reason = result.stderr.decode(errors="replace").strip()
            raise ValueError(f"ffmpeg could not write {path}: {reason}")


def display_images(
    images: Tensor, columns: int | None = None, titles: list[str] | None = None
) -> Figure:
    """Images side by side; a notebook displays the returned figure.

    It has 1.5 inches per image; ``figure.savefig(path)`` writes it. Images are (N, C, H, W) in
    [-1, 1], grey or RGB, ``columns`` to a row, by default all N in one; ValueError for none, or for
    another number of titles.
    """
    titles = [""] * len(images) if titles is None else titles
    if not len(images) or len(titles) != len(images):
        raise ValueError(f"display_images got {len(images)} images and {len(titles)} titles.")
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.5 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    pixels = to_uint8(images).permute(0, 2, 3, 1).squeeze(3).numpy()
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, pixels, titles, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title)
    return figure
