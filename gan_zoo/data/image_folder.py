"""A user's own pictures for the models of noise and labels, from any folder, of any number."""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from gan_zoo.console import progress
from gan_zoo.data.base import ImageBatch, LabelledDataset, Part, normalised
from gan_zoo.data.pictures import (
    WHEN_BROKEN,
    PicturesDataModule,
    Side,
    WhenBroken,
    cropped_and_mirrored,
    decoded,
    refuse_broken,
    suffixes,
    visible,
)
from gan_zoo.files import atomic_write, cache_dir, made_by_one
from gan_zoo.ranges import Count, Natural, Seed, UnfitArgument, checked

log = logging.getLogger(__name__)

# Part of a decoded file's name: raise it with any change to how pictures are decoded.
_DECODING = 1


class Listing(NamedTuple):
    """A folder's files, by part, and their classes.

    Attributes:
        train, test: the pictures' files; ``test`` is None where the folder has no such part.
        kinds: names of the classes in alphabetical order; empty where there are none.
        split: whether the parts are folders of their own.
    """

    train: list[Path]
    test: list[Path] | None
    kinds: list[str]
    split: bool


def listed(root: Path) -> Listing:
    """The pictures of a folder.

    Pictures are files anywhere below it, by the usual suffixes; hidden ones are not looked at. If
    it has a folder ``train``, those below that are trained on, and those below ``test`` are the
    test set. The folders of the first level, if there are two or more and all pictures are in one,
    are the classes.

    Raises:
        ValueError: without pictures, and for a class that only ``test`` has.
    """
    if not root.is_dir():
        raise UnfitArgument("root", f"is '{root}', and there is no such folder of pictures.")
    split = (root / "train").is_dir()
    train = _pictures(root / "train" if split else root)
    test = _pictures(root / "test") if split and (root / "test").is_dir() else None
    kinds = [_kinds(root / "train" if split else root, train)]
    if test:
        kinds.append(_kinds(root / "test", test))
        unknown = sorted(kinds[1] - kinds[0]) if all(kinds) else []
        if unknown:
            raise ValueError(f"'{root / 'test' / unknown[0]}' is of a class that train has not.")
    return Listing(train, test, sorted(kinds[0]) if all(kinds) else [], split)


def _class_count(root: str | Path, found: Listing, expected: int | None) -> int | None:
    count = len(found.kinds) or None
    if expected not in (None, count):
        has = f"has {count}." if count else "has no folders that are classes."
        raise UnfitArgument("num_classes", f"is {expected}, and '{root}' {has}")
    return count


def _pictures(folder: Path) -> list[Path]:
    known = suffixes()
    files = [f for f in visible(folder.rglob("*")) if not _hidden(f.relative_to(folder))]
    found = [file for file in files if file.suffix.lower() in known]
    if not found:
        raise UnfitArgument(
            "root", f"names '{folder}', which holds no pictures: put some there (PNG, JPEG, ...)."
        )
    if other := len(files) - len(found):
        log.info("%d files in '%s' have no picture's suffix and are left out.", other, folder)
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kinds(folder: Path, files: Sequence[Path]) -> set[str]:
    """The names of the first level's folders, if they are classes."""
    parts = [file.relative_to(folder).parts for file in files]
    kinds = {part[0] for part in parts}
    return kinds if all(len(part) > 1 for part in parts) and len(kinds) > 1 else set()


class Decoded(NamedTuple):
    """Pictures that were decoded once, in a file from which batches are read.

    Attributes:
        pixels: (N, C, S, S) uint8; the file's, of which memory holds what was read lately.
        names: the pictures' paths below the root, in the pixels' order.
        digest: sha256 of the pixels.
    """

    pixels: Tensor
    names: list[str]
    digest: str


