"""A user's own pictures, CIFAR-10 and SVHN, for the models of noise and labels."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torch import nn
from torchvision import datasets

import gan_zoo
from gan_zoo.data import ImageFolderDataModule, PhotosDataModule, image_folder
from gan_zoo.data.pictures import cropped_and_mirrored
from gan_zoo.metrics.inception import Inception
from gan_zoo.ranges import UnfitArgument
from tests.conftest import slow_but

Run = Callable[..., CompletedProcess[str]]
COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}
SIZES = slow_but((32,), (32, 64, 128))
NOISE_AND_LABELS = (
    "gan",
    "cgan",
    "dcgan",
    "hdcgan",
    "infogan",
    "wgan",
    "wgan_gp",
    "r3gan",
    "began",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty pictures of two colours, of several sizes and types."""
    monkeypatch.setenv("GAN_ZOO_CACHE_DIR", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for kind, colour in COLOURS.items():
        place = tmp_path / "mine" / kind / "more"
        place.mkdir(parents=True)
        for i in range(20):
            height, width = random.integers(20, 60, 2)
            pixels = np.zeros((height, width, 3), np.uint8) + np.array(colour, np.uint8)
            pixels[: height // 2] //= 1 + i % 3
            picture = Image.fromarray(pixels)
            (picture.convert("L") if i == 7 else picture).save(
                place / f"{i:02}.{('png', 'JPG', 'bmp')[i % 3]}"
            )
    return tmp_path / "mine"


def ready(folder: Path, **options: object) -> ImageFolderDataModule:
    chosen = {"root": folder, "batch_size": 4, "image_size": 8, **options}
    data = ImageFolderDataModule(**chosen)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


def rows(data: ImageFolderDataModule) -> dict[str, list[int]]:
    return {part: data.part(part).rows.tolist() for part in ("train", "val", "test")}  # type: ignore[arg-type, attr-defined]


def test_folders_are_classes_and_the_seed_draws_the_parts(folder: Path) -> None:
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.png").write_bytes(b"")
    data = ready(folder)
    parts = rows(data)
    assert [len(parts[part]) for part in ("train", "val", "test")] == [33, 3, 4]
    assert sorted(row for part in parts.values() for row in part) == list(range(40))
    assert rows(ready(folder)) == parts
    assert rows(ready(folder, seed=1)) != parts
    assert data.num_classes == 2
    assert data.has_classes
    for part in (data.train, data.val, data.test):
        assert part is not None
        images, labels = part.__getitems__(range(len(part)))
        assert images.shape[1:] == (3, 8, 8)
        grey = (images[:, 0] == images[:, 2]).flatten(1).all(1)
        bluer = (images[:, 2] > images[:, 0]).flatten(1).any(1)
        assert torch.equal(bluer[~grey], (labels == 0)[~grey])
        assert images.amin() >= -1
        assert images.amax() == 1


def test_train_and_test_folders_are_those_parts(folder: Path) -> None:
    for part, number in (("train", range(15)), ("test", range(15, 20))):
        for kind in COLOURS:
            (folder / part / kind).mkdir(parents=True)
            for i in number:
                (file,) = (folder / kind / "more").glob(f"{i:02}.*")
                file.rename(folder / part / kind / file.name)
    data = ready(folder, val_size=2)
    assert data.test is not None
    assert data.train is not None
    assert [len(data.test), len(data.train)] == [10, 28]
    assert data._decoded is not None
    assert {data._decoded.names[row].split("/")[0] for row in rows(data)["test"]} == {"test"}
    (folder / "train" / "red").rename(folder / "train" / "green")
    with pytest.raises(ValueError, match="red' is of a class that train has not"):
        ready(folder)


def test_without_folders_of_classes_there_are_none(folder: Path) -> None:
    for file in list((folder / "red").rglob("*.*")):
        file.rename(folder / f"red-{file.name}")
    data = ready(folder)
    assert data.num_classes is None
    assert not data.has_classes
    assert data.train is not None
    assert (data.train.labels == -1).all()
    with pytest.raises(
        UnfitArgument, match=r"num_classes is 3, and .* no folders that are classes"
    ):
        ready(folder, num_classes=3)


def test_pictures_are_decoded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = image_folder.decoded
    first = ready(folder).examples().image
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "decoded", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(ready(folder).examples().image, first)
    calls: list[int] = []

    def counted(files: list[Path], *options: int) -> object:
        calls.append(len(files))
        return decoded(files, *options)

    monkeypatch.setattr(image_folder, "decoded", counted)
    ready(folder, image_size=12)
    ready(folder, channels=1)
    one = sorted((folder / "red" / "more").iterdir())[0]
    os.utime(one, ns=(1, 1))
    ready(folder)
    (pixels,) = [
        file for file in (tmp_path / "cache" / "pictures").glob("*.pixels")
        if file.stat().st_size == 40 * 144 * 3
    ]  # fmt: skip
    pixels.write_bytes(pixels.read_bytes()[:-1])
    ready(folder, image_size=12)
    assert calls == [40] * 4


def test_a_file_that_is_no_picture_stops_or_is_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "red" / "more" / "00.png").write_text("hello")
    with pytest.raises(ValueError, match=r"00\.png' is not a picture .* dataset.when_broken=skip"):
        ready(folder)
    assert not list((tmp_path / "cache" / "pictures").iterdir())
    for _ in range(2):
        caplog.clear()
        data = ready(folder, when_broken="skip")
        assert "00.png' is not a picture" in caplog.text
        assert sum(map(len, rows(data).values())) == 39
        assert data._decoded is not None
        reds = [row for row, name in enumerate(data._decoded.names) if name.startswith("red")]
        assert len(reds) == 19
    with pytest.raises(ValueError, match=r"00\.png' is not a picture"):
        ready(folder)


def test_there_have_to_be_pictures(tmp_path: Path) -> None:
    with pytest.raises(UnfitArgument, match="there is no such folder"):
        ready(tmp_path / "nowhere")
    with pytest.raises(UnfitArgument, match="holds no pictures"):
        ready(tmp_path)


def test_crops_are_squares_of_the_picture_and_half_are_mirrored() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (200, 3, 9, 9), dtype=torch.uint8)
    crops = cropped_and_mirrored(pictures, 6, mirror=True)
    places, mirrored = set(), 0
    for picture, crop in zip(pictures, crops, strict=True):
        original = (picture - 127.5) / 127.5
        found = [
            (y, x, flip)
            for y in range(4) for x in range(4) for flip in (False, True)
            if torch.equal(
                original[:, y : y + 6, x : x + 6].flip(2) if flip
                else original[:, y : y + 6, x : x + 6],
                crop,
            )
        ]  # fmt: skip
        ((y, x, flip),) = found
        places.add((y, x))
        mirrored += flip
    assert len(places) == 16
    assert 60 < mirrored < 140


