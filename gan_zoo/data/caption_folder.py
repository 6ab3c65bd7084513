"""A user's own pictures with captions, laid out as CUB and Oxford flowers are."""

import dataclasses
import functools
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gan_zoo.data.base import Part, normalised
from gan_zoo.data.captions import CaptionDataModule, Captions, InMemoryCaptions, WithoutCaptions
from gan_zoo.data.pictures import WHEN_BROKEN, PicturesDataModule, Side, refuse_broken, visible
from gan_zoo.ranges import Count, Decay, UnfitArgument, checked

log = logging.getLogger(__name__)

# Of a caption, in characters. Encoders read a batch in the time that its longest caption takes.
_LONGEST = 2000


class CaptionedPicture(NamedTuple):
    """A picture, its captions, and the name: its text file's path in the folder, less suffix."""

    name: str
    picture: Path
    captions: list[str]

    @property
    def kind(self) -> str:
        """Its class: the folder of its text file, or its own name where there is no folder."""
        return self.name.rpartition("/")[0] or self.name


class CaptionFolderDataModule(CaptionDataModule, PicturesDataModule):
    """Pictures in one folder, and for each a text file of the same name in another.

    Each line of the text file, in UTF-8, is a caption of at most 2,000 characters. Captions belong
    to the picture of the same path below the folders or, if there is none, to the only one of the
    same name. Captions' folders are the pictures' classes, as in CUB and Oxford flowers; without
    folders each picture is a class.

    Test pictures are of classes that are not trained on, or those that a list names. Validation
    pictures are drawn by the seed. All pictures are held in memory.

        data = CaptionFolderDataModule(text_encoder=TextEncoder(), root="birds")
        data.setup()    # trains the encoder
        batch = data.examples()

    Args:
        image_folder, caption_folder: names of the folders in ``root``.
        test_list: a text file that names the test set, a class or a picture a line; looked for in
            ``root`` too. None to draw classes by the seed.
        test_share: share of the classes to draw.
        options: ``load_size`` is 76 / 64 of image_size by default, as in StackGAN's authors' code,
            and ``when_broken`` also applies to text files without a picture, or without captions
            that can be read.
    """

    load_ratio = 76 / 64

    @checked
    def __init__(
        self,
        *,
        root: str | Path,
        image_folder: str = "images",
        caption_folder: str = "text",
        test_list: str | Path | None = None,
        test_share: Decay = 0.2,
        image_size: Side = 64,
        batch_size: Count = 64,
        name: str = "caption_folder",
        **options: Any,
    ) -> None:
        options |= {"root": root, "batch_size": batch_size, "image_size": image_size, "name": name}
        super().__init__(**options)
        self.folders = self.root / image_folder, self.root / caption_folder
        self.test_list = test_list
        self.test_share = test_share
        folders = {"image_folder": image_folder, "caption_folder": caption_folder}
        for argument, folder in folders.items():
            if not (self.root / folder).is_dir():
                problem = f"is '{folder}'; there is no folder '{folder}' in '{root}'."
                raise UnfitArgument(argument, problem)

    def load(self) -> None:
        pictures = described(*self.folders, self.when_broken)
        kinds = {kind: number for number, kind in enumerate(sorted({p.kind for p in pictures}))}
        order = torch.Generator().manual_seed(self.seed)
        test = self._test_names(pictures, list(kinds), order)
        # Sample grids show the first ones: shuffled, these are of different classes.
        pictures = [pictures[i] for i in torch.randperm(len(pictures), generator=order)]
        train = [p for p in pictures if p.name not in test]
        end = len(train) - self.validation_size(len(train))
        self.train = self._part(train[:end], kinds, training=True)
        if end < len(train):
            self.val = self._part(train[end:], kinds)
        self.has_classes = bool(test)
        if test:
            self.test = self._part([p for p in pictures if p.name in test], kinds)

    def evaluator_images(self, domain: str, train: bool) -> WithoutCaptions:
        """The test pictures train it too, as their classes are not in the training set."""
        return WithoutCaptions(*self.parts()) if train else self.labelled(domain, "test")

    def labelled(self, domain: str, part: Part) -> WithoutCaptions:
        # Without the augmentation of training pictures.
        prepare = functools.partial(normalised, size=self.image_size)
        (captioned,) = super().labelled(domain, part).parts
        return WithoutCaptions(dataclasses.replace(captioned, prepare=prepare))

    def _test_names(
        self, pictures: Sequence[CaptionedPicture], kinds: list[str], order: torch.Generator
    ) -> set[str]:
        if self.test_list is None:
            drawn = torch.randperm(len(kinds), generator=order)[: int(self.test_share * len(kinds))]
            chosen = {kinds[i] for i in drawn.tolist()}
            return {p.name for p in pictures if p.kind in chosen}
        file = Path(self.test_list)
        file = file if file.is_file() else self.root / file
        if not file.is_file():
            raise ValueError(f"dataset.test_list='{self.test_list}' is not a file.")
        by_line: defaultdict[str, set[str]] = defaultdict(set)
        for p in pictures:
            for said in (p.kind, p.name, p.name.rpartition("/")[2]):
                by_line[said].add(p.name)
        names: set[str] = set()
        for line in _lines(file):
            found = by_line.get(line) or by_line.get(line.rpartition(".")[0])
            if not found:
                problem = f"names '{line}', which is neither a class nor a picture here."
                raise ValueError(f"dataset.test_list='{file}' {problem}")
            names |= found
        if len(names) == len(pictures):
            raise ValueError(f"dataset.test_list='{file}' leaves no picture to train on.")
        return names

    def _part(
        self, pictures: Sequence[CaptionedPicture], kinds: dict[str, int], training: bool = False
    ) -> InMemoryCaptions:
        read, pixels = self.pictures([p.picture for p in pictures], training)
        kept = set(read)
        pictures = [p for p in pictures if p.picture in kept]
        labels = torch.tensor([kinds[p.kind] for p in pictures])
        texts = list(dict.fromkeys(caption for p in pictures for caption in p.captions))
        row = {text: number for number, text in enumerate(texts)}
        most = max(len(p.captions) for p in pictures)
        # Shorter lists of captions are repeated.
        of_image = [[row[p.captions[i % len(p.captions)]] for i in range(most)] for p in pictures]
        mentions = torch.ones(len(texts), 1, dtype=torch.bool)
        captions = Captions(texts, mentions, torch.tensor(of_image))
        source = ((pixels,), self.prepare(training), labels, labels[:, None], captions)
        return InMemoryCaptions(*source, self.captions_averaged, training)


