"""Two-domain data: the maps by hand, what is kept apart in training, and people's own pictures."""

from __future__ import annotations

import bz2
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_zoo.data import (
    GaussianMixtureDataModule,
    InMemoryDataModule,
    MappedDigitsDataModule,
    MNISTUSPSDataModule,
    RotatedDigitsDataModule,
    UnpairedFolderDataModule,
)
from gan_zoo.data.digit_pairs import colored, edges, negatives, rotated
from gan_zoo.data.mnist_usps import available_usps, load_usps
from gan_zoo.data.pairs import InMemoryPairs
from gan_zoo.data.pictures import files_in
from gan_zoo.metrics.agreement import covered_modes, pixel_agreement
from tests.conftest import slow_but

PALETTE = [[13, 8, 135], [203, 70, 121], [240, 249, 33]]


def mapped(counterpart: object = negatives, **options: object) -> MappedDigitsDataModule:
    data = MappedDigitsDataModule(
        name="digits",
        task="mapped",
        counterpart=counterpart,
        **options,  # type: ignore[arg-type]
    )
    data.setup()
    return data


def pairs(dataset: object) -> InMemoryPairs:
    assert isinstance(dataset, InMemoryPairs)
    return dataset


def test_edges_are_dilation_minus_the_image() -> None:
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 200
    image[0, 0, 2, 3] = 50
    expected = torch.tensor([
        [0, 0, 0, 0, 0],
        [0, 200, 200, 200, 50],
        [0, 200, 0, 150, 50],
        [0, 200, 200, 200, 50],
        [0, 0, 0, 0, 0],
    ])  # fmt: skip
    assert torch.equal(edges(image)[0, 0].int(), expected.int())


def test_a_quarter_turn_is_counter_clockwise() -> None:
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).repeat(3, 1, 1, 1)
    turned = rotated(image, torch.tensor([0.0, 90.0, -90.0]))
    assert torch.equal(turned[0], image[0])
    assert torch.equal(turned[1], image[1].rot90(1, (1, 2)))
    assert torch.equal(turned[2], image[2].rot90(-1, (1, 2)))


def test_a_palette_is_invertible_and_goes_from_its_first_colour_to_its_last() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    image = colored(ramp, PALETTE)
    assert image.shape == (1, 3, 16, 16)
    assert image[0, :, 0, 0].tolist() == PALETTE[0]
    assert image[0, :, 15, 15].tolist() == PALETTE[2]
    assert len(image.flatten(2)[0].T.unique(dim=0)) == 256
    with pytest.raises(ValueError, match="one colour"):
        colored(ramp, [[0, 0, 0], [9, 9, 9]])
    with pytest.raises(ValueError, match="two or more colours"):
        colored(ramp, [[0, 0, 0]])


def test_no_original_feeds_both_domains_and_no_label_of_b_is_trained_on() -> None:
    data = mapped(val_size=101, batch_size=50)
    train, val = pairs(data.train), pairs(data.val)
    parts = [set(origin.tolist()) for origin in (train.a.origin, train.b.origin, val.a.origin)]
    assert [len(part) for part in parts] == [699, 699, 101]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    batches = list(data.train_dataloader())
    assert len(batches) == 13
    assert all((batch.label_b == -1).all() for batch in batches)
    assert torch.cat([batch.label_a for batch in batches]).unique().tolist() == list(range(10))