def decode_once(
    root: Path,
    files: Sequence[Path],
    size: int,
    channels: int,
    when_broken: WhenBroken,
    folder: Path,
) -> Decoded:
    """The pictures' middle squares, from a file in ``folder`` that is written at the first call.

    It is written again where a file is new, gone, or of another size or date.

    Args:
        root: what the pictures' names are below.
        files, size, channels, when_broken: as load_pictures'.
        folder: where such files are kept.

    Raises:
        ValueError: for a file that is no picture, under "stop"; where none is one.
        OSError: where the file can't be written.
    """
    names = [file.relative_to(root).as_posix() for file in files]
    listing = hashlib.sha256(repr((_DECODING, size, channels)).encode())
    for name, file in zip(names, files, strict=True):
        state = file.stat()
        listing.update(repr((name, state.st_size, state.st_mtime_ns)).encode())
    place = folder / listing.hexdigest()[:16]
    about, data = place.with_suffix(".json"), place.with_suffix(".pixels")
    shape = channels, size, size
    with made_by_one(about):
        known = _read(about, data, shape, len(files))
        if known is None:
            log.info("Decoding %s pictures of '%s' once, into '%s'.", f"{len(files):,}", root, data)
            known = _decode(files, size, channels, when_broken, data)
            with atomic_write(about) as aside:
                aside.write_text(json.dumps(known))
        else:
            for row in known["broken"]:
                problem = f"'{files[row]}' is not a picture that can be read."
                refuse_broken(problem, when_broken, WHEN_BROKEN)
    left_out = set(known["broken"])
    names = [name for row, name in enumerate(names) if row not in left_out]
    count = len(names) * channels * size**2
    pixels = torch.from_file(str(data), size=count, dtype=torch.uint8)
    return Decoded(pixels.view(-1, *shape), names, known["digest"])


def _read(about: Path, data: Path, shape: Sequence[int], count: int) -> dict[str, Any] | None:
    """What is known of a file of pixels, if it is whole."""
    try:
        known = json.loads(about.read_text())
        rows = count - len(known["broken"])
        if data.stat().st_size == rows * math.prod(shape) and known["digest"]:
            return dict(known)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _decode(
    files: Sequence[Path], size: int, channels: int, when_broken: WhenBroken, data: Path
) -> dict[str, Any]:
    broken, digest = [], hashlib.sha256()
    with progress() as stage, atomic_write(data) as aside, aside.open("wb") as file:
        report = stage("decoding pictures")
        for row, result in enumerate(decoded(files, size, channels)):
            report((row + 1) / len(files))
            if isinstance(result, ValueError):
                refuse_broken(str(result), when_broken, WHEN_BROKEN)
                broken.append(row)
                continue
            content = result.numpy().tobytes()
            digest.update(content)
            file.write(content)
        if len(broken) == len(files):
            raise ValueError(
                f"None of the {len(files):,} files below '{files[0].parent}' is a picture that can "
                "be read: add some, such as PNG or JPEG."
            )
    return {"broken": broken, "digest": digest.hexdigest()}


@dataclass(eq=False, repr=False)
class PicturesOnDisk(LabelledDataset):
    """Some of the pictures of a Decoded, as ImageBatch.

    Args:
        decoded: all of them.
        rows: (n,) int64, which ones.
        labels: (n,) int64; -1 where not known.
        image_size: side in pixels of what batches hold.
        training: whether they are cropped at random to that size; else they are scaled to it.
        flip: whether they are mirrored at random too, in training.
    """

    decoded: Decoded
    rows: Tensor
    labels: Tensor
    image_size: int
    training: bool = False
    flip: bool = False

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        chosen = torch.as_tensor(indices)
        pixels = self.decoded.pixels.index_select(0, self.rows[chosen])
        image = (
            cropped_and_mirrored(pixels, self.image_size, self.flip)
            if self.training
            else normalised(pixels, self.image_size)
        )
        return ImageBatch(image, self.labels[chosen])

    def stored(self) -> Iterable[Tensor]:
        # Instead of all pixels, which would be read from the disk.
        digest = torch.frombuffer(bytearray.fromhex(self.decoded.digest), dtype=torch.uint8)
        return digest, self.rows, self.labels


