"""Protocols of CoGAN, DiscoGAN and CycleGAN."""

import functools
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gan_zoo
from gan_zoo.claims import Measured
from gan_zoo.claims.judges import kept_judge
from gan_zoo.data.base import normalised
from gan_zoo.data.digit_pairs import MappedDigitsDataModule, RotatedDigitsDataModule, rotated
from gan_zoo.data.mnist_usps import MNISTUSPSDataModule
from gan_zoo.data.pairs import Domain
from gan_zoo.evaluate import data_of
from gan_zoo.files import cache_dir
from gan_zoo.metrics.agreement import covered_modes, pixel_agreement
from gan_zoo.metrics.evaluator import Evaluator, judged
from gan_zoo.metrics.reference import reference_for
from gan_zoo.models.cogan import CoGAN
from gan_zoo.models.protocols import CHUNK
from gan_zoo.models.translation import Translator
from gan_zoo.networks.classifier import EvaluatorNetwork
from gan_zoo.networks.cogan import CoupledDiscriminator
from gan_zoo.plotting import to_uint8

_PAIRS = 10_000
_TRANSLATED = 5_000
# Of the classifier that knows the source domain alone: as CoGAN's default.
_SOURCE_STEPS = 3_000
_EPOCHS_OF_ANGLES = 6


def opened(run: Path, kind: type, data_kind: type) -> tuple[Any, Any]:
    """A run's model and its data, which are of these types; ValueError if they are not."""
    model = gan_zoo.load(run)
    data = data_of(model)
    if not isinstance(model, kind) or not isinstance(data, data_kind):
        what = f"{type(model).__name__} on {data.title}"
        wanted = f"{kind.__name__} on {data_kind.__name__}"
        raise ValueError(f"{run} is {what}; this is measured of {wanted}.")
    return model, data


def judges_of(data: Any) -> dict[str, Evaluator]:
    """Domain -> the evaluator of its digits, trained when it is first needed."""
    references = {d: reference_for(data, d, "test", cache_dir()) for d in data.domains}
    found = {domain: reference.evaluator for domain, reference in references.items()}
    return {domain: judge for domain, judge in found.items() if judge is not None}


def hashes(judges: dict[str, Evaluator]) -> dict[str, str]:
    return {judge.name: judge.hash for judge in judges.values()}


def pairs_agree(run: Path) -> Measured:
    """How far CoGAN's pairs correspond (1606.07536, section 4), of 10,000 pairs.

    The known map of the first image is held against the second one, pixel by pixel: ``binary`` and
    ``difference`` are the shares of pixels that agree by the two rules of ``pixel_agreement``.
    Floors are those of another pair's second image, ``blank`` those of a blank first image.
    ``same_digit`` is the share of pairs in which two evaluators, one a domain, see one digit.
    """
    model, data = opened(run, CoGAN, MappedDigitsDataModule)
    random = torch.Generator().manual_seed(0)
    a, b = model.sample(_PAIRS, generator=random).unbind(1)

    def mapped(images: Tensor) -> Tensor:
        return normalised(data.counterpart(to_uint8(images)))

    target, blank = mapped(a), mapped(torch.full_like(a, -1))
    figures, floors = {}, {}
    for rule in ("binary", "difference"):
        figures[rule] = pixel_agreement(target, b, rule)
        figures[f"blank_{rule}"] = pixel_agreement(blank, b, rule)
        floors[rule] = pixel_agreement(target.roll(1, 0), b, rule)
    judges = judges_of(data)
    seen = [
        judged(judges[domain], images.split(CHUNK)).classes
        for domain, images in (("a", a), ("b", b))
    ]
    figures["same_digit"] = seen[0].eq(seen[1]).double().mean().item()
    return Measured(figures, floors, evaluators=hashes(judges))


def adapted(run: Path) -> Measured:
    """How well CoGAN's classifier knows a domain whose labels it has not seen (section 4).

    ``test`` is its accuracy on the target domain's test images, ``training`` that on its training
    images, which the paper's protocol is judged on. Floors are of the same network, trained on the
    source domain alone.
    """
    model, data = opened(run, CoGAN, MNISTUSPSDataModule)
    a = data.train.a
    empty = _source_classifier(a.data.shape[-1])
    alone = kept_judge("source", (a.data, a.label), empty, lambda: _trained_on(a))
    figures, floors = {}, {}
    for part, domain in (("test", data.test.b), ("training", data.train.b)):
        labels = domain.label
        if part == "training":
            # The dataset does not have them: they are read again.
            whole = data.both(train=True)[1]
            known = dict(zip(whole.origin.tolist(), whole.label.tolist(), strict=True))
            labels = torch.tensor([known[origin] for origin in domain.origin.tolist()])
        right, before = [], []
        for images in normalised(domain.data).split(500):
            pair = torch.stack((images, images), 1)
            right.append(model.classify(pair)[:, 1])
            with torch.no_grad():
                before.append(alone.classifier(alone.features(pair)[:, 0]).argmax(1))  # type: ignore[operator]
        figures[part] = torch.cat(right).eq(labels).double().mean().item()
        floors[part] = torch.cat(before).eq(labels).double().mean().item()
    return Measured(figures, floors)