def test_the_seed_decides_the_halves() -> None:
    first, again, other = (pairs(mapped(seed=seed).train).a.origin for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_held_out_images_come_with_their_counterparts() -> None:
    data = mapped(edges, val_size=40, image_size=32)
    for dataset in (data.val, data.test):
        batch = pairs(dataset).__getitems__(range(20))
        assert batch.a.shape == batch.b.shape == (20, 1, 32, 32)
        assert torch.equal(batch.label_a, batch.label_b)
        bytes_a = (batch.a * 127.5 + 127.5).round().to(torch.uint8)
        torch.testing.assert_close(batch.b, edges(bytes_a) / 127.5 - 1)
    assert data.aligned


def test_the_frame_of_a_negative_is_white() -> None:
    batch = mapped(image_size=32).examples()
    assert (batch.a[:, :, 0] == -1).all()
    assert (batch.b[:, :, 0] == 1).all()
    torch.testing.assert_close(batch.a, -batch.b)


def test_colours_need_three_channels() -> None:
    palette = functools.partial(colored, palette=PALETTE)
    assert mapped(palette, channels=3).examples().b.shape[1] == 3
    with pytest.raises(ValueError, match="channels is 1"):
        mapped(palette)


def test_classes_can_be_left_out() -> None:
    data = mapped(num_classes=3)
    assert pairs(data.train).a.label.unique().tolist() == [0, 1, 2]


def test_rotated_domains_share_nothing_but_their_angles() -> None:
    data = RotatedDigitsDataModule(
        name="digits", task="rotated", digits=[4, 9], max_angle=30, batch_size=8
    )
    data.setup()
    batch = data.examples()
    assert batch.label_a.abs().max() <= 30
    assert batch.label_a.std() > 10
    assert not torch.equal(batch.label_a, batch.label_b)
    assert (next(iter(data.train_dataloader())).label_b == -1).all()
    assert not data.__dict__.get("aligned")
    for digits in ([3], [3, 3], [3, 10]):
        with pytest.raises(ValueError, match=r"digits is .* (a list of 2|different ones)"):
            RotatedDigitsDataModule(name="digits", task="rotated", digits=digits)
    with pytest.raises(ValueError, match="max_angle"):
        RotatedDigitsDataModule(name="digits", task="rotated", max_angle=0)


@pytest.fixture(scope="module")
def usps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with files of USPS's form and counts."""
    root = tmp_path_factory.mktemp("data")
    (root / "USPS").mkdir()
    blank = " ".join(f"{pixel}:-1" for pixel in range(2, 257))
    for file, count in (("usps.bz2", 7291), ("usps.t.bz2", 2007)):
        lines = "".join(f"{1 + n % 10} 1:1 {blank}\n" for n in range(count))
        (root / "USPS" / file).write_bytes(bz2.compress(lines.encode(), 1))
    return root


def test_usps_is_verified_by_count_and_shape(usps: Path, tmp_path: Path) -> None:
    assert available_usps(usps) == "usps"
    images, labels = load_usps(usps, train=False)
    assert images.shape == (2007, 1, 16, 16)
    assert images[0, 0, 0, :2].tolist() == [255, 0]
    assert labels[:3].tolist() == [0, 1, 2]
    (tmp_path / "USPS").mkdir()
    for file in ("usps.bz2", "usps.t.bz2"):
        content = (usps / "USPS" / "usps.t.bz2").read_bytes()
        (tmp_path / "USPS" / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"usps\.bz2' has 2,007 images instead of 7,291"):
        available_usps(tmp_path)
    (tmp_path / "USPS" / "usps.t.bz2").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"usps\.t\.bz2' is damaged"):
        load_usps(tmp_path, train=False)


@pytest.mark.parametrize("label", slow_but([11], [0, 11, 10**30]))
def test_a_label_of_usps_that_is_no_digit_is_named(usps: Path, tmp_path: Path, label: int) -> None:
    shutil.copytree(usps / "USPS", tmp_path / "USPS")
    path = tmp_path / "USPS" / "usps.t.bz2"
    lines = bz2.decompress(path.read_bytes()).split(b"\n", 1)[1]
    blank = " ".join(f"{pixel}:-1" for pixel in range(1, 257))
    path.write_bytes(bz2.compress(f"{label} {blank}\n".encode() + lines, 1))
    with pytest.raises(ValueError, match=rf"usps\.t\.bz2' has a label {label}; they are 1 to 10\."):
        available_usps(tmp_path)


def test_missing_usps_is_stood_in_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.usps.download_url", refuse)
    assert available_usps(tmp_path) == "digits"
    assert "TRAINING ON THE STAND-IN" in caplog.text
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="GAN_ZOO_DATA_DIR"):
        available_usps(tmp_path, "error")
    # MNIST alone does not do.
    monkeypatch.setattr("gan_zoo.data.mnist.available_dataset", lambda name, *_: name)
    data = MNISTUSPSDataModule(name="mnist", task="usps", root=tmp_path)
    data.prepare_data()
    assert data.name == "digits"


def test_mnist_and_usps_keep_their_own_labels_for_evaluation() -> None:
    data = MNISTUSPSDataModule(
        name="digits", task="usps", size_a=300, size_b=200, val_size=50, batch_size=10
    )
    data.setup()
    train, val = pairs(data.train), pairs(data.val)
    assert (len(train), len(train.b.data), len(val)) == (300, 200, 50)
    assert set(train.b.origin.tolist()).isdisjoint(val.b.origin.tolist())
    assert (train.b.label == -1).all()
    assert not torch.equal(val.a.label, val.b.label)
    # The shorter domain begins again.
    batch = train.__getitems__([0, 200])
    assert torch.equal(batch.b[0], batch.b[1])
    assert not torch.equal(batch.a[0], batch.a[1])
    swapped = MNISTUSPSDataModule(name="digits", task="usps", swap=True)
    swapped.setup()
    assert torch.equal(pairs(swapped.test).a.data, pairs(data.test).b.data)
    with pytest.raises(ValueError, match="too few"):
        MNISTUSPSDataModule(name="digits", task="usps", size_a=800).setup()