@pytest.mark.parametrize("model", NOISE_AND_LABELS)
@pytest.mark.parametrize("size", SIZES)
def test_models_of_noise_and_labels_train_on_them(folder: Path, model: str, size: int) -> None:
    options = [
        f"dataset.root={folder}", f"dataset.image_size={size}", "dataset.batch_size=4",
        "trainer=cpu", "trainer.max_steps=1", "logger=none", "callbacks=default",
        "callbacks.metrics=null", "callbacks.sample_grid=null",
        "callbacks.checkpoint=null",
    ]  # fmt: skip
    run = gan_zoo.build(model, "image_folder", options, folder=folder.parent / "run")
    run.trainer.fit(run.model, run.data)
    assert run.model.sample(4).shape == (4, 3, size, size)


def test_the_commands_on_own_pictures(run: Run, folder: Path, tmp_path: Path) -> None:
    own = ("dataset=image_folder", "dataset.root=mine", "dataset.image_size=32",
           "dataset.batch_size=8", "dataset.val_size=12", "trainer=cpu",
           "callbacks.metrics.num_samples=20")  # fmt: skip
    run("train.py", "model=cgan", *own, "trainer.max_steps=2", "hydra.run.dir=here")
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert {"metrics/fid", "metrics/accuracy"} <= metrics.keys()
    run("train.py", "resume=here", "trainer.max_steps=3")
    run("sample.py", "checkpoint=here", "labels=[0,1]", "output=s.png")
    result = run("evaluate.py", "checkpoint=here", "num_samples=20", "metrics=[fid,accuracy]")
    assert "accuracy" in result.stdout
    (tmp_path / "mine").rename(tmp_path / "moved")
    refused = run("evaluate.py", "checkpoint=here", "num_samples=20", check=False)
    assert "'mine'" in refused.stderr
    run("evaluate.py", "checkpoint=here", "num_samples=20", "metrics=[accuracy]", "root=moved")
    (tmp_path / "moved").rename(tmp_path / "mine")
    refused = run("train.py", "model=cgan", *own, "dataset.num_classes=7", check=False)
    assert "dataset.num_classes is 7, and 'mine' has 2." in refused.stderr
    for file in list((tmp_path / "mine" / "red").rglob("*.*")):
        file.rename(tmp_path / "mine" / f"red-{file.name}")
    refused = run("train.py", "model=cgan", *own, check=False)
    assert "which has no classes, and this model needs some" in refused.stderr
    run("train.py", "model=dcgan", *own, "trainer.max_steps=2", "hydra.run.dir=two")
    refused = run("evaluate.py", "checkpoint=two", "metrics=[inception_fid]", check=False)
    assert "inception_fid needs Inception's weights, which inception_weights=FILE" in refused.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torch-fidelity's, of a network that has learned nothing."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), file)
    return file


