"""The sampling command: files from a checkpoint alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image

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