def described(images: Path, captions: Path, when_broken: str) -> list[CaptionedPicture]:
    """The pictures that text files describe, in the order of the text files' names.

    Args:
        images, captions: the folders of the pictures and of the text files.
        when_broken: what to do about a text file that is empty, is not in UTF-8, has a line of
            more than 2,000 characters, or belongs to no picture or to several: "stop", with
            ValueError, or "skip", with a warning.
    """
    by_path: defaultdict[str, list[Path]] = defaultdict(list)
    by_name: defaultdict[str, list[Path]] = defaultdict(list)
    for file in visible(images.rglob("*")):
        by_path[file.relative_to(images).with_suffix("").as_posix()].append(file)
        by_name[file.stem].append(file)
    found, count = [], sum(map(len, by_path.values()))
    for file in visible(captions.rglob("*.txt")):
        name = file.relative_to(captions).with_suffix("").as_posix()
        candidates = by_path.get(name) or by_name.get(file.stem, [])
        problem, lines = "", []
        if not candidates:
            problem = f"'{file}' describes no picture in '{images}'."
        elif len(candidates) > 1:
            problem = f"'{file}' may describe '{candidates[0]}' or '{candidates[1]}'."
        else:
            try:
                lines = _lines(file)
            except ValueError as error:
                problem = str(error)
        if lines:
            found.append(CaptionedPicture(name, candidates[0], lines))
        else:
            problem = problem or f"'{file}' holds no caption."
            refuse_broken(problem, when_broken, WHEN_BROKEN)
    if not found:
        problem = f"has captions of a picture in '{images}'."
        raise ValueError(f"No text file (.txt) in '{captions}' {problem}")
    if left_out := count - len(found):
        log.warning("%d pictures in '%s' have no captions and are left out.", left_out, images)
    return found


def _lines(file: Path) -> list[str]:
    """The lines that are not empty; ValueError for no text or too long a line."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"'{file}' is not a text file in UTF-8.") from error
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST:
            problem = f"has {len(line):,} characters; {_LONGEST:,} are the most."
            raise ValueError(f"Line {number} of '{file}' {problem}")
    return [line for line in lines if line]