def test_inception_needs_its_weights(weights: Path, tmp_path: Path) -> None:
    inception = Inception(weights)
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    features = inception(images)
    assert features.shape == (3, 2048)
    torch.testing.assert_close(inception(images.expand(-1, 3, -1, -1)), features)
    with pytest.raises(UnfitArgument, match="there is no such file"):
        Inception(tmp_path / "none.pth")
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> object:
            return os.mkdir, (str(ran),)

    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(Hostile()))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    for name in ("hostile.pth", "other.pth"):
        with pytest.raises(UnfitArgument, match="does not hold Inception's weights"):
            Inception(tmp_path / name)
    assert not ran.exists()


@pytest.mark.slow
def test_inceptions_distance_is_measured(
    run: Run, folder: Path, tmp_path: Path, weights: Path
) -> None:
    own = ("dataset=image_folder", "dataset.root=mine/red", "dataset.image_size=32",
           "dataset.batch_size=4", "trainer=cpu", "trainer.max_steps=1")  # fmt: skip
    run("train.py", "model=dcgan", *own, "dataset.test_size=6", "hydra.run.dir=here")
    run("evaluate.py", "checkpoint=here", "metrics=[inception_fid]", "num_samples=6",
        f"inception_weights={weights}")  # fmt: skip
    found = json.loads((tmp_path / "here" / "metrics.json").read_text())["evaluation"]["last.ckpt"]
    figure = found["figures"]["inception_fid"]
    assert figure["n_real"] == 6
    assert figure["value"] > figure["floor"] > 0
    assert "too few images for 2,048 features" in figure["detail"]
    assert found["inception"] == hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both datasets in torchvision's layout, of a hundred random photos each."""
    random = np.random.default_rng(0)
    cifar, svhn = tmp_path / "cifar-10-batches-py", tmp_path / "SVHN"
    cifar.mkdir()
    svhn.mkdir()

    def written(name: str, content: object) -> tuple[str, str]:
        data = pickle.dumps(content)
        (cifar / name).write_bytes(data)
        return name, hashlib.md5(data).hexdigest()

    def batch() -> dict[str, object]:
        data = random.integers(0, 256, (20, 3072), dtype=np.uint8)
        return {"data": data, "labels": random.integers(0, 10, 20).tolist()}

    train = [written(f"data_batch_{i}", batch()) for i in range(1, 6)]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [written("test_batch", batch())])
    name, md5 = written("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5}
    )
    split = {}
    for part, count in (("train", 100), ("test", 20)):
        file = svhn / f"{part}_32x32.mat"
        x = random.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        scipy.io.savemat(file, {"X": x, "y": random.integers(1, 11, (count, 1))})
        split[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", split)
    return tmp_path


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_colour_photos(name: str, photos: Path) -> None:
    data = PhotosDataModule(name=name, root=photos, batch_size=8, val_size=10)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    assert data.train is not None
    images, labels = data.train.__getitems__(range(90))
    original = (
        datasets.CIFAR10(photos) if name == "cifar10" else datasets.SVHN(photos / "SVHN", "train")
    )
    for i in (0, 89):
        picture, label = original[i]
        pixels = torch.from_numpy(np.array(picture)).movedim(2, 0)
        torch.testing.assert_close(images[i], (pixels - 127.5) / 127.5)
        assert labels[i] == label
    grey = PhotosDataModule(name=name, root=photos, channels=1, batch_size=8)  # type: ignore[arg-type]
    grey.setup()
    assert grey.test is not None
    assert grey.test.__getitems__([0]).image.shape == (1, 1, 32, 32)
    file = next(photos.rglob("test_*"))
    file.write_bytes(file.read_bytes() + b"x")
    for other in photos.rglob("test_*"):
        other.write_bytes(other.read_bytes() + b"x")
    with pytest.raises(ValueError, match="differ from the originals"):
        PhotosDataModule(name=name, root=photos, batch_size=8).setup()  # type: ignore[arg-type]


def test_photos_that_are_not_there_are_said_to_be(run: Run, tmp_path: Path) -> None:
    refused = run("train.py", "model=dcgan", "dataset=svhn", f"dataset.root={tmp_path}",
                  "dataset.when_unavailable=offline", check=False)  # fmt: skip
    assert refused.returncode == 1
    assert "svhn is not in" in refused.stderr