def _source_classifier(side: int) -> CoupledDiscriminator:
    network = CoupledDiscriminator(1, side)
    network.classifier = nn.Linear(network.fc_units, 10)
    return network


def _trained_on(source: Domain) -> CoupledDiscriminator:
    """CoGAN's discriminator with a classifier in the logit's place, trained as its default."""
    torch.manual_seed(0)
    network = _source_classifier(source.data.shape[-1])
    optimizer = torch.optim.Adam(network.parameters(), 5e-4, weight_decay=5e-4)
    for _ in range(_SOURCE_STEPS):
        rows = torch.randint(len(source.data), (64,))
        images = normalised(source.data[rows])
        scores = network.classifier(network.features(torch.stack((images, images), 1))[:, 0])  # type: ignore[operator]
        optimizer.zero_grad()
        F.cross_entropy(scores, source.label[rows]).backward()
        optimizer.step()
    return network


def modes_of_points(run: Path) -> Measured:
    """Which of the target's modes DiscoGAN's toy covers (1703.05192, section 3.1).

    ``modes`` of the target's ten get 1 % or more of 10,000 translated points within three standard
    deviations; ``near_a_mode`` is the share of points that lie on any.
    """
    model = gan_zoo.load(run)
    data: Any = data_of(model)
    points = model.sample(len(data.test.a.data), source=data.test.a.data)
    modes, near = covered_modes(points.cpu(), data.centres_b, data.std)
    return Measured({"modes": modes, "near_a_mode": near}, {"modes": len(data.centres_b)})


def angles_kept(run: Path) -> Measured:
    """How far DiscoGAN's translated digits keep the angle of their source (section 3.2, figure 5).

    ``rmse`` is the root mean square error of the angle over the 150 degrees that there are, by a
    network that measures angles; its floor is that network's own error on real images. A mirrored
    mapping is taken for as good, as in the paper. ``correlation`` is that of the two angles.
    """
    model, data = opened(run, Translator, RotatedDigitsDataModule)
    measuring = _judge_of_angles(data.classes[1], data.max_angle, data.name, data.root)
    a, b = data._domains["test"]
    with torch.no_grad():
        translated = model.sample(len(a.data), source=normalised(a.data))
        given, real = (measuring(images)[1][:, 0] for images in (translated, normalised(b.data)))
    whole = 2 * data.max_angle
    errors = [
        (data.max_angle * given - sign * a.label).square().mean().sqrt().item() for sign in (1, -1)
    ]
    floor = (data.max_angle * real - b.label).square().mean().sqrt().item()
    both = torch.stack((given, a.label))
    figures = {
        "rmse": min(errors) / whole,
        "correlation": torch.corrcoef(both)[0, 1].abs().item(),
    }
    return Measured(figures, {"rmse": floor / whole})


@functools.cache
def _judge_of_angles(digit: int, max_angle: float, name: str, root: Path) -> EvaluatorNetwork:
    """Images of that digit (N, 1, 28, 28) -> its angle over max_angle, as the only logit."""
    data = RotatedDigitsDataModule(name=name, root=root)
    images, labels = data.originals(train=True)
    images = images[labels == digit]
    network = EvaluatorNetwork(num_classes=1)
    kind = f"angles-{max_angle:g}"
    return kept_judge(kind, (images,), network, lambda: _trained_on_angles(images, max_angle))


def _trained_on_angles(images: Tensor, max_angle: float) -> EvaluatorNetwork:
    torch.manual_seed(0)
    network = EvaluatorNetwork(num_classes=1)
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(_EPOCHS_OF_ANGLES):
        angles = (2 * torch.rand(len(images)) - 1) * max_angle
        turned = normalised(rotated(images, angles))
        for rows in torch.randperm(len(images)).split(64):
            guess = network(turned[rows])[1][:, 0]
            optimizer.zero_grad()
            F.mse_loss(guess, angles[rows] / max_angle).backward()
            optimizer.step()
    return network


def known_map(run: Path) -> Measured:
    """How a translator does against the map that is known of its test images (1703.10593, table 4).

    Of both directions the worse one: ``error``, the mean absolute difference from the true image,
    in [-1, 1] pixels, whose floor is that of an image that is not translated; and ``label_kept``,
    the share of translations in which the target's evaluator sees the source's digit.
    """
    model, data = opened(run, Translator, MappedDigitsDataModule)
    judges = judges_of(data)
    test = cast(Any, data.test).__getitems__(range(_TRANSLATED))
    errors, kept, before = [], [], []
    for direction, source, target in (("a2b", test.a, test.b), ("b2a", test.b, test.a)):
        images = model.sample(len(source), source=source, direction=direction)
        errors.append((images - target).abs().mean().item())
        before.append((source - target).abs().mean().item())
        seen = judged(judges[direction[2]], images.split(CHUNK)).classes
        kept.append(seen.eq(test.label_a).double().mean().item())
    figures = {"error": max(errors), "label_kept": min(kept)}
    return Measured(figures, {"error": max(before)}, evaluators=hashes(judges))
