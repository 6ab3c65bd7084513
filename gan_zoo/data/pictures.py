"""A user's own pictures, from folders of image files of the usual types."""

import contextlib
import functools
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from gan_zoo.data.base import InMemoryDataModule, InMemoryImages, Part, normalised
from gan_zoo.data.pairs import Domain, ImagePair, InMemoryPairs
from gan_zoo.ranges import Count, Range, UnfitArgument, checked, refuse_unfit

log = logging.getLogger(__name__)

WHEN_BROKEN = "dataset.when_broken"
WhenBroken = Literal["stop", "skip"]
Side = Annotated[int, Range(4, 4096)]

# Others can start programs (EPS), or are no pictures by themselves. TGA is known by no first bytes.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA")
# 8192 x 8192, which take up to 1 GB while they are converted. Larger ones are not decoded.
MOST_PIXELS = 2**26
# Larger ones are decoded one at a time, not one in each thread.
_LARGE = 2**24
_decoding_large = threading.Lock()
# Pictures that threads decode before they are asked for.
_AHEAD = 64
# Pillow advises three times the size for a result that is as good as from the whole photo.
_DRAFT = 3


def load_picture(path: Path, size: int, channels: int) -> Tensor:
    """A picture's middle square, scaled to the size: (C, size, size) uint8.

    Converted to grey or RGB by ``channels``; transparency becomes white, of 16-bit grey the upper 8
    bits are kept, and the EXIF orientation is applied. Photos (JPEG) of several times the size are
    decoded at a fraction of theirs.

    ValueError for what is no picture, is damaged, has more than ``MOST_PIXELS``, or holds integers
    or floats of 32 bits: which of these are black and white no file says.
    """
    try:
        with Image.open(path, formats=_known_formats()) as picture:
            return _middle_square(picture, size, channels)
    except (PermissionError, FileNotFoundError):
        raise
    # Pillow's plugins raise whatever their parsing runs into.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(_known_formats())}"
        raise ValueError(f"'{path}' is not a picture that can be read: {reason}.") from error


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Of ``_FORMATS`` those that this Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of files that can be pictures."""
    known = set(_known_formats())
    return frozenset(s for s, kind in Image.registered_extensions().items() if kind in known)


def _middle_square(picture: Image.Image, size: int, channels: int) -> Tensor:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width:,} x {height:,} pixels are more than {MOST_PIXELS:,}")
    # Pillow's grey of 16 bits from PGM is of mode I too.
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PPM"):
        raise ValueError("it has numbers of 32 bits; save it with 8 or 16 bits")
    # All of a progressive photo is held in memory at any scale.
    if not picture.info.get("progressive"):
        picture.draft(None, (_DRAFT * size, _DRAFT * size))
    with _decoding_large if math.prod(picture.size) > _LARGE else contextlib.nullcontext():
        picture.getexif()
        # Else Pillow writes the cameras' other data anew, and fails at what it would not write.
        for data in ("exif", "Raw profile type exif"):
            picture.info.pop(data, None)
        ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode.startswith("I"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        picture = picture.convert("L" if channels == 1 else "RGB")
        return pil_to_tensor(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC))


def load_pictures(
    paths: Sequence[Path],
    size: int,
    channels: int,
    when_broken: WhenBroken = "stop",
    option: str = "when_broken",
) -> tuple[list[Path], Tensor]:
    """The pictures that could be read, and their pixels (N, C, size, size) uint8, in order.

    Args:
        paths, size, channels: as load_picture's.
        when_broken: what to do about a file that is no picture: "stop", with ValueError, or "skip",
            with a warning.
        option: the user's name of ``when_broken``.
    """
    refuse_unfit(option, when_broken, WhenBroken)
    read, pictures = [], []
    for path, result in zip(paths, decoded(paths, size, channels), strict=True):
        if isinstance(result, ValueError):
            refuse_broken(str(result), when_broken, option)
            continue
        pictures.append(result)
        read.append(path)
    if not pictures:
        advice = "is a picture that can be read: add some, such as PNG or JPEG."
        raise ValueError(f"No file in '{paths[0].parent}' {advice}")
    return read, torch.stack(pictures)


def decoded(paths: Iterable[Path], size: int, channels: int) -> Iterator[Tensor | ValueError]:
    """Each picture's pixels, or what is wrong with its file, in order; see load_picture.

    As many threads as there are processors decode some pictures ahead.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: deque[Future[Tensor | ValueError]] = deque()
        for path in paths:
            ahead.append(pool.submit(_tried, path, size, channels))
            if len(ahead) == _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _tried(path: Path, size: int, channels: int) -> Tensor | ValueError:
    try:
        return load_picture(path, size, channels)
    except ValueError as error:
        return error


def refuse_broken(problem: str, when_broken: str, option: str) -> None:
    """Raises ValueError under "stop", warns under "skip"; ``option`` is that choice's name."""
    if when_broken == "stop":
        raise ValueError(f"{problem} Remove it, or leave out such files by {option}=skip.")
    log.warning("Left out: %s", problem)


def cropped_and_mirrored(pictures: Tensor, side: int, mirror: bool) -> Tensor:
    """Pictures (B, C, H, H) uint8 -> (B, C, side, side) in [-1, 1], cropped at random places.

    With ``mirror`` each is mirrored with probability 1/2.
    """
    if spare := pictures.shape[-1] - side:
        y, x = torch.randint(spare + 1, (2, len(pictures), 1)) + torch.arange(side)
        which = torch.arange(len(pictures))[:, None, None]
        # Channels come last where an index is on either side of theirs.
        pictures = pictures[which, :, y[:, :, None], x[:, None, :]].movedim(3, 1)
    if mirror:
        mirrored = torch.rand(len(pictures), 1, 1, 1) < 0.5
        pictures = torch.where(mirrored, pictures.flip(3), pictures)
    return normalised(pictures)