class ImageFolderDataModule(PicturesDataModule):
    """Pictures of a folder, of any number, size and colour.

    They are decoded once, into a file of ``image_size`` squares in the cache folder
    (``GAN_ZOO_CACHE_DIR``), from which batches are read: memory holds no more of it than is free.

        data = ImageFolderDataModule(root="photos", image_size=64)
        data.setup()
        batch = data.examples()    # an ImageBatch

    Folders ``train`` and ``test`` in the root are the training and the test set. Otherwise the seed
    draws the test set. Folders of the first level are the classes, if there are two or more and all
    pictures are in one; they are needed by models with labels and by the evaluator's metrics.

    Args:
        root: the folder.
        num_classes: how many classes it has; None for as many as there are.
        test_size: number of pictures drawn for the test set; None for a tenth, 0 for none. Without
            effect where the root has a folder ``test``.
        seed: decides the test and the validation set.
        options: PicturesDataModule's; ``load_size`` is image_size by default, which crops nothing.
    """

    batch_type = ImageBatch
    load_ratio: ClassVar[float] = 1.0

    @checked
    def __init__(
        self,
        *,
        root: str | Path,
        batch_size: Count = 64,
        image_size: Side = 64,
        name: str = "image_folder",
        num_classes: Count | None = None,
        test_size: Natural | None = None,
        seed: Seed = 0,
        **options: Any,
    ) -> None:
        options |= {"root": root, "batch_size": batch_size, "image_size": image_size, "name": name}
        super().__init__(**options)
        self.num_classes = num_classes
        self.test_size = test_size
        self.seed = seed
        self._decoded: Decoded | None = None

    @classmethod
    def class_count(cls, root: str | Path, expected: int | None = None) -> int | None:
        """How many classes a folder has; None for none.

        UnfitArgument if another number is expected.
        """
        return _class_count(root, listed(Path(root)), expected)

    def prepare_data(self) -> None:
        """Decodes the pictures, unless the cache has them."""
        if self._decoded is None:
            self._listing = found = listed(self.root)
            self.num_classes = _class_count(self.root, found, self.num_classes)
            files = [*found.train, *(found.test or ())]
            self._decoded = decode_once(
                self.root, files, self.load_size, self.channels, self.when_broken,
                cache_dir() / "pictures",
            )  # fmt: skip

    def load(self) -> None:
        self.prepare_data()
        assert self._decoded is not None
        names = self._decoded.names
        own_test = self._listing.test is not None
        of_test = torch.tensor([own_test and name.startswith("test/") for name in names])
        level = int(self._listing.split)
        number = {kind: i for i, kind in enumerate(self._listing.kinds)}
        self._labels = torch.tensor([number.get(n.split("/")[level], -1) for n in names])
        train, test = (~of_test).nonzero()[:, 0], of_test.nonzero()[:, 0]
        random = torch.Generator().manual_seed(self.seed)
        train = train[torch.randperm(len(train), generator=random)]
        if not own_test:
            count = len(train) // 10 if self.test_size is None else self.test_size
            if count >= len(train):
                raise UnfitArgument(
                    "test_size", f"is {count:,}, and there are {len(train):,} pictures."
                )
            test, train = train[:count], train[count:]
        held_out = self.validation_size(len(train))
        self.val = self._part(train[:held_out])
        self.train = self._part(train[held_out:].sort().values, training=True)
        self.test = self._part(test) if len(test) else None
        self.has_classes = bool(number) and self.test is not None

    def labelled(self, domain: str, part: Part) -> LabelledDataset:
        pictures = super().labelled(domain, part)
        return replace(cast(PicturesOnDisk, pictures), training=False)

    def _part(self, rows: Tensor, training: bool = False) -> PicturesOnDisk:
        assert self._decoded is not None
        labels, size = self._labels[rows], self.image_size
        return PicturesOnDisk(self._decoded, rows, labels, size, training, training and self.flip)
