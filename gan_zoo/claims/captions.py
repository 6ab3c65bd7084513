"""Protocols of StackGAN and StackGAN++: a judge of coloured digits, and what it sees."""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import gan_zoo
from gan_zoo.claims import Measured
from gan_zoo.claims.judges import kept_judge
from gan_zoo.data import MNISTCaptionsDataModule
from gan_zoo.data.captions import InMemoryCaptions
from gan_zoo.data.mnist_captions import ATTRIBUTES, COLOUR_SPREAD, INKS, PARAPHRASES
from gan_zoo.losses import colour_consistency
from gan_zoo.metrics.distances import frechet_distance
from gan_zoo.metrics.diversity import classifier_score
from gan_zoo.metrics.evaluator import hash_of
from gan_zoo.models.text_to_image import TextToImage
from gan_zoo.networks.text import TextEncoder
from gan_zoo.randomness import some_rows

_COUNTS = [len(words) for words in ATTRIBUTES.values()]
_SIDE = 32
_CAPTIONS = 5_000
# Captions that get several images, and how many, to see how these differ.
_REPEATED, _TIMES = 200, 8


class AttributeClassifier(nn.Module):
    """Images (B, 3, 32, 32) in [-1, 1] -> logits of each of ATTRIBUTES, and features (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(width_in, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(),
                       nn.MaxPool2d(2)]  # fmt: skip
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, 128), nn.ReLU()
        )
        self.heads = nn.ModuleList(nn.Linear(128, count) for count in _COUNTS)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self.body(image)
        return [head(features) for head in self.heads]


def train_attribute_classifier(
    data: MNISTCaptionsDataModule, epochs: int = 4
) -> AttributeClassifier:
    """The trained classifier in eval mode, of the training digits in all inks, held out or not.

    Every other batch is seen at 16 pixels, so that Stage I is not judged by how it is enlarged.
    """
    torch.manual_seed(0)
    net = AttributeClassifier()
    train = data.train
    assert isinstance(train, InMemoryCaptions)
    loader: DataLoader[Tensor] = DataLoader(
        range(len(train)),  # type: ignore[arg-type]
        batch_size=128,
        shuffle=True,
        collate_fn=torch.as_tensor,
    )
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=epochs * len(loader)
    )
    grey, _, ground = train.images
    inks = torch.tensor(list(INKS.values()), dtype=torch.float32)
    for _ in range(epochs):
        for chosen in loader:
            ink = torch.randint(len(inks), chosen.shape)
            colour = inks[ink] + COLOUR_SPREAD * (torch.rand(len(ink), 3) * 2 - 1)
            targets = train.attributes[chosen]
            targets[:, 1] = ink
            image = train.prepare(grey[chosen], colour.clamp(0, 255), ground[chosen])
            if torch.rand(()) < 0.5:
                image = enlarged(F.adaptive_avg_pool2d(image, 16))
            logits = net(image)
            losses = [F.cross_entropy(*p) for p in zip(logits, targets.unbind(1), strict=True)]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def enlarged(images: Tensor) -> Tensor:
    """Images as the classifier sees them, (N, 3, 32, 32), of any size."""
    return F.interpolate(images, size=32, mode="bilinear", antialias=True)


@torch.no_grad()
def agreement(net: AttributeClassifier, images: Tensor, attributes: Tensor) -> dict[str, float]:
    """For each attribute the share of images (N, 3, 32, 32) that are seen to show its value."""
    seen = [torch.cat(parts) for parts in zip(
        *([head.argmax(1) for head in net(chunk)] for chunk in images.split(1000)), strict=True
    )]  # fmt: skip
    return {
        name: value.eq(wanted).float().mean().item()
        for name, value, wanted in zip(ATTRIBUTES, seen, attributes.unbind(1), strict=True)
    }


@torch.no_grad()
def features(net: AttributeClassifier, images: Tensor) -> Tensor:
    """(N, 128) of images (N, 3, 32, 32)."""
    return torch.cat([net.body(chunk) for chunk in images.split(1000)])


@torch.no_grad()
def digit_score(net: AttributeClassifier, images: Tensor) -> float:
    """The Inception score's formula, exp E[KL(p(y | x) || p(y))], of digits; from 1 to 10."""
    log_p = torch.cat([net(chunk)[0].log_softmax(1) for chunk in images.split(1000)])
    return classifier_score(log_p).value


def full_captions(attributes: Tensor) -> list[str]:
    """Captions that speak of everything."""
    say = PARAPHRASES[0].of
    return [say(dict(zip(ATTRIBUTES, row, strict=True))) for row in attributes.tolist()]


def within_caption_distance(images: Tensor) -> float:
    """Mean root mean square distance of two images of one caption, of images (N, K, C, H, W)."""
    flat = images.flatten(2)
    distances = torch.cdist(flat, flat) / flat.shape[2] ** 0.5
    k = images.shape[1]
    return (distances.sum((1, 2)) / (k * (k - 1))).mean().item()


