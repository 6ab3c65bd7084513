"""Images with captions: batches, the text encoder's training on them, and its cache."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gan_zoo.data.base import ImageBatch, InMemoryDataModule, InMemoryDataset, LabelledDataset, Part
from gan_zoo.files import cache_dir, made_by_one
from gan_zoo.losses import joint_embedding
from gan_zoo.networks.text import ImageEncoder, TextEncoder, text_encoder_from
from gan_zoo.ranges import Count, Range, Seed, checked
from gan_zoo.training.checkpoints import CheckpointFiles

log = logging.getLogger(__name__)

# Part of a cached encoder's name: raise it with any change to how encoders are trained or kept.
_TRAINING = 2
_ENCODER_BATCH = 100


class CaptionBatch(NamedTuple):
    """Images (B, C, H, W) float32 in [-1, 1], classes (B,) int64, captions' embeddings (B, E).

    ``caption`` is one of the image, ``wrong_caption`` of an image that differs in what captions
    mention, mostly in its class; both float32.
    """

    image: Tensor
    label: Tensor
    caption: Tensor
    wrong_caption: Tensor


class Captions(NamedTuple):
    """The captions of N images, each different text stored once.

    Attributes:
        texts: M different captions.
        mentions: (M, A) bool, which of the images' attributes a caption mentions.
        of_image: (N, K) int64, the captions of each image as rows of ``texts``.
    """

    texts: list[str]
    mentions: Tensor
    of_image: Tensor


class Near(NamedTuple):
    """Images whose captions are wrong for each other in little.

    Attributes:
        share: of the wrong captions in training, how many are of such an image.
        groups: (N,) int64; an image's wrong caption is of one in the same group
        kinds: (N,) int64; and of another kind, if there is one.
    """

    share: float
    groups: Tensor
    kinds: Tensor


@dataclass(eq=False, repr=False)
class InMemoryCaptions(InMemoryDataset):
    """Images with captions, as CaptionBatch.

    In training, an image comes with captions of its own that are drawn at random, and with wrong
    ones of another image, of which those come first that mention what the two differ in. Otherwise
    it comes with its first ones, and the wrong ones are the next other class's (its own class's
    where there is no other).

    Args:
        images: tensors of length N that ``prepare`` makes the images of a batch from.
        prepare: (rows (B,) of each of these tensors, in their order) -> images (B, C, H, W).
        labels: (N,) int64.
        attributes: (N, A) int64, what captions may mention.
        captions: of the images.
        averaged: batches hold the mean embedding of so many captions of an image.
        training: whether captions are drawn at random.
        near: which images' captions are wrong ones instead of any other class's.
        embeddings: (M, E) of the captions, as ``embed`` sets them.
    """

    images: Sequence[Tensor]
    prepare: Callable[..., Tensor]
    labels: Tensor
    attributes: Tensor
    captions: Captions
    averaged: int = 1
    training: bool = False
    near: Sequence[Near] = ()
    embeddings: Tensor | None = None

    def __post_init__(self) -> None:
        count = self.captions.of_image.shape[1]
        if not 1 <= self.averaged <= count:
            raise ValueError(
                f"dataset.captions_averaged is {self.averaged}; each image has {count} captions."
            )
        self._others = _Others(torch.zeros_like(self.labels), self.labels)
        self._near = [
            (near.share, _Others(near.groups, near.kinds))
            for near in self.near
            if self.training and near.share
        ]
        if self.training and bool(self.labels.eq(self.labels[0]).all()):
            problem = "All images are of one class, so that no caption is wrong for any: "
            raise ValueError(problem + "text-to-image models need captions of two or more classes.")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> CaptionBatch:
        if self.embeddings is None:
            raise RuntimeError("Call embed() before asking for batches with captions.")
        chosen = torch.as_tensor(indices)
        label = self.labels.index_select(0, chosen)
        image, caption = self.image(chosen), self._embedding(chosen, self.embeddings)
        other = self.other_images(chosen)
        differs = self.attributes[other] != self.attributes[chosen]
        wrong = self._embedding(other, self.embeddings, differs)
        return CaptionBatch(image, label, caption, wrong)

    def image(self, chosen: Tensor) -> Tensor:
        """The images at these indices, as batches hold them."""
        return self.prepare(*(tensor.index_select(0, chosen) for tensor in self.images))

    def texts(self, index: int) -> list[str]:
        """The captions of an image."""
        return [self.captions.texts[row] for row in self.captions.of_image[index]]

    def other_images(self, chosen: Tensor) -> Tensor:
        """For each image (B,) the index of one whose captions are wrong for it.

        Of another label, or in training, where it is drawn at random, of ``near``.
        """
        if not self.training:
            return self._others.of(chosen)
        drawn = self._others.of(chosen, torch.rand(len(chosen), dtype=torch.float64))
        if not self._near:
            return drawn
        found = [
            others.of(chosen, torch.rand(len(chosen), dtype=torch.float64))
            for _, others in self._near
        ]
        point, end = torch.rand(len(chosen)), 0.0
        for (share, others), near in zip(self._near, found, strict=True):
            begin, end = end, end + share
            wanted = (begin <= point) & (point < end)
            drawn = torch.where(wanted & others.exist(chosen), near, drawn)
        return drawn

    def embed(self, encoder: Any) -> None:
        """Encodes all captions; batches hold these embeddings from now on."""
        self.embeddings = encoder.encode(self.captions.texts).cpu()

    def stored(self) -> Iterable[Tensor]:
        texts = bytearray("\n".join(self.captions.texts).encode())
        yield from (*self.images, self.labels, self.attributes, *self.captions[1:])
        yield torch.frombuffer(texts, dtype=torch.uint8)

    def _embedding(self, chosen: Tensor, embeddings: Tensor, first: Tensor | None = None) -> Tensor:
        """Of captions of these images (B,); first of those that mention of ``first`` (B, A)."""
        rows = self.captions.of_image.index_select(0, chosen)
        if self.training:
            order = torch.rand(rows.shape)
            if first is not None:
                order -= (~(self.captions.mentions[rows] & first[:, None]).any(2)).float()
            rows = rows.gather(1, order.topk(self.averaged, 1).indices)
        return embeddings[rows[:, : self.averaged]].mean(1)


class _Others:
    """For images (N,) in groups, those of the same group and another label."""

    def __init__(self, groups: Tensor, labels: Tensor) -> None:
        self._group, self._kind = groups, groups * (labels.max() + 1) + labels
        # In this order the images of one group, and in it those of one label, are consecutive.
        self._order = self._kind.argsort(stable=True)
        self._size, self._count = groups.bincount(), self._kind.bincount()
        self._start = self._size.cumsum(0) - self._size
        self._first = self._count.cumsum(0) - self._count

    def exist(self, chosen: Tensor) -> Tensor:
        """Which of the images (B,) have any."""
        return self._size[self._group[chosen]] > self._count[self._kind[chosen]]

    def of(self, chosen: Tensor, draws: Tensor | None = None) -> Tensor:
        """One for each image (B,), by draws (B,) in [0, 1); else the next label's first.

        Of an image that has none, it is one of its own label.
        """
        group, kind = self._group[chosen], self._kind[chosen]
        size, count = self._size[group], self._count[kind]
        before = self._first[kind] - self._start[group]
        others = (size - count).clamp(min=1)
        place = before % others if draws is None else (draws * others).long()
        place = (place + count * (place >= before)) % size
        return self._order[self._start[group] + place]


class WithoutCaptions(LabelledDataset):
    """The images and labels of captioned datasets, one after the other."""

    def __init__(self, *parts: InMemoryCaptions) -> None:
        self.parts = parts
        self.labels = torch.cat([part.labels for part in parts])
        self._part = torch.cat([torch.full_like(p.labels, n) for n, p in enumerate(parts)])
        self._row = torch.cat([torch.arange(len(part)) for part in parts])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        chosen = torch.as_tensor(indices)
        which, rows = self._part[chosen], self._row[chosen]
        present = which.unique().tolist()
        images = torch.cat([self.parts[n].image(rows[which == n]) for n in present])
        # Where each image, here in the order of the parts, has its place.
        places = which.argsort(stable=True).argsort()
        return ImageBatch(images[places], self.labels[chosen])

    def stored(self) -> Iterable[Tensor]:
        for part in self.parts:
            yield from (*part.images, part.labels)


class CaptionDataModule(InMemoryDataModule):
    """What the data modules with captions share: the encoder of the captions.

    A ``TextEncoder`` is trained on the training images and captions in ``setup``, with the
    joint-embedding loss that StackGAN's authors trained theirs with. It is then frozen, and its
    ``artifact()`` is kept in the cache under a hash of everything that decides it.

    A model takes the encoder of these captions, ``text_encoder``, when fitting starts, and its
    checkpoints carry ``text_encoder.artifact()``. A model that is resumed or evaluated brings that
    encoder along: give it to ``embed_with``, or as ``text_encoder`` before ``setup``.

    Args:
        text_encoder: a TextEncoder, which is trained if it has no vocabulary yet, or another frozen
            encoder with ``encode``, ``artifact`` and ``embedding_dim``.
        encoder_steps: iterations of the TextEncoder's training, on batches of 100.
        captions_averaged: batches hold the mean embedding of so many captions of an image
            (StackGAN's authors: 4).
        seed: decides the encoder's weights, and what the subclass draws.

    Attributes:
        example_captions: the captions of ``examples``, in their order.
        caption_rows: rows of captions whose neighbours differ in one word, for grids.
    """

    batch_type = CaptionBatch

    @checked
    def __init__(
        self,
        *,
        text_encoder: nn.Module,
        encoder_steps: Annotated[int, Range(1, 10**7)] = 1000,
        captions_averaged: Count = 1,
        seed: Seed = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.text_encoder = text_encoder
        self.encoder_steps = encoder_steps
        self.captions_averaged = captions_averaged
        self.seed = seed
        self.caption_rows: list[list[str]] = []

    @property
    def example_captions(self) -> list[str]:
        dataset = self.source()
        assert isinstance(dataset, InMemoryCaptions)
        return [dataset.texts(i)[0] for i in range(min(self.num_examples, len(dataset)))]

    def setup(self, stage: str | None = None) -> None:
        if self.train is None:
            super().setup(stage)
            self.embed_with(self._trained(self.text_encoder).eval().requires_grad_(False))

    def parts(self) -> list[InMemoryCaptions]:
        """All datasets of this module."""
        return [d for d in (self.train, self.val, self.test) if isinstance(d, InMemoryCaptions)]

    def labelled(self, domain: str, part: Part) -> WithoutCaptions:
        dataset = self.part(part)
        assert isinstance(dataset, InMemoryCaptions)
        return WithoutCaptions(dataset)

    def embed_with(self, encoder: nn.Module) -> None:
        """Encodes the captions of all datasets by this encoder from now on."""
        self.text_encoder = encoder
        for part in self.parts():
            part.embed(encoder)

    def _trained(self, encoder: nn.Module) -> nn.Module:
        """An untrained TextEncoder trained, or restored from the cache; others as they are."""
        if not isinstance(encoder, TextEncoder) or encoder.vocabulary:
            return encoder
        assert isinstance(self.train, InMemoryCaptions)
        shapes = [tuple(weight.shape) for weight in encoder.parameters()]
        kind = type(encoder).__qualname__
        about = (self.checksum(), kind, shapes, self.encoder_steps, self.seed, _TRAINING)
        digest = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
        file = cache_dir() / f"text-encoder-{digest}.pt"
        with made_by_one(file):
            try:
                with torch.random.fork_rng(devices=[]):
                    return text_encoder_from(CheckpointFiles().load_checkpoint(file))
            except (FileNotFoundError, NotADirectoryError):
                log.info("Training the text encoder on the captions (kept in '%s').", file)
            except (RuntimeError, OSError, ValueError):
                log.warning("The text encoder in '%s' is damaged: it is trained again.", file)
            train_text_encoder(encoder, self.train, self.encoder_steps, self.seed)
            try:
                CheckpointFiles().save_checkpoint(encoder.artifact(), file)
            except OSError as error:
                log.warning("The text encoder could not be kept for the next run: %s", error)
        return encoder


def train_text_encoder(
    encoder: TextEncoder, dataset: InMemoryCaptions, steps: int, seed: int = 0
) -> None:
    """Trains an encoder on images and their captions by ``losses.joint_embedding``, in place.

    A caption that also describes another image of the batch is no negative example for it. The
    state of torch's global random numbers is restored afterwards.

    Args:
        encoder: untrained; its vocabulary is made of the captions.
        dataset: the training images; each comes with one of its captions at random.
        steps: iterations.
        seed: decides weights, order and captions.
    """
    captions = dataset.captions
    encoder.learn_vocabulary(captions.texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in encoder.children():
            module.reset_parameters()  # type: ignore[operator]
        tokens = encoder.tokens(captions.texts)
        images = ImageEncoder(dataset.image(torch.arange(1)).shape[1], encoder.embedding_dim)
        parameters = [*encoder.parameters(), *images.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        size = min(_ENCODER_BATCH, len(dataset))
        order: DataLoader[Tensor] = DataLoader(
            range(len(dataset)),  # type: ignore[arg-type]
            batch_size=size,
            shuffle=True,
            drop_last=True,
            collate_fn=torch.as_tensor,
        )
        encoder.train()
        epochs = itertools.chain.from_iterable(itertools.repeat(order))
        for chosen in itertools.islice(epochs, steps):
            column = torch.randint(captions.of_image.shape[1], (size,))
            row = captions.of_image[chosen, column]
            attributes = dataset.attributes[chosen]
            agrees = attributes[:, None] == attributes[None]
            describes = (agrees | ~captions.mentions[row][None]).all(2)
            known = tokens[row]
            known = known[:, : int(known.ne(0).sum(1).max())]
            optimizer.zero_grad()
            loss = joint_embedding(images(dataset.image(chosen)), encoder(known), describes)
            loss.backward()
            optimizer.step()
            schedule.step()
    log.info("The text encoder's joint-embedding loss came to %.3f.", loss.item())
