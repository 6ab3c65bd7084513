"""Judges of coloured digits: what an image shows, and how far a set of images is from real ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gan_zoo.data import MNISTCaptionsDataModule
from gan_zoo.data.captions import InMemoryCaptions
from gan_zoo.data.mnist_captions import ATTRIBUTES, COLOUR_SPREAD, INKS, PARAPHRASES
from gan_zoo.metrics.diversity import classifier_score

# Thirds of what is measured, as far as an image of 32 pixels shows them.
COUNTS = [len(words) for words in ATTRIBUTES.values()]


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
        self.heads = nn.ModuleList(nn.Linear(128, count) for count in COUNTS)

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
        range(len(train)),
        batch_size=128,
        shuffle=True,
        collate_fn=torch.as_tensor,  # type: ignore[arg-type]
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