def test_points_lie_on_their_modes() -> None:
    data = GaussianMixtureDataModule(val_size=500, std=0.1, num_points=4000)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.a.shape == (200, 2)
    assert len(pairs(data.val)) == 500
    test = pairs(data.test)
    assert covered_modes(test.a.data, data.centres_a, 0.1)[0] == 5
    count, near = covered_modes(test.b.data, data.centres_b, 0.1)
    assert count == 10
    assert near == pytest.approx(1 - np.exp(-4.5), abs=0.01)
    torch.testing.assert_close(data.centres_b.norm(dim=1), torch.full((10,), 4.0))
    assert covered_modes(test.b.data[test.b.label < 7], data.centres_b, 0.1)[0] == 7


def test_pixel_agreement_by_hand() -> None:
    a = torch.tensor([-1.0, -1.0, 1.0, 0.5])
    b = torch.tensor([-0.9, 0.1, 0.3, 0.5])
    assert pixel_agreement(a, b) == 0.75
    assert pixel_agreement(a, b, "difference") == 0.5
    with pytest.raises(ValueError, match="binary or difference"):
        pixel_agreement(a, b, "close")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """trainA: grey, transparent, 16-bit and palette pictures; trainB and the test folders: RGB."""
    random = np.random.default_rng(0)
    for part in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / part).mkdir()
        for n in range(5):
            noise = random.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / part / f"{n}.jpg")
    folder = tmp_path / "trainA"
    Image.new("L", (50, 30), 128).save(folder / "grey.png")
    Image.new("RGBA", (30, 30), (255, 0, 0, 0)).save(folder / "transparent.png")
    Image.fromarray(np.full((30, 30), 0xFF00, np.uint16)).save(folder / "sixteen_bits.png")
    Image.new("RGB", (30, 30), "blue").convert("P").save(folder / "palette.gif")
    (folder / ".hidden").write_text("")
    return tmp_path


def folder_data(root: Path, **options: object) -> UnpairedFolderDataModule:
    data = UnpairedFolderDataModule(root, image_size=16, **options)  # type: ignore[arg-type]
    data.setup()
    return data


def test_pictures_of_all_kinds_become_one_shape(pictures: Path) -> None:
    data = folder_data(pictures, batch_size=3)
    train = pairs(data.train)
    assert train.a.data.shape == (9, 3, 18, 18)
    names = [file.name for file in files_in(pictures / "trainA")]
    by_name = dict(zip(names, train.a.data, strict=True))
    assert (by_name["grey.png"] == 128).all()
    assert (by_name["transparent.png"] == 255).all()
    assert (by_name["sixteen_bits.png"] == 255).all()
    assert by_name["palette.gif"][:, 5, 5].tolist() == [0, 0, 255]
    batch = next(iter(data.train_dataloader()))
    assert batch.a.shape == batch.b.shape == (3, 3, 16, 16)
    assert data.examples().a.shape == (5, 3, 16, 16)
    assert folder_data(pictures, channels=1).examples().a.shape == (5, 1, 16, 16)


def test_training_pictures_are_cropped_and_mirrored_by_the_seed(pictures: Path) -> None:
    data = folder_data(pictures, load_size=17)
    train = pairs(data.train)
    torch.manual_seed(0)
    many = train.__getitems__([0] * 200).a
    torch.manual_seed(0)
    assert torch.equal(train.__getitems__([0] * 200).a, many)
    # Four places of the crop, each as it is or mirrored.
    whole = train.a.data[0].float() / 127.5 - 1
    crops = [whole[:, y : y + 16, x : x + 16] for y in (0, 1) for x in (0, 1)]
    expected = torch.stack([*crops, *(crop.flip(2) for crop in crops)])
    found = torch.cdist(many.flatten(1), expected.flatten(1)).argmin(1)
    torch.testing.assert_close(many, expected[found])
    assert found.bincount(minlength=8).min() > 10
    plain = pairs(folder_data(pictures, load_size=16, flip=False).train).__getitems__([0] * 5).a
    assert (plain == plain[0]).all()