def files_in(folder: Path, option: str = "dataset.root") -> list[Path]:
    """A folder's files in alphabetical order, without hidden ones.

    ValueError, which names the option that gives the folder, if that is missing or empty.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder '{folder}': {option} has to name one with pictures.")
    files = visible(folder.iterdir())
    if not files:
        advice = f"put some there, or give another {option}."
        raise ValueError(f"The folder '{folder}' holds no pictures: {advice}")
    return files


def visible(paths: Iterable[Path]) -> list[Path]:
    """The files among the paths, without hidden ones, in alphabetical order."""
    return sorted(p for p in paths if p.is_file() and not p.name.startswith("."))


class PicturesDataModule(InMemoryDataModule):
    """What the data modules of a user's own pictures share: reading and augmentation.

    Training pictures are scaled to ``load_size``, cropped to ``image_size`` at a random place and
    mirrored at random; all others are scaled to ``image_size``.

    Args:
        root: the folder that holds the pictures' folders.
        image_size: side in pixels of what networks see.
        load_size: side before the crop, not below image_size; None for ``load_ratio`` of that.
        channels: 1 makes all pictures grey, 3 makes them colour.
        flip: mirror training pictures with probability 1/2.
        when_broken: what to do about a file that is no picture: "stop", or "skip" with a warning.
    """

    load_ratio: ClassVar[float]

    @checked
    def __init__(
        self,
        *,
        root: str | Path,
        image_size: Side,
        load_size: Annotated[int, Range(4, 8192)] | None = None,
        channels: Literal[1, 3] = 3,
        flip: bool = True,
        when_broken: WhenBroken = "stop",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.load_size = round(image_size * self.load_ratio) if load_size is None else load_size
        refuse_unfit("load_size", self.load_size, Annotated[int, Range(image_size, 8192)])
        self.root = Path(root)
        self.image_size = image_size
        self.channels = channels
        self.flip = flip
        self.when_broken = when_broken

    def pictures(self, files: Sequence[Path], training: bool) -> tuple[list[Path], Tensor]:
        """The files that could be read, and their pixels."""
        size = self.load_size if training else self.image_size
        return load_pictures(files, size, self.channels, self.when_broken, WHEN_BROKEN)

    def prepare(self, training: bool) -> Callable[[Tensor], Tensor]:
        """The function that makes a batch's images of such pixels."""
        if not training:
            return normalised
        return functools.partial(cropped_and_mirrored, side=self.image_size, mirror=self.flip)


class UnpairedFolderDataModule(PicturesDataModule):
    """Pictures of two domains in folders ``trainA`` and ``trainB``, held in memory.

    Where there are ``testA`` and ``testB`` too, sample grids and evaluation use them. Validation
    pictures are the last ones of each training folder, in alphabetical order; there are none where
    val_size is None and a folder has fewer than twelve.

        data = UnpairedFolderDataModule("horse2zebra", image_size=128)
        data.setup()
        batch = data.examples()    # an ImagePair

    Arguments are PicturesDataModule's; ``load_size`` is 286 / 256 of image_size by default, as in
    CycleGAN's authors' code.
    """

    batch_type = ImagePair
    domains = ("a", "b")
    load_ratio = 286 / 256

    @checked
    def __init__(
        self,
        root: str | Path,
        batch_size: Count = 1,
        image_size: Side = 128,
        name: str = "unpaired_folder",
        **options: Any,
    ) -> None:
        options |= {"root": root, "batch_size": batch_size, "image_size": image_size, "name": name}
        super().__init__(**options)
        for part in ("trainA", "trainB"):
            if not (self.root / part).is_dir():
                wanted = "it has to hold trainA and trainB, and may hold testA and testB."
                raise UnfitArgument("root", f"is '{root}', which has no folder {part}; {wanted}")

    def load(self) -> None:
        files = [files_in(self.root / folder) for folder in ("trainA", "trainB")]
        self.validation_size(max(map(len, files)))
        sizes = [self.validation_size(len(f), least=1) for f in files]
        if all(sizes):
            self.val = self._pairs([f[-n:] for f, n in zip(files, sizes, strict=True)])
            files = [f[:-n] for f, n in zip(files, sizes, strict=True)]
        self.train = self._pairs(files, training=True)
        tests = [self.root / folder for folder in ("testA", "testB")]
        if all(folder.is_dir() for folder in tests):
            self.test = self._pairs([files_in(folder) for folder in tests])

    def labelled(self, domain: str, part: Part) -> InMemoryImages:
        if part == "test" and self.train and not self.test:
            raise ValueError(
                f"{self.name} has no test pictures to measure generated ones against: put some in "
                f"testA and testB in '{self.root}'."
            )
        pictures: Domain = getattr(self.part(part), domain)
        return InMemoryImages(pictures.data, pictures.label, self.image_size)

    def _pairs(self, files: Sequence[Sequence[Path]], training: bool = False) -> InMemoryPairs:
        pixels = [self.pictures(of_domain, training)[1] for of_domain in files]
        domains = [Domain(x, torch.full((len(x),), -1), torch.arange(len(x))) for x in pixels]
        return InMemoryPairs(domains, ImagePair, self.prepare(training))
