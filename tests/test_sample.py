"""The sampling command: files from a checkpoint alone."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import gan_zoo
from gan_zoo.evaluate import data_of
from gan_zoo.models.noise_to_image import spherical
from gan_zoo.plotting import save_mp4

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def checkpoint(run: Run, tmp_path: Path) -> str:
    """A cGAN's checkpoint, away from its run folder."""
    run(
        "train.py", "model=cgan", "dataset=digits", "trainer=cpu", "trainer.max_steps=3",
        "model.ema_decay=0.9", "hydra.run.dir=here", "logger=none",
    )  # fmt: skip
    shutil.move(tmp_path / "here" / "checkpoints" / "last.ckpt", tmp_path / "only.ckpt")
    shutil.rmtree(tmp_path / "here")
    return "checkpoint=only.ckpt"


def test_sample_files(run: Run, tmp_path: Path, checkpoint: str) -> None:
    run("sample.py", checkpoint, "num_samples=25", "output=out/a.npz")
    run("sample.py", checkpoint, "num_samples=25", "output=out/b.npz", "seed=0")
    run("sample.py", checkpoint, "num_samples=25", "output=raw.npz", "ema=false")
    first, again, raw = (np.load(tmp_path / f) for f in ("out/a.npz", "out/b.npz", "raw.npz"))
    assert first["arr_0"].shape == (25, 28, 28, 1)
    assert first["arr_0"].dtype == np.uint8
    assert first["arr_1"].dtype == np.int64
    assert first["arr_1"].tolist() == [i % 10 for i in range(25)]
    assert np.array_equal(first["arr_0"], again["arr_0"])
    assert not np.array_equal(first["arr_0"], raw["arr_0"])

    run("sample.py", checkpoint, "labels=[3,3,7]", "output=labelled.npz")
    assert np.load(tmp_path / "labelled.npz")["arr_1"].tolist() == [3, 3, 7]
    run("sample.py", checkpoint, "labels=[3,3,7]", "num_samples=6", "output=grid.png")
    assert Image.open(tmp_path / "grid.png").size == (3 * 30 + 2, 2 * 30 + 2)


def test_images_and_conditions_in_a_folder(run: Run, tmp_path: Path, checkpoint: str) -> None:
    run("sample.py", checkpoint, "labels=[3,7]", "num_samples=11", "output=out", "scale=2")
    rows = (tmp_path / "out" / "conditions.csv").read_text().splitlines()
    assert rows[:3] == ["file,label", "00.png,3", "01.png,7"]
    assert len(rows) == 12
    run("sample.py", checkpoint, "labels=[3,7]", "num_samples=11", "output=same.npz")
    images = np.load(tmp_path / "same.npz")["arr_0"]
    for i in (0, 10):
        picture = np.asarray(Image.open(tmp_path / "out" / f"{i:02}.png"))
        assert np.array_equal(picture[::2, ::2, 0], images[i, :, :, 0])
        assert picture.shape == (56, 56, 3)


def test_noise_is_truncated(run: Run, tmp_path: Path, checkpoint: str) -> None:
    model = gan_zoo.load(tmp_path / "only.ckpt")
    seen: list[Tensor] = []
    own = type(model).sample

    def sample(self: Any, n: int, **inputs: Any) -> Tensor:
        seen.append(inputs["noise"])
        return own(self, n, **inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "sample", sample)
        run("sample.py", checkpoint, "num_samples=500", "output=a.npz", "truncation=0.3")
        run("sample.py", checkpoint, "num_samples=500", "output=b.npz")
    assert seen[0].max() <= 0.3
    assert seen[0].max() > 0.29
    near = seen[1] <= 0.3
    # What was near enough stays.
    assert torch.equal(seen[0][near], seen[1][near])
    result = run("sample.py", checkpoint, "truncation=1e-9", check=False)
    assert "truncation is 1e-09" in result.stderr


def frames_of(file: Path) -> list[np.ndarray]:
    picture = Image.open(file)
    frames = []
    for number in range(getattr(picture, "n_frames", 1)):
        picture.seek(number)
        frames.append(np.asarray(picture.convert("RGB")).astype(int))
    return frames


