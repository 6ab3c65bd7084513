"""Metrics against closed forms, against worked-out values and against other libraries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from gan_zoo.metrics import agreement, distances, neighbours
from gan_zoo.metrics.distances import (
    fidelity_and_diversity,
    frechet_distance,
    kernel_distance,
)
from gan_zoo.metrics.diversity import classifier_score, covered_classes, structural_similarity
from gan_zoo.metrics.evaluator import Evaluator, Judged
from gan_zoo.metrics.measures import MEASURES, floor_of
from gan_zoo.metrics.neighbours import memorisation, nearest, one_nn_error, parzen_log_likelihood
from gan_zoo.metrics.reference import ImageSet, Part, Reference
from gan_zoo.networks.classifier import EvaluatorNetwork


class AsFeatures(nn.Module):
    """What torchmetrics calls a feature extractor: images whose pixels are the features."""

    num_features = 16

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :16].float()


def rows(count: int, dimensions: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def with_moments(count: int, mean: Tensor, deviation: Tensor) -> Tensor:
    """Rows with exactly that mean and, without correlations, that standard deviation."""
    x = rows(count, len(mean)).double()
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return x * deviation + mean


def test_frechet_distance_of_two_gaussians_in_closed_form() -> None:
    mean, deviation = torch.tensor([[1, -2, 0.5], [1, 2, 0.1]], dtype=torch.float64)
    a = with_moments(200, torch.zeros(3), torch.ones(3))
    b = with_moments(300, mean, deviation)
    # |m|^2 + sum (s_a - s_b)^2
    assert frechet_distance(a, b) == pytest.approx(5.25 + 0 + 1 + 0.81, abs=1e-9)
    assert frechet_distance(b, b) == pytest.approx(0, abs=1e-9)
    # Of correlated features: tr(C + I - 2 C^(1/2)), C with eigenvalues 1.9 and .1.
    mixing = torch.linalg.cholesky(torch.tensor([[1, 0.9], [0.9, 1]], dtype=torch.float64))
    c = with_moments(200, torch.zeros(2), torch.ones(2)) @ mixing.T
    d = with_moments(200, torch.zeros(2), torch.ones(2))
    assert frechet_distance(c, d) == pytest.approx(
        4 - 2 * (math.sqrt(1.9) + math.sqrt(0.1)), abs=1e-9
    )


def as_images(features: Tensor) -> Tensor:
    return features.view(-1, 1, 4, 4).expand(-1, 3, -1, -1)


def test_frechet_and_kernel_distance_agree_with_torchmetrics() -> None:
    a, b = rows(300), 0.5 + 1.5 * rows(300, seed=1)
    fid = FrechetInceptionDistance(feature=AsFeatures(), input_img_size=(3, 4, 4))
    fid.update(as_images(a), real=True)
    fid.update(as_images(b), real=False)
    assert frechet_distance(a, b) == pytest.approx(fid.compute().item(), rel=1e-4)
    # All rows make the only subset.
    kid = KernelInceptionDistance(feature=AsFeatures(), subsets=1, subset_size=300)
    kid.update(as_images(a), real=True)
    kid.update(as_images(b), real=False)
    ours = kernel_distance(a, b, subsets=1, size=300)
    assert ours.value == pytest.approx(kid.compute()[0].item(), rel=1e-4)


def test_kernel_distance_by_hand_and_without_bias() -> None:
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    # k(x, y) = (xy + 1)^3: within a 27, within b 1, across the mean of 1, 8, 1, 27.
    assert kernel_distance(a, b, subsets=1).value == pytest.approx(27 + 1 - 2 * 37 / 4)
    same = kernel_distance(rows(4000), rows(4000, seed=1))
    assert abs(same.value) < same.spread
    assert same == kernel_distance(rows(4000), rows(4000, seed=1))
    with pytest.raises(ValueError, match="two images"):
        kernel_distance(a[:1], b)


def test_precision_recall_density_coverage_agree_with_prdc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, fake = rows(150), 0.3 + 0.8 * rows(120, seed=1)
    theirs = compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=5)
    for block in (1000, 7):
        monkeypatch.setattr(distances, "_ROWS", block)
        ours = fidelity_and_diversity(real.double(), fake.double())
        assert ours._asdict() == pytest.approx(theirs)
    with pytest.raises(ValueError, match="more than 5 images"):
        fidelity_and_diversity(real[:5], fake)


def test_classifier_score_in_closed_form() -> None:
    sure = torch.eye(10).repeat(20, 1).log()
    assert classifier_score(sure.clamp(min=-1e4)).value == pytest.approx(10, rel=1e-6)
    unsure = torch.full((50, 10), 0.1).log()
    assert classifier_score(unsure).value == pytest.approx(1)
    # Two classes, each image 3 : 1 for one of them: exp(ln 2 - H(3/4)).
    p = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    score = classifier_score(p.log().repeat(10, 1), splits=1)
    assert score == (pytest.approx(2 / math.exp(entropy)), 0.0)


def test_covered_classes_by_hand() -> None:
    classes = torch.tensor([0] * 50 + [1] * 49 + [2])
    found = covered_classes(classes, torch.ones(4))
    assert found.covered == 3
    expected = sum(p * math.log(4 * p) for p in (0.5, 0.49, 0.01))
    assert found.kl == pytest.approx(expected)
    # A class with less than a tenth of its due is not covered.
    assert covered_classes(classes, torch.ones(4), least=0.1).covered == 2
    assert covered_classes(classes, torch.tensor([50.0, 49, 1, 0]), least=0.1).covered == 3


def test_stacked_mnists_floor() -> None:
    # By the chi-square approximation 999 / 52,000 on average, with a deviation of .0009.
    random = torch.Generator().manual_seed(0)
    found = [
        covered_classes(torch.randint(1000, (26_000,), generator=random), torch.ones(1000))
        for _ in range(20)
    ]
    assert all(modes.covered == 1000 for modes in found)
    assert sum(modes.kl for modes in found) / 20 == pytest.approx(999 / 52_000, abs=0.0005)


def test_structural_similarity_tells_copies_from_others() -> None:
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    classes = torch.arange(6)
    copies = structural_similarity(images.repeat(5, 1, 1, 1), classes.repeat(5), pairs=50)
    assert copies.within == pytest.approx(1, abs=1e-4)
    assert copies.between < 0.5
    assert math.isnan(structural_similarity(images, classes, pairs=20).within)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_QUERIES", 7)
    monkeypatch.setattr(neighbours, "_REFERENCES", 5)


@pytest.mark.usefixtures("small_blocks")
def test_the_nearest_neighbour_is_found_across_blocks() -> None:
    queries, references = rows(20).view(20, 1, 4, 4), rows(33, seed=1).view(33, 1, 4, 4)
    distance, place = torch.cdist(queries.flatten(1), references.flatten(1)).min(1)
    shares: list[float] = []
    found = nearest(queries, references.split(10), 33, shares.append)
    assert torch.equal(found.place, place)
    assert torch.allclose(found.distance, distance, atol=1e-5)
    assert shares[-1] == 1
    labels = torch.arange(33)
    assert one_nn_error(references, labels, queries, place) == 0
    assert one_nn_error(references, labels, queries, (place + 1) % 33) == 1


def test_parzen_by_hand() -> None:
    # 0 and 1, and 0 and .5, of [0, 1].
    samples = torch.tensor([[-1.0], [1.0]])
    test = torch.tensor([[-1.0], [0.0]])
    fit = parzen_log_likelihood(samples, test, validation=samples, sigmas=[0.2, 0.5])
    density = [
        sum(math.exp(-((x - s) ** 2) / (2 * 0.2**2)) for s in (0, 1))
        / (2 * 0.2 * math.sqrt(2 * math.pi))
        for x in (0.0, 0.5)
    ]
    logs = np.log(density)
    # The samples themselves are likeliest under the narrower window.
    assert fit.sigma == 0.2
    assert fit.log_likelihood.value == pytest.approx(logs.mean())
    assert fit.log_likelihood.spread == pytest.approx(logs.std() / math.sqrt(2))


def test_parzen_of_many_samples_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, points = rows(50).view(50, 1, 4, 4), rows(20, seed=1).view(20, 1, 4, 4)
    whole = parzen_log_likelihood(samples, points, points)
    monkeypatch.setattr("gan_zoo.metrics.neighbours._REFERENCES", 7)
    monkeypatch.setattr("gan_zoo.metrics.neighbours._QUERIES", 24)
    told: list[float] = []
    parts = parzen_log_likelihood(samples, points, points, report=told.append)
    assert parts.sigma == whole.sigma
    assert parts.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-6)
    assert told == sorted(told)
    assert told[-1] == 1


def test_parzen_of_double_precision_is_that_of_single() -> None:
    samples, points = rows(50).view(50, 1, 4, 4), rows(20, seed=1).view(20, 1, 4, 4)
    single = parzen_log_likelihood(samples, points, points)
    double = parzen_log_likelihood(samples.double(), points.double(), points.double())
    # Several sigmas are tried before the best one.
    assert single.sigma > 0.2
    assert double.sigma == single.sigma
    assert double.log_likelihood.value == pytest.approx(single.log_likelihood.value, rel=1e-5)


def test_memorisation_is_one_for_copies_and_a_half_for_fresh_images() -> None:
    train, test = rows(600, 4), rows(300, 4, seed=1)
    copies = memorisation(train[:100], train[:300], [train[300:]], test, 300)
    assert copies.share == 1
    assert copies.nearest_train.distance.max() < 1e-3
    assert torch.equal(copies.nearest_train.place, torch.arange(100))
    # Of all training images, also those beyond the ones that the share is of.
    others = memorisation(train[300:400], train[:300], train[300:].split(50), test, 300)
    assert torch.equal(others.nearest_train.place, torch.arange(300, 400))
    fresh = memorisation(rows(2000, 4, seed=2), train[:300], [train[300:]], test, 300)
    assert fresh.share == pytest.approx(0.5, abs=0.06)


class RandomImages:
    """A dataset of noise with ten classes, seen or not by an evaluator."""

    def __init__(self, count: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 1, 28, 28, generator=random) * 2 - 1
        self.labels = torch.arange(count) % 10

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: object) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.labels[chosen]

    def stored(self) -> list[Tensor]:
        return [self.images, self.labels]


DAMAGES = ("{cut", "", "null", "[]", "{}", "3", '{"parzen": null}', '{"parzen": ["x", null, 1, 1]}',
           '{"fid": [1.0, null, 1, 1]}')  # fmt: skip


def test_floors_are_cached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    real = Reference(RandomImages(90, 0), RandomImages(40, 1), None, tmp_path)
    first = floor_of("parzen", real, 30, 0)
    (file,) = (tmp_path / "floors").iterdir()
    file.write_text(file.read_text().replace(str(first["parzen"].value), "1.5"))
    assert floor_of("parzen", real, 30, 0)["parzen"].value == 1.5
    # Of other images it is another.
    other = Reference(RandomImages(90, 2), RandomImages(40, 1), None, tmp_path)
    assert floor_of("parzen", other, 30, 0)["parzen"].value != 1.5
    for damage in DAMAGES:
        caplog.clear()
        file.write_text(damage)
        assert floor_of("parzen", real, 30, 0) == first
        assert f"'{file}' is damaged" in caplog.text


@pytest.mark.parametrize("part", ["val", "train"])
def test_floors_of_other_parts_have_other_files(part: Part, tmp_path: Path) -> None:
    for reference_part in ("test", part):
        images = RandomImages(40, 1)
        real = Reference(RandomImages(90, 0), images, None, tmp_path, reference_part)
        floor_of("parzen", real, 30, 0)
    files = [path.name for path in (tmp_path / "floors").iterdir()]
    assert sorted(name.split("-")[1] for name in files) == sorted(["test", part])


def judged_set(features: Tensor, classes: int = 10) -> ImageSet:
    """Images of which only what the evaluator sees is known."""
    labels = torch.arange(len(features)) % classes
    return ImageSet(labels, Judged(features, torch.eye(classes)[labels].clamp(min=1e-4).log()))


def test_precision_and_coverage_are_of_real_images_drawn_at_random(tmp_path: Path) -> None:
    # Two clusters of real images, one after the other, as datasets have their classes in order.
    centres = torch.tensor([[-50.0], [50.0]]).repeat_interleave(200, 0)
    real = Reference(RandomImages(9, 0), RandomImages(9, 1), None, tmp_path)
    real.real = judged_set(rows(400) + centres)
    fake = judged_set(rows(200, seed=1) + centres[::2])
    figures = MEASURES["prdc"].function(fake, real, 0, lambda share: None)
    assert figures["precision"].value > 0.8
    assert figures["precision"].n_real == 200
    # Also where there are fewer real images than generated ones.
    real.real = judged_set(rows(200, seed=1) + centres[::2])
    figures = MEASURES["prdc"].function(judged_set(rows(400) + centres), real, 0, lambda s: None)
    assert figures["recall"].value > 0.8


def test_memorisation_is_of_generated_images_drawn_at_random(tmp_path: Path) -> None:
    real = Reference(RandomImages(90, 0), RandomImages(40, 1), None, tmp_path)
    copies = real.train.images[torch.arange(2000) % 40]  # type: ignore[attr-defined]
    images = torch.cat([copies, RandomImages(2000, 2).images])
    chosen, found = ImageSet(torch.zeros(4000), pixels=images).nearest_real(real, 0)
    assert len(chosen) == 2000
    assert 900 < (chosen < 2000).sum() < 1100
    for row, place in zip(chosen.tolist(), found.nearest_train.place.tolist(), strict=True):
        assert row >= 2000 or place == row % 40


def test_measures_name_the_figures_that_they_give(tmp_path: Path) -> None:
    torch.manual_seed(0)
    evaluator = Evaluator(EvaluatorNetwork(1, 10), "none", 0.0)
    real = Reference(RandomImages(60, 0), RandomImages(40, 1), evaluator, tmp_path)
    for name, measure in MEASURES.items():
        # Its weights are a user's (test_image_folder.py).
        if "inception" not in measure.needs:
            assert floor_of(name, real, 40, 0).keys() <= measure.figures.keys()
    higher = {key for m in MEASURES.values() for key, value in m.figures.items() if value}
    assert higher == {
        "score", "precision", "recall", "density", "coverage", "modes", "rarest", "accuracy",
        "parzen",
    }  # fmt: skip


def test_parzens_floor_has_no_images_that_chose_its_sigma(tmp_path: Path) -> None:
    train = RandomImages(60, 0)
    real = Reference(train, RandomImages(20, 1), None, tmp_path)
    fake, _ = MEASURES["parzen"].real_pair(real, 60, 0)
    chosen = train.images[real.sigma_rows]
    assert real.sigma_rows.tolist() == list(range(50, 60))
    assert len(fake) == 50
    assert torch.cdist(fake.pixels.flatten(1), chosen.flatten(1)).min() > 1


def test_memorisations_floor_is_of_fresh_images(tmp_path: Path) -> None:
    real = Reference(RandomImages(90, 0), RandomImages(40, 1), None, tmp_path)
    copies = ImageSet(real.real.labels, pixels=real.train.images[:40])  # type: ignore[attr-defined]
    figures = MEASURES["memorisation"].function(copies, real, 0, lambda share: None)
    assert figures["nearest_train"].value < figures["nearest_test"].value
    assert floor_of("memorisation", real, 40, 0)["memorisation"].n_fake == 20


def test_categories_are_matched_so_that_most_images_are_right() -> None:
    categories = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    classes = torch.tensor([2, 2, 0, 2, 2, 1, 1])
    # Both 0 and 1 are mostly of class 2, which is given once.
    assert agreement.matched_classes(categories, classes, 3).tolist() == [0, 2, 1]


def test_categories_say_most_if_certain_and_even() -> None:
    even = 100 * torch.eye(4).repeat(3, 1)
    assert agreement.category_information(even) == pytest.approx(math.log(4))
    assert agreement.category_information(torch.zeros(8, 4)) == pytest.approx(0)
    assert agreement.category_information(even[:1].repeat(8, 1)) == pytest.approx(0)