def test_a_text_file_among_the_pictures_is_named(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "trainB" / "notes.txt").write_text("not a picture")
    with pytest.raises(ValueError, match=r"trainB/notes\.txt' is not a picture.*dataset\.when_bro"):
        folder_data(pictures)
    assert len(pairs(folder_data(pictures, when_broken="skip").train).b.data) == 5
    assert "notes.txt" in caplog.text
    with pytest.raises(ValueError, match="when_broken is ask; it has to be stop or skip"):
        folder_data(pictures, when_broken="ask")


def test_folders_that_miss_or_are_empty_are_named(pictures: Path, tmp_path: Path) -> None:
    for file in (pictures / "testA").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"testA' holds no pictures"):
        folder_data(pictures)
    (pictures / "testA").rmdir()
    data: InMemoryDataModule = folder_data(pictures)
    assert data.examples().a.shape == (9, 3, 16, 16)
    with pytest.raises(RuntimeError, match="no such part"):
        data.test_dataloader()
    with pytest.raises(ValueError, match="has no folder trainA"):
        folder_data(tmp_path / "trainB")


def test_no_translation_is_measured_against_what_it_should_be() -> None:
    data = mapped(batch_size=8)
    for part, count in (("val", 125), ("test", 297)):
        dataset = data.source(part)  # type: ignore[arg-type]
        source = dataset.__getitems__(range(len(dataset)))
        for domain, images in (("a", source.a), ("b", source.b)):
            real = data.labelled(domain, part)  # type: ignore[arg-type]
            unseen = real.__getitems__(range(len(real))).image
            assert len(images) + len(unseen) == count
            assert torch.cdist(images.flatten(1), unseen.flatten(1)).min() > 0.1
    for domain in data.domains:
        assert len(data.labelled(domain, "train")) == 687
        # All training digits teach the evaluator, also those of the other domain.
        assert len(data.evaluator_images(domain, train=True)) == 1500


def two_domains(root: Path, **options: object) -> list[InMemoryDataModule]:
    common: dict[str, object] = {"name": "digits", "batch_size": 4, **options}
    return [
        MappedDigitsDataModule(task="negatives", counterpart=negatives, **common),
        RotatedDigitsDataModule(task="rotated", **common),
        MNISTUSPSDataModule(task="usps", **common),
        UnpairedFolderDataModule(root, image_size=16, **options),  # type: ignore[arg-type]
    ]


def test_validation_images_are_never_trained_on(pictures: Path) -> None:
    for number in range(12, 25):
        noise = np.random.default_rng(number).integers(0, 255, (30, 30, 3), dtype=np.uint8)
        for folder in ("trainA", "trainB"):
            Image.fromarray(noise).save(pictures / folder / f"z{number}.png")
    # A twelfth; of 125 digits under a map, 63 are translated.
    for data, count in zip(two_domains(pictures), (62, 12, 62, 1), strict=True):
        data.setup()
        assert len(data.val_dataloader()) > 0
        for domain in data.domains:
            train, val = (data.labelled(domain, part) for part in ("train", "val"))  # type: ignore[arg-type]
            assert len(val) == count
            both = [part.__getitems__(range(len(part))).image.flatten(1) for part in (train, val)]
            assert torch.cdist(*both).min() > 0.1


def test_no_validation_images_leave_all_to_training(pictures: Path) -> None:
    for data, counts in zip(
        two_domains(pictures, val_size=0),
        ((750, 750), (153, 152), (750, 750), (9, 5)),
        strict=True,
    ):
        data.setup()
        train = pairs(data.train)
        assert (len(train.a.data), len(train.b.data)) == counts
        assert data.val_dataloader() == []
        with pytest.raises(ValueError, match="no validation images"):
            data.labelled("b", "val")
    few = folder_data(pictures)
    # Fewer than twelve pictures have no twelfth.
    assert few.val is None
    for number in range(12):
        Image.new("RGB", (8, 8)).save(pictures / "trainA" / f"z{number}.png")
    assert len(pairs(folder_data(pictures).train).a.data) == 21
    for number in range(12):
        (pictures / "trainA" / f"z{number}.png").unlink()
    with pytest.raises(
        ValueError, match=r"5 training images here: too few for dataset\.val_size=5"
    ):
        folder_data(pictures, val_size=5)
    held = folder_data(pictures, val_size=2)
    assert (len(pairs(held.train).a.data), len(pairs(held.train).b.data)) == (7, 3)
    assert pairs(held.val).a.data.shape == (2, 3, 16, 16)