@functools.cache
def _judge(name: Any, root: Path) -> tuple[AttributeClassifier, MNISTCaptionsDataModule]:
    """The trained classifier, and the data it is trained on, whose captions are not embedded."""
    data = MNISTCaptionsDataModule(
        text_encoder=TextEncoder(), name=name, root=root, image_size=_SIDE, channels=3
    )
    data.setup()
    train = data.train
    assert isinstance(train, InMemoryCaptions)
    about = (train.images[0], train.attributes)
    network = AttributeClassifier()
    return kept_judge("attributes", about, network, lambda: train_attribute_classifier(data)), data


def drawn(model: TextToImage, attributes: Tensor, per_caption: int = 1) -> list[Tensor]:
    """Each scale's images (N, 3, 32, 32), the coarse ones enlarged as the judge knows them.

    Their captions speak of all attributes; ``per_caption`` images in a row have the same.
    """
    captions = [text for text in full_captions(attributes) for _ in range(per_caption)]
    sets = model.sample(
        len(captions),
        captions=captions,
        generator=torch.Generator().manual_seed(0),
        all_scales=True,
    )
    factors = [2**n for n in reversed(range(sets.shape[1]))]
    return [
        enlarged(images[..., ::factor, ::factor])
        for images, factor in zip(sets.unbind(1), factors, strict=True)
    ]


def captions_shown(run: Path) -> Measured:
    """What a text-to-image model's images show of their captions, by its scales.

    The captions are of 5,000 test images, drawn at random, and mention all attributes. ``digit``,
    ``ink``, ... are the shares of the finest images that show the caption's value, ``digit_0``
    those of the coarsest, and so on; ``held_out_digit`` the same in inks that training had not
    shown with the digit. ``score`` is the Inception score's formula on the judge's digits,
    ``distance`` the Frechet distance in its features from all test images, and ``within`` the mean
    distance of two of eight images of one caption. Of several scales, ``stages`` is the finest
    one's score over the coarsest one's, and ``least_gain`` how much more of an attribute the finest
    one shows, of that in which it gains least. Floors are of real test images, but for the
    distance's, which is of training images.
    """
    model = gan_zoo.load(run)
    if not isinstance(model, TextToImage):
        raise ValueError(f"{run} is a {type(model).__name__}, which takes no captions.")
    dataset = model.config["dataset"]
    judge, data = _judge(dataset["name"], Path(dataset["root"]))
    train, test, held_out = data.parts()[0], data.test, data.held_out
    assert isinstance(test, InMemoryCaptions)
    assert held_out is not None
    real = features(judge, test.image(torch.arange(len(test))))
    rows = some_rows(len(test), _CAPTIONS)
    attributes = test.attributes[rows]
    figures: dict[str, float] = {}
    scales = drawn(model, attributes)
    for number, images in enumerate(scales):
        last = number + 1 == len(scales)
        found = agreement(judge, images, attributes)
        found["score"] = digit_score(judge, images)
        found["distance"] = frechet_distance(features(judge, images), real)
        figures |= found if last else {f"{name}_{number}": v for name, v in found.items()}
    unseen = held_out.attributes[some_rows(len(held_out), _CAPTIONS)]
    for name, share in agreement(judge, drawn(model, unseen)[-1], unseen).items():
        figures[f"held_out_{name}"] = share
    if len(scales) > 1:
        figures["stages"] = figures["score"] / figures["score_0"]
        figures["least_gain"] = min(figures[name] - figures[f"{name}_0"] for name in ATTRIBUTES)
    repeated = attributes[some_rows(len(attributes), _REPEATED)]
    several = drawn(model, repeated, _TIMES)[-1]
    figures["within"] = within_caption_distance(several.unflatten(0, (-1, _TIMES)))
    floors = agreement(judge, test.image(rows), attributes)
    some = features(judge, train.image(some_rows(len(train), _CAPTIONS)))
    floors["distance"] = frechet_distance(some, real)
    weights = hash_of(value for _, value in sorted(judge.state_dict().items()))
    return Measured(figures, floors, evaluators={"attributes": weights})


def colour_gap(run: Path) -> Measured:
    """StackGAN++'s colour-consistency term between neighbouring scales of 2,000 images.

    ``gap`` is between the finest scale and the one before, ``gap_0`` between the coarsest two.
    """
    model: Any = gan_zoo.load(run)
    sets = model.sample(2000, generator=torch.Generator().manual_seed(0), all_scales=True)
    pairs = list(zip(sets.unbind(1)[1:], sets.unbind(1), strict=False))
    gaps = [colour_consistency(finer, coarser).item() for finer, coarser in pairs]
    names = [*(f"gap_{n}" for n in range(len(gaps) - 1)), "gap"]
    return Measured(dict(zip(names, gaps, strict=True)))