def test_a_walk_goes_round_between_noises_or_conditions(
    run: Run, tmp_path: Path, checkpoint: str
) -> None:
    run("sample.py", checkpoint, "walk=true", "num_samples=4", "frames=8", "output=walk.gif")
    frames = frames_of(tmp_path / "walk.gif")
    assert len(frames) == 8
    assert frames[0].shape == (62, 62, 3)
    assert all(np.abs(a - b).max() > 5 for a, b in pairwise(frames))
    # From the last one it is as far to the first as between any two.
    steps = [np.abs(a - b).mean() for a, b in pairwise([*frames, frames[0]])]
    assert steps[-1] < 2 * max(steps[:-1])
    run("sample.py", checkpoint, "walk=true", "labels=[3,8]", "num_samples=1", "frames=4",
        "output=frames")  # fmt: skip
    shown = [np.asarray(Image.open(tmp_path / "frames" / f"{i}.png")) for i in range(4)]
    assert not (tmp_path / "frames" / "conditions.csv").exists()
    # On the way from 3 to 8 and back it is in the middle twice.
    assert np.array_equal(shown[1], shown[3])
    assert not np.array_equal(shown[0], shown[2])
    run("sample.py", checkpoint, "labels=[8]", "num_samples=1", "output=eight.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "eight.png")), shown[2])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
def test_a_walk_is_a_film(run: Run, tmp_path: Path, checkpoint: str) -> None:
    run("sample.py", checkpoint, "walk=true", "num_samples=1", "frames=8", "output=walk.mp4")
    assert b"ftyp" in (tmp_path / "walk.mp4").read_bytes()[:16]


def test_a_film_is_written_by_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncat > "$(eval echo \\${$#})"\necho "$@" > arguments\n')
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    frames = [Image.new("RGB", (3, 2), (i, 0, 0)) for i in range(4)]
    save_mp4(frames, "film.mp4", seconds=2)
    assert (tmp_path / "film.mp4").read_bytes() == b"".join(bytes([i, 0, 0]) * 6 for i in range(4))
    assert "-s 3x2 -r 2 " in (tmp_path / "arguments").read_text()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs ffmpeg"):
        save_mp4(frames, "film.mp4")


def test_between_two_noises() -> None:
    a, b = torch.randn(50, 64), torch.randn(50, 64)
    for share, end in ((0.0, a), (1.0, b)):
        torch.testing.assert_close(spherical(a, b, share), end)
    unit = F.normalize(a), F.normalize(b)
    half = spherical(*unit, 0.5)
    torch.testing.assert_close(half.norm(dim=1), torch.ones(50))
    torch.testing.assert_close((half * unit[0]).sum(1), (half * unit[1]).sum(1))
    torch.testing.assert_close(spherical(a, 2 * a, 0.25), 1.25 * a)
    torch.testing.assert_close(spherical(a, -a, 0.5), torch.zeros_like(a))
    model = gan_zoo.models.GAN(noise=functools.partial(nn.init.uniform_, a=-1.0, b=1.0))
    u, v = (torch.rand(2000, 100) * 2 - 1 for _ in range(2))
    met = model.between({"noise": u}, {"noise": v}, 0.5)["noise"]
    # It stays uniform: mean 0, variance 1/3, within the bounds.
    assert met.abs().max() <= 1
    assert met.var().item() == pytest.approx(1 / 3, rel=0.01)
    first = model.between({"noise": u}, {"noise": v}, 0.0)["noise"]
    torch.testing.assert_close(first, u, atol=1e-4, rtol=0)


def test_images_beside_their_nearest_training_images(
    run: Run, tmp_path: Path, checkpoint: str
) -> None:
    run("sample.py", checkpoint, "num_samples=4", "nearest=true", "output=near.png")
    run("sample.py", checkpoint, "num_samples=4", "output=images.npz")
    pixels = np.asarray(Image.open(tmp_path / "near.png"))[:, :, 0]
    assert pixels.shape == (4 * 30 + 2, 2 * 30 + 2)
    images = np.load(tmp_path / "images.npz")["arr_0"][..., 0].astype(float)
    data = data_of(gan_zoo.load(tmp_path / "only.ckpt"))
    train = data.labelled("", "train").__getitems__(range(1375)).image[:, 0]
    train = ((train.numpy() + 1) * 127.5).round()
    for i, image in enumerate(images):
        row, column = divmod(i, 2)
        y, x = 2 + 60 * row, 2 + 30 * column
        assert np.array_equal(pixels[y : y + 28, x : x + 28], image)
        beside = pixels[y + 30 : y + 58, x : x + 28].astype(float)
        smallest = ((train - image) ** 2).sum((1, 2)).min()
        # Bytes are rounded.
        assert ((beside - image) ** 2).sum() <= smallest * 1.02 + 100


UNFIT = (
    (("walk=true", "output=x.png"), "has to end in .gif, .mp4, or no dot (a folder) for a walk"),
    (("output=x.gif",), "has to end in .png (a grid), .npz (arrays), or no dot (a folder)"),
    (("nearest=true", "output=x.npz"), "nearest is shown in a grid"),
    (("walk=true", "nearest=true"), "nearest is for images, not for a walk"),
    (("frames=9",), "frames is for a walk"),
    (("scale=0",), "scale is 0; it has to be a whole number from 1 to 64"),
    (("truncation=-1",), "truncation is -1"),
)


def test_options_that_do_not_suit(run: Run, tmp_path: Path, checkpoint: str) -> None:
    for options, problem in UNFIT:
        result = run("sample.py", checkpoint, *options, check=False)
        assert result.returncode == 1
        assert problem in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["only.ckpt"]


def test_infogans_codes(run: Run, tmp_path: Path) -> None:
    run(
        "train.py", "model=infogan", "dataset=digits", "trainer=cpu", "trainer.max_steps=2",
        "dataset.batch_size=16", "hydra.run.dir=here", "logger=none",
    )  # fmt: skip
    codes = "codes=[[0,7],[-2,0,2],null]"
    run("sample.py", "checkpoint=here", codes, "output=swept.npz")
    swept = np.load(tmp_path / "swept.npz")
    assert swept["arr_0"].shape == (6, 28, 28, 1)
    assert swept["arr_1"][:, :2].tolist() == [[c, x] for c in (0, 7) for x in (-2, 0, 2)]
    assert len(set(swept["arr_1"][:, 2].tolist())) == 1
    run("sample.py", "checkpoint=here", codes, "output=grid.png")
    assert Image.open(tmp_path / "grid.png").size == (3 * 30 + 2, 2 * 30 + 2)
    run("sample.py", "checkpoint=here", "num_samples=5", "output=drawn.npz")
    assert np.load(tmp_path / "drawn.npz")["arr_1"].shape == (5, 3)
    for asked, culprit in (("codes=[10,0,0]", "from 0 to 9"), ("labels=[1]", "takes no labels")):
        result = run("sample.py", "checkpoint=here", asked, check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]


def test_pairs_of_two_domains(run: Run, tmp_path: Path) -> None:
    run(
        "train.py", "model=cogan", "dataset.name=digits", "trainer=cpu", "trainer.max_steps=1",
        "dataset.batch_size=8", "model.generator.base_channels=4", "hydra.run.dir=here",
    )  # fmt: skip
    run("sample.py", "checkpoint=here", "num_samples=5", "output=pairs.npz")
    assert np.load(tmp_path / "pairs.npz")["arr_0"].shape == (5, 2, 28, 28, 1)
    run("sample.py", "checkpoint=here", "num_samples=5", "output=pairs.png")
    assert Image.open(tmp_path / "pairs.png").size == (3 * 30 + 2, 4 * 30 + 2)


def test_pictures_are_translated(run: Run, tmp_path: Path) -> None:
    run(
        "train.py", "model=cyclegan", "dataset.name=digits", "trainer=cpu", "trainer.max_steps=1",
        "dataset.batch_size=4", "model.generator.base_channels=4", "hydra.run.dir=here",
    )  # fmt: skip
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.new("L", (50, 40), 200).save(folder / "grey.png")
    Image.new("RGB", (28, 28), "red").save(folder / "red.jpg")
    run("sample.py", "checkpoint=here", "input=mine", "direction=b2a", "output=out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["grey.png", "red.png"]
    assert Image.open(tmp_path / "out" / "red.png").size == (28, 28)
    run("sample.py", "checkpoint=here", "input=mine/red.jpg", "output=one")
    one, both = (np.asarray(Image.open(tmp_path / d / "red.png")) for d in ("one", "out"))
    # The default direction is a2b.
    assert not np.array_equal(one, both)

    (folder / "notes.txt").write_text("not a picture")
    (folder / "red.gif").write_bytes((folder / "red.jpg").read_bytes())
    for asked, culprit in (
        (["input=mine"], "mine/notes.txt' is not a picture"),
        (["input=mine", "when_broken=skip"], "Several pictures would become 'new/red.png'"),
        (["input=mine/red.jpg", "direction=back"], "direction is back"),
        (["input=mine/red.jpg", "num_samples=3"], "takes no num_samples"),
        (["input=mine/red.jpg", "output=a.png"], "output=a.png has to be a folder"),
        (["input=gone"], "no folder 'gone'"),
        ([], "give input="),
    ):
        result = run("sample.py", "checkpoint=here", "output=new", *asked, check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_captions_are_drawn(run: Run, tmp_path: Path) -> None:
    run(
        "train.py", "model=stackgan", "dataset.name=digits", "dataset.encoder_steps=2",
        "dataset.batch_size=8", "trainer=cpu", "trainer.max_steps=2", "hydra.run.dir=here",
    )  # fmt: skip
    asked = ("captions=[a thin green three,a red one]", "num_samples=8")
    for output in ("a.npz", "b.npz", "a.png"):
        run("sample.py", "checkpoint=here", *asked, f"output={output}")
    first, again = (np.load(tmp_path / file) for file in ("a.npz", "b.npz"))
    assert first["arr_0"].shape == (8, 32, 32, 3)
    assert np.array_equal(first["arr_0"], again["arr_0"])
    assert first["arr_1"].tolist() == ["a thin green three", "a red one"] * 4
    # A column a sentence, each over an enlarged image.
    assert Image.open(tmp_path / "a.png").size == (2 * 156 + 6, 4 * (20 + 70))
    run("sample.py", "checkpoint=here", "num_samples=3", "output=default.npz")
    assert len(set(np.load(tmp_path / "default.npz")["arr_1"].tolist())) == 3
    result = run("sample.py", "checkpoint=here", "captions=[a greem three]", "output=c.png")
    assert "'greem' (green?)" in result.stdout + result.stderr
    for wrong, culprit in (
        (["captions=[ein dickes Ding]"], "'ein dickes Ding' has no word"),
        (["captions=[]"], "give sentences"),
        (["labels=[1]"], "takes no labels"),
    ):
        result = run("sample.py", "checkpoint=here", *wrong, "output=new.png", check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]
    assert not (tmp_path / "new.png").exists()


def test_bad_input_gets_a_line_and_writes_nothing(
    run: Run, tmp_path: Path, checkpoint: str
) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "only.ckpt").read_bytes()[:5000])
    for arguments, culprit in (
        ([], "checkpoint is missing"),
        (["checkpoint=gone.ckpt"], "no checkpoint 'gone.ckpt'"),
        (["checkpoint=text.ckpt"], "'text.ckpt' is not a checkpoint"),
        (["checkpoint=cut.ckpt"], "'cut.ckpt' is not a checkpoint"),
        (["checkpoint=other.ckpt"], "'other.ckpt' is not a checkpoint"),
        ([checkpoint, "labels=[3,10]"], "labels[1] is 10; it has to be a whole number from 0 to 9"),
        ([checkpoint, "labels=[true]"], "labels[0] is true"),
        ([checkpoint, "which=best"], "only.ckpt' is a file"),
        ([checkpoint, "num_samples=0"], "num_samples is 0"),
        ([checkpoint, "output=grid.jpg"], ".png"),
        ([checkpoint, "input=here"], "takes no input"),
        ([checkpoint, "sed=1"], "did you mean seed?"),
    ):
        result = run("sample.py", *arguments, check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cut.ckpt", "only.ckpt", "other.ckpt", "text.ckpt",
    ]  # fmt: skip
